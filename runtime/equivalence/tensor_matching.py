"""Finding the source's tensor for every tensor inside a candidate, and comparing the two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stnkit.runtime.compare import Tolerance
from stnkit.runtime.equivalence.readings import Readings
from stnkit.runtime.equivalence.source_tensors import Graph, SourceTensors
from stnkit.runtime.equivalence.tensor_gap import Facts, Gap, facts_of, gap_between, may_agree
from stnkit.runtime.equivalence.tensor_names import match_names

__all__ = ["Final", "Match", "Matching"]

How = Literal["final", "name", "value", "place"]

_RIVALS_MAX = 4  # tensors of the source that may hold the same values, and are looked at
_FUSED_MAX = 12  # operations of the source that one of the candidate may stand for
_PLACED_MAX = 64


@dataclass(frozen=True)
class Final:
    """An output or a tap: what it is in the source is known.

    Attributes:
        partner: node of the source.
        tolerance: what it may differ by.
    """

    partner: str
    tolerance: Tolerance


@dataclass(frozen=True)
class Match:
    """A tensor of the candidate and the source's.

    Attributes:
        partner: node of the source.
        gap: how far the two are apart.
        right: whether that is allowed.
        how: what says that they are the same: the signature, their names, their values, or what
            they are computed from.
    """

    partner: str
    gap: Gap
    right: bool
    how: How


class Matching:
    """The tensors of a candidate beside the source's.

    Args:
        source: the reference on the probe.
        graph: the candidate's nodes.
        values: the candidate on the probe.
        finals: candidate's node -> what it is.
        inputs: candidate's input -> the source's.
    """

    def __init__(
        self,
        source: SourceTensors,
        graph: Graph,
        values: Readings,
        finals: Mapping[str, Final],
        inputs: Mapping[str, str],
    ) -> None:
        self.source, self.graph = source, graph
        self.facts: dict[str, Facts] = {}
        self.found: dict[str, Match] = {}
        self._values, self._finals, self._inputs = values, finals, inputs
        others = {*graph.nodes, *(name for node in graph.nodes.values() for name in node.inputs)}
        self.named = match_names(list(source.graph.nodes), graph.nodes, others)
        self._claimed = {*self.named.values(), *(final.partner for final in finals.values())}
        self._by_size: dict[int, list[str]] = {}
        for name, facts in source.facts.items():
            self._by_size.setdefault(facts.size, []).append(name)
        for chunk in values.chunks(list(graph.nodes)):
            self._match(chunk)

    def is_right(self, name: str) -> bool:
        """Return whether a node was found to hold what the source's does."""
        return name in self.found and self.found[name].right

    @property
    def partners(self) -> set[str]:
        """The source's nodes that have been found in the candidate."""
        return {match.partner for match in self.found.values()}

    def _match(self, chunk: Mapping[str, Any]) -> None:
        """Match the tensors of a chunk: by what they are called, else by what they hold."""
        self.facts.update({name: facts_of(value) for name, value in chunk.items()})
        finals = {name: [self._finals[name].partner] for name in chunk if name in self._finals}
        self._compare_each(chunk, finals, "final")
        named = [name for name in chunk if name in self.named and name not in finals]
        self._compare_each(chunk, {name: [self.named[name]] for name in named}, "name")
        # What a name stands for may have been fused with what follows: a converter names a folded
        # convolution after the convolution alone.
        fused = {
            name: self.source.followers(
                [self.named[name]], self.facts[name].size, self._claimed, _FUSED_MAX
            )
            for name in named
            if not self.is_right(name)
        }
        self._compare_each(chunk, fused, "name")
        unnamed = [name for name in chunk if name not in self.found and name not in finals]
        self._compare_each(chunk, {name: self._alike(name) for name in unnamed}, "value")
        for name in unnamed:
            # One that agrees is the same; one that is only near may be another.
            if name in self.found and not self.is_right(name):
                del self.found[name]

    def _alike(self, name: str) -> list[str]:
        """Return the source's nodes that may hold the same values, those without a name first."""
        rivals = [
            other
            for other in self._by_size.get(self.facts[name].size, [])
            if may_agree(self.source.facts[other], self.facts[name], self.source.allowed[other])
        ]
        return sorted(rivals, key=self._claimed.__contains__)[:_RIVALS_MAX]

    def _compare_each(
        self, chunk: Mapping[str, Any], options: Mapping[str, Sequence[str]], how: How
    ) -> None:
        """Compare tensors with the source's that they may be, and keep the nearest for each."""
        wanted = dict.fromkeys(other for others in options.values() for other in others)
        for part in self.source.values.chunks(list(wanted)):
            for name, others in options.items():
                for other in others:
                    if other in part:
                        self._compare(name, chunk[name], other, part[other], how)

    def _compare(self, name: str, value: Any, other: str, expected: Any, how: How) -> None:
        gap = gap_between(expected, value, self.source.allowed[other])
        if gap is None:
            return
        right = gap.share <= 1
        if how == "final":
            judged = gap_between(expected, value, self._finals[name].tolerance)
            right = judged is not None and judged.share <= 1
        known = self.found.get(name)
        if known is None or (not right, gap.max_abs) < (not known.right, known.gap.max_abs):
            self.found[name] = Match(other, gap, right, how)

    def place(self, names: Iterable[str]) -> None:
        """Match tensors that neither names nor values told, by what they are computed from.

        Of the source's tensors of that size that follow from the partners of its inputs, the
        nearest is taken.

        Args:
            names: nodes that are wrong, or of which nothing is known, in the order of computation.
        """
        left = [name for name in names if name not in self.found and name in self.facts]
        for chunk in self._values.chunks(left[:_PLACED_MAX]):
            for name, value in chunk.items():
                size = self.facts[name].size
                taken = self._claimed | self.partners
                start = self.anchors(name)
                options = self.source.followers(start, size, taken, _FUSED_MAX)
                self._compare_each({name: value}, {name: options}, "place")

    def anchors(self, name: str) -> list[str]:
        """Return the source's nodes and inputs that a node's inputs are; none if one is not known.

        Constants do not count.
        """
        anchors = []
        for source in self.graph.nodes[name].inputs:
            if source in self.found:
                anchors.append(self.found[source].partner)
            elif source in self._inputs:
                anchors.append(self._inputs[source])
            elif source in self.graph.nodes:
                return []
        return anchors
