"""What the reference answers to the probes, and the thetas that it is then driven with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stnkit.runtime.equivalence.probes import Probe
from stnkit.runtime.equivalence.reach import input_of, is_read_elsewhere
from stnkit.runtime.equivalence.subject import Subject, Tap
from stnkit.runtime.equivalence.thetas import driven_thetas
from stnkit.runtime.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Answer", "answer", "driven_answers", "driven_probes", "partners"]

# Of the inputs of one driven probe: about what the plain probes have, a network takes hundreds of
# times as much on the way.
_DRIVEN_BYTES_MAX = 4 * 2**20


@dataclass(frozen=True)
class Answer:
    """A probe with what the reference computed.

    Attributes:
        probe: the probe.
        outputs: by name.
        taps: by name; those that were driven are left out.
    """

    probe: Probe
    outputs: Mapping[str, npt.NDArray[Any]]
    taps: Mapping[str, npt.NDArray[Any]]


def answer(subject: Subject, probe: Probe) -> Answer | None:
    """Run a subject on a probe.

    Returns:
        What it computed; None where the probe is optional and the subject cannot take it.

    Raises:
        InputError: the subject fails, or gives NaN or infinity.
    """
    import numpy as np

    try:
        if probe.drives:
            found = subject.run(probe.inputs, taps=True, drives=probe.drives)
            outputs = {spec.name: found[spec.name] for spec in subject.outputs}
            taps = {tap.name: found[tap.name] for tap in subject.taps if tap.name in found}
        else:
            outputs = subject.run(probe.inputs)
            taps = subject.run(probe.inputs, taps=True) if subject.taps else {}
    except InputError:
        if probe.optional:
            return None
        raise
    if probe.only is not None:
        outputs = {name: value for name, value in outputs.items() if name in probe.only}
        taps = {name: value for name, value in taps.items() if name in probe.only}
    for name, values in {**outputs, **taps}.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            if probe.optional:
                return None
            raise InputError(
                f"{subject.name} itself gives NaN or infinity at {name!r} for the probe "
                f"{probe.name!r}: there is nothing to compare with; check its weights"
            )
    return Answer(probe, outputs, taps)


def partners(taps: Sequence[Tap]) -> dict[str, tuple[Tap, Tap]]:
    """Return theta and warped image of each transformer that has both."""
    found: dict[str, dict[str, Tap]] = {}
    for tap in taps:
        found.setdefault(tap.transformer, {})[tap.kind] = tap
    return {
        name: (kinds["theta"], kinds["warped"]) for name, kinds in found.items() if len(kinds) == 2
    }


def driven_probes(
    subject: Subject, answers: Sequence[Answer], seed: int, batch: int | None
) -> tuple[Probe, ...]:
    """Return probes that give each transformer thetas of their own.

    A theta that is an input gets them through it; in place of any other they are put where the
    model's own would be.

    Args:
        subject: the reference.
        answers: its answers to the plain probes, one at least.
        seed: seed of random thetas.
        batch: the one batch size that all models take, or None.
    """
    import numpy as np

    most = max(answers, key=lambda item: item.probe.batch)
    probes: list[Probe] = []
    for transformer, (theta_tap, warped_tap) in partners(subject.taps).items():
        entry = input_of(subject, theta_tap)
        only = _comparable(subject, theta_tap, warped_tap, entry)
        seen, warped = most.taps[theta_tap.name], most.taps[warped_tap.name]
        groups = driven_thetas(seen.shape[1:], (warped.shape[1], warped.shape[2]), seen, seed)
        for group, thetas in groups.items():
            if not thetas:
                continue
            values = np.stack(list(thetas.values())).astype(seen.dtype)
            for number, chunk in enumerate(_chunks(len(values), most.probe.inputs, batch)):
                inputs = {
                    name: array[[index % len(array) for index in chunk]]
                    for name, array in most.probe.inputs.items()
                }
                label = f"{group}_thetas_{transformer}_b{len(chunk)}"
                if number:
                    label = f"{group}_thetas_{transformer}_{number + 1}_b{len(chunk)}"
                thetas = {theta_tap.name: values[chunk]}
                if entry is None:
                    probe = Probe(label, inputs, drives=thetas, seed=seed, only=only)
                else:
                    inputs[entry] = values[chunk].astype(inputs[entry].dtype)
                    probe = Probe(label, inputs, given=thetas, seed=seed, only=only)
                probes.append(probe)
    return tuple(probes)


def _comparable(
    subject: Subject, theta: Tap, warped: Tap, entry: str | None
) -> tuple[str, ...] | None:
    """Return the tensors that are compared under thetas of a transformer's own; None for all.

    In an artifact all that reads a theta reads one tensor, or several, as its converter has it:
    where more than the sampler does, what is behind the others is not comparable. Behind an input
    it is, but no budget holds there for thetas that are extreme.
    """
    if is_read_elsewhere(subject, theta, warped):
        return (warped.name,)
    if entry is None:
        return None
    # Not the theta itself: it comes back as it was given, NaN among it.
    names = [spec.name for spec in subject.outputs] + [tap.name for tap in subject.taps]
    return tuple(name for name in names if name != theta.name)


def driven_answers(
    subject: Subject, answers: Sequence[Answer], seed: int, batch: int | None
) -> list[Answer]:
    """Return a subject's answers to the probes that drive its transformers.

    What it cannot take, or answers with NaN or infinity, is left out: there is nothing to compare.
    Args are those of `driven_probes`.
    """
    found = [
        answer(subject, replace(probe, optional=True))
        for probe in driven_probes(subject, answers, seed, batch)
    ]
    return [item for item in found if item is not None]


def _chunks(
    count: int, inputs: Mapping[str, npt.NDArray[Any]], batch: int | None
) -> list[list[int]]:
    """Return the numbers of the thetas of each probe; a fixed batch repeats the last."""
    item_bytes = sum(array[:1].nbytes for array in inputs.values())
    size = batch or max(1, min(count, _DRIVEN_BYTES_MAX // max(1, item_bytes)))
    chunks = [list(range(first, min(first + size, count))) for first in range(0, count, size)]
    if batch:
        chunks[-1] += [chunks[-1][-1]] * (batch - len(chunks[-1]))
    return chunks
