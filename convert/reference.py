"""What an artifact is compared with: the source's answers, and by how much they may differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from stnkit.convert.frozen import FrozenGraph
from stnkit.convert.source import SourceModel
from stnkit.runtime.compare import compare
from stnkit.runtime.equivalence.answers import Answer
from stnkit.runtime.equivalence.probes import Probe
from stnkit.runtime.errors import InputError, MismatchError
from stnkit.runtime.golden import GOLDEN_EXPANDED_BYTES_MAX, GoldenCase
from stnkit.runtime.signature import Contract, Signature, TapSpec, TensorSpec, Tolerances

_Spec = TypeVar("_Spec", TensorSpec, TapSpec)


@dataclass(frozen=True)
class Answers:
    """The source's answers to the probes.

    Attributes:
        cases: Inputs, outputs and taps of every probe; the outputs come from the model itself.
        frozen: The outputs of its frozen graph, a dict for each case.
    """

    cases: tuple[GoldenCase, ...]
    frozen: tuple[dict[str, Any], ...]

    def plain(self) -> list[Answer]:
        """Return the cases as the engine of comparison takes them."""
        return [
            Answer(Probe(case.name, dict(case.inputs)), case.outputs, case.taps)
            for case in self.cases
        ]


def ask(source: SourceModel, graph: FrozenGraph, probes: Sequence[Probe]) -> Answers:
    """Run the source and its frozen graph on the probes.

    Raises:
        InputError: If the model cannot run on a probe, gives NaN or infinity, or the answers take
            more space than a bundle may.
    """
    runner = graph.runner()
    cases, frozen = [], []
    size = 0
    for probe in probes:
        try:
            outputs = source.run(probe.inputs)
        except InputError:
            if probe.optional:
                continue
            raise
        if probe.optional and not all(np.isfinite(value).all() for value in outputs.values()):
            continue
        frozen_outputs, taps = runner.run(probe.inputs)
        for name, values in {**outputs, **taps}.items():
            if not np.isfinite(values).all():
                raise InputError(
                    f"the model itself gives NaN or infinity at {name!r} for the probe "
                    f"{probe.name!r}: there is nothing to compare with; check its weights"
                )
        case = GoldenCase(probe.name, probe.inputs, outputs, taps)
        size += sum(a.nbytes for part in (probe.inputs, outputs, taps) for a in part.values())
        if size > GOLDEN_EXPANDED_BYTES_MAX:
            raise InputError(
                f"the probes with their answers take more than {GOLDEN_EXPANDED_BYTES_MAX >> 20} "
                "MB: convert with a smaller --batch"
            )
        cases.append(case)
        frozen.append(frozen_outputs)
    return Answers(tuple(cases), tuple(frozen))


def contract_for(
    source: SourceModel,
    graph: FrozenGraph,
    tolerances: Tolerances,
    value_range: tuple[float, float],
) -> Contract:
    """Return the signature, the taps and the tolerances that an artifact has to keep."""
    ranged = tuple(
        replace(spec, range=value_range if spec.layout and spec.dtype.startswith("float") else None)
        for spec in source.inputs
    )
    return Contract(
        signature=Signature(
            tuple(_fixed(spec, graph.batch) for spec in ranged),
            tuple(_fixed(spec, graph.batch) for spec in source.outputs),
        ),
        taps=tuple(_fixed(tap.spec, graph.batch) for tap in graph.taps),
        tolerances=tolerances,
    )


def check_freezing(answers: Answers, contract: Contract) -> None:
    """Check that freezing left the outputs as they are.

    Raises:
        MismatchError: If an output of the frozen graph is not that of the model.
    """
    checks = [
        compare(name, "output", case.name, value, frozen[name], contract.tolerances.outputs)
        for case, frozen in zip(answers.cases, answers.frozen, strict=True)
        for name, value in case.outputs.items()
    ]
    failed = [check for check in checks if not check.passed]
    if failed:
        raise MismatchError("the frozen graph", failed)


def weak_spots(answers: Answers, contract: Contract) -> tuple[str, ...]:
    """Return sentences on what these probes cannot show, for the user to know.

    A tensor that is the same whatever the input is compared with one number only: an untrained
    transformer is the identity for every image.
    """
    found = []
    names = [(tap.name, "taps") for tap in contract.taps if tap.kind == "theta"]
    names += [(spec.name, "outputs") for spec in contract.signature.outputs]
    for name, part in names:
        items = [item for case in answers.cases for item in getattr(case, part)[name]]
        if len(items) > 1 and all(np.array_equal(item, items[0]) for item in items):
            what = "theta" if part == "taps" else "the output"
            found.append(
                f"{what} {name!r} was the same for every probe: is the model trained? What leads "
                "to it was hardly put to the test"
            )
    return tuple(found)


def _fixed(spec: _Spec, batch: int | None) -> _Spec:
    return spec if batch is None else replace(spec, shape=(batch, *spec.shape[1:]))
