"""From a source to a published bundle: freeze, export, prove, publish."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stnkit.convert.artifact import ExportedArtifact
from stnkit.convert.frozen import FrozenGraph, freeze
from stnkit.convert.labelled import Agreement, LabelledImages, predicted_classes, read_labelled
from stnkit.convert.meaning import class_labels, image_preprocessing, model_range
from stnkit.convert.onnx import export_onnx
from stnkit.convert.probes import Probe, make_probes
from stnkit.convert.publish import check_target, publish
from stnkit.convert.source import SourceModel
from stnkit.convert.tflite import export_tflite
from stnkit.runtime.backends import backend_for, open_runner
from stnkit.runtime.compare import Tolerance, compare
from stnkit.runtime.errors import InputError, MismatchError
from stnkit.runtime.golden import GoldenCase, write_golden
from stnkit.runtime.manifest import Artifact, FileRecord, Manifest, write_manifest
from stnkit.runtime.manifest_records import Classes, Preprocessing
from stnkit.runtime.signature import Contract, Signature, Tolerances
from stnkit.runtime.verification import ArtifactReport, check_artifact, raise_on_mismatch

Format = Literal["tflite", "onnx"]
FORMATS: tuple[Format, ...] = ("tflite", "onnx")

TOLERANCES = Tolerances(
    outputs=Tolerance(atol=1e-5, rtol=1e-5),
    theta=Tolerance(atol=1e-5, rtol=1e-5),
    warped=Tolerance(atol=1e-4, rtol=1e-5),
)
"""What a float32 artifact may differ by. The warped image gets more, because an error of theta is
multiplied by half the image's side and by the steepest step between two pixels."""

_TOOLS = ("stnkit", "tensorflow", "keras", "tf2onnx", "onnx", "numpy")


@dataclass(frozen=True)
class ConversionOptions:
    """What to make of a model.

    Attributes:
        formats: Formats to write, in the order of preference at run time.
        opset: ONNX opset.
        batch: Fixed batch size, or None for a dynamic batch.
        name: Name of the bundle; None takes that of the output folder.
        labels: Names of the classes, in order.
        value_range: Values of black and white in the model's image input, before mean and std.
        mean: Subtracted from the image, a number a channel.
        std: Divided by, a number a channel.
        samples: Folder of labelled images, to count classes that stay the same.
        threads: Threads of one run in the proof; None leaves it to the backend.
    """

    formats: tuple[Format, ...] = FORMATS
    opset: int = 17
    batch: int | None = None
    name: str | None = None
    labels: tuple[str, ...] | None = None
    value_range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    samples: Path | None = None
    threads: int | None = None


@dataclass(frozen=True)
class ConversionResult:
    """A published bundle and the evidence for it.

    Attributes:
        bundle: The bundle's folder.
        manifest: What is in it.
        reports: The proof of each artifact, in the manifest's order.
        agreement: Of the source first, then of each artifact; empty without labelled images.
    """

    bundle: Path
    manifest: Manifest
    reports: tuple[ArtifactReport, ...]
    agreement: tuple[Agreement, ...]


Stage = Callable[[str], None]


