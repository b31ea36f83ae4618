"""What `stnkit verify --bisect` prints of the tensors inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stnkit.cli.views.table import print_table

if TYPE_CHECKING:
    from stnkit.runtime.equivalence.results import Bisection, NodeError


def print_bisection(bisection: Bisection) -> None:
    """Print the first tensor that is wrong, with its op, its inputs and its neighbours' errors."""
    compared = f"{len(bisection.curve)} tensors inside were compared, in {_runs(bisection.runs)}"
    first = bisection.first
    if first is None:
        click.echo(f"  No tensor inside could be found where the two part: {compared}.")
        return
    layer = f", layer {first.layer}" if first.layer else ""
    click.echo(f"  Where the two part: {first.name} ({first.op}{layer}).")
    click.echo(f"  It is computed from {', '.join(first.inputs) or 'nothing'}; {compared}.")
    before, after = _sides(bisection, first)
    rows = [_row("", node) for node in before]
    rows.append(_row("first wrong", first))
    rows += [_row("", node) for node in after]
    print_table(
        ["tensor", "op", "layer", ">largest error", ">largest value", ">relative error", ""], rows
    )


def _sides(
    bisection: Bisection, first: NodeError
) -> tuple[tuple[NodeError, ...], tuple[NodeError, ...]]:
    """Return the neighbours before the first wrong tensor, and those after it."""
    order = {node.name: index for index, node in enumerate(bisection.curve)}
    others = [node for node in bisection.neighbours if node.name != first.name]
    if first.name in order:
        place = order[first.name]
        before = [node for node in others if order.get(node.name, -1) < place]
    else:
        # It has no place in the curve: what is computed from it is what lists it as an input.
        names = {first.name}
        for node in others:
            if not names.isdisjoint(node.inputs):
                names.add(node.name)
        before = [node for node in others if node.name not in names]
    return tuple(before), tuple(node for node in others if node not in before)


def _runs(count: int) -> str:
    return "one run" if count == 1 else f"{count} runs"


def _row(mark: str, node: NodeError) -> list[str]:
    return [
        node.name,
        node.op,
        node.layer or "-",
        _number(node.max_abs),
        _number(node.scale),
        _number(node.relative),
        mark,
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"
