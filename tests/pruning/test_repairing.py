"""`repair=` and `tf_lap.repair` as users call them: what stays as it is, what is refused, and what an error leaves."""

import keras
import numpy as np
import pytest
from repaired import array, check_least_squares, copy_of, prune_and_repair, samples

import tf_lap
from tf_lap.reconstruction import repairer, without_data

layers = keras.layers


def network(flavour=keras):
    """Kernels, biases and a normalization, for 8 features."""
    dense = flavour.layers.Dense
    stack = [dense(12, "relu", name="a"), flavour.layers.BatchNormalization(name="n"), dense(8, "relu", name="b")]
    return flavour.Sequential([flavour.Input((8,)), *stack, dense(4, name="c")])


def values_of(model):
    return [array(variable) for variable in model.weights]


def assert_unchanged(model, before):
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(array(variable), value)


def masks_of(model):
    return {name: array(model.get_layer(name).kernel) != 0 for name in "abc"}


# What stays.


@pytest.mark.parametrize("has_data", [True, False])
@pytest.mark.parametrize(
    ("pattern", "sparsity"), [("unstructured", 0.6), ("2:4", 0.5), ("block:1x4", 0.5)], ids=lambda value: str(value)
)
def test_masks_are_those_of_pruning_without_repair(pattern, sparsity, has_data):
    plain, model = network(), network()
    model.set_weights(plain.get_weights())
    tf_lap.prune(plain, sparsity, pattern=pattern)
    report = tf_lap.prune(model, sparsity, pattern=pattern, repair=True, data=samples((8,)) if has_data else None)
    for name, mask in masks_of(plain).items():
        np.testing.assert_array_equal(masks_of(model)[name], mask)
    changed = [
        name for name in "abc" if (array(model.get_layer(name).kernel) != array(plain.get_layer(name).kernel)).any()
    ]
    assert changed == (["a", "b", "c"] if has_data else ["b", "c"])
    assert report.sparsity == pytest.approx(sparsity, abs=0.01)


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_updates_with_repair_are_monotone_and_training_keeps_their_zeros(flavour):
    flavour = pytest.importorskip(flavour)
    model, x = network(flavour), samples((8,))
    loss = flavour.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(flavour.optimizers.SGD(0.01), loss, jit_compile=False)
    y = np.arange(len(x)) % 4
    pruner = tf_lap.Pruner(model)
    pruner.freeze()
    dropped = {name: np.zeros(1, bool) for name in "abc"}
    for sparsity in (0.3, 0.6):
        pruner.update(sparsity, repair=True, data=x)
        zeros = {name: ~mask for name, mask in masks_of(model).items()}
        assert all(zeros[name][dropped[name]].all() for name in "abc" if sparsity > 0.3)
        before = values_of(model)
        model.fit(x, y, batch_size=20, verbose=0)
        assert any((array(v) != value).any() for v, value in zip(model.weights, before, strict=True))
        for name in "abc":
            np.testing.assert_array_equal(masks_of(model)[name], ~zeros[name])
            np.testing.assert_array_equal(pruner.masks[name].numpy(), ~zeros[name])
        dropped = zeros
        assert pruner.sparsity == pytest.approx(sparsity, abs=0.01)
        assert len(pruner.report().repair.repaired) == 3
    pruner.update(0.7)
    assert pruner.report().repair is None


@pytest.mark.parametrize("has_data", [True, False])
@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_a_model_that_was_pruned_before_is_repaired_as_with_pruning(flavour, has_data):
    flavour = pytest.importorskip(flavour)
    at_once, later = network(flavour), network(flavour)
    later.set_weights(at_once.get_weights())
    data = samples((8,)) if has_data else None
    dense = copy_of(later)
    tf_lap.prune(at_once, 0.6, repair=True, data=data)
    tf_lap.prune(later, 0.6)
    before = values_of(dense)
    report = tf_lap.repair(later, data, dense=dense)
    for variable, expected in zip(later.weights, at_once.weights, strict=True):
        np.testing.assert_allclose(array(variable), array(expected), rtol=1e-5, atol=1e-6)
    assert len(report.repaired) == (3 if has_data else 2)
    assert_unchanged(dense, before)


