"""Define the records of a bundle's manifest: files, artifacts, pre- and post-processing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stnkit.runtime.autotune_record import SAMPLER_FORMS, Autotune, SamplerForm
from stnkit.runtime.json_reader import JsonNode
from stnkit.runtime.signature import NAME_PATTERN

__all__ = [
    "FILE_BYTES_MAX",
    "Artifact",
    "Classes",
    "FileRecord",
    "MeasuredErrors",
    "Preprocessing",
    "Source",
]

FILE_BYTES_MAX = 2**31
"""Largest file of a bundle: neither a protobuf nor a flatbuffer can be larger than 2 GiB."""

SHA256_PATTERN = r"[0-9a-f]{64}"
# One plain relative name: no separator, no leading dot (so no ".."), no drive letter, no link.
FILE_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}"
BASE_NAME_PATTERN = r"(?!\.{1,2}$)[^/\\\x00-\x1f\x7f]{1,255}"
_SIDE_MAX_PX = 16_384


@dataclass(frozen=True)
class Source:
    """Where the model came from.

    Attributes:
        file: base name of the file or folder; no path, because that is nobody's business.
        kind: `"keras"`, `"h5"`, `"saved_model"` or `"function"`.
        sha256: hash of the file in lower-case hex, None where there is no single file.
    """

    file: str
    kind: Literal["keras", "h5", "saved_model", "function"]
    sha256: str | None = None

    @classmethod
    def from_node(cls, node: JsonNode) -> Source:
        """Read it from a manifest; raises `BundleError`."""
        fields = node.fields("file", "kind", "sha256")
        kinds: Mapping[str, Literal["keras", "h5", "saved_model", "function"]] = {
            "keras": "keras",
            "h5": "h5",
            "saved_model": "saved_model",
            "function": "function",
        }
        return cls(
            file=fields["file"].text(BASE_NAME_PATTERN, "a base name, without a path"),
            kind=kinds[fields["kind"].choice(*kinds)],
            sha256=fields["sha256"].optional(_sha256),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `from_node` reads."""
        return {"file": self.file, "kind": self.kind, "sha256": self.sha256}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the model's input: `value = (pixel * scale - mean) / std`.

    Attributes:
        input: name of the input that takes the image.
        size: (height, width) in pixels.
        channels: 1, 3 or 4.
        scale: multiplies the 0..255 value; > 0.
        mean: one number a channel, None for zeros.
        std: one number > 0 a channel, None for ones.
    """

    input: str
    size: tuple[int, int]
    channels: int
    scale: float
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @classmethod
    def from_node(cls, node: JsonNode) -> Preprocessing:
        """Read it from a manifest; raises `BundleError`."""
        fields = node.fields("input", "size", "channels", "scale", "mean", "std")
        height, width = (
            item.integer(least=1, most=_SIDE_MAX_PX)
            for item in fields["size"].items(least=2, most=2)
        )
        if fields["channels"].integer(least=1, most=4) == 2:
            fields["channels"].fail("1, 3 or 4")
        channels = int(fields["channels"].value)
        for key in ("mean", "std"):
            if (
                fields[key].value is not None
                and len(fields[key].items(least=1, most=4)) != channels
            ):
                fields[key].fail(f"one number for each of the {channels} channels")
        return cls(
            input=_name(fields["input"]),
            size=(height, width),
            channels=channels,
            scale=fields["scale"].number(above=0),
            mean=fields["mean"].optional(lambda it: tuple(v.number() for v in it.items())),
            std=fields["std"].optional(lambda it: tuple(v.number(above=0) for v in it.items())),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `from_node` reads."""
        return {
            "input": self.input,
            "size": list(self.size),
            "channels": self.channels,
            "scale": float(self.scale),
            "mean": None if self.mean is None else [float(v) for v in self.mean],
            "std": None if self.std is None else [float(v) for v in self.std],
        }


