"""The tensors inside a reference: what each holds, what it may differ by, and what follows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stnkit.runtime.compare import Tolerance
from stnkit.runtime.equivalence.answers import Answer, partners
from stnkit.runtime.equivalence.budget import (
    Measured,
    budget_for,
    changed,
    coordinate_rounding,
    sensitivity,
)
from stnkit.runtime.equivalence.probes import SEED
from stnkit.runtime.equivalence.readings import Readings
from stnkit.runtime.equivalence.subject import Node, Subject
from stnkit.runtime.equivalence.tensor_gap import Facts, facts_of

__all__ = ["Graph", "SourceTensors"]

_KEPT_BYTES = 128 * 2**20


class Graph:
    """Nodes, with what each is computed from and what is computed from it.

    Args:
        nodes: in the order of computation.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes: Mapping[str, Node] = {node.name: node for node in nodes}
        self.order = {name: index for index, name in enumerate(self.nodes)}
        self.readers: dict[str, list[str]] = {}
        for node in self.nodes.values():
            for name in dict.fromkeys(node.inputs):
                self.readers.setdefault(name, []).append(node.name)

    def sources(self, name: str) -> list[str]:
        """Return the nodes that a node is computed from; neither inputs nor constants."""
        return [source for source in self.nodes[name].inputs if source in self.nodes]

    def after(self, names: Iterable[str]) -> set[str]:
        """Return all nodes that depend on any of these."""
        return _closure(names, lambda name: self.readers.get(name, []))

    def before(self, name: str) -> set[str]:
        """Return all nodes that a node depends on."""
        return _closure([name], self.sources)


def _closure(start: Iterable[str], step: Any) -> set[str]:
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        for name in step(waiting.pop()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


class SourceTensors:
    """The reference on one probe.

    A tensor inside is allowed what the error budget allows an output: its largest value and its
    sensitivity are measured, on the probe and on the probe changed by a known amount. What the
    rounding of coordinates does to a warped image arrives behind it as what is known of a change
    does: in proportion to the sensitivities.

    Args:
        subject: the reference.
        item: the probe, with its outputs and taps.
        warped: what each warped image may differ by on this probe, by its tap.
    """

    def __init__(self, subject: Subject, item: Answer, warped: Mapping[str, Tolerance]) -> None:
        self.graph = Graph(subject.nodes())
        probe = item.probe
        given = {subject.node_of("input", name): value for name, value in probe.inputs.items()}
        inputs = {name: value for name, value in given.items() if name is not None}
        self.values = Readings(subject, probe.inputs, probe.drives, _KEPT_BYTES, inputs)
        # Inputs too: a candidate may begin with a copy in another layout.
        self.facts: dict[str, Facts] = {name: facts_of(value) for name, value in inputs.items()}
        sensitivities = dict.fromkeys(inputs, 0.0)
        other = changed(probe.inputs, SEED)
        again = Readings(subject, other or probe.inputs, probe.drives, 0)
        for chunk in self.values.chunks(list(self.graph.nodes)):
            moved = again.read(list(chunk)) if other is not None else {}
            for name, value in chunk.items():
                self.facts[name] = facts_of(value)
                sensitivities[name] = self._sensitivity(value, moved.get(name), self.facts[name])
        extra = self._coordinates(subject, item, warped, sensitivities)
        # In proportion, without the floor that outputs have: inside, scales of any size occur.
        unit = budget_for(Measured("output", 1.0, 0.0), subject.rounding_length()).tolerance
        self.allowed: dict[str, Tolerance] = {
            name: Tolerance(
                unit.atol * (facts.largest + sensitivities[name]) + extra.get(name, 0.0), unit.rtol
            )
            for name, facts in self.facts.items()
        }

    @staticmethod
    def _sensitivity(value: Any, moved: Any, facts: Facts) -> float:
        # The shape may have changed too, of what is found by a condition.
        if moved is None or moved.shape != value.shape or not facts.finite:
            return 0.0
        found = sensitivity(value, moved)
        return found if found < float("inf") else 0.0

    def _coordinates(
        self,
        subject: Subject,
        item: Answer,
        warped: Mapping[str, Tolerance],
        sensitivities: Mapping[str, float],
    ) -> dict[str, float]:
        """Return what the rounding of coordinates adds to the tensors of samplers and behind."""
        found: dict[str, float] = {}
        for theta_tap, warped_tap in partners(subject.taps).values():
            theta = subject.node_of("tap", theta_tap.name)
            image = subject.node_of("tap", warped_tap.name)
            value = item.taps.get(warped_tap.name)
            if theta is None or image is None or value is None or warped_tap.name not in warped:
                continue
            atol = warped[warped_tap.name].atol
            thetas = [
                array[theta_tap.name]
                for array in (item.probe.thetas, item.taps)
                if theta_tap.name in array
            ]
            # Inside the sampler values are coordinates in pixels, or fractions of one.
            pixels = coordinate_rounding(thetas, (max(value.shape[1:3]),) * 2, 1.0)
            behind = self.graph.after([image])
            for name in self.graph.after([theta]) - behind - {theta}:
                found[name] = max(found.get(name, 0.0), pixels, atol)
            at_warp = sensitivities.get(image, 0.0)
            for name in behind if at_warp else ():
                gain = sensitivities.get(name, 0.0) / at_warp
                found[name] = found.get(name, 0.0) + gain * atol
        return found

    def followers(self, start: Iterable[str], size: int, taken: set[str], most: int) -> list[str]:
        """Return nodes of a size that follow from others, by ways on which no node is taken.

        Args:
            start: nodes or inputs.
            size: number of elements.
            taken: nodes that are known to be another tensor's partner.
            most: how many nodes are looked at.
        """
        found: list[str] = []
        seen: set[str] = set()
        waiting = list(start)
        while waiting and len(seen) < most:
            for name in self.graph.readers.get(waiting.pop(0), []):
                if name in seen or name in taken:
                    continue
                seen.add(name)
                waiting.append(name)
                if name in self.facts and self.facts[name].size == size:
                    found.append(name)
        return found
