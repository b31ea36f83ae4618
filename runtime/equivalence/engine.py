"""Compare models of any kind with a reference, on probes that find what goes wrong in practice."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from stnkit.runtime.compare import Comparison
from stnkit.runtime.equivalence.allowance import Allowance, allowance_for
from stnkit.runtime.equivalence.answers import Answer, answer, driven_answers
from stnkit.runtime.equivalence.binding import Binding, bind, to_nchw, to_nhwc
from stnkit.runtime.equivalence.bisection import bisect
from stnkit.runtime.equivalence.candidate_answers import candidate_answers
from stnkit.runtime.equivalence.diagnosis import diagnose
from stnkit.runtime.equivalence.judging import (
    STATED,
    AllowanceLike,
    ErrorBudgets,
    Judge,
    StatedBudgets,
)
from stnkit.runtime.equivalence.opening import open_subjects
from stnkit.runtime.equivalence.options import CompareOptions
from stnkit.runtime.equivalence.probes import make_probes
from stnkit.runtime.equivalence.real_data import real_probes
from stnkit.runtime.equivalence.results import CandidateReport, EquivalenceReport, ProbeRecord
from stnkit.runtime.equivalence.stored_values import check_stored_values
from stnkit.runtime.equivalence.subject import Node, Role, Subject
from stnkit.runtime.equivalence.tap_finding import reveal_taps, unseen
from stnkit.runtime.equivalence.views import views_of
from stnkit.runtime.errors import InputError
from stnkit.runtime.file_constants import Constant
from stnkit.runtime.file_precision import Precision
from stnkit.runtime.statistics import Ranking, ranking
from stnkit.runtime.verification import ArtifactReport

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "check_candidate",
    "compare_models",
    "compare_subjects",
    "tool_versions",
]

_TOOLS = (
    "stnkit",
    "numpy",
    "tensorflow",
    "keras",
    "onnxruntime",
    "onnxruntime-gpu",
    "ai-edge-litert",
)


def compare_models(
    reference: Any, candidates: Sequence[Any], options: CompareOptions | None = None
) -> EquivalenceReport:
    """Compare candidates with a reference.

    Args:
        reference: path of a Keras model, SavedModel, TFLite or ONNX file, or of a bundle; the name
            of a shipped model; or a Keras model in memory.
        candidates: the same, one at least; a bundle counts as all its artifacts.
        options: how; None for the defaults.

    Returns:
        The report; a difference is in it, not raised.

    Raises:
        InputError: there is no such file, it is damaged, or inputs and outputs do not match.
        BackendMissingError: what would run a model is not installed.
        BackendError: a backend refuses a model or fails.
    """
    options = options or CompareOptions()
    if not candidates:
        raise InputError(f"{reference}: nothing to compare it with: name another model")
    with _opened([reference], options) as firsts, _opened(candidates, options) as others:
        # Of a bundle as the reference its first artifact counts, and the rest are compared to it.
        first, *rest = firsts
        return compare_subjects(first, [*rest, *others], options)


@contextmanager
def _opened(models: Sequence[Any], options: CompareOptions) -> Iterator[list[Subject]]:
    found: list[Subject] = []
    try:
        for model in models:
            found += open_subjects(
                model,
                threads=options.threads,
                custom_objects=options.custom_objects,
                trusted=options.trusted,
            )
        yield found
    finally:
        for subject in found:
            subject.close()


def compare_subjects(
    reference: Subject, candidates: Sequence[Subject], options: CompareOptions
) -> EquivalenceReport:
    """Compare subjects; see `compare_models`."""
    started = time.perf_counter()
    if options.layouts.get(0) == "nchw":
        reference = _Transposed(reference)
    for candidate in candidates:
        candidate.rest()  # that a backend takes it has been seen
    batch = _batch([reference, *candidates])
    bindings = [
        bind(reference, candidate, options.maps, options.layouts.get(number, "nhwc"))
        for number, candidate in enumerate(candidates, start=1)
    ]
    probes = make_probes(reference.inputs, batch, options.value_range, options.seed)
    probes += real_probes(options.data, reference.inputs, batch)
    answers = [item for probe in probes if (item := answer(reference, probe)) is not None]
    allowance = allowance_for(reference, answers, options.atol, options.seed)
    _check_overrides(options, allowance)
    if options.drive:
        answers += driven_answers(reference, answers, options.seed, batch)
    reference.rest()
    reports = []
    for candidate, binding in zip(candidates, bindings, strict=True):
        reports.append(check_candidate(reference, candidate, binding, answers, allowance, options))
        # One model's copies of its weights at a time.
        candidate.rest()
    return EquivalenceReport(
        reference=reference.name,
        reference_format=reference.format,
        candidates=tuple(reports),
        tolerances=allowance.tolerances(),
        reasons=allowance.reasons(),
        probes=tuple(
            ProbeRecord(
                item.probe.name,
                item.probe.batch,
                item.probe.seed,
                tuple(name.rpartition("/")[0] for name in item.probe.thetas),
            )
            for item in answers
        ),
        versions=tool_versions(),
        seconds=time.perf_counter() - started,
    )


def _batch(subjects: Sequence[Subject]) -> int | None:
    """Return the batch size that all take; None where all take any.

    Raises:
        InputError: two take different ones alone.
    """
    fixed = {subject.batch: subject.name for subject in subjects if subject.batch is not None}
    if len(fixed) > 1:
        listed = ", ".join(f"{name} takes {size}" for size, name in fixed.items())
        raise InputError(f"there is no batch size that all of them take: {listed}")
    return next(iter(fixed), None)


def _check_overrides(options: CompareOptions, allowance: Allowance) -> None:
    known = {"outputs", "theta", "warped", *allowance.budgets}
    for name in options.atol:
        if name not in known:
            raise InputError(f"--atol {name}: there is {', '.join(sorted(known))}")


def check_candidate(
    reference: Subject,
    candidate: Subject,
    binding: Binding,
    answers: Sequence[Answer],
    allowance: AllowanceLike,
    options: CompareOptions,
) -> CandidateReport:
    """Run a candidate on every probe and compare it with the reference's answers.

    Args:
        reference: the reference; it is asked again only to explain a difference.
        candidate: the other model.
        binding: which tensor is which.
        answers: the reference's answers; probes that drive a theta which the candidate does not
            show are skipped.
        allowance: what may differ.
        options: how much is explained and kept.

    Raises:
        InputError: the candidate cannot run on a probe.
        BackendError: its backend fails.
    """
    started = time.perf_counter()
    precision = options.precision or candidate.precision
    judge, notes = _judge(reference, candidate, allowance, precision, answers)
    drivable = set(binding.taps)  # what is found by its values is read, never given
    if precision != "float32":
        binding = reveal_taps(reference, candidate, binding, answers)
    comparisons: list[Comparison] = []
    skipped: list[str] = []
    rankings: dict[str, Ranking] = {}
    asked: list[Answer] = []
    for item in answers:
        if drivable.issuperset(item.probe.drives) and judge.takes(item.probe):
            asked.append(item)
        else:
            skipped.append(item.probe.name)
    received = list(zip(asked, candidate_answers(candidate, binding, asked), strict=True))
    for item, found in received:
        if precision != "float32":
            comparisons += unseen(binding, item)
        for name, expected in {**item.outputs, **item.taps}.items():
            values = {**found.outputs, **found.taps}.get(name)
            if values is None:
                continue
            result = judge.compare(name, item, expected, values)
            comparisons.append(result)
            if result.kind == "output" and result.reason is None and not item.probe.thetas:
                _add_ranking(rankings, name, ranking(expected, values))
    if precision == "float32" and reference is not candidate:
        comparisons += check_stored_values(reference, candidate)
    report = CandidateReport(
        proof=ArtifactReport(
            file=candidate.name,
            backend=candidate.backend,
            backend_version=candidate.backend_version,
            comparisons=tuple(comparisons),
            seconds=time.perf_counter() - started,
            skipped_cases=tuple(skipped),
        ),
        format=candidate.format,
        rankings=rankings,
        views=views_of(reference, received) if options.views else (),
        notes=(*notes, *binding.notes),
        precision=precision,
    )
    # Of stored answers there is no reference that could be asked, nor looked into.
    if report.passed or reference is candidate:
        return report
    telling = _smallest_failed(received, comparisons)
    # A model of low precision leaves its source everywhere, one with damaged constants nowhere.
    if options.bisect and precision == "float32" and telling is not None:
        found_at = bisect(reference, candidate, binding, telling, allowance)
        report = replace(report, bisection=found_at)
    return replace(
        report,
        findings=diagnose(reference, candidate, binding, received, comparisons, report.bisection),
    )


def _judge(
    reference: Subject,
    candidate: Subject,
    allowance: AllowanceLike,
    precision: Precision,
    answers: Sequence[Answer],
) -> tuple[Judge, tuple[str, ...]]:
    """Return who judges a candidate, and what the user should know of it."""
    if precision == "float32":
        return ErrorBudgets(reference, allowance), ()
    budget = STATED[precision]
    judge = StatedBudgets(reference, allowance, budget, answers)
    return judge, (budget.sentence(precision),)


def _smallest_failed(
    received: Sequence[tuple[Answer, Answer]], comparisons: Sequence[Comparison]
) -> Answer | None:
    """Return the smallest probe that failed, one that drives no theta where there is one."""
    failed = {item.case for item in comparisons if not item.passed}
    items = [item for item, _ in received if item.probe.name in failed]
    return min(items, key=lambda it: (bool(it.probe.thetas), it.probe.batch), default=None)


def _add_ranking(rankings: dict[str, Ranking], name: str, found: Ranking | None) -> None:
    if found is None:
        return
    old = rankings.get(name, Ranking(0, 0, 0, found.k))
    rankings[name] = Ranking(
        old.items + found.items, old.top1 + found.top1, old.topk + found.topk, found.k
    )


def tool_versions() -> dict[str, str]:
    """Return the version of every package that may have taken part, where it is installed."""
    found = {}
    for name in _TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class _Transposed(Subject):
    """A reference in NCHW, seen from outside in NHWC."""

    def __init__(self, inner: Subject) -> None:
        self._inner = inner
        self.name, self.format, self.taps = inner.name, inner.format, inner.taps
        self.backend, self.backend_version = inner.backend, inner.backend_version
        self.inputs = tuple(replace(spec, shape=_last(spec.shape)) for spec in inner.inputs)
        self.outputs = tuple(replace(spec, shape=_last(spec.shape)) for spec in inner.outputs)

    def run(
        self,
        inputs: Any,
        *,
        taps: bool = False,
        drives: Any = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the model with its axes swapped on the way."""
        there = {name: to_nchw(value) for name, value in inputs.items()}
        found = self._inner.run(there, taps=taps, drives=drives)
        return {name: to_nhwc(value) for name, value in found.items()}

    def nodes(self) -> tuple[Node, ...]:
        """Return those of the model."""
        return self._inner.nodes()

    def node_of(self, role: Role, name: str) -> str | None:
        """Return that of the model."""
        return self._inner.node_of(role, name)

    def fetch(self, inputs: Any, names: Any, drives: Any = None) -> dict[str, npt.NDArray[Any]]:
        """Return tensors as they are inside, in NCHW."""
        there = {name: to_nchw(value) for name, value in inputs.items()}
        return self._inner.fetch(there, names, drives)

    def constants(self) -> Iterable[Constant]:
        """Return those of the model."""
        return self._inner.constants()

    def rounding_length(self) -> float:
        """Return that of the model."""
        return self._inner.rounding_length()

    def rest(self) -> None:
        """Let the model rest."""
        self._inner.rest()


def _last(shape: tuple[int | str, ...]) -> tuple[int | str, ...]:
    return (shape[0], shape[2], shape[3], shape[1]) if len(shape) == 4 else shape
