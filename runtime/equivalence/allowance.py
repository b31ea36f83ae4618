"""What every tensor of a comparison may differ by, from the reference's own answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stnkit.runtime.compare import Kind, Tolerance
from stnkit.runtime.equivalence.answers import Answer, answer, partners
from stnkit.runtime.equivalence.budget import (
    Budget,
    Measured,
    budget_for,
    changed,
    coordinate_rounding,
    sensitivity,
)
from stnkit.runtime.equivalence.probes import REAL_PREFIX, Probe
from stnkit.runtime.equivalence.subject import Subject
from stnkit.runtime.signature import Tolerances

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Allowance", "allowance_for"]


class Allowance:
    """The tolerance of every tensor on every probe.

    Args:
        measured: what is known of each tensor of the reference.
        length: products that are added up between input and output.
        coordinates: what the rounding of coordinates adds to each tensor, by tensor, on the plain
            probes.
        per_reach: the same for a theta whose parameters add up to 1: on probes that drive a theta
            it is multiplied by theirs.
        given: tolerances that the user set, by kind ("outputs", "theta", "warped") or by tensor.
    """

    def __init__(
        self,
        measured: Mapping[str, Measured],
        length: float,
        coordinates: Mapping[str, float],
        per_reach: Mapping[str, float],
        given: Mapping[str, float],
    ) -> None:
        self._measured, self._per_reach, self._given = measured, per_reach, given
        self.budgets: Mapping[str, Budget] = {
            name: budget_for(item, length, coordinates.get(name, 0.0), self._override(name, item))
            for name, item in measured.items()
        }

    def _override(self, name: str, item: Measured) -> float | None:
        kind = "outputs" if item.kind == "output" else item.kind
        return self._given.get(name, self._given.get(kind))

    def of(self, name: str, probe: Probe) -> Tolerance:
        """Return what a tensor may differ by on a probe."""
        base = self.budgets[name].tolerance
        if not probe.thetas or self._override(name, self._measured[name]) is not None:
            return base
        reach = max(_reach(theta) for theta in probe.thetas.values())
        return Tolerance(base.atol + self._per_reach.get(name, 0.0) * reach, base.rtol)

    def is_given(self, name: str) -> bool:
        """Return whether the user set what a tensor may differ by."""
        return self._override(name, self._measured[name]) is not None

    def tolerances(self) -> Tolerances:
        """Return the largest tolerance of each kind, for the manifest and for reports."""

        def largest(kind: Kind) -> Tolerance:
            found = [
                self.budgets[name].tolerance
                for name, item in self._measured.items()
                if item.kind == kind
            ]
            return max(found, key=lambda item: item.atol, default=Tolerance(0.0, 0.0))

        return Tolerances(largest("output"), largest("theta"), largest("warped"))

    def reasons(self) -> dict[str, str]:
        """Return why each tensor is allowed what it is, by its name."""
        return {name: budget.reason for name, budget in self.budgets.items()}


def _reach(theta: npt.NDArray[Any]) -> float:
    return coordinate_rounding([theta], (2, 2), 1.0) / coordinate_rounding([], (2, 2), 1.0)


def allowance_for(
    reference: Subject, answers: Sequence[Answer], given: Mapping[str, float], seed: int
) -> Allowance:
    """Return what may differ, measured on the reference.

    Args:
        reference: the model that is compared with.
        answers: its answers to the plain probes.
        given: tolerances that the user set, by kind or by tensor.
        seed: seed of the change of the inputs.
    """
    kinds: dict[str, Kind] = {spec.name: "output" for spec in reference.outputs}
    kinds |= {tap.name: tap.kind for tap in reference.taps}
    largest = dict.fromkeys(kinds, 0.0)
    effect = dict.fromkeys(kinds, 0.0)
    for item in answers:
        for name, value in {**item.outputs, **item.taps}.items():
            largest[name] = max(largest[name], _largest(value))
    for item in _few(answers):
        inputs = changed(item.probe.inputs, seed)
        if inputs is None:
            continue
        again = answer(reference, Probe(item.probe.name, inputs, optional=True))
        if again is None:
            continue
        values = {**item.outputs, **item.taps}
        for name, value in {**again.outputs, **again.taps}.items():
            effect[name] = max(effect[name], sensitivity(values[name], value))
    measured = {name: Measured(kind, largest[name], effect[name]) for name, kind in kinds.items()}
    coordinates, per_reach = _coordinates(reference, answers, measured)
    return Allowance(measured, reference.rounding_length(), coordinates, per_reach, given)


def _few(answers: Sequence[Answer]) -> list[Answer]:
    """Return the smallest made-up probe, the largest, which holds every pattern, and real ones.

    Real inputs come on top: they must not take the place of patterns that carry errors further.
    """
    real = [item for item in answers if item.probe.name.startswith(REAL_PREFIX)]
    made = [item for item in answers if not item.probe.name.startswith(REAL_PREFIX)]
    by_size = sorted(made, key=lambda item: item.probe.batch)
    return by_size[:1] + by_size[1:][-1:] + real


def _largest(value: npt.NDArray[Any]) -> float:
    import numpy as np

    return float(np.abs(value.astype(np.float64)).max()) if value.size else 0.0


def _coordinates(
    reference: Subject, answers: Sequence[Answer], measured: Mapping[str, Measured]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return what coordinates add to each tensor: on the plain probes, and per reach of theta."""
    images = [
        value
        for item in answers
        for value in item.probe.inputs.values()
        if value.ndim == 4 and value.dtype.kind == "f"
    ]
    total: dict[str, float] = {}
    per_reach: dict[str, float] = {}
    for _, (theta, warped) in partners(reference.taps).items():
        thetas = [item.taps[theta.name] for item in answers if theta.name in item.taps]
        shapes = [item.taps[warped.name].shape for item in answers if warped.name in item.taps]
        sides = [shape[1:3] for shape in shapes if len(shape) == 4]
        sides += [image.shape[1:3] for image in images]
        if not thetas or not sides:
            continue
        size = (max(side[0] for side in sides), max(side[1] for side in sides))
        # No step is steeper than from the smallest value to the largest, and zeros may lie around.
        step = 2 * max([measured[warped.name].largest, *(_largest(image) for image in images)])
        here, unit = coordinate_rounding(thetas, size, step), coordinate_rounding([], size, step)
        at_warp = measured[warped.name].sensitivity
        for name, item in measured.items():
            if name == warped.name:
                gain = 1.0
            elif item.kind == "theta" or not at_warp:
                continue
            else:
                # What arrives of a change of the warped image, as seen when the inputs changed.
                gain = item.sensitivity / at_warp
            total[name] = total.get(name, 0.0) + gain * here
            per_reach[name] = max(per_reach.get(name, 0.0), gain * unit)
    return total, per_reach
