"""What was done to the inputs before the candidate computed: `c(x) = r(p(x))` for a known p."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stnkit.runtime.equivalence.answers import Answer, partners
from stnkit.runtime.equivalence.diagnosis.case import Case, Claim, gap, share, values_of

__all__ = ["input_claims"]

_EXPLAINED = 0.97
_ALIKE = 0.1  # of what answers differ by among themselves: those that hardly do resemble many


@dataclass(frozen=True)
class _Way:
    """Something done to a batch of images; None where it does not apply."""

    cause: str
    what: str
    advice: str
    apply: Callable[[Any], Any]


_CAFFE = np.array([103.939, 116.779, 123.68], np.float32)
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_TWICE = "feed what the source's own inputs are, and prepare images once: in the model or before it"
_LAYOUT = "transpose between NHWC and NCHW, never reshape; compare with --layout where it is meant"


def _three(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: function(x) if x.shape[3] == 3 else None


def _scaling() -> list[_Way]:
    names: dict[str, Callable[[Any], Any]] = {
        "divided by 255 once more than the source's": lambda x: x / 255,
        "multiplied by 255": lambda x: x * 255,
        "mapped by 2 x - 1 once more than the source's": lambda x: 2 * x - 1,
        "mapped by (x + 1) / 2": lambda x: (x + 1) / 2,
        "mapped by x / 127.5 - 1 once more than the source's": lambda x: x / 127.5 - 1,
        "mapped by 127.5 (x + 1)": lambda x: (x + 1) * 127.5,
        "inverted, 1 - x": lambda x: 1 - x,
        "prepared as for Torch (mean and deviation of ImageNet) once more": _three(
            lambda x: (x - _MEAN) / _STD
        ),
        "scaled back by mean and deviation of ImageNet": _three(lambda x: x * _STD + _MEAN),
        "prepared as for Caffe (BGR, mean of ImageNet) once more": _three(
            lambda x: x[..., ::-1] - _CAFFE
        ),
        "scaled back from Caffe's form (BGR, mean of ImageNet)": _three(
            lambda x: (x + _CAFFE)[..., ::-1]
        ),
    }
    return [_Way("preprocessing", what, _TWICE, function) for what, function in names.items()]


def _several(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: function(x) if x.shape[3] > 1 else None


def _square(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: function(x) if x.shape[1] == x.shape[2] else None


def _as_if_nchw(x: Any) -> Any:
    batch, height, width, channels = x.shape
    return x.reshape(batch, channels, height, width).transpose(0, 2, 3, 1)


def _as_if_nhwc(x: Any) -> Any:
    return x.transpose(0, 3, 1, 2).reshape(x.shape)


def _arranging() -> list[_Way]:
    return [
        _Way(
            "channels",
            "read with its channels in reverse order",
            "keep RGB or BGR as the source has it",
            _several(lambda x: x[..., ::-1]),
        ),
        _Way(
            "layout",
            "read with height and width swapped",
            "keep height before width",
            _square(lambda x: x.transpose(0, 2, 1, 3)),
        ),
        _Way("layout", "read as if its memory were NCHW", _LAYOUT, _several(_as_if_nchw)),
        _Way("layout", "NCHW read as if it were NHWC", _LAYOUT, _several(_as_if_nhwc)),
        _Way("flipped", "read from the last column to the first", "do not mirror it", _mirror(2)),
        _Way("flipped", "read from the last row to the first", "do not turn it over", _mirror(1)),
    ]


def _mirror(axis: int) -> Callable[[Any], Any]:
    return lambda x: np.flip(x, axis)


def input_claims(case: Case) -> Iterator[Claim]:
    """Yield what explains everything that is wrong by what was done to one input."""
    pair = _small(case)
    names = [
        spec.name
        for spec in case.reference.inputs
        if len(spec.shape) == 4 and spec.dtype.startswith("float")
    ]
    if pair is None or (len(names) == 1 and _arrives(case)):
        return
    expected, got = pair
    before = {
        name: gap(value, values_of(got)[name])
        for name, value in values_of(expected).items()
        if name in values_of(got) and name in case.wrong_tensors()
    }
    before = {name: value for name, value in before.items() if value > 0 and np.isfinite(value)}
    if not before:
        return
    for name in names:
        for way in [*_measured(case, name), *_scaling(), *_arranging()]:
            if not case.in_time:
                return
            claim = _tried(case, name, way, expected, got, before)
            if claim is not None:
                yield claim
                return


def _told(left: Mapping[str, float], here: Mapping[str, Any]) -> bool:
    """Return whether what is left is little beside what answers differ by from item to item."""
    spreads = {tensor: _spread(here[tensor]) for tensor in left}
    vary = [tensor for tensor, spread in spreads.items() if spread > 0]
    return bool(vary) and all(left[tensor] <= _ALIKE * spreads[tensor] for tensor in vary)


def _spread(values: Any) -> float:
    """Return how much a tensor differs from item to item; infinite where there is one item."""
    return (
        gap(values, np.broadcast_to(values.mean(axis=0), values.shape))
        if len(values) > 1
        else np.inf
    )


def _arrives(case: Case) -> bool:
    """Return whether the only image was seen to arrive: what is made of it at taps is right."""
    driven = [
        item
        for item in case.comparisons
        if item.kind == "warped" and any(a.probe.name == item.case for a, _ in case.driven)
    ]
    if driven and all(item.passed for item in driven):
        return True
    for tap in case.reference.taps:
        thetas = [a.taps[tap.name] for a, b in case.plain if tap.name in b.taps]
        if tap.kind == "theta" and thetas and not case.failed("theta", driven=False):
            # A transformer that was never trained finds the same theta in every image.
            return bool(np.concatenate(thetas).std(axis=0).max() > 0)
    return False


def _small(case: Case) -> tuple[Answer, Answer] | None:
    """Return a plain answer of few items; a fixed batch is taken as it is."""
    several = [pair for pair in case.plain if pair[0].probe.batch > 1] or case.plain
    return min(several, key=lambda pair: pair[0].probe.batch, default=None)


def _tried(
    case: Case,
    name: str,
    way: _Way,
    expected: Answer,
    got: Answer,
    before: Mapping[str, float],
) -> Claim | None:
    inputs = dict(expected.probe.inputs)
    with np.errstate(all="ignore"):
        changed = way.apply(inputs[name])
    if changed is None or np.array_equal(changed, inputs[name]):
        return None
    inputs[name] = np.ascontiguousarray(changed, inputs[name].dtype)
    answered = case.ask_reference(inputs)
    here = values_of(got)
    left = {tensor: gap(answered[tensor], here[tensor]) for tensor in before}
    score = min(share(before[tensor], left[tensor]) for tensor in before)
    if score < _EXPLAINED or not _told(left, here):
        return None
    worst = max(left, key=lambda tensor: left[tensor] / before[tensor])
    return Claim(
        way.cause,
        f"the input {name!r} is {way.what} before it is used: {way.advice}",
        f"the source on such inputs gives the candidate's {worst!r} to {left[worst]:.1e} on "
        f"average; without {before[worst]:.1e}",
        score,
    )


def _measured(case: Case, name: str) -> list[_Way]:
    """Return a scale and an offset of each channel, as seen where a transformer changed nothing."""
    for theta, warped in partners(case.reference.taps).values():
        for expected, got in case.driven:
            if theta.name in expected.probe.thetas and warped.name in got.taps:
                way = _line(
                    expected.probe.inputs[name],
                    expected.taps[warped.name],
                    got.taps[warped.name],
                )
                if way is not None:
                    return [way]
    return []


def _line(image: Any, there: Any, here: Any) -> _Way | None:
    """Return the line that maps each channel of an image to what a transformer made of it."""
    if there.shape != here.shape or image.shape != there.shape or image.shape[3] > 4:
        return None
    # Items that stayed in their frame alone: what is read from outside is not scaled.
    inner = (slice(1, -1), slice(1, -1))
    same = [i for i in range(len(there)) if gap(there[i][inner], image[i][inner]) < 1e-5]
    if not same:
        return None
    lines = []
    for channel in range(image.shape[3]):
        x, y = (
            part[same][:, 1:-1, 1:-1, channel].ravel().astype(np.float64) for part in (image, here)
        )
        if not np.ptp(x):
            return None  # no line goes through one value
        lines.append(np.polyfit(x, y, 1))
    scales, offsets = np.array(lines, np.float32).T
    if np.allclose(scales, 1, atol=1e-4) and np.allclose(offsets, 0, atol=1e-4):
        return None
    if _known(scales, offsets):
        return None
    shown = ", ".join(f"{a:.5g} x {b:+.5g}" for a, b in zip(scales, offsets, strict=True))
    return _Way(
        "preprocessing",
        f"mapped by {shown} (a channel each)",
        _TWICE,
        lambda x: x * scales + offsets,
    )


def _known(scales: Any, offsets: Any) -> bool:
    """Return whether one of the ways with a name of its own does the same."""
    return any(
        np.allclose(scales, scale, rtol=1e-3) and np.allclose(offsets, offset, atol=1e-3)
        for scale, offset in ((1 / 255, 0), (255, 0), (2, -1), (0.5, 0.5), (-1, 1))
    )
