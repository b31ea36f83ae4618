"""Answers that depend on what they should not: chance, the rest of the batch, its size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from stnkit.runtime.equivalence.answers import Answer
from stnkit.runtime.equivalence.diagnosis.case import Case, Claim, gap, values_of

__all__ = ["batch_claims"]

_LARGE = 0.05  # part of a tensor's difference from the reference that counts as an effect
_SAME = 1e-3


def batch_claims(case: Case) -> Iterator[Claim]:
    """Yield what explains answers that change with the run or with the batch."""
    if not case.plain:
        return
    expected, got = case.plain[0]
    scale = _differences(values_of(expected), values_of(got))
    scale = {name: value for name, value in scale.items() if value > 0 and np.isfinite(value)}
    if not scale:
        return
    again = case.ask_candidate(expected.probe.inputs, expected)
    chance = _largest(values_of(got), again, scale)
    if chance > _LARGE:
        yield Claim(
            "dropout",
            "two runs on the same input differ: dropout or another random layer is active; export "
            "the model in inference mode (training=False)",
            f"they are {chance:.0%} as far from each other as from the source",
            1.0,
        )
        return
    if expected.probe.batch > 1:
        yield from _permutation(expected, got, scale)
        yield from _company(case, expected, got, scale)


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, float]:
    return {name: gap(a[name], b[name]) for name in a if name in b}


def _largest(a: Mapping[str, Any], b: Mapping[str, Any], scale: Mapping[str, float]) -> float:
    """Return the largest difference of two answers, as a part of that from the reference."""
    found = _differences(a, b)
    return max((found[name] / scale[name] for name in scale if name in found), default=0.0)


def _permutation(expected: Answer, got: Answer, scale: Mapping[str, float]) -> Iterator[Claim]:
    """Yield that items changed places."""
    there, here = values_of(expected), values_of(got)
    for name, before in scale.items():
        a, b = (part[name].reshape(len(part[name]), -1) for part in (there, here))
        distances = np.abs(b[:, np.newaxis] - a[np.newaxis]).mean(axis=2)
        order = distances.argmin(axis=1)
        left = float(distances[np.arange(len(order)), order].mean())
        moved = order != np.arange(len(order))
        if moved.any() and left <= 0.02 * before and len(set(order.tolist())) > 1:
            yield Claim(
                "batch_mixed",
                f"the items of a batch are mixed up at {name!r}: every flat index needs the offset "
                "of its item, and a reshape must not move the batch axis",
                f"items {order.tolist()} of the source come out as 0 to {len(order) - 1}, to "
                f"{left:.1e}",
                1 - left / before,
            )
            return


def _company(
    case: Case, expected: Answer, got: Answer, scale: Mapping[str, float]
) -> Iterator[Claim]:
    """Yield that an item's answer depends on the other items."""
    inputs, size = expected.probe.inputs, expected.probe.batch
    # No simple mix-up commutes with a random order, as a reversal does with a reversal.
    order = np.random.default_rng(1).permutation(size)
    here = values_of(got)
    # The first item, among copies of itself: the batch has the same size, and nothing else in it.
    alone = case.ask_candidate(_chosen(inputs, np.zeros(size, int)), expected)
    first = {name: value[:1] for name, value in here.items() if name in scale}
    effect = _largest(first, {name: value[:1] for name, value in alone.items()}, scale)
    last = {name: value[-1:] for name, value in here.items() if name in scale}
    copies = case.ask_candidate(_chosen(inputs, np.full(size, size - 1)), expected)
    effect = max(effect, _largest(last, {n: value[-1:] for n, value in copies.items()}, scale))
    if effect > _LARGE:
        turned = case.ask_candidate(_chosen(inputs, order), expected)
        moved = {name: value[order] for name, value in here.items() if name in scale}
        unequal = _largest(moved, turned, scale)
        yield _of_company(effect, unequal)
        return
    if case.reference.batch is not None:
        return
    single = case.ask_candidate(_chosen(inputs, np.zeros(1, int)), expected)
    by_size = _largest(first, {name: value[:1] for name, value in single.items()}, scale)
    if by_size > _LARGE:
        yield Claim(
            "batch_size",
            "an item's answer depends on the size of the batch: a size was fixed inside when the "
            "model was traced",
            f"alone it differs by {by_size:.0%} of its difference from the source",
            0.97,
        )


def _of_company(effect: float, unequal: float) -> Claim:
    evidence = f"by {effect:.0%} of its difference from the source"
    if unequal <= _SAME:
        return Claim(
            "batch_norm_training",
            "an item's answer depends on the other items of the batch, but not on their order: "
            "batch normalisation uses the batch's own statistics; export the model in inference "
            "mode (training=False)",
            f"among copies of itself an item's answer changes {evidence}; in another order it "
            "stays the same",
            0.98,
        )
    return Claim(
        "batch_mixed",
        "an item's answer depends on the other items of the batch and on their order: items are "
        "read from one another; every flat index needs the offset of its item, and a reshape must "
        "not move the batch axis",
        f"among copies of itself an item's answer changes {evidence}",
        0.98,
    )


def _chosen(inputs: Mapping[str, Any], items: Any) -> dict[str, Any]:
    return {name: value[items] for name, value in inputs.items()}
