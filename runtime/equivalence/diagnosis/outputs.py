"""What was done to the outputs behind the source's last layer, or left undone.

Outputs that hardly vary resemble many things: what explains them alone counts for little where
theta or a warped image is wrong as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from stnkit.runtime.equivalence.diagnosis.case import Case, Claim, gap, share

__all__ = ["output_claims"]

_EXPLAINED = 0.97


def _softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "softmax": _softmax,
    "sigmoid": _sigmoid,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "tanh": np.tanh,
    "exp": np.exp,
    "log": lambda x: np.log(np.maximum(x, 1e-37)),
    "log_softmax": lambda x: np.log(np.maximum(_softmax(x), 1e-37)),
    "square": np.square,
    "absolute value": np.abs,
}


def output_claims(case: Case) -> Iterator[Claim]:
    """Yield what explains outputs that are wrong."""
    weight = 0.3 if case.failed("theta") or case.failed("warped") else 1.0
    for claim in _claims(case):
        yield replace(claim, score=weight * claim.score)


def _claims(case: Case) -> Iterator[Claim]:
    names = list(dict.fromkeys(item.tensor for item in case.failed("output")))
    there, here = _collected(case, names)
    yield from _swapped(there, here)
    for name in there:
        a, b = there[name], here[name]
        if a.shape == b.shape and np.isfinite(b).all():
            for claims in (_activation, _classes, _temperature, _linear, _constant):
                yield from claims(name, a, b)
            yield from _axis(case, name)


def _collected(case: Case, names: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the wrong outputs of the plain probes that have one shape, as one batch each."""
    there: dict[str, Any] = {}
    here: dict[str, Any] = {}
    for name in names:
        pairs = [(a.outputs[name], b.outputs[name]) for a, b in case.plain if name in b.outputs]
        if pairs and pairs[0][0].dtype.kind == "f":
            first = pairs[0][0].shape[1:]
            same = [p for p in pairs if p[0].shape[1:] == first and p[1].shape == p[0].shape]
            if same:
                there[name] = np.concatenate([p[0] for p in same]).astype(np.float64)
                here[name] = np.concatenate([p[1] for p in same]).astype(np.float64)
    return there, here


def _swapped(there: dict[str, Any], here: dict[str, Any]) -> Iterator[Claim]:
    """Yield that outputs took each other's names."""
    for a, b in itertools.combinations(there, 2):
        if there[a].shape != there[b].shape:
            continue
        before = gap(there[a], here[a]) + gap(there[b], here[b])
        left = gap(there[a], here[b]) + gap(there[b], here[a])
        if share(before, left) >= _EXPLAINED:
            yield Claim(
                "outputs_permuted",
                f"the outputs {a!r} and {b!r} have each other's values: bind outputs by their "
                "names, not by their order, or say which is which with --map",
                f"swapped they agree to {left / 2:.1e}, as they are to {before / 2:.1e}",
                1.0,
            )


def _activation(name: str, there: Any, here: Any) -> Iterator[Claim]:
    before = gap(there, here)
    for label, function in _ACTIVATIONS.items():
        with np.errstate(all="ignore"):
            added, dropped = gap(function(there), here), gap(there, function(here))
        for left, what, advice in (
            (added, f"went through a {label} once more than the source's", "remove it"),
            (dropped, f"lacks the {label} of the source", "keep the last layer's activation"),
        ):
            # A relu of what is never negative says nothing: it must explain what was wrong.
            if share(before, left) >= _EXPLAINED:
                yield Claim(
                    "activation",
                    f"the output {name!r} {what}: {advice}",
                    f"with it the two agree to {left:.1e} on average, without to {before:.1e}",
                    share(before, left),
                )


def _classes(name: str, there: Any, here: Any) -> Iterator[Claim]:
    """Yield that the last axis is in another order."""
    count = there.shape[-1]
    if there.ndim < 2 or not 2 <= count <= 2048 or len(there) * count > 2**20:
        return
    a, b = there.reshape(-1, count), here.reshape(-1, count)
    if len(a) * count * count > 2**26:
        a, b = a[:8], b[:8]
    distances = np.abs(b[:, :, np.newaxis] - a[:, np.newaxis, :]).mean(axis=0)
    order = distances.argmin(axis=1)
    left = float(distances[np.arange(count), order].mean())
    before = gap(a, b)
    if len(set(order.tolist())) == count and share(before, left) >= _EXPLAINED:
        shown = order.tolist() if count <= 16 else [*order[:16].tolist(), "…"]
        yield Claim(
            "classes_permuted",
            f"the classes of {name!r} are in another order: train and export with one list of "
            "labels",
            f"in the order {shown} of the source's they agree to {left:.1e}, in its own to "
            f"{before:.1e}",
            share(before, left),
        )