def test_the_dense_model_counts_with_all_its_weights():
    model = keras.Sequential(
        [keras.Input((8,), dtype="float64"), *(layers.Dense(9, dtype="float64", name=n) for n in "abc")]
    )
    dense, x = copy_of(model), samples((8,))
    tf_lap.prune(model, 0.5, filters="c")
    model.get_layer("b").bias.assign(np.linspace(-1, 1, 9))  # trained on, and not pruned
    model.get_layer("b").kernel.assign(1.1 * array(model.get_layer("b").kernel))
    report = tf_lap.repair(model, x, "weights", dense=dense)
    assert [layer.path for layer in report.layers] == ["c"]
    check_least_squares(model, dense, [x.astype(np.float64)], ["c"], has_shift=False)


def test_zeros_that_the_dense_model_has_too_were_not_pruned():
    model, x = network(), samples((8,))
    kernel = array(model.get_layer("b").kernel)
    kernel[0] = 0
    model.get_layer("b").kernel.assign(kernel)
    dense, before = copy_of(model), values_of(model)
    report = tf_lap.repair(model, x, ["weights", "bias"], dense=dense)
    assert report.layers == ()
    assert_unchanged(model, before)


def test_data_of_a_score_is_repaired_with():
    pruner = tf_lap.Pruner(network(), score="wanda", data=samples((8,), 50))
    pruner.update(0.5, repair="weights")
    assert pruner.report().repair.samples == 50
    pruner.update(0.6, repair="weights", data=samples((8,), 30))
    assert pruner.report().repair.samples == 30
    report = tf_lap.prune(network(), 0.5, score="obd", data=samples((8,), 20), repair=True)
    assert report.repair.samples == 20


def test_a_mapping_of_sparsities_repairs_the_kernels_that_it_names():
    model, x = network(), samples((8,))
    pruner = tf_lap.Pruner(model)
    pruner.update({"b": 0.5}, repair="weights", data=x)
    assert [layer.path for layer in pruner.report().repair.layers] == ["b"]