@dataclass(frozen=True)
class Classes:
    """What the numbers of a classifier's output mean.

    Attributes:
        output: name of the output, shape `[batch, number of labels]`.
        labels: one a class, in the output's order.
        scores: `"probabilities"` or `"logits"`.
    """

    output: str
    labels: tuple[str, ...]
    scores: Literal["probabilities", "logits"]

    @classmethod
    def from_node(cls, node: JsonNode) -> Classes:
        """Read it from a manifest; raises `BundleError`."""
        fields = node.fields("output", "labels", "scores")
        scores = fields["scores"].choice("probabilities", "logits")
        return cls(
            output=_name(fields["output"]),
            labels=tuple(_name(item) for item in fields["labels"].items(least=1, most=1_000_000)),
            scores="logits" if scores == "logits" else "probabilities",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `from_node` reads."""
        return {"output": self.output, "labels": list(self.labels), "scores": self.scores}


@dataclass(frozen=True)
class FileRecord:
    """A file of the bundle.

    Attributes:
        file: plain file name inside the bundle.
        sha256: hash of its content in lower-case hex.
        bytes: its size.
    """

    file: str
    sha256: str
    bytes: int

    @classmethod
    def from_node(cls, node: JsonNode) -> FileRecord:
        """Read it from a manifest; raises `BundleError`."""
        fields = node.fields("file", "sha256", "bytes")
        return cls(_file(fields["file"]), _sha256(fields["sha256"]), _bytes(fields["bytes"]))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `from_node` reads."""
        return {"file": self.file, "sha256": self.sha256, "bytes": self.bytes}


@dataclass(frozen=True)
class MeasuredErrors:
    """Largest absolute errors against the source, measured when the bundle was made.

    Attributes:
        outputs: at the outputs, >= 0.
        theta: at the transformations; None without transformers.
        warped: at the warped images; None without transformers.
    """

    outputs: float
    theta: float | None = None
    warped: float | None = None

    @classmethod
    def from_node(cls, node: JsonNode) -> MeasuredErrors:
        """Read it from a manifest; raises `BundleError`."""
        fields = node.fields("outputs", "theta", "warped")
        return cls(
            outputs=fields["outputs"].number(least=0),
            theta=fields["theta"].optional(lambda it: it.number(least=0)),
            warped=fields["warped"].optional(lambda it: it.number(least=0)),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `from_node` reads."""
        return {"outputs": self.outputs, "theta": self.theta, "warped": self.warped}


@dataclass(frozen=True)
class Artifact:
    """One converted model file.

    Attributes:
        file: plain file name inside the bundle.
        format: `"tflite"` or `"onnx"`.
        precision: `"fp32"`.
        sampler: how its samplers are written.
        opset: ONNX opset; None for TFLite.
        batch: `"dynamic"`, or the one batch size it takes.
        sha256: hash of the file in lower-case hex.
        bytes: size of the file.
        inputs: signature name -> tensor name in the file, for every input.
        outputs: signature name -> tensor name in the file, for every output.
        taps: tap name -> tensor name in the file, for every tap.
        errors: what was measured; None until then, and a manifest is not written with None.
        autotune: how this form of it was chosen by time; None where nothing was chosen so, and
            then it is not in the manifest at all.
    """

    file: str
    format: Literal["tflite", "onnx"]
    precision: Literal["fp32"]
    sampler: SamplerForm
    opset: int | None
    batch: int | Literal["dynamic"]
    sha256: str
    bytes: int
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    taps: Mapping[str, str]
    errors: MeasuredErrors | None = None
    autotune: Autotune | None = None

    @classmethod
    def from_node(cls, node: JsonNode) -> Artifact:
        """Read it from a manifest; raises `BundleError`."""
        fields = node.fields(
            *("file", "format", "precision", "sampler", "opset", "batch", "sha256", "bytes"),
            *("inputs", "outputs", "taps", "errors"),
            may_have=("autotune",),
        )
        onnx = fields["format"].choice("tflite", "onnx") == "onnx"
        fields["precision"].choice("fp32")
        sampler = fields["sampler"].choice(*SAMPLER_FORMS)
        if onnx is (fields["opset"].value is None):
            fields["opset"].fail("an opset for ONNX and null for TFLite")
        batch = fields["batch"]
        if isinstance(batch.value, str) and batch.value != "dynamic":
            batch.fail('"dynamic" or a whole number of at least 1')
        return cls(
            file=_file(fields["file"]),
            format="onnx" if onnx else "tflite",
            precision="fp32",
            sampler=sampler,
            opset=fields["opset"].optional(lambda it: it.integer(least=1, most=1000)),
            batch="dynamic" if batch.value == "dynamic" else batch.integer(least=1, most=1_000_000),
            sha256=_sha256(fields["sha256"]),
            bytes=_bytes(fields["bytes"]),
            inputs=_tensor_names(fields["inputs"]),
            outputs=_tensor_names(fields["outputs"]),
            taps=_tensor_names(fields["taps"]),
            errors=MeasuredErrors.from_node(fields["errors"]),
            autotune=(
                Autotune.from_node(fields["autotune"], sampler) if "autotune" in fields else None
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `from_node` reads.

        Raises:
            ValueError: nothing was measured yet.
        """
        if self.errors is None:
            raise ValueError(f"{self.file} has no measured errors: check the artifact first")
        tuned = {} if self.autotune is None else {"autotune": self.autotune.to_json()}
        return {
            "file": self.file,
            "format": self.format,
            "precision": self.precision,
            "sampler": self.sampler,
            "opset": self.opset,
            "batch": self.batch,
            "sha256": self.sha256,
            "bytes": self.bytes,
            "inputs": dict(self.inputs),
            "outputs": dict(self.outputs),
            "taps": dict(self.taps),
            "errors": self.errors.to_json(),
            **tuned,
        }


def _name(node: JsonNode) -> str:
    return node.text(
        NAME_PATTERN, "a name of 1 to 512 characters, none of them a control character"
    )


def _file(node: JsonNode) -> str:
    return node.text(FILE_PATTERN, "a plain file name inside the bundle")


def _sha256(node: JsonNode) -> str:
    return node.text(SHA256_PATTERN, "64 lower-case hex digits")


def _bytes(node: JsonNode) -> int:
    return node.integer(least=1, most=FILE_BYTES_MAX)


def _tensor_names(node: JsonNode) -> dict[str, str]:
    return {key: _name(member) for key, member in node.members().items()}
