"""The command lines of `demo` and `reproduce`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tf_lap.cli import values
from tf_lap.cli.parsing import add_command


def add_demo(commands: Any) -> None:
    """Adds `demo`."""
    demo = add_command(
        commands,
        "demo",
        "experiments",
        "prune a small network by magnitude and by lookahead, and compare",
        "Trains a five-layer perceptron, prunes the same trained weights to several high sparsities by magnitude and "
        "by lookahead, retrains each with the same budget, and compares their test errors.",
        "tf-lap demo --seeds 1",
    )
    demo.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="an npz file laid out as that of keras.datasets.mnist (default: scikit-learn's digits)",
    )
    demo.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=Path("lap_demo"),
        help="where to write the sparse model, the chart and the results; files of an earlier run are overwritten "
        "(default: %(default)s)",
    )
    demo.add_argument(
        "--seeds", type=values.count, metavar="N", default=3, help="how many networks to train (default: %(default)s)"
    )
    demo.add_argument(
        "--steps",
        type=values.count,
        metavar="N",
        default=1500,
        help="training steps before pruning, and again after it (default: %(default)s)",
    )


def add_reproduce(commands: Any) -> None:
    """Adds `reproduce`."""
    reproduce = add_command(
        commands,
        "reproduce",
        "experiments",
        "run an experiment of the paper",
        "Trains a network of Park et al. (ICLR 2020), prunes it by several methods, retrains each as long as the "
        "authors do, and compares. A command that was stopped goes on where it was when it is run again.",
        "tf-lap reproduce mnist --seeds 0 1",
    )
    _add_experiment_options(reproduce)
    _add_training_options(reproduce)


def _add_experiment_options(reproduce: argparse.ArgumentParser) -> None:
    """The data, the network, and where results are written."""
    reproduce.add_argument("experiment", choices=("mnist", "cifar10"), help="the data")
    reproduce.add_argument(
        "--network",
        choices=("conv6", "vgg11", "vgg16", "vgg19", "resnet18"),
        default="conv6",
        help="the network for cifar10; mnist has the five-layer perceptron (default: %(default)s)",
    )
    reproduce.add_argument(
        "--width",
        type=values.factor,
        default=1.0,
        help="scales the channels of cifar10's network (default: %(default)s)",
    )
    reproduce.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="an npz file laid out as that of keras.datasets.mnist or cifar10 (default: downloaded)",
    )
    reproduce.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where to write the cells, results and the chart (default: lap_reproduce_ and the experiment)",
    )


def _add_training_options(reproduce: argparse.ArgumentParser) -> None:
    """Which networks are trained, and how they are pruned."""
    reproduce.add_argument(
        "--seeds", type=values.seed, nargs="+", metavar="N", default=[0], help="one network for each (default: 0)"
    )
    reproduce.add_argument(
        "--rounds",
        type=values.count,
        nargs="+",
        metavar="T",
        help="how far to prune: a layer keeps (1 - rate)^T of its weights (default: 4 to 10; cifar10: 10 to 24 by 2)",
    )
    reproduce.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        default=["magnitude", "lookahead"],
        help="scores by name, or forward or backward: lookahead in that order (default: magnitude lookahead)",
    )
    reproduce.add_argument(
        "--steps",
        type=values.count,
        metavar="N",
        help="training steps before pruning, those after it in proportion (default: the paper's)",
    )