def _temperature(name: str, there: Any, here: Any) -> Iterator[Claim]:
    """Yield that the scores before a softmax were multiplied."""
    if there.ndim < 2 or min(there.min(), here.min()) <= 0:
        return
    if not (np.allclose(there.sum(-1), 1, atol=1e-3) and np.allclose(here.sum(-1), 1, atol=1e-3)):
        return
    a, b = (np.log(part) - np.log(part).mean(axis=-1, keepdims=True) for part in (there, here))
    power = float((a * a).sum())
    factor = float((a * b).sum()) / power if power else 0.0
    before, left = gap(there, here), gap(_softmax(factor * a), here)
    if share(before, left) >= _EXPLAINED and factor > 0:
        yield Claim(
            "output_temperature",
            f"the scores before the softmax of {name!r} are {factor:.6g} times the source's: a "
            "factor was added or lost before it",
            f"multiplied by it the two agree to {left:.1e} on average, as they are to {before:.1e}",
            share(before, left),
        )


def _linear(name: str, there: Any, here: Any) -> Iterator[Claim]:
    power = float((there * there).sum())
    before = gap(there, here)
    if not power:
        return
    factor = float((there * here).sum()) / power
    left = gap(factor * there, here)
    if abs(factor) > 1e-3 and share(before, left) >= _EXPLAINED and there.std() > 0:
        yield Claim(
            "output_scaled",
            f"the output {name!r} is {factor:.6g} times the source's: a factor was added or lost "
            "behind the last layer",
            f"scaled by it the two agree to {left:.1e} on average, as they are to {before:.1e}",
            share(before, left),
        )
    offset = (here - there).reshape(-1, there.shape[-1]).mean(axis=0)
    left = gap(there + offset, here)
    if share(before, left) >= _EXPLAINED and len(there) > 1:
        shown = ", ".join(f"{value:+.3g}" for value in offset[:8])
        yield Claim(
            "output_offset",
            f"the output {name!r} is off by the same for every input: the bias of its layer was "
            "changed or lost",
            f"by [{shown}], to {left:.1e} on average",
            0.97 * share(before, left),
        )


def _axis(case: Case, name: str) -> Iterator[Claim]:
    """Yield that a softmax runs over the wrong axis: what should add up to 1 does so elsewhere."""
    pairs = [(a.outputs[name], b.outputs[name]) for a, b in case.plain if name in b.outputs]
    pairs = [pair for pair in pairs if pair[0].shape == pair[1].shape and len(pair[0]) > 1]
    if not pairs or pairs[0][0].ndim < 2:
        return

    def adds_up(values: Any, axis: int) -> bool:
        return bool(np.allclose(values.astype(np.float64).sum(axis=axis), 1, atol=1e-3))

    axes = range(pairs[0][0].ndim)
    of_reference = [axis for axis in axes if all(adds_up(pair[0], axis) for pair in pairs)]
    of_candidate = [axis for axis in axes if all(adds_up(pair[1], axis) for pair in pairs)]
    if of_reference and of_candidate and not set(of_reference) & set(of_candidate):
        yield Claim(
            "softmax_axis",
            f"the output {name!r} went through a softmax along axis {of_candidate[0]}: the "
            f"source's runs along axis {of_reference[0]}",
            f"values add up to 1 along axis {of_candidate[0]}, the source's along "
            f"{of_reference[0]}",
            0.99,
        )


def _constant(name: str, there: Any, here: Any) -> Iterator[Claim]:
    varies, still = float(there.std(axis=0).max()), float(here.std(axis=0).max())
    if len(there) > 2 and varies > 0 and still <= 1e-3 * varies:
        yield Claim(
            "weights_missing",
            f"the output {name!r} is the same whatever the input: weights are missing or zero on "
            "the way to it; export after they are loaded, from the frozen model",
            f"it varies by {still:.1e} over {len(here)} inputs, the source's by {varies:.1e}",
            0.95,
        )
