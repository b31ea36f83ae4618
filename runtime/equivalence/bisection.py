"""Where a candidate leaves its source: the first tensor inside that is wrong.

All tensors inside both models are read on one probe, by as few runs as memory allows, matched and
compared; no search is needed.

1. A tensor is right if it differs from its partner in the source by no more than the error budget
   allows; see `SourceTensors`.
2. From every output and tap that is wrong, the way back is followed through tensors that are not
   right. What ends before, a rounding to the other side of a tie for one, has done no harm.
3. On that way, those whose own inputs are all right are where an error arises. The first of them
   in the order of computation is the one, unless it only rounds or counts: there a difference that
   is allowed becomes a step.
4. Budgets leave room. As each is in proportion to how much of a change arrives, an error that was
   passed on takes about the same share of the budget everywhere; where it arose, the share of the
   inputs is far smaller. So of that tensor and those in front of it that take a twentieth of its
   share at least, the one counts where the share grows most. Taps were judged by themselves: the
   way back ends at one that is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stnkit.runtime.compare import Tolerance
from stnkit.runtime.equivalence.answers import Answer
from stnkit.runtime.equivalence.binding import Binding
from stnkit.runtime.equivalence.judging import AllowanceLike
from stnkit.runtime.equivalence.readings import Readings
from stnkit.runtime.equivalence.results import Bisection, NodeError
from stnkit.runtime.equivalence.source_tensors import Graph, SourceTensors
from stnkit.runtime.equivalence.subject import Role, Subject
from stnkit.runtime.equivalence.tensor_matching import Final, Matching

__all__ = ["bisect"]

_NEIGHBOURS = 2  # on either side
_BETWEEN_MAX = 32  # operations of the source that one tensor of the candidate may stand for
_STEPS = {"floor", "ceil", "round", "sign"}
_LIKE_SHARE = 1 / 20
_NO_SHARE = 1e-3  # of the budget: as good as equal
# What is read from inside is read from a copy, where other kernels may run: an output that is just
# wrong in the artifact may be just right there.
_ALMOST_WRONG = 1 / 2


def bisect(
    reference: Subject,
    candidate: Subject,
    binding: Binding,
    item: Answer,
    allowance: AllowanceLike,
) -> Bisection:
    """Find the first tensor of a candidate that is wrong.

    Args:
        reference: the source.
        candidate: what differs from it.
        binding: how its inputs, outputs and taps correspond.
        item: a probe on which they differ, the smaller the better, with the source's answer.
        allowance: what outputs and taps may differ by.

    Raises:
        BackendError: a backend fails.
        InputError: a model cannot run on the probe.
    """
    graph = Graph(candidate.nodes())
    probe = item.probe
    warped = {tap.name: allowance.of(tap.name, probe) for tap in reference.taps}
    source = SourceTensors(reference, item, warped)
    values = Readings(candidate, binding.feed(probe.inputs), binding.drive(probe.drives), 0)
    finals: dict[str, Final] = {}
    tables: tuple[tuple[Role, dict[str, str]], ...] = (
        ("tap", {name: binding.taps[name] for name in item.taps if name in binding.taps}),
        ("output", {name: binding.outputs[name] for name in item.outputs}),
    )
    for role, pairs in tables:
        for name, there in pairs.items():
            ours, theirs = reference.node_of(role, name), candidate.node_of(role, there)
            if ours is None or theirs is None:
                continue
            if ours in source.facts and theirs in graph.nodes:
                allowed = allowance.of(name, probe)
                finals[theirs] = Final(
                    ours, Tolerance(allowed.atol * _ALMOST_WRONG, allowed.rtol * _ALMOST_WRONG)
                )
    matching = Matching(source, graph, values, finals, _inputs(reference, candidate, binding))
    suspects = _suspects(matching, finals)
    matching.place(suspects)
    first = _first(matching, _suspects(matching, finals))
    curve = [name for name in graph.nodes if name in matching.found]
    around = [] if first is None else _neighbours(matching, first, curve)
    partners = matching.partners
    errors = {
        name: _node_error(matching, name, partners)
        for name in (*curve, *([] if first is None else [first]))
    }
    return Bisection(
        first=None if first is None else errors[first],
        neighbours=tuple(errors[name] for name in around),
        curve=tuple(errors[name] for name in curve),
        runs=values.runs,
    )


def _inputs(reference: Subject, candidate: Subject, binding: Binding) -> dict[str, str]:
    """Return candidate's input -> the source's, as their nodes call them."""
    found = {}
    for name, there in binding.inputs.items():
        ours, theirs = reference.node_of("input", name), candidate.node_of("input", there)
        if ours is not None and theirs is not None:
            found[theirs] = ours
    return found


def _suspects(matching: Matching, finals: Mapping[str, Final]) -> list[str]:
    """Return what is not right on the ways to what is wrong in the end, in order."""
    waiting = [name for name in finals if name in matching.facts and not matching.is_right(name)]
    found = set(waiting)
    while waiting:
        for source in matching.graph.sources(waiting.pop()):
            if source not in found and not matching.is_right(source):
                found.add(source)
                waiting.append(source)
    return sorted(found, key=matching.graph.order.__getitem__)


def _first(matching: Matching, suspects: Sequence[str]) -> str | None:
    """Return the suspect where the error arises, as far as can be told."""
    roots = [name for name in suspects if all(map(matching.is_right, matching.graph.sources(name)))]
    # The sort is stable: of equally good ones the first in the order of computation.
    first = next(iter(sorted(roots, key=lambda name: _doubt(matching, name))), None)
    return None if first is None else _arisen(matching, first)


def _arisen(matching: Matching, root: str) -> str:
    """Return where the error of a tensor arose, within what is allowed; see 4. above."""
    if root not in matching.found:
        return root
    name, share = root, matching.found[root].gap.share
    least = share * _LIKE_SHARE
    best, most = root, 0.0
    while share >= least:
        shares = {
            source: matching.found[source].gap.share
            for source in matching.graph.sources(name)
            if matching.is_right(source) and matching.facts[source].is_float
        }
        before = max(shares, key=shares.__getitem__, default=None)
        growth = share / max(_NO_SHARE, 0.0 if before is None else shares[before])
        if growth > most:
            best, most = name, growth
        if before is None or matching.found[before].how == "final":
            break
        name, share = before, shares[before]
    return best


def _doubt(matching: Matching, name: str) -> int:
    """Return how little it says that a tensor is wrong while its inputs are right."""
    match = matching.found.get(name)
    if match is None:
        return 3
    if not matching.facts[name].is_float or matching.graph.nodes[name].op.lower() in _STEPS:
        return 2
    return 1 if match.how == "place" else 0


def _neighbours(matching: Matching, first: str, curve: Sequence[str]) -> list[str]:
    """Return compared tensors that the first wrong one depends on, and that depend on it."""
    shown = [name for name in curve if matching.facts[name].is_float]
    before, after = matching.graph.before(first), matching.graph.after([first])
    earlier = [name for name in shown if name in before]
    return earlier[-_NEIGHBOURS:] + [name for name in shown if name in after][:_NEIGHBOURS]


def _node_error(matching: Matching, name: str, partners: set[str]) -> NodeError:
    node, match = matching.graph.nodes[name], matching.found.get(name)
    layers = _layers(matching, name, partners)
    finite = match is not None and match.gap.max_abs < float("inf")
    return NodeError(
        name=name,
        op=node.op,
        layer=", ".join(layers) or node.layer,
        inputs=node.inputs,
        max_abs=match.gap.max_abs if match is not None and finite else None,
        scale=matching.source.facts[match.partner].largest if match is not None else None,
    )


def _layers(matching: Matching, name: str, partners: set[str]) -> list[str]:
    """Return the source's layers that a tensor of the candidate computes, in order.

    Between its partner and those of its inputs may lie more of the source's tensors: what a
    converter has folded into one.
    """
    graph, match = matching.source.graph, matching.found.get(name)
    if match is None:
        readers = [r for anchor in matching.anchors(name) for r in graph.readers.get(anchor, [])]
        between = {reader for reader in readers if reader not in partners}
    else:
        facts = matching.source.facts
        # What adds zero or copies holds the same values: it belongs to what is in front of it.
        given = [facts[anchor] for anchor in matching.anchors(name) if anchor in facts]
        between = {match.partner} & graph.nodes.keys()
        waiting = list(between)
        while waiting:
            for source in graph.sources(waiting.pop()):
                if source in between or source in partners:
                    continue
                if facts.get(source) not in given:
                    between.add(source)
                    waiting.append(source)
        if len(between) > _BETWEEN_MAX:
            between &= {match.partner}
    ordered = sorted(between, key=graph.order.__getitem__)
    return [layer for layer in dict.fromkeys(graph.nodes[node].layer for node in ordered) if layer]
