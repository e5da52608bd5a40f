"""Sparse files load, run and agree in LiteRT.js, where XNNPACK's sparse path is, and the report says which are fast."""

import keras
import numpy as np
import pytest
import tf_keras
from mobile import WIDTH, make_mobile, set_zeros

import tf_lap
from benchmarks import browser, device_networks, device_rules
from benchmarks.browser import difference, export, runtime
from benchmarks.browser.runtime import find_obstacle, run_in_browser

OBSTACLE = find_obstacle()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))]


def gate(x):
    scale = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    scale = keras.layers.Conv2D(WIDTH, 1, activation="relu", name="pointwise_squeeze")(scale)
    scale = keras.layers.ReLU(6.0)(keras.layers.Conv2D(WIDTH, 1, name="pointwise_excite")(scale))
    return keras.layers.Multiply()([x, keras.layers.Rescaling([[[[1 / 6]]]])(scale)])


def resize(x):
    return keras.layers.UpSampling2D(2, interpolation="bilinear")(x)


def halve(x):
    return keras.layers.DepthwiseConv2D(5, strides=2)(keras.layers.ZeroPadding2D(2)(x))


def add(x):
    return keras.layers.Add()([x, keras.layers.Activation("swish")(x)])


BETWEEN = {"plain": None, "gate": gate, "resize": resize, "halve": halve, "add": add}


def image(size=32):
    return np.random.default_rng(0).standard_normal((1, size, size, 3)).astype(np.float32)


def test_sparse_files_answer_as_keras_does():
    files, inputs, expected = {}, {}, {}
    for name, between in BETWEEN.items():
        model = make_mobile(keras, between=between, size=64)  # as many rows as channels would hide a wrong shape
        set_zeros(model, 0.9, ("pointwise", "head"))
        assert tf_lap.device_report(model).runs_sparse
        for quantization in (None, "float16"):
            label = f"{name}, {quantization}"
            files[label], key = export(model, sparse=True, quantization=quantization)
            inputs[label], expected[label] = {key: image(64)}, model(image(64)).numpy()
    for label, run in run_in_browser(files, inputs).items():
        assert run.error is None, label
        assert difference(run, expected[label]) < (1e-2 if "float16" in label else 1e-4), label


def test_what_the_report_does_not_warn_of_runs_right():
    made = {name: device_rules.make_files(case) for name, case in device_networks.CASES.items()}
    files = {name: by_kind["sparse"] for name, (by_kind, _, _) in made.items()}
    runs = run_in_browser(files, {name: inputs for name, (_, inputs, _) in made.items()})
    for name, run in runs.items():
        if device_rules.predict(files[name]) != "fails":
            assert run.error is None, name
            tolerance = device_rules.TOLERANCES[device_networks.CASES[name].quantization]
            assert device_rules.measure_difference(run, made[name][2]) < tolerance, name
    wrong = "1x1 convolution behind the mean"
    assert device_rules.predict(files[wrong]) == "fails"
    assert "failed to reshape" in runs[wrong].error


@pytest.mark.parametrize(
    ("name", "seen"), [("what qualifies", "sparse"), ("stem pads 'same' at stride 2", "dense"), ("60% zeros", "dense")]
)
def test_the_report_predicts_which_file_is_fast(name, seen):
    by_kind, inputs, _ = device_rules.make_files(device_networks.CASES[name])
    assert device_rules.predict(by_kind["sparse"]) == seen
    runs = run_in_browser(by_kind, dict.fromkeys(by_kind, inputs), rounds=50)
    ratio = min(runs["sparse"].milliseconds) / min(runs["dense"].milliseconds)
    assert (ratio < 0.7) == (seen == "sparse")


def build_of_several_inputs(kr):
    """A network whose cluster ends in a mean, which is joined with a vector and a class."""
    layers = kr.layers
    image, extra = kr.Input((64, 64, 3), name="image"), kr.Input((4,), name="extra")
    kind = kr.Input((), dtype="int32", name="kind")
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(layers.ZeroPadding2D(1)(image))
    for _ in range(2):
        x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
        x = layers.Conv2D(32, 1, activation="relu")(x)
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), extra, layers.Embedding(5, 4)(kind)])
    outputs = {"a": layers.Dense(3, name="a")(x), "b": layers.Dense(2, name="b")(x)}
    return kr.Model({"image": image, "kind": kind, "extra": extra}, outputs)


def test_inputs_and_outputs_by_name_and_whole_numbers(tmp_path):
    rng = np.random.default_rng(0)
    data = {
        "image": rng.standard_normal((8, 64, 64, 3)).astype(np.float32),
        "kind": rng.integers(0, 5, 8).astype(np.int32),
        "extra": rng.standard_normal((8, 4)).astype(np.float32),
    }
    sample = {name: array[:1] for name, array in data.items()}
    files, expected = {}, {}
    for kr in (keras, tf_keras):
        model = build_of_several_inputs(kr)
        tf_lap.prune(model, 0.9, filters="xnnpack")
        assert tf_lap.device_report(model).runs_sparse
        report = tf_lap.export_tflite(model, tmp_path / "m.tflite", representative_dataset=data, batch_size=1)
        assert report.sparse
        files[kr.__name__] = report.path.read_bytes()
        expected[kr.__name__] = {name: np.asarray(value) for name, value in model(sample).items()}
    for name, run in run_in_browser(files, dict.fromkeys(files, sample)).items():
        assert run.error is None
        assert run.outputs.keys() == {"a", "b"}
        for output, values in expected[name].items():
            assert np.abs(values).max() > 1e-3
            np.testing.assert_allclose(run.outputs[output], values, atol=1e-4 * np.abs(values).max())


def test_a_file_that_is_none_has_the_runtimes_error_and_others_run_all_the_same():
    model = make_mobile(keras)
    file, key = export(model)
    files = {"none": b"no file" * 100, "file": file}
    runs = run_in_browser(files, {name: {key: image()} for name in files}, rounds=2)
    assert "Failed to load model" in runs["none"].error
    assert runs["none"].milliseconds == ()
    assert difference(runs["file"], model(image()).numpy()) < 1e-4
    assert len(runs["file"].milliseconds) == 2
    with pytest.raises(RuntimeError, match="Failed to load model"):
        difference(runs["none"], np.ones(1))


@pytest.mark.parametrize(("limit", "what"), [("SECONDS", "the run"), ("STEP_SECONDS", "opening the page")])
def test_what_takes_too_long_ends_with_an_error(monkeypatch, limit, what):
    monkeypatch.setattr(runtime, limit, 0.01)
    with pytest.raises(RuntimeError, match=f"{what} took longer than|Timeout"):
        run_in_browser({}, {})


def test_networks_are_timed(monkeypatch):
    monkeypatch.setattr(browser, "NETWORKS", {"small": lambda size: make_mobile(keras, size=size)})
    monkeypatch.setattr(browser, "SIZE", 32)
    monkeypatch.setattr(browser, "PRUNED", {"small": ((0.9, "unstructured"), (0.9, "block:2x1"))})
    monkeypatch.setattr(browser, "ROUNDS", 2)
    result = browser.run()
    assert {"small, 90%, fastest round", "small, 90% block:2x1, by rounds"} <= set(result["ratios"])
    assert result["ratios"]["small, 90%, bytes"]["median"] < 1
