"""Finding theta and warped image in a file whose tensors do not have their names.

A converter keeps names as it likes, and of a file of low precision the outputs alone prove nothing:
a transformer that moves the image by half its range was seen to change the scores by 0.002. So its
tensors are looked for by what they hold: of all tensors of the right size, the one that is nearest
to the source's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stnkit.runtime.compare import Comparison, Tolerance
from stnkit.runtime.equivalence.answers import Answer
from stnkit.runtime.equivalence.binding import Binding, to_nhwc
from stnkit.runtime.equivalence.file_subject import FileSubject
from stnkit.runtime.equivalence.readings import Readings
from stnkit.runtime.equivalence.subject import Subject, Tap

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["reveal_taps", "unseen"]

_NEAR = 0.5  # mean distance of the two, relative to that of the source's values from their mean
_CONSTANT = 1e-6  # values that lie no farther apart say nothing of a place


def reveal_taps(
    reference: Subject, candidate: Subject, binding: Binding, answers: Sequence[Answer]
) -> Binding:
    """Return the binding with the taps that a file turns out to have.

    Args:
        reference: the source.
        candidate: the other model; one that is no file is left as it is.
        binding: how its tensors correspond so far.
        answers: the source's answers to the plain probes.

    Raises:
        BackendError: its backend fails.
        InputError: it cannot run on a probe.
    """
    missing = [tap for tap in reference.taps if tap.name not in binding.taps]
    if not missing or not isinstance(candidate, FileSubject):
        return binding
    item = _most_telling(answers, missing)
    found = _nearest(candidate, binding, item, [tap for tap in missing if tap.name in item.taps])
    if not found:
        return binding
    candidate.show_taps(found)
    lost = f"{candidate.name} has no tensor"
    notes = [note for note in binding.notes if not note.startswith(lost)]
    notes += [f"{there!r} was taken to be {name!r}: it is nearest" for name, there in found.items()]
    return replace(
        binding,
        taps={**binding.taps, **{name: name for name in found}},
        notes=tuple(notes),
    )


def unseen(binding: Binding, item: Answer) -> list[Comparison]:
    """Return a failed comparison for every warped image that a candidate does not show."""
    return [
        Comparison(
            name,
            "warped",
            item.probe.name,
            tuple(value.shape),
            Tolerance(0.0),
            passed=False,
            reason="no tensor of the file holds it, or none that is near: in low precision equal "
            "outputs alone do not prove that the warp is right",
        )
        for name, value in item.taps.items()
        if Tap.of_name(name).kind == "warped" and name not in binding.taps
    ]


def _most_telling(answers: Sequence[Answer], taps: Sequence[Tap]) -> Answer:
    """Return the answer in which the taps' values differ most, of plain probes."""
    plain = [item for item in answers if not item.probe.thetas]
    return max(
        plain,
        key=lambda item: sum(
            float(item.taps[tap.name].std()) for tap in taps if tap.name in item.taps
        ),
    )


def _nearest(
    candidate: FileSubject, binding: Binding, item: Answer, taps: Sequence[Tap]
) -> dict[str, str]:
    """Return tap -> the candidate's tensor that is nearest to it, where one is near."""
    names = [node.name for node in candidate.nodes()]
    readings = Readings(candidate, binding.feed(item.probe.inputs), {}, 0)
    best: dict[str, tuple[float, str]] = {}
    for part in readings.chunks(names):
        for name, value in part.items():
            for tap in taps:
                distance = _distance(item.taps[tap.name], value, binding)
                if distance is not None and distance < best.get(tap.name, (_NEAR, ""))[0]:
                    best[tap.name] = (distance, name)
    return {tap: name for tap, (_, name) in best.items()}


def _distance(expected: npt.NDArray[Any], got: npt.NDArray[Any], binding: Binding) -> float | None:
    """Return the mean distance, relative to how far the expected values lie apart."""
    import numpy as np

    if binding.layout == "nchw":
        got = to_nhwc(got)
    if expected.shape != got.shape or got.dtype.kind != "f":
        return None
    spread = float(np.abs(expected - expected.mean(dtype=np.float64)).mean())
    if spread < _CONSTANT or not np.isfinite(got).all():
        return None
    return float(np.abs(got.astype(np.float64) - expected).mean()) / spread
