"""The files of a bundle, in memory."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from importlib.metadata import version

from stnkit.convert.agreement import Agreement
from stnkit.runtime.golden import GoldenCase, write_golden
from stnkit.runtime.manifest import (
    Artifact,
    Classes,
    FileRecord,
    Manifest,
    Preprocessing,
    Source,
    write_manifest,
)
from stnkit.runtime.signature import Contract
from stnkit.runtime.verification import ArtifactReport

_TOOLS = ("stnkit", "tensorflow", "keras", "tf2onnx", "onnx", "numpy")


def bundle_name(text: str) -> str:
    """Return a name that a manifest may have, from that of a folder."""
    stem = re.sub(r"\.bundle$", "", text)
    return re.sub(r"[^A-Za-z0-9._-]", "-", stem).strip(".-")[:128] or "model"


def bundle_files(
    *,
    name: str,
    source: Source,
    contract: Contract,
    cases: Sequence[GoldenCase],
    preprocessing: Preprocessing | None,
    classes: Classes | None,
    artifacts: Sequence[Artifact],
    contents: Sequence[bytes],
    reports: Sequence[ArtifactReport],
    agreement: Sequence[Agreement],
    notes: Sequence[str],
) -> tuple[Manifest, dict[str, bytes]]:
    """Return the manifest, and the content of every file of the bundle by its name."""
    golden = write_golden(cases)
    evidence = {
        "schema_version": 1,
        "tolerances": contract.tolerances.to_json(),
        "artifacts": [report.to_json() for report in reports],
        "labelled_images": [row.to_json() for row in agreement],
        "notes": list(notes),
    }
    equivalence = (json.dumps(evidence, indent=2) + "\n").encode()
    manifest = Manifest(
        name=name,
        created_by={tool: version(tool) for tool in _TOOLS},
        source=source,
        signature=contract.signature,
        taps=contract.taps,
        preprocessing=preprocessing,
        classes=classes,
        artifacts=tuple(artifacts),
        golden=_record("golden.npz", golden),
        equivalence=_record("equivalence.json", equivalence),
        tolerances=contract.tolerances,
    )
    files = {record.file: data for record, data in zip(artifacts, contents, strict=True)}
    files |= {"golden.npz": golden, "equivalence.json": equivalence}
    return manifest, {**files, "manifest.json": write_manifest(manifest)}


def _record(name: str, content: bytes) -> FileRecord:
    return FileRecord(name, hashlib.sha256(content).hexdigest(), len(content))
