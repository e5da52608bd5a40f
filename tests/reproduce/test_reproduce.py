"""The paper's experiments, short: networks as its code builds them, cells on disk, what is said and refused."""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lap
from tf_lap.cli import main
from tf_lap.reproduce import experiments, networks, runner
from tf_lap.reproduce.datasets import CommandError
from tf_lap.reproduce.training import BATCH_SIZE, make_batches


def images(count, side=28, channels=()):
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, side, side, *channels), np.uint8), rng.integers(0, 10, count, np.uint8)


@pytest.fixture
def mnist(tmp_path):
    (x, y), (x_test, y_test) = images(200), images(50)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return tmp_path / "mnist.npz"


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(experiments, "HIDDEN", (12,) * 4)


# What the authors' networks have: kernels in order, and all weights of them, batch normalizations and biases left out.
SHAPES = {
    "conv6": (9, 2_261_184),
    "vgg11": (9, 9_222_848),
    "vgg16": (14, 14_715_584),
    "vgg19": (17, 20_024_000),
    "resnet18": (21, 11_164_352),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_networks_are_those_of_the_paper(name):
    build, rates, _ = experiments._NETWORKS[name]
    model = build(1.0)
    kernels = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
    assert (len(kernels), sum(int(np.prod(kernel.shape)) for kernel in kernels)) == SHAPES[name]
    assert model.output_shape == (None, 10)
    assert set(rates) <= {layer.name for layer in model.layers}
    small = build(0.125)
    assert max(layer.filters for layer in small.layers if hasattr(layer, "filters")) in (32, 64)
    assert np.asarray(small(np.zeros((2, 32, 32, 3), np.float32))).shape == (2, 10)


def test_of_resnet_the_first_convolution_and_the_shortcuts_stay_whole():
    model = networks.resnet18(0.125)
    report = tf_lap.prune(model, networks.sparsities(networks.resnet18_rates(), 20))
    skipped = [layer.path for layer in report.layers if layer.skipped]
    assert skipped == ["conv_1", "shortcut_1", "shortcut_2", "shortcut_3"]
    assert all(not layer.boundaries or layer.path in ("conv_1", "dense") for layer in report.layers)


def test_initial_weights_are_uniform_as_pytorchs():
    kernel = networks.conv6().get_layer("conv_2").kernel.numpy()
    assert np.abs(kernel).max() == pytest.approx((9 * 64) ** -0.5, rel=1e-3)
    assert kernel.std() == pytest.approx((9 * 64) ** -0.5 / np.sqrt(3), rel=0.02)


def test_batches_go_through_the_training_set_in_the_seeds_order():
    x, y = np.arange(7.0).reshape(7, 1), np.arange(7)
    labels = [
        np.concatenate([part for _, part in make_batches(x, y, 3, seed).as_numpy_iterator()])
        for seed in ((0, 1), (0, 1), (1, 1))
    ]
    assert labels[0].shape == (3 * BATCH_SIZE,)
    assert all(sorted(labels[0][i : i + 7]) == list(range(7)) for i in range(0, 175, 7))
    np.testing.assert_array_equal(labels[0], labels[1])
    assert not np.array_equal(labels[0], labels[2])
    for image, label in make_batches(x, y, 1, (0, 1)):
        tf.debugging.assert_equal(tf.cast(image[:, 0], label.dtype), label)


def test_augmented_images_are_crops_and_flips_of_padded_ones_settled_by_the_seed():
    x, _ = images(40, 32, (3,))
    seed = tf.constant([1, 2], tf.int64)
    augmented = experiments._augment(tf.constant(x), seed).numpy()
    np.testing.assert_array_equal(augmented, experiments._augment(tf.constant(x), seed))
    assert np.abs(augmented - experiments._augment(tf.constant(x), seed + 1)).max() > 0
    padded = (np.pad(x, [(0, 0), (4, 4), (4, 4), (0, 0)]) / 255.0 - experiments._MEAN) / experiments._DEVIATION
    flips, corners = 0, set()
    for image, source in zip(augmented, padded, strict=True):
        at = [
            (row, column, flip)
            for row in range(9)
            for column in range(9)
            for flip in (1, -1)
            if np.allclose(image, source[row : row + 32, column : column + 32][:, ::flip], atol=1e-5)
        ]
        assert len(at) == 1
        corners.add(at[0][:2])
        flips += at[0][2] == -1
    assert 8 <= flips <= 32
    assert len(corners) > 20


def run(mnist, output, *options):
    options = ["--steps=8", *map(str, options)]
    return main.main(["reproduce", "mnist", f"--data={mnist}", f"--output={output}", *options])


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_what_is_on_disk_is_not_trained_again(mnist, tmp_path, monkeypatch, capsys):
    trained, train = [], runner.train

    def watched(model, weights, *arguments):
        trained.append([np.count_nonzero(weights[0])])
        return train(model, weights, *arguments)

    monkeypatch.setattr(runner, "train", watched)
    output = tmp_path / "out"
    assert run(mnist, output, "--seeds", 0, "--rounds", 3, "--methods", "magnitude") == 0
    assert len(trained) == 2
    first = json.loads((output / "results.json").read_text())
    assert run(mnist, output, "--seeds", 0, 2, "--rounds", 3, 4, "--methods", "magnitude", "forward") == 0
    assert len(trained) == 2 + 3 + 1 + 4
    text = capsys.readouterr().out
    assert "training 1 of 8: seed 0, forward, t = 3" in text
    assert "784-12-12-12-12-10; 8 steps before pruning and 8 after it" in text
    results = json.loads((output / "results.json").read_text())
    cells = [(cell["rounds"], cell["method"], cell["seed"]) for cell in results["retrained"]]
    assert cells == [(t, method, seed) for t in (3, 4) for method in ("forward", "magnitude") for seed in (0, 2)]
    assert first["retrained"][0] in results["retrained"]
    assert [cell["seed"] for cell in results["dense"]] == [0, 2]
    kept = sum(round(n * 0.5**3) for n in (784 * 12, 144, 144, 144)) + round(120 * 0.75**3)
    assert results["retrained"][0]["kept"] == kept
    assert results["commands"][0].startswith("tf-lap reproduce mnist --data mnist.npz --seeds 0")
    assert str(tmp_path) not in (output / "results.json").read_text()
    assert (output / "errors.png").read_bytes().startswith(b"\x89PNG")
    assert run(mnist, output, "--seeds", 0, "--rounds", 3, "--methods", "magnitude") == 0
    assert len(trained) == 10


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_stopped_run_goes_on_and_ends_as_one_that_was_not(mnist, tmp_path, monkeypatch):
    options = ("--seeds", 0, "--rounds", 3, "--methods", "random", "lookahead_activation", "lookahead")
    assert run(mnist, tmp_path / "undisturbed", *options) == 0
    finish = runner.Runner._finish

    def stop(self, path, cell, begun):
        if cell.get("method") == "lookahead":
            raise KeyboardInterrupt
        finish(self, path, cell, begun)

    with monkeypatch.context() as patch:
        patch.setattr(runner.Runner, "_finish", stop)
        assert run(mnist, tmp_path / "stopped", *options) == 130
    assert len(list((tmp_path / "stopped" / "cells").glob("*.json"))) == 3
    assert run(mnist, tmp_path / "stopped", *options) == 0
    undisturbed, stopped = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("undisturbed", "stopped")
    )
    for cell, other in zip(undisturbed["retrained"], stopped["retrained"], strict=True):
        assert {**cell, "seconds": 0} == {**other, "seconds": 0}


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_cells_do_not_go_with_a_network_trained_again_nor_with_other_data(mnist, tmp_path, capsys):
    options = ("--seeds", 0, 0, "--methods", "random", "random")
    output = tmp_path / "out"
    assert run(mnist, output, *options, "--rounds", 3) == 0
    (output / "cells" / "seed0_dense.npz").unlink()
    assert run(mnist, output, *options, "--rounds", 3) == 0
    assert run(mnist, output, *options, "--rounds", 4) == 2
    assert "seed0_dense.npz, from which seed0_t3_random.json were pruned, is missing" in capsys.readouterr().err
    (x, y), (x_test, y_test) = images(200), images(50)
    np.savez(mnist, x_train=x[::-1], y_train=y, x_test=x_test, y_test=y_test)
    assert run(mnist, output, *options, "--rounds", 3) == 2
    assert "with other settings" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "magnitude", "best"], "--methods best: not known; use some of lookahead, magnitude, random"),
        (["--steps=9"], "holds results of mnist perceptron .* with other settings"),
        (["--data=nothing.npz"], "--data nothing.npz: no such file"),
    ],
)
@pytest.mark.usefixtures("small")
def test_mistakes_are_said_before_anything_is_trained(mnist, tmp_path, monkeypatch, capsys, options, message):
    assert run(mnist, tmp_path, "--seeds", 0, "--rounds", 1, "--methods", "magnitude") == 0
    monkeypatch.setattr(runner, "train", None)
    assert run(mnist, tmp_path, "--seeds", 0, "--rounds", 2, "--methods", "magnitude", *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("tf-lap reproduce: ")
    assert re.search(message, error)


def test_cifar10_is_read_as_numbers_or_as_jpeg(tmp_path):
    (x, y), (x_test, y_test) = images(20, 32, (3,)), images(10, 32, (3,))
    np.savez(tmp_path / "plain.npz", x_train=x, y_train=y[:, None], x_test=x_test, y_test=y_test)
    plain = experiments.cifar10(tmp_path / "plain.npz", "resnet18", 0.125)
    np.testing.assert_array_equal(plain.arrays["x_train"], x)
    np.testing.assert_array_equal(plain.arrays["y_train"], y)
    assert plain.steps == (35_000, 25_000)
    assert plain.with_steps(70).steps == (70, 50)
    assert plain.name == "cifar10 resnet18 width 0.125"
    packed = {}
    for part, pixels, labels in (("train", x, y), ("test", x_test, y_test)):
        encoded = [tf.io.encode_jpeg(image).numpy() for image in pixels]
        packed[f"jpeg_{part}"] = np.frombuffer(b"".join(encoded), np.uint8)
        packed[f"offsets_{part}"] = np.cumsum([0, *map(len, encoded)])
        packed[f"y_{part}"] = labels
    np.savez(tmp_path / "packed.npz", **packed)
    decoded = experiments.cifar10(tmp_path / "packed.npz", "conv6", 1.0)
    assert decoded.arrays["x_train"].shape == (20, 32, 32, 3)
    np.testing.assert_array_equal(decoded.arrays["y_test"], y_test)
    np.savez(tmp_path / "short.npz", x_train=x)
    with pytest.raises(CommandError, match=r"y_train.* expected x_train, y_train"):
        experiments.cifar10(tmp_path / "short.npz", "conv6", 1.0)


@pytest.mark.slow
def test_one_command_trains_on_cifar10(tmp_path, capsys):
    (x, y), (x_test, y_test) = images(60, 32, (3,)), images(20, 32, (3,))
    np.savez(tmp_path / "cifar.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    command = ["reproduce", "cifar10", "--network=conv6", "--width=0.0625", "--steps=4", "--rounds", "10"]
    command += ["--methods", "obd", "lookahead"]
    assert main.main([*command, f"--data={tmp_path / 'cifar.npz'}", f"--output={tmp_path / 'out'}"]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [cell["method"] for cell in results["retrained"]] == ["lookahead", "obd"]
    assert results["width"] == 0.0625
    assert results["steps_after_pruning"] == 3
    assert "cifar10 conv6 width 0.0625; 4 steps before pruning and 3 after it" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--width=0", "--width=wide", "--width=inf", "--seeds=-1", "--rounds=0"])
def test_options_that_make_no_sense_are_refused(option, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        main.main(["reproduce", "cifar10", option])
    assert f"argument {option.partition('=')[0]}" in capsys.readouterr().err


def test_data_that_cannot_be_downloaded_is_asked_for(monkeypatch):
    def fails():
        raise OSError("no network")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", fails)
    with pytest.raises(CommandError, match=r"cannot be downloaded \(no network\): pass --data FILE"):
        experiments.mnist(None)