def test_what_is_done_is_printed(capsys):
    model, x = network(), samples((8,))
    tf_lap.prune(model, 0.5, repair=True, data=x, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    steps = ["repair 1/3: a", "repair statistics of n", "repair 2/3: b", "repair 3/3: c"]
    assert [line for line in lines if line.startswith("repair ")] == steps
    assert "repaired with 40 samples: 3 of 3 kernels and statistics of 1 normalization" in " ".join(lines)
    report = tf_lap.repair(model, x, verbose=1)
    assert capsys.readouterr().out == f"repair statistics of n\n{report}\n"


# What is refused, and errors: nothing changes.

REFUSED = {
    "shape": (
        {"repair": True, "data": np.ones((5, 7), np.float32)},
        ValueError,
        r"data: input .* has shape \(None, 8\)",
    ),
    "nan": ({"repair": True, "data": np.full((5, 8), np.nan)}, ValueError, "data: samples of input .* hold NaN"),
    "empty": ({"repair": True, "data": np.ones((0, 8))}, ValueError, "data: it holds no samples"),
    "unknown": ({"repair": "weight"}, ValueError, "repair='weight' is not known: use True, or one or several"),
    "type": ({"repair": 2}, TypeError, "repair=2: expected True, or one or several of"),
    "no data": ({"repair": "batchnorm"}, ValueError, "repair='batchnorm': the statistics .* pass data="),
    "no repair": ({"data": np.ones((5, 8))}, ValueError, "data is given, and"),
    "sparsity": ({"repair": True, "sparsity": 1.5}, ValueError, "sparsity=1.5"),
    "steps": ({"repair": True, "steps": 0}, ValueError, "steps=0"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused_before_anything_changes(arguments, error, message):
    model = network()
    before = values_of(model)
    with pytest.raises(error, match=message):
        tf_lap.prune(model, **{"sparsity": 0.5, **arguments})
    assert_unchanged(model, before)
    pruner = tf_lap.Pruner(model)
    with pytest.raises(error, match=message):
        pruner.update(**{"sparsity": 0.5, **arguments})
    assert_unchanged(model, before)
    assert not pruner.drops_weights


def not_finite():
    """A model that makes infinity of finite data, between its kernels."""
    stack = [layers.Dense(6, name="a"), layers.Rescaling(1e30), layers.ReLU(), layers.Rescaling(1e30)]
    tail = [layers.Dense(5, name="b"), layers.BatchNormalization(name="n"), layers.Dense(4, name="c")]
    return keras.Sequential([keras.Input((8,)), *stack, *tail])


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (True, r"layer 'b' cannot be repaired over this data: the moments .* hold NaN or infinity"),
        ("bias", r"layer 'b' cannot be repaired over this data"),
        ("batchnorm", r"the statistics of layer 'n' cannot be measured: what it reads holds NaN or infinity"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_what_is_not_finite_inside_leaves_the_model_as_it_was(methods, message):
    model, x = not_finite(), samples((8,))
    before = values_of(model)
    pruner = tf_lap.Pruner(model, score="magnitude")
    with pytest.raises(ValueError, match=message):
        pruner.update(0.5, repair=methods, data=x)
    assert_unchanged(model, before)
    assert not pruner.drops_weights
    pruner.update(0.3)
    masks, before = {path: mask.numpy() for path, mask in pruner.masks.items()}, values_of(model)
    with pytest.raises(ValueError, match=message):
        pruner.update(0.5, repair=methods, data=x)
    assert_unchanged(model, before)
    for path, mask in pruner.masks.items():
        np.testing.assert_array_equal(mask.numpy(), masks[path])
    assert pruner.sparsity == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("has_data", [True, False])
def test_an_interrupt_leaves_the_model_as_it_was(flavour, has_data, monkeypatch):
    model = network(pytest.importorskip(flavour))
    data = samples((8,)) if has_data else None
    dense, before = copy_of(model), values_of(model)
    module = repairer if has_data else without_data
    fit_kernel, fitted = module.fit_kernel, []

    def fit_or_interrupt(*arguments):
        fitted.append(arguments)
        if len(fitted) % 2 == 0:
            raise KeyboardInterrupt
        return fit_kernel(*arguments)

    monkeypatch.setattr(module, "fit_kernel", fit_or_interrupt)
    with pytest.raises(KeyboardInterrupt):
        tf_lap.prune(model, 0.5, repair=True, data=data)
    assert_unchanged(model, before)
    pruner = tf_lap.Pruner(model)
    with pytest.raises(KeyboardInterrupt):
        pruner.update(0.5, repair=True, data=data)
    assert_unchanged(model, before)
    assert not pruner.drops_weights
    tf_lap.prune(model, 0.5)
    before = values_of(model)
    with pytest.raises(KeyboardInterrupt):
        tf_lap.repair(model, data, dense=dense)
    assert_unchanged(model, before)
    assert len(fitted) == 6
    assert all("call" not in vars(layer) for layer in model.layers)


def test_repair_says_what_it_lacks():
    model, x = network(), samples((8,))
    dense = copy_of(model)
    tf_lap.prune(model, 0.5)
    before = values_of(model)
    other = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
    for arguments, message in (
        ({}, "neither data nor dense is given: pass data= to measure"),
        ({"data": x, "method": "weights"}, "method='weights': kernels are fitted to .* pass dense="),
        ({"data": x, "method": ["bias", "batchnorm"]}, "pass dense="),
        ({"data": x, "method": None}, "method=None: nothing to do"),
        ({"method": "batchnorm", "dense": dense}, "method='batchnorm': the statistics"),
        ({"data": x, "method": "all"}, "method='all' is not known"),
        ({"data": x, "dense": other}, "dense: model .* has 2 weights of other shapes than the 10 of model"),
        ({"data": x, "dense": model}, "dense: model .* is the one that is repaired: pass a copy from before pruning"),
        ({"data": x[:, :3], "dense": dense}, r"data: input .* has shape \(None, 8\)"),
    ):
        with pytest.raises(ValueError, match=message):
            tf_lap.repair(model, **arguments)
        assert_unchanged(model, before)
    with pytest.raises(TypeError, match=r"expected a keras\.Model or a tf_keras.Model, got str"):
        tf_lap.repair("model", x)
    with pytest.raises(TypeError, match=r"expected a keras\.Model or a tf_keras.Model, got list"):
        tf_lap.repair(model, x, dense=[1, 2])


# Few data.


def test_few_samples_are_noted():
    model = network()
    _, report = prune_and_repair(model, samples((8,), 5), True)
    notes = {layer.path: layer.note for layer in report.layers}
    assert notes["a"] == "measured over 5 positions, and it reads 8 numbers at each: more data may help"
    assert f"a: {notes['a']}" in " ".join(report.render().split())
    assert all(np.isfinite(value).all() for value in values_of(model))
    assert not prune_and_repair(network(), samples((8,), 20), True)[1].layers[0].note


def test_a_damping_that_was_raised_is_noted():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="a")])
    x = 1e4 + np.random.default_rng(0).standard_normal((40, 8)).astype(
        np.float32
    )  # its squares hide the rest in float32
    _, report = prune_and_repair(model, x, True)
    (layer,) = report.layers
    assert "its second moment has no inverse: the damping was raised from 0.01 to " in layer.note
    assert all(np.isfinite(value).all() for value in values_of(model))
