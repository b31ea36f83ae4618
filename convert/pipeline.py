"""From a source to a published bundle: freeze, export, prove, publish."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from stnkit.convert.agreement import Agreement, agreement_of
from stnkit.convert.artifact import ExportedArtifact
from stnkit.convert.bundle_files import bundle_files, bundle_name
from stnkit.convert.frozen import FrozenGraph, freeze
from stnkit.convert.keras_subject import KerasSubject
from stnkit.convert.labelled import LabelledImages, read_labelled
from stnkit.convert.meaning import assumptions, class_labels, image_preprocessing, model_range
from stnkit.convert.onnx import export_onnx
from stnkit.convert.options import FORMATS, ConversionOptions, Format, Sampler
from stnkit.convert.publish import check_target, publish
from stnkit.convert.reference import Answers, ask, check_freezing, contract_for, weak_spots
from stnkit.convert.source import SourceModel
from stnkit.convert.tflite import export_tflite
from stnkit.convert.tuning import (
    ProvenForm,
    TuningInputs,
    fastest_form,
    nothing_to_choose,
    sampler_forms,
)
from stnkit.runtime.equivalence.allowance import Allowance, allowance_for
from stnkit.runtime.equivalence.answers import Answer, driven_answers
from stnkit.runtime.equivalence.binding import same_names
from stnkit.runtime.equivalence.engine import check_candidate
from stnkit.runtime.equivalence.file_subject import FileSubject, Names
from stnkit.runtime.equivalence.options import CompareOptions
from stnkit.runtime.equivalence.probes import SEED, make_probes, real_probe
from stnkit.runtime.errors import InputError, MismatchError
from stnkit.runtime.manifest import Artifact, Manifest
from stnkit.runtime.manifest_records import Classes, Preprocessing
from stnkit.runtime.verification import ArtifactReport

__all__ = ["FORMATS", "ConversionOptions", "ConversionResult", "convert"]

Stage = Callable[[str], None]
_TITLES = {"tflite": "TFLite", "onnx": "ONNX"}


@dataclass(frozen=True)
class ConversionResult:
    """A published bundle and the evidence for it.

    Attributes:
        bundle: The bundle's folder.
        manifest: What is in it.
        reports: The proof of each artifact, in the manifest's order.
        agreement: Of the source first, then of each artifact; empty without labelled images.
        notes: Sentences on what was assumed, and on what the probes could not show.
    """

    bundle: Path
    manifest: Manifest
    reports: tuple[ArtifactReport, ...]
    agreement: tuple[Agreement, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Proven:
    """Artifacts that passed, with their content and their proofs, in the order of the formats.

    Notes are sentences on what was chosen among, for the user to know.
    """

    artifacts: tuple[Artifact, ...]
    contents: tuple[bytes, ...]
    reports: tuple[ArtifactReport, ...]
    notes: tuple[str, ...]


def convert(
    source: SourceModel,
    output: Path,
    options: ConversionOptions | None = None,
    *,
    force: bool = False,
    on_stage: Stage = lambda description: None,
) -> ConversionResult:
    """Convert a model, prove every artifact, and publish the bundle.

    Nothing is written to `output` before every artifact has passed. With `autotune` the fastest
    form that passed is published; see `stnkit.convert.tuning`.

    Args:
        source: The model.
        output: Folder of the bundle.
        options: What to make; None for the defaults.
        force: Whether a bundle at `output` is replaced.
        on_stage: Told what is being done.

    Returns:
        The bundle with its evidence.

    Raises:
        InputError: If `output` exists, or an option does not fit the model.
        ExportError: If an op cannot be exported; names it and its layer.
        MismatchError: If an artifact differs from the source.
        BackendMissingError: If a backend for the proof is not installed.
    """
    options = options or ConversionOptions()
    check_target(output, force)
    name = bundle_name(options.name or output.absolute().name)
    batch = _batch(source, options.batch)
    preprocessing = image_preprocessing(
        source.inputs, options.value_range, options.mean, options.std
    )
    value_range = model_range(preprocessing)
    on_stage("freezing the model")
    graph = freeze(source, batch)
    on_stage("running the model on the probes")
    answers = ask(source, graph, make_probes(source.inputs, batch, value_range))
    classes = class_labels(source.outputs, options.labels, [case.outputs for case in answers.cases])
    labelled = _labelled(options.samples, preprocessing, classes)
    if labelled is not None:
        real = real_probe(source.inputs[0], batch, labelled.images)
        if real is not None:
            more = ask(source, graph, [real])
            answers = Answers(answers.cases + more.cases, answers.frozen + more.frozen)
    subject = KerasSubject(source.origin.file, source, graph)
    plain = answers.plain()
    allowance = allowance_for(subject, plain, options.atol, SEED)
    contract = contract_for(source, graph, allowance.tolerances(), value_range)
    check_freezing(answers, contract)
    everything = [*plain, *driven_answers(subject, plain, SEED, batch)]
    prover = _Prover(graph, subject, everything, allowance, options, on_stage)
    inputs = TuningInputs(contract.signature, answers.cases, options.threads)
    proven = _prove(graph, options, prover, inputs, on_stage)
    agreement: tuple[Agreement, ...] = ()
    if labelled is not None and classes is not None:
        on_stage(f"classifying {len(labelled.images)} labelled images")
        pairs = list(zip(proven.artifacts, proven.contents, strict=True))
        agreement = agreement_of(source, pairs, labelled, classes, batch, options.threads)
    on_stage("publishing the bundle")
    notes = (
        *weak_spots(answers, contract),
        *assumptions(preprocessing, classes, source.layer_types),
        *proven.notes,
    )
    manifest, files = bundle_files(
        name=name,
        source=source.origin,
        contract=contract,
        cases=answers.cases,
        preprocessing=preprocessing,
        classes=classes,
        artifacts=proven.artifacts,
        contents=proven.contents,
        reports=proven.reports,
        agreement=agreement,
        notes=notes,
    )
    publish(output, files, force)
    return ConversionResult(output, manifest, proven.reports, agreement, notes)


def _batch(source: SourceModel, wanted: int | None) -> int | None:
    """Return the batch size to convert for: what was asked for, unless the model fixes it.

    Raises:
        InputError: If the model fixes another one than was asked for.
    """
    fixed = {spec.shape[0] for spec in source.inputs if isinstance(spec.shape[0], int)}
    if not fixed:
        return wanted
    own = fixed.pop()
    if fixed or wanted not in (None, own):
        raise InputError(
            f"the model takes batches of exactly {own}, as it was built: --batch {wanted} does not "
            "fit it"
        )
    assert isinstance(own, int)
    return own


def _prove(
    graph: FrozenGraph,
    options: ConversionOptions,
    prove: _Prover,
    inputs: TuningInputs,
    on_stage: Stage,
) -> _Proven:
    """Return a proven artifact of every format, the fastest where there is a choice.

    Raises:
        ExportError: If an op cannot be exported.
        MismatchError: If an artifact differs.
    """
    kept: list[ProvenForm] = []
    notes: list[str] = []
    chose = False
    for format in options.formats:
        forms = sampler_forms(graph, format, options) if options.autotune else {}
        if len(forms) < 2:
            kept.append(prove(format, options.sampler))
            continue
        form, said = fastest_form(forms, partial(prove, format), inputs, on_stage)
        chose = True
        kept.append(form)
        notes += said
    if options.autotune and not chose:
        notes.append(nothing_to_choose(options.formats))
    return _Proven(
        tuple(form.record for form in kept),
        tuple(form.content for form in kept),
        tuple(form.proof for form in kept),
        tuple(notes),
    )


@dataclass(frozen=True)
class _Prover:
    """Exports one form of the model and compares it with the source's answers."""

    graph: FrozenGraph
    subject: KerasSubject
    answers: Sequence[Answer]
    allowance: Allowance
    options: ConversionOptions
    on_stage: Stage

    def __call__(self, format: Format, sampler: Sampler, label: str = "") -> ProvenForm:
        """Return the artifact with its proof.

        Args:
            format: What to write.
            sampler: How samplers are written in ONNX.
            label: Follows the format and the file where progress is shown.

        Raises:
            ExportError: If an op cannot be exported.
            MismatchError: If it differs.
        """
        self.on_stage(f"exporting to {_TITLES[format]}{label}")
        exported = _export(self.graph, format, self.options.opset, sampler)
        record = _record(exported)
        self.on_stage(f"comparing {record.file}{label} with the model")
        names = Names(record.inputs, record.outputs, record.taps)
        artifact = FileSubject(record.file, exported.content, names, self.options.threads)
        try:
            # What is written is float32, whatever the file says of itself.
            strict = CompareOptions(precision="float32")
            found = check_candidate(
                self.subject, artifact, same_names(artifact), self.answers, self.allowance, strict
            )
        finally:
            artifact.close()
        if not found.passed:
            causes = [f"{item.cause}: {item.sentence}" for item in found.findings]
            raise MismatchError(record.file, found.proof.failures, causes[:1])
        errors = found.proof.measured_errors()
        return ProvenForm(replace(record, errors=errors), exported.content, found.proof)


def _export(graph: FrozenGraph, format: Format, opset: int, sampler: Sampler) -> ExportedArtifact:
    if format == "tflite":
        return export_tflite(graph)
    return export_onnx(graph, opset, sampler)


def _record(exported: ExportedArtifact) -> Artifact:
    content = exported.content
    return Artifact(
        file=f"model.fp32.{exported.format}",
        format=exported.format,
        precision="fp32",
        sampler=exported.sampler,
        opset=exported.opset,
        batch="dynamic" if exported.batch is None else exported.batch,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        inputs=exported.inputs,
        outputs=exported.outputs,
        taps=exported.taps,
    )


def _labelled(
    folder: Path | None, preprocessing: Preprocessing | None, classes: Classes | None
) -> LabelledImages | None:
    if folder is None:
        return None
    if preprocessing is None or classes is None:
        raise InputError(
            "--samples needs a model from one float32 image of fixed size to scores of classes "
            "(where they are not probabilities, pass --labels); this one is another kind"
        )
    return read_labelled(folder, preprocessing, classes)
