"""`tf-lap inspect`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tf_lap.channels.groups import ChannelGroup, channel_groups
from tf_lap.cli import output
from tf_lap.cli.choices import read_choices, read_sparsity
from tf_lap.cli.model_input import measure_bytes, read_model
from tf_lap.compat.types import Model
from tf_lap.costs.measure import cost
from tf_lap.devices import device_report
from tf_lap.export.check import ExportError
from tf_lap.graph.resolver import resolve
from tf_lap.plotting import plot_graph
from tf_lap.pruning.pruner import Pruner
from tf_lap.tabular import check_width, fit_table, wrap

_MAX_GROUPS = 30


class Section(NamedTuple):
    """A part of what is shown.

    Attributes:
        name: its key in JSON.
        title: its heading.
        text: what is below it.
        data: the same as plain data.
    """

    name: str
    title: str
    text: str
    data: Any


def run(args: argparse.Namespace) -> None:
    """Prints what a model is to the pruner.

    Raises:
        CommandError: the model cannot be read. TypeError, ValueError: it has no kernel that can be pruned, or an option
            does not fit it.
    """
    model, file = read_model(args)
    size, packed = measure_bytes(args.model)
    # The picture shows the model as it is, and measuring what would be pruned changes its weights.
    figure = None if args.plot is None else plot_graph(model)
    sections = [
        _describe_cost(args, model),
        _describe_channels(args, model),
        _describe_devices(args, model),
        _describe_kernels(args, model),
    ]
    name = f"{type(model).__name__} {model.name!r}"
    lines = [f"{args.model}: {file.flavour}, {name}, {size:,} bytes, gzipped {packed:,}"]
    for section in sections:
        lines += ["", section.title, section.text]
    if figure is not None:
        lines.append(output.draw(args, figure))
    data = {"model": str(args.model), "keras": file.flavour, "bytes": size, "gzip_bytes": packed}
    output.show(args, "\n".join(lines), data | {section.name: section.data for section in sections})


def _describe_cost(args: argparse.Namespace, model: Model) -> Section:
    title = "What it costs"
    try:
        report = cost(model, input_shape=args.input_shape)
    except (TypeError, ValueError) as error:
        if args.input_shape is not None:
            raise
        return Section("cost", title, f"not known: {error} (--input-shape)", None)
    return Section("cost", title, output.render(args, report), report.to_dict())


def _describe_channels(args: argparse.Namespace, model: Model) -> Section:
    title = "Channels that go together (pattern channels)"
    groups = list(channel_groups(model).values())
    free = [group for group in groups if not group.blocked]
    total = sum(group.width for group in groups)
    summary = f"{sum(group.width for group in free):,} of {total:,} channels can go, in {len(free)} groups"
    rows = [_describe_group(group) for group in free[: None if args.all else _MAX_GROUPS]]
    columns = ("group", "channels", "put out by", "read by")
    lines, _ = fit_table(
        rows, columns, ("group", "put out by", "read by"), check_width(None), dict.fromkeys(columns, 14), ("read by",)
    )
    if len(rows) < len(free):
        lines.append(f"({len(free) - len(rows)} more groups: --all)")
    lines.append(summary)
    for reason, names in _list_blocked(groups).items():
        lines += wrap(f"stay: {reason}: {_shorten(names, args.all)}", check_width(None))
    data = [
        {
            "name": group.name,
            "width": group.width,
            "producers": list(group.producers),
            "readers": list(group.readers),
            "blocked": list(group.blocked),
        }
        for group in groups
    ]
    return Section("channel_groups", title, "\n".join(lines if free else lines[2:]), data)


def _describe_group(group: ChannelGroup) -> Mapping[str, str]:
    return {
        "group": group.name,
        "channels": f"{group.width:,}",
        "put out by": _shorten(group.producers, False),
        "read by": _shorten(group.readers, False) or "-",
    }


def _list_blocked(groups: Sequence[ChannelGroup]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for group in groups:
        for reason in group.blocked:
            names.setdefault(reason, []).append(group.name)
    return names


def _shorten(names: Sequence[str], everything: bool) -> str:
    shown = names if everything else names[:3]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(shown) < len(names) else "")


def _describe_devices(args: argparse.Namespace, model: Model) -> Section:
    """What runs sparse as it is. The model is converted for that, but where it has no 1x1 convolution."""
    title = "What XNNPACK runs sparse, on ARM and in browsers"
    if not any(
        kernel.layout.shape[:2] == (1, 1) and len(kernel.layout.shape) == 4 for kernel in resolve(model).kernels
    ):
        return Section("devices", title, "nothing: the model has no 1x1 convolution", None)
    try:
        report = device_report(model)
    except (ExportError, ValueError) as error:
        return Section("devices", title, " ".join(f"not known: {error}".split()), None)
    return Section("devices", title, output.render(args, report), report.to_dict())


def _describe_kernels(args: argparse.Namespace, model: Model) -> Section:
    """What would be pruned, with what lies around each kernel; at the sparsity of the command line where it has one."""
    pruner = Pruner(model, **read_choices(args))
    sparsity = read_sparsity(args)
    title = "Kernels that are pruned, and what lies around them"
    if sparsity is not None:
        pruner.check_final(sparsity)
        pruner.update(sparsity)
        title += f", at sparsity {', '.join(_format_sparsity(args))} (the file is not changed)"
    report = pruner.report()
    return Section("kernels", title, output.render(args, report), report.to_dict())


def _format_sparsity(args: argparse.Namespace) -> list[str]:
    return [f"{fraction:g}" if layers is None else f"{layers}={fraction:g}" for layers, fraction in args.sparsity]
