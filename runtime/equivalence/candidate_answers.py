"""What a candidate answers to the probes, with one copy of its weights in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stnkit.runtime.equivalence.answers import Answer
from stnkit.runtime.equivalence.binding import Binding
from stnkit.runtime.equivalence.subject import Subject

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["candidate_answers"]

Values = dict[str, "npt.NDArray[Any]"]


def candidate_answers(
    candidate: Subject, binding: Binding, items: Sequence[Answer]
) -> list[Answer]:
    """Return a candidate's answers, under the reference's names and in its layout.

    A file that shows its taps is another copy than the one that ships, and so is one that takes a
    theta: all probes are run on one of them before the next is opened.

    Args:
        candidate: the candidate.
        binding: how its tensors correspond to the reference's.
        items: the probes, with the reference's answers, which say what is wanted.

    Raises:
        InputError: the candidate cannot run on a probe.
        BackendError: its backend fails.
    """
    outputs: dict[int, Values] = {}
    taps: dict[int, Values] = {}
    plain = [(number, item) for number, item in enumerate(items) if not item.probe.drives]
    for number, item in plain:
        found = candidate.run(binding.feed(item.probe.inputs))
        outputs[number], taps[number] = binding.read(found, item.outputs), {}
    candidate.rest()
    for number, item in plain if binding.taps else ():
        found = candidate.run(binding.feed(item.probe.inputs), taps=True)
        taps[number] = binding.read(found, item.taps)
    for number, item in enumerate(items):
        if item.probe.drives:
            drives = binding.drive(item.probe.drives)
            found = candidate.run(binding.feed(item.probe.inputs), taps=True, drives=drives)
            outputs[number] = binding.read(found, item.outputs)
            taps[number] = binding.read(found, item.taps)
    candidate.rest()  # what follows computes in float64, with the weights no longer beside it
    return [Answer(item.probe, outputs[number], taps[number]) for number, item in enumerate(items)]
