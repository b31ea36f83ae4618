"""Gathering what `stnkit inspect` shows, as JSON values."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stnkit.runtime.errors import InputError

if TYPE_CHECKING:
    from stnkit.runtime.model_file import FileSummary


def inspect_file(path: Path) -> dict[str, Any]:
    """Return what is inside a `.tflite` or `.onnx` file.

    Raises:
        InputError: If it cannot be read or is damaged.
    """
    from stnkit.runtime import summarize

    try:
        content = path.read_bytes()
    except OSError as exc:
        raise InputError(f"{path}: cannot be read ({exc.strerror})") from exc
    try:
        summary = summarize(content)
    except InputError as exc:
        raise InputError(f"{path}: {exc}") from exc
    return {"kind": "file", "name": path.name, "files": [_file(path.name, summary, None)]}


def inspect_bundle(path: Path) -> dict[str, Any]:
    """Return what is inside a bundle, after checking it whole.

    Raises:
        BundleError: If it is damaged.
    """
    from stnkit.runtime import open_bundle, summarize

    bundle = open_bundle(path)
    manifest = bundle.manifest
    files = []
    for artifact in manifest.artifacts:
        entry = _file(artifact.file, summarize(bundle.read(artifact.file)), artifact.precision)
        entry["sampler"] = artifact.sampler
        entry["batch"] = artifact.batch
        entry["autotune"] = artifact.autotune and artifact.autotune.to_json()
        files.append(entry)
    return {
        "kind": "bundle",
        "name": manifest.name,
        "source": manifest.source.to_json(),
        "created_by": dict(manifest.created_by),
        "inputs": [spec.to_json() for spec in manifest.signature.inputs],
        "outputs": [spec.to_json() for spec in manifest.signature.outputs],
        "transformers": _transformers(
            (tap.transformer, tap.kind, list(tap.shape)) for tap in manifest.taps
        ),
        "classes": manifest.classes.to_json() if manifest.classes else None,
        "files": files,
    }


def inspect_model(what: str, custom_objects: Iterable[str], trusted: bool) -> dict[str, Any]:
    """Return what is inside a Keras model.

    Raises:
        InputError: If it cannot be loaded.
        BackendMissingError: If TensorFlow is not installed.
    """
    from stnkit.cli.extras import require_convert
    from stnkit.convert.model_path import SUFFIXES

    path = Path(what)
    if path.is_dir() and not (path / "saved_model.pb").exists():
        raise InputError(
            f"{what}: has neither a manifest.json nor a saved_model.pb: expected a bundle or a "
            "SavedModel folder"
        )
    if path.is_file() and path.suffix.lower() not in sum(SUFFIXES.values(), ()):
        raise InputError(
            f"{what}: is nothing to inspect by its name: expected .keras, .h5, .tflite, .onnx, a "
            "bundle or a SavedModel folder"
        )
    require_convert()
    from stnkit.convert.frozen import freeze
    from stnkit.convert.source import load_source
    from stnkit.convert.weights import weights_summary

    source = load_source(what, custom_objects=custom_objects, trusted=trusted)
    graph = freeze(source, None)
    summary = weights_summary(graph)
    return {
        "kind": "model",
        "name": source.name,
        "source": source.origin.to_json(),
        "inputs": [spec.to_json() for spec in source.inputs],
        "outputs": [spec.to_json() for spec in source.outputs],
        "transformers": _transformers(
            (tap.spec.transformer, tap.spec.kind, list(tap.spec.shape)) for tap in graph.taps
        ),
        "ops": summary.ops,
        "weights_bytes": summary.weights_bytes,
        "weight_dtypes": summary.weight_dtypes,
        "constants_bytes": summary.constants_bytes,
    }


def _transformers(taps: Iterable[tuple[str, str, list[Any]]]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for transformer, kind, shape in taps:
        found.setdefault(transformer, {"name": transformer})[kind] = shape
    return list(found.values())


def _file(name: str, summary: FileSummary, precision: str | None) -> dict[str, Any]:
    # Tensors of spatial transformers are named <layer>/theta and <layer>/warped in every artifact.
    layers = sorted({tap.rsplit("/", 1)[0] for tap in summary.tap_names})
    return {
        "file": name,
        "precision": precision or _precision(summary),
        "transformers": [{"name": layer} for layer in layers],
        **summary.to_json(),
    }


def _precision(summary: FileSummary) -> str:
    floats = [name for name in summary.weight_dtypes if name.startswith(("float", "int8", "uint8"))]
    short = {"float32": "fp32", "float16": "fp16"}
    return "+".join(short.get(name, name) for name in sorted(floats)) or "unknown"
