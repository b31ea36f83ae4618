"""Read and write `manifest.json`, the contents page of a bundle.

The manifest protects itself: `sha256` at its top level is the hash of everything else in canonical
form (keys sorted, no spaces, ASCII), so that a flipped bit is either refused or changes nothing.
The JSON Schema of the file lies beside this module in `schema/manifest.schema.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stnkit.runtime.compare import Tolerance
from stnkit.runtime.errors import BundleError
from stnkit.runtime.json_reader import JsonNode, join_names, parse_json
from stnkit.runtime.manifest_records import (
    SHA256_PATTERN,
    Artifact,
    Classes,
    FileRecord,
    MeasuredErrors,
    Preprocessing,
    Source,
)
from stnkit.runtime.signature import NAME_PATTERN, Signature, TapSpec, TensorSpec, Tolerances

__all__ = [
    "MANIFEST_BYTES_MAX",
    "MANIFEST_FILE",
    "SCHEMA_VERSION",
    "Artifact",
    "Classes",
    "FileRecord",
    "Manifest",
    "MeasuredErrors",
    "Preprocessing",
    "Signature",
    "Source",
    "TapSpec",
    "TensorSpec",
    "Tolerance",
    "Tolerances",
    "canonical_sha256",
    "read_manifest",
    "write_manifest",
]

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
MANIFEST_BYTES_MAX = 4 * 2**20
"""A manifest with a thousand labels and ten artifacts is under 100 KB; this bounds the parser."""

_KEYS = (
    "schema_version",
    "name",
    "created_by",
    "source",
    "signature",
    "taps",
    "preprocessing",
    "classes",
    "artifacts",
    "golden",
    "equivalence",
    "tolerances",
    "sha256",
)


@dataclass(frozen=True)
class Manifest:
    """What is in a bundle.

    Attributes:
        name: the bundle's name, `[A-Za-z0-9._-]`, at most 128 characters.
        created_by: tool -> version, of every tool that had a part in it.
        source: the model it was made from.
        signature: the model's inputs and outputs.
        taps: theta and warped image of every spatial transformer; empty without one.
        preprocessing: how an image becomes an input; None where that is not known.
        classes: what a classifier's output means; None for another kind of model.
        artifacts: at least one converted model.
        golden: probes with the source's answers.
        equivalence: the evidence gathered at conversion.
        tolerances: what an artifact may differ by.
        schema_version: version of this layout.
    """

    name: str
    created_by: Mapping[str, str]
    source: Source
    signature: Signature
    taps: tuple[TapSpec, ...]
    preprocessing: Preprocessing | None
    classes: Classes | None
    artifacts: tuple[Artifact, ...]
    golden: FileRecord
    equivalence: FileRecord
    tolerances: Tolerances
    schema_version: int = SCHEMA_VERSION

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """Every file of the bundle besides the manifest, the artifacts first."""
        artifacts = tuple(FileRecord(it.file, it.sha256, it.bytes) for it in self.artifacts)
        return (*artifacts, self.golden, self.equivalence)

    def to_json(self) -> dict[str, Any]:
        """Return the document as it stands in the file, with its own hash.

        Raises:
            ValueError: an artifact whose errors were not measured.
        """
        document: dict[str, Any] = {
            "schema_version": self.schema_version,
            "name": self.name,
            "created_by": dict(self.created_by),
            "source": self.source.to_json(),
            "signature": self.signature.to_json(),
            "taps": [tap.to_json() for tap in self.taps],
            "preprocessing": self.preprocessing.to_json() if self.preprocessing else None,
            "classes": self.classes.to_json() if self.classes else None,
            "artifacts": [artifact.to_json() for artifact in self.artifacts],
            "golden": self.golden.to_json(),
            "equivalence": self.equivalence.to_json(),
            "tolerances": self.tolerances.to_json(),
        }
        document["sha256"] = canonical_sha256(document)
        return document

    @classmethod
    def from_json(cls, document: Any) -> Manifest:
        """Read the document as it stands in the file.

        Args:
            document: the parsed JSON.

        Returns:
            The manifest, every field checked, and the fields checked against each other.

        Raises:
            BundleError: anything that is not exactly a manifest; the message names the place.
        """
        root = JsonNode(document, name=MANIFEST_FILE)
        version = root.members().get("schema_version")
        if version is not None and (type(version.value) is not int or version.value != 1):
            version.fail(f"{SCHEMA_VERSION}, the only version that this stnkit reads")
        fields = root.fields(*_KEYS)
        manifest = cls(
            name=fields["name"].text(r"[A-Za-z0-9._-]{1,128}", "1 to 128 of A-Z a-z 0-9 . _ -"),
            created_by={
                tool: node.text(NAME_PATTERN, "a version")
                for tool, node in fields["created_by"].members().items()
            },
            source=Source.from_node(fields["source"]),
            signature=Signature.from_node(fields["signature"]),
            taps=tuple(TapSpec.from_node(item) for item in fields["taps"].items()),
            preprocessing=fields["preprocessing"].optional(Preprocessing.from_node),
            classes=fields["classes"].optional(Classes.from_node),
            artifacts=tuple(
                Artifact.from_node(item) for item in fields["artifacts"].items(least=1, most=100)
            ),
            golden=FileRecord.from_node(fields["golden"]),
            equivalence=FileRecord.from_node(fields["equivalence"]),
            tolerances=Tolerances.from_node(fields["tolerances"]),
        )
        _check_together(manifest, fields)
        stated = fields["sha256"].text(SHA256_PATTERN, "64 lower-case hex digits")
        actual = canonical_sha256({key: it for key, it in document.items() if key != "sha256"})
        if stated != actual:
            raise BundleError(
                f"{MANIFEST_FILE}: sha256 is {stated} but the content's is {actual}: the file was "
                "changed after it was written; get the bundle again or convert again"
            )
        return manifest


def _check_together(manifest: Manifest, fields: Mapping[str, JsonNode]) -> None:
    """Check what no single field shows; the rules hold across records."""
    inputs = {spec.name: spec for spec in manifest.signature.inputs}
    outputs = {spec.name: spec for spec in manifest.signature.outputs}
    taps = {tap.name for tap in manifest.taps}
    if len(taps) != len(manifest.taps):
        fields["taps"].fail("no name twice")
    if taps & set(outputs):
        fields["taps"].fail("no name that is an output's")

    files = [MANIFEST_FILE, *(record.file for record in manifest.files)]
    # Two names that differ in case only are one file on some systems.
    if len({file.lower() for file in files}) != len(files):
        fields["artifacts"].fail("no file named twice, and none named manifest.json")

    for node, artifact in zip(fields["artifacts"].items(), manifest.artifacts, strict=True):
        members = node.members()
        for key, names, have in (
            ("inputs", set(inputs), artifact.inputs),
            ("outputs", set(outputs), artifact.outputs),
            ("taps", taps, artifact.taps),
        ):
            if set(have) != names:
                members[key].fail(f"exactly the names {join_names(sorted(names))}")

    if manifest.preprocessing is not None:
        node = fields["preprocessing"].members()["input"]
        spec = inputs.get(manifest.preprocessing.input)
        if spec is None:
            node.fail(f"an input: {join_names(sorted(inputs))}")
        if len(spec.shape) != 4:
            node.fail("an input of rank 4, [batch, height, width, channels]")
        wanted = (*manifest.preprocessing.size, manifest.preprocessing.channels)
        for want, dim in zip(wanted, spec.shape[1:], strict=True):
            if isinstance(dim, int) and dim != want:
                fields["preprocessing"].fail(f"size and channels of that input, {spec.shape[1:]}")

    if manifest.classes is not None:
        node = fields["classes"].members()["output"]
        spec = outputs.get(manifest.classes.output)
        if spec is None:
            node.fail(f"an output: {join_names(sorted(outputs))}")
        if len(spec.shape) != 2:
            node.fail("an output of rank 2, [batch, classes]")
        if isinstance(spec.shape[1], int) and spec.shape[1] != len(manifest.classes.labels):
            fields["classes"].members()["labels"].fail(f"{spec.shape[1]} labels, one a class")


def canonical_sha256(document: Mapping[str, Any]) -> str:
    """Return the hash of a JSON object in canonical form.

    Args:
        document: the object, without its `sha256`.

    Returns:
        64 lower-case hex digits over the JSON with sorted keys, no spaces, ASCII only.
    """
    text = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def read_manifest(data: bytes) -> Manifest:
    """Read the content of `manifest.json`.

    Args:
        data: the file's bytes, at most 4 MiB.

    Raises:
        BundleError: anything that is not exactly a manifest.
    """
    return Manifest.from_json(parse_json(data, name=MANIFEST_FILE, bytes_max=MANIFEST_BYTES_MAX))


def write_manifest(manifest: Manifest) -> bytes:
    """Return the content of `manifest.json`: two spaces of indent, a newline at the end.

    Args:
        manifest: what to write; it is read back first, so that nothing unreadable is written.

    Raises:
        BundleError: a field that the reader would refuse.
        ValueError: an artifact whose errors were not measured.
    """
    text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=True, allow_nan=False) + "\n"
    data = text.encode("ascii")
    read_manifest(data)
    return data