def convert(
    source: SourceModel,
    output: Path,
    options: ConversionOptions | None = None,
    *,
    force: bool = False,
    on_stage: Stage = lambda description: None,
) -> ConversionResult:
    """Convert a model, prove every artifact, and publish the bundle.

    Nothing is written to `output` before every artifact has passed.

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
    if not options.formats:
        raise InputError("no format was asked for: expected tflite, onnx or both")
    check_target(output, force)
    on_stage("freezing the model")
    graph = freeze(source, options.batch)
    preprocessing = image_preprocessing(
        source.inputs, options.value_range, options.mean, options.std
    )
    on_stage("running the model on the probes")
    contract = Contract(
        signature=_signature(source, model_range(preprocessing), options.batch),
        taps=tuple(_fixed(tap.spec, options.batch) for tap in graph.taps),
        tolerances=TOLERANCES,
    )
    probes = make_probes(source.inputs, options.batch, model_range(preprocessing))
    cases = _golden_cases(source, graph, probes, contract)
    classes = class_labels(source.outputs, options.labels, dict(cases[0].outputs))
    labelled = _labelled(options.samples, preprocessing, classes)
    if labelled is not None:
        real = make_probes(
            source.inputs, options.batch, model_range(preprocessing), labelled.images
        )
        cases += _golden_cases(source, graph, real[len(probes) :], contract)

    artifacts: list[Artifact] = []
    reports: list[ArtifactReport] = []
    contents: dict[str, bytes] = {}
    for format in options.formats:
        on_stage(f"exporting to {_TITLES[format]}")
        exported = export_tflite(graph) if format == "tflite" else export_onnx(graph, options.opset)
        record = _record(exported)
        on_stage(f"comparing {record.file} with the model")
        report = check_artifact(exported.content, record, contract, cases, options.threads)
        raise_on_mismatch(report)
        artifacts.append(replace(record, errors=report.measured_errors()))
        reports.append(report)
        contents[record.file] = exported.content

    agreement: tuple[Agreement, ...] = ()
    if labelled is not None and classes is not None:
        on_stage(f"classifying {len(labelled.images)} labelled images")
        agreement = _agreement(
            source, artifacts, contents, labelled, classes, options.batch, options.threads
        )
    on_stage("publishing the bundle")
    golden = write_golden(cases)
    evidence = _evidence(reports, agreement)
    manifest = Manifest(
        name=_bundle_name(options.name or output.name),
        created_by={tool: version(tool) for tool in _TOOLS},
        source=source.origin,
        signature=contract.signature,
        taps=contract.taps,
        preprocessing=preprocessing,
        classes=classes,
        artifacts=tuple(artifacts),
        golden=_file_record("golden.npz", golden),
        equivalence=_file_record("equivalence.json", evidence),
        tolerances=TOLERANCES,
    )
    files = {
        **contents,
        "golden.npz": golden,
        "equivalence.json": evidence,
        "manifest.json": write_manifest(manifest),
    }
    publish(output, files, force)
    return ConversionResult(output, manifest, tuple(reports), agreement)


_TITLES = {"tflite": "TFLite", "onnx": "ONNX"}


def _signature(
    source: SourceModel, value_range: tuple[float, float], batch: int | None
) -> Signature:
    inputs = tuple(
        replace(spec, range=value_range if spec.layout and spec.dtype.startswith("float") else None)
        for spec in source.inputs
    )
    return Signature(
        tuple(_fixed(spec, batch) for spec in inputs),
        tuple(_fixed(spec, batch) for spec in source.outputs),
    )


def _fixed(spec: Any, batch: int | None) -> Any:
    return spec if batch is None else replace(spec, shape=(batch, *spec.shape[1:]))


def _golden_cases(
    source: SourceModel, graph: FrozenGraph, probes: Sequence[Probe], contract: Contract
) -> list[GoldenCase]:
    """Return the source's answers: outputs from the model itself, taps from its frozen graph.

    Raises:
        InputError: If the model gives NaN or infinity on a probe.
        MismatchError: If freezing changed an output.
    """
    runner = graph.runner()
    cases = []
    for probe in probes:
        outputs = source.run(probe.inputs)
        frozen_outputs, taps = runner.run(probe.inputs)
        for name, values in {**outputs, **taps}.items():
            if not np.isfinite(values).all():
                raise InputError(
                    f"the model itself gives NaN or infinity at {name!r} for the probe "
                    f"{probe.name!r}: there is nothing to compare with; check its weights"
                )
        checks = [
            compare(name, "output", probe.name, value, frozen_outputs[name], TOLERANCES.outputs)
            for name, value in outputs.items()
        ]
        failed = [check for check in checks if not check.passed]
        if failed:
            raise MismatchError("the frozen graph", failed)
        cases.append(GoldenCase(probe.name, probe.inputs, outputs, taps))
    return cases


def _labelled(
    folder: Path | None, preprocessing: Preprocessing | None, classes: Classes | None
) -> LabelledImages | None:
    if folder is None:
        return None
    if preprocessing is None or classes is None:
        raise InputError(
            "--samples needs a model from one image of fixed size to scores of classes; this one "
            "is another kind"
        )
    return read_labelled(folder, preprocessing, classes)


def _record(exported: ExportedArtifact) -> Artifact:
    content = exported.content
    return Artifact(
        file=f"model.fp32.{exported.format}",
        format=exported.format,
        precision="fp32",
        sampler="gather",
        opset=exported.opset,
        batch="dynamic" if exported.batch is None else exported.batch,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        inputs=exported.inputs,
        outputs=exported.outputs,
        taps=exported.taps,
    )


def _agreement(
    source: SourceModel,
    artifacts: Sequence[Artifact],
    contents: dict[str, bytes],
    labelled: LabelledImages,
    classes: Classes,
    batch: int | None,
    threads: int | None,
) -> tuple[Agreement, ...]:
    """Return how source and artifacts classify the labelled images.

    Raises:
        MismatchError: Never; a class that changed is counted, because a tie may fall either way.
    """
    name, count = source.inputs[0].name, len(labelled.images)
    truth = predicted_classes(source.run, labelled.images, classes, name, batch)

    def counted(label: str, found: Any) -> Agreement:
        return Agreement(
            label, count, int((found == labelled.classes).sum()), int((found == truth).sum())
        )

    rows = [counted("source", truth)]
    for artifact in artifacts:
        backend = backend_for(artifact.format).name
        runner = open_runner(backend, contents[artifact.file], artifact, threads=threads)
        try:
            found = predicted_classes(runner.run, labelled.images, classes, name, batch)
        finally:
            runner.close()
        rows.append(counted(artifact.file, found))
    return tuple(rows)


def _evidence(reports: Sequence[ArtifactReport], agreement: Sequence[Agreement]) -> bytes:
    document = {
        "schema_version": 1,
        "tolerances": TOLERANCES.to_json(),
        "artifacts": [report.to_json() for report in reports],
        "labelled_images": [row.to_json() for row in agreement],
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def _file_record(name: str, content: bytes) -> FileRecord:
    return FileRecord(name, hashlib.sha256(content).hexdigest(), len(content))


def _bundle_name(text: str) -> str:
    stem = re.sub(r"\.bundle$", "", text)
    return re.sub(r"[^A-Za-z0-9._-]", "-", stem).strip(".-")[:128] or "model"
