"""A model's file is read for what is in it, and nothing that is stored in it runs before it is known."""

import json
import shutil
import zipfile

import keras
import numpy as np
import pytest
import tf_keras

from tf_lap.compat import model_files
from tf_lap.compat.model_files import ModelFileError, StoredCodeError, UnknownClassError
from tf_lap.compat.stored_objects import find_stored_objects

FORMS = [(keras, "m.keras"), (keras, "m.h5"), (tf_keras, "m.keras"), (tf_keras, "m.h5"), (tf_keras, "folder")]
IDS = ["keras3-keras", "keras3-h5", "tf_keras-keras", "tf_keras-h5", "tf_keras-savedmodel"]


def build(flavour, *layers):
    model = flavour.Sequential(
        [flavour.Input((6,)), flavour.layers.Dense(5, activation="relu"), *layers, flavour.layers.Dense(3)]
    )
    model.compile("adam", flavour.losses.MeanSquaredError())
    return model


def save(model, path):
    arguments = {} if path.suffix else {"save_format": "tf"}
    model.save(str(path), **arguments)
    return path


def load(path, *, custom=None, unsafe=False, trusted=()):
    return model_files.load_model_file(model_files.open_model_file(path, trusted), custom, unsafe)


class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


class OldDoubled(tf_keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


DOUBLED = {keras: Doubled, tf_keras: OldDoubled}


@pytest.mark.parametrize(("flavour", "name"), FORMS, ids=IDS)
def test_each_form_is_read_and_written_by_the_keras_it_is_of(flavour, name, tmp_path):
    model, x = build(flavour), np.ones((2, 6), np.float32)
    path = save(model, tmp_path / name)
    loaded = load(path)
    assert isinstance(loaded.model, flavour.Model)
    assert loaded.model.optimizer is not None
    assert (loaded.uncompiled_reason, loaded.was_wrapped) == ("", False)
    target = tmp_path / "written" / name
    target.parent.mkdir()
    for _ in range(2):  # the second time it replaces what is there
        model_files.save_model_file(loaded.model, target)
    np.testing.assert_allclose(load(target).model.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6)
    assert list(target.parent.iterdir()) == [target]


def test_the_name_of_a_file_does_not_say_what_it_is(tmp_path):
    shutil.copy(save(build(keras), tmp_path / "new.keras"), tmp_path / "new")
    shutil.copy(save(build(tf_keras), tmp_path / "old.h5"), tmp_path / "old.keras")
    assert isinstance(load(tmp_path / "new").model, keras.Model)
    assert isinstance(load(tmp_path / "old.keras").model, tf_keras.Model)


@pytest.mark.parametrize(("flavour", "name"), FORMS, ids=IDS)
def test_stored_code_runs_only_where_that_is_allowed(flavour, name, tmp_path):
    path = save(build(flavour, flavour.layers.Lambda(lambda x: 3 * x, name="tripled")), tmp_path / name)
    with pytest.raises(StoredCodeError, match="it holds code \\(tripled\\), which is not run") as raised:
        load(path)
    assert raised.value.names == ("tripled",)
    assert load(path, unsafe=True).model.layers[1].name == "tripled"


@pytest.mark.parametrize(("flavour", "name"), FORMS, ids=IDS)
def test_a_class_that_is_not_known_is_named(flavour, name, tmp_path):
    doubled = DOUBLED[flavour]
    path = save(build(flavour, doubled()), tmp_path / name)
    with pytest.raises(UnknownClassError, match=f"it holds .*{doubled.__name__}, which is not Keras's own") as raised:
        load(path)
    assert raised.value.name.rpartition(":")[2] == doubled.__name__
    loaded = load(path, custom={doubled.__name__: doubled}, trusted=[doubled.__module__.partition(".")[0]])
    assert isinstance(loaded.model.layers[1], doubled)


@pytest.mark.parametrize("flavour", [keras, tf_keras], ids=["keras3", "tf_keras"])
def test_a_loss_that_is_not_known_is_left_out(flavour, tmp_path):
    def strange(expected, answered):
        return flavour.losses.mean_squared_error(expected, answered)

    model = build(flavour)
    model.compile("adam", strange)
    loaded = load(save(model, tmp_path / "m.h5"))
    assert loaded.uncompiled_reason
    assert len(loaded.model.layers) == 2


def test_pruning_wrappers_are_taken_off(tmp_path):
    from tensorflow_model_optimization.python.core.sparsity.keras import prune

    loaded = load(save(prune.prune_low_magnitude(build(tf_keras)), tmp_path / "m.h5"))
    assert loaded.was_wrapped
    assert [type(layer).__name__ for layer in loaded.model.layers] == ["Dense", "Dense"]


def rewrite(path, name, change):
    """Changes one JSON part of an archive."""
    with zipfile.ZipFile(path) as archive:
        parts = {entry: archive.read(entry) for entry in archive.namelist()}
    parts[name] = json.dumps(change(json.loads(parts[name]))).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in parts.items():
            archive.writestr(entry, content)
    return path


def test_a_newer_keras_is_named_where_the_file_cannot_be_read(tmp_path):
    path = save(build(keras), tmp_path / "m.keras")
    rewrite(path, "metadata.json", lambda metadata: {**metadata, "keras_version": "99.1"})
    assert load(path).model.layers  # it can be read all the same

    def rename(config):
        config["config"]["layers"][1]["config"]["of_the_future"] = True
        return config

    rewrite(path, "config.json", rename)
    with pytest.raises(ModelFileError, match=r"Keras 99.1 wrote it, .* cannot read it .*pip install -U keras"):
        load(path)


def test_what_is_no_model_says_why(tmp_path):
    whole, old = save(build(keras), tmp_path / "whole.keras"), save(build(keras), tmp_path / "whole.h5")
    build(keras).export(str(tmp_path / "exported"))
    build(keras).save_weights(str(tmp_path / "a.weights.h5"))
    (tmp_path / "cut.keras").write_bytes(whole.read_bytes()[:3000])
    (tmp_path / "cut.h5").write_bytes(old.read_bytes()[:3000])
    (tmp_path / "text.keras").write_text("no model at all")
    (tmp_path / "m.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("hello.txt", "hello")
    (tmp_path / "empty").mkdir()
    reasons = {
        "exported": "a SavedModel of functions alone",
        "a.weights.h5": "weights alone",
        "cut.keras": "damaged, or was not written to the end",
        "cut.h5": "damaged, or was not written to the end",
        "text.keras": "no file of a Keras model",
        "m.tflite": "a TFLite file, which holds no Keras model",
        "other.keras": "an archive without a model",
        "empty": "a folder without saved_model.pb",
    }
    for name, reason in reasons.items():
        with pytest.raises(ModelFileError, match=reason):
            model_files.open_model_file(tmp_path / name)


def test_a_bit_that_is_wrong_is_found(tmp_path):
    path = save(build(keras), tmp_path / "m.keras")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="damaged"):
        model_files.open_model_file(path)


def test_writing_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    for flavour, name in FORMS:
        model, target = build(flavour), tmp_path / f"{flavour.__name__}_{name}"
        save(model, target)
        before = load(target).model.get_weights()

        def fail(path, *args, **kwargs):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(type(model), "save", fail)
            with pytest.raises(OSError, match="No space left"):
                model_files.save_model_file(model, target)
        for old, new in zip(before, load(target).model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        assert not list(tmp_path.glob(".*"))


def test_an_ending_that_names_no_form(tmp_path):
    with pytest.raises(ModelFileError, match=r"ends in nothing: expected .keras or .h5"):
        model_files.save_model_file(build(keras), tmp_path / "m")
    with pytest.raises(ModelFileError, match=r"ends in .txt: .* or no ending, for a SavedModel"):
        model_files.check_model_target(tmp_path / "m.txt", of_tf_keras=True)


@pytest.mark.parametrize(
    ("entry", "foreign"),
    [
        ({"module": "keras.layers", "class_name": "Dense", "config": {}}, ()),
        ({"module": "keras.src.ops.numpy", "class_name": "Add", "config": {}}, ()),
        ({"module": "keras", "class_name": "Functional", "config": {}}, ()),
        ({"module": "os", "class_name": "function", "config": "system"}, (("os", "system"),)),
        ({"module": "keras.utils", "class_name": "function", "config": "get_file"}, (("keras.utils", "get_file"),)),
        ({"module": "mine.layers", "class_name": "Gate", "config": {}}, (("mine.layers", "Gate"),)),
    ],
    ids=str,
)
def test_modules_that_are_not_keras_own_are_foreign(entry, foreign):
    assert find_stored_objects({"layers": [{"deep": entry}]}).foreign == foreign


def test_modules_that_the_user_names_are_not_foreign():
    entry = {"module": "mine.layers", "class_name": "Gate", "config": {}}
    assert find_stored_objects([entry], ["mine"]).foreign == ()


@pytest.mark.parametrize("name", ["TorchModuleWrapper", "TFSMLayer"])
def test_layers_that_are_made_of_stored_code(name):
    entry = {"module": "keras.layers", "class_name": name, "config": {"name": "inner"}}
    assert find_stored_objects([entry]).code == ("inner",)
