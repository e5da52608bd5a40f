"""The experiments of Park et al. (ICLR 2020): train, prune by each method, retrain, and compare.

Each finished training is kept on disk. A command that was stopped goes on where it was when it is run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tf_lap.reproduce import experiments
from tf_lap.reproduce.datasets import CommandError, check_writable, require
from tf_lap.reproduce.runner import METHODS, Runner


def reproduce(
    name: str,
    *,
    network: str,
    width: float,
    data: Path | None,
    output: Path | None,
    seeds: Sequence[int],
    rounds: Sequence[int] | None,
    methods: Sequence[str],
    steps: int | None,
) -> None:
    """Runs an experiment, prints its table and writes results and chart: what `tf-lap reproduce` does.

    Args:
        name: "mnist" or "cifar10".
        network: cifar10's network.
        width: scales its channels.
        data: an npz file, or None to download.
        output: the folder, or None for one named after the experiment.
        seeds: one network for each.
        rounds: how far to prune, or None for the default of the experiment.
        methods: scores by name, "forward", "backward".
        steps: training steps before pruning, or None for the paper's.

    Raises:
        CommandError: a method that is not known, or whatever is wrong with the data or the folder.
    """
    _check_methods(methods)
    require("matplotlib")
    label = name if name == "mnist" else f"{name}_{network}"
    folder = Path(f"lap_reproduce_{label}") if output is None else output
    check_writable(folder)
    experiment = experiments.mnist(data) if name == "mnist" else experiments.cifar10(data, network, width)
    if steps is not None:
        experiment = experiment.with_steps(steps)
    if rounds is None:
        rounds = experiments.ROUNDS[name]
    command = ["tf-lap reproduce", name]
    if name != "mnist":
        command += [f"--network {network}", f"--width {width:g}"]
    if data is not None:
        command.append(f"--data {data.name}")  # without the machine's folders
    command += _format_lists(seeds=seeds, rounds=rounds, methods=methods)
    if steps is not None:
        command.append(f"--steps {steps}")
    runner = Runner(experiment, folder, " ".join(command))
    before, after = experiment.steps
    print(f"{experiment.name}; {before:,} steps before pruning and {after:,} after it; in {folder}")
    results = runner.run(seeds, rounds, methods)
    print(f"\n{runner.show(results)}\n\nresults  {folder / 'results.json'}\nchart    {folder / 'errors.png'}")


def _check_methods(methods: Sequence[str]) -> None:
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise CommandError(f"--methods {' '.join(unknown)}: not known; use some of {', '.join(METHODS)}")


def _format_lists(**options: Sequence[object]) -> list[str]:
    """Options of a command line that take several values."""
    return [f"--{option} {' '.join(map(str, values))}" for option, values in options.items()]
