"""Choosing among the forms of an artifact: each is proven, and the fastest that passed is kept.

ONNX has several forms for a model with samplers that one op can stand for: with DeformConv, with
GridSample, or with gathers. Which is fastest depends on the model, the runtime and the processor.

Those that passed have turns on this machine, through the backend that users run, and are compared
by the median ms an item, summed over the batch sizes: 1 and 8, or the fixed one. An item alone
takes longest, so that one that is waited for weighs most; what is faster in batches wins where that
is the same. Of two that take equally long the one is kept that is written without tuning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial

from stnkit.convert.frozen import FrozenGraph
from stnkit.convert.onnx.sampler_ops import chosen_ops, form_of
from stnkit.convert.options import ConversionOptions, Format, Sampler
from stnkit.runtime.autotune_record import Autotune, BatchTime, SamplerForm, TriedForm
from stnkit.runtime.backends import backend_for, open_runner
from stnkit.runtime.errors import (
    BackendError,
    ExportError,
    InputError,
    MismatchError,
    StnkitError,
    one_line,
)
from stnkit.runtime.golden import GoldenCase
from stnkit.runtime.manifest_records import Artifact
from stnkit.runtime.signature import Signature
from stnkit.runtime.timing import Machine, Quartiles
from stnkit.runtime.timing.bundle_timing import usual_batches
from stnkit.runtime.timing.inputs import TimingInputs, inputs_for
from stnkit.runtime.timing.machine import this_machine
from stnkit.runtime.timing.turns import take_turns
from stnkit.runtime.verification import ArtifactReport


@dataclass(frozen=True)
class ProvenForm:
    """An artifact that passed the proof.

    Attributes:
        record: Its entry in the manifest, with the errors that were measured.
        content: The bytes of the file.
        proof: Every comparison.
    """

    record: Artifact
    content: bytes = field(repr=False)
    proof: ArtifactReport


@dataclass(frozen=True)
class TuningInputs:
    """What forms are timed on.

    Attributes:
        signature: What the model takes.
        cases: Probes; noise stands for a batch size that none has.
        threads: Threads that share one run; None leaves it to the backend.
    """

    signature: Signature
    cases: Sequence[GoldenCase]
    threads: int | None


def sampler_forms(
    graph: FrozenGraph, format: Format, options: ConversionOptions
) -> Mapping[SamplerForm, Sampler]:
    """Return how the samplers of an artifact can be written, and what writes them so.

    Args:
        graph: The frozen source.
        format: What is written.
        options: Their `opset` decides which ops there are.

    Returns:
        At least one; the first is what is written without tuning. Where an op can stand for some
        samplers alone, the others are gathers in its form too.
    """
    if format != "onnx":
        return {"gather": "auto"}
    best = form_of(chosen_ops(graph, "auto", options.opset))
    forms: dict[SamplerForm, Sampler] = {best: "auto"}
    if best == "deform-conv":
        with suppress(ExportError):
            chosen_ops(graph, "grid-sample", options.opset)
            forms["grid-sample"] = "grid-sample"
    if best != "gather":
        forms["gather"] = "gather"
    return forms


def nothing_to_choose(formats: Sequence[Format]) -> str:
    """Return the sentence for a tuning without a choice: every format has one form."""
    why = "no ONNX op can stand for a sampler of this model" if "onnx" in formats else ""
    return f"--autotune had nothing to choose from: {why or 'TFLite has one form, with gathers'}"


def fastest_form(
    forms: Mapping[SamplerForm, Sampler],
    prove: Callable[[Sampler, str], ProvenForm],
    inputs: TuningInputs,
    on_stage: Callable[[str], None],
) -> tuple[ProvenForm, tuple[str, ...]]:
    """Prove every form, time those that pass, and return the fastest.

    Args:
        forms: What `sampler_forms` returned.
        prove: Exports and proves one, whose name for progress it is given too; raises where it
            does not pass.
        inputs: What they are timed on.
        on_stage: Told what is being done.

    Returns:
        The form, with the times of all in its record; and sentences on forms that were dropped
        and on a busy machine.

    Raises:
        StnkitError: If none passes: what the first one failed with.
        InputError: If what they would be timed on takes too much memory.
        BackendError: If a form that passed fails at a batch size that no probe has.
    """
    proven: dict[SamplerForm, ProvenForm] = {}
    dropped: dict[SamplerForm, StnkitError] = {}
    for name, sampler in forms.items():
        try:
            proven[name] = prove(sampler, f" ({name})")
        except (MismatchError, ExportError, BackendError) as exc:
            dropped[name] = exc
    if not proven:
        raise next(iter(dropped.values()))
    machine = this_machine()  # before the load is of our making
    times, version = _times(proven, inputs, on_stage)
    tried = {name: TriedForm(name, times=times[name]) for name in proven}
    best = min(proven, key=lambda name: tried[name].item_ms)
    tried |= {name: TriedForm(name, dropped=one_line(error)) for name, error in dropped.items()}
    kept = proven[best]
    autotune = Autotune(
        forms=tuple(tried[name] for name in forms),
        backend=backend_for(kept.record.format).name,
        backend_version=version,
        threads=inputs.threads,
        cpu=machine.cpu,
        architecture=machine.architecture or "unknown",
        cores=machine.cores,
        usable_cores=machine.usable_cores,
    )
    notes = [
        f"the {name} form of {kept.record.file} did not pass and was dropped: {one_line(error)}"
        for name, error in dropped.items()
    ]
    return replace(kept, record=replace(kept.record, autotune=autotune)), (
        *notes,
        *_doubts(machine, kept.record.file),
    )


def _times(
    proven: dict[SamplerForm, ProvenForm], inputs: TuningInputs, on_stage: Callable[[str], None]
) -> tuple[dict[SamplerForm, tuple[BatchTime, ...]], str]:
    """Return the times of every form, and the backend's version.

    One batch size at a time, because a session that changes between sizes allocates anew.
    """
    times: dict[SamplerForm, tuple[BatchTime, ...]] = dict.fromkeys(proven, ())
    record = next(iter(proven.values())).record
    backend, version = backend_for(record.format).name, ""
    for batch, run_on in _inputs(record, inputs):
        *others, last = proven
        names = f"{', '.join(others)} and {last}" if others else last
        on_stage(f"timing {names} at batch {batch}")
        with ExitStack() as stack:
            functions: dict[str, Callable[[], object]] = {}
            for name, form in proven.items():
                runner = open_runner(backend, form.content, form.record, threads=inputs.threads)
                stack.callback(runner.close)
                functions[name] = partial(runner.run, run_on.arrays)
                version = runner.version
            turns = take_turns(functions)
        for name in proven:
            found = Quartiles.of(turns[name].rounds_ms)
            times[name] += (BatchTime(batch, found.median, found.q1, found.q3),)
    return times, version


def _inputs(record: Artifact, inputs: TuningInputs) -> list[tuple[int, TimingInputs]]:
    """Return the batch sizes with their inputs; one that would take too much memory is left out.

    Raises:
        InputError: If the first one would.
    """
    found: list[tuple[int, TimingInputs]] = []
    for batch in usual_batches(inputs.signature, record):
        try:
            found.append((batch, inputs_for(inputs.signature, inputs.cases, batch)))
        except InputError:
            if not found:
                raise
    return found


def _doubts(machine: Machine, file: str) -> tuple[str, ...]:
    if not machine.busy:
        return ()
    return (
        f"the load average was {machine.load_average:.1f} on {machine.cores} cores when the forms "
        f"of {file} were timed: the choice is surer on a quiet machine",
    )
