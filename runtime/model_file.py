"""Say what is inside a model file, whichever of the two formats it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stnkit.runtime.errors import InputError
from stnkit.runtime.signature import Shape

__all__ = [
    "FileNode",
    "FileSummary",
    "FileTensor",
    "LargestConstant",
    "detect_format",
    "list_nodes",
    "summarize",
]


@dataclass(frozen=True)
class FileTensor:
    """A tensor as a model file declares it.

    Attributes:
        name: its name in the file.
        dtype: NumPy's name of the element type where there is one, else the format's.
        shape: sizes, names, and `"?"` for a size that the file leaves open.
    """

    name: str
    dtype: str
    shape: Shape


@dataclass(frozen=True)
class FileNode:
    """A tensor of the main graph that an operation computes.

    Attributes:
        name: its name in the file.
        op: the operation, as the format calls it.
        inputs: names of the tensors that it is computed from, constants among them.
    """

    name: str
    op: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class LargestConstant:
    """The largest constant in a model file.

    Attributes:
        name: its name in the file.
        shape: its sizes.
        bytes: its size.
    """

    name: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class FileSummary:
    """What is inside a model file.

    Attributes:
        format: `"tflite"` or `"onnx"`.
        bytes: size of the file.
        inputs: the inputs, in the file's order.
        outputs: the outputs, in the file's order.
        ops: operation -> count, the most frequent first. `domain::Op` is an ONNX op outside the
            standard, `CUSTOM:name` a TFLite op that needs code of its own, `FLEX:Op` a TFLite op
            that needs TensorFlow.
        weights_bytes: size of all constants.
        weight_dtypes: element type -> number of constants.
        opset: version of the standard ONNX operators; None for TFLite.
        producer: who wrote the file, as the file says it; may be empty.
        tensor_names: name of every tensor of the main graph that is fed or computed: no constants,
            because a converter may name a bias after the operation that adds it.
        largest_constant: None without constants.
        constant_shapes: shape of every constant.
    """

    format: Literal["tflite", "onnx"]
    bytes: int
    inputs: tuple[FileTensor, ...]
    outputs: tuple[FileTensor, ...]
    ops: Mapping[str, int]
    weights_bytes: int
    weight_dtypes: Mapping[str, int]
    opset: int | None
    producer: str
    tensor_names: tuple[str, ...]
    largest_constant: LargestConstant | None
    constant_shapes: tuple[tuple[int, ...], ...] = ()

    @property
    def foreign_ops(self) -> tuple[str, ...]:
        """The operations that are not builtin (TFLite) or not standard (ONNX)."""
        return tuple(op for op in self.ops if ":" in op)

    @property
    def tap_names(self) -> tuple[str, ...]:
        """The tensors that look like taps: their names end in `/theta` or `/warped`."""
        return tuple(name for name in self.tensor_names if name.endswith(("/theta", "/warped")))

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values."""

        def tensors(items: tuple[FileTensor, ...]) -> list[dict[str, Any]]:
            return [{"name": t.name, "dtype": t.dtype, "shape": list(t.shape)} for t in items]

        largest = self.largest_constant
        return {
            "format": self.format,
            "bytes": self.bytes,
            "inputs": tensors(self.inputs),
            "outputs": tensors(self.outputs),
            "ops": dict(self.ops),
            "weights_bytes": self.weights_bytes,
            "weight_dtypes": dict(self.weight_dtypes),
            "opset": self.opset,
            "producer": self.producer,
            "taps": list(self.tap_names),
            "foreign_ops": list(self.foreign_ops),
            "largest_constant": None
            if largest is None
            else {"name": largest.name, "shape": list(largest.shape), "bytes": largest.bytes},
        }


def detect_format(model: bytes) -> Literal["tflite", "onnx"]:
    """Return the format of a model file from its first bytes.

    Args:
        model: the file's content.

    Raises:
        InputError: neither of the two.
    """
    if model[4:8] == b"TFL3":
        return "tflite"
    # An ONNX file has no magic; every writer begins with field 1, ir_version, a varint below 128.
    if len(model) > 2 and model[0] == 0x08 and 0 < model[1] < 0x80:
        return "onnx"
    raise InputError(
        f"the file of {len(model)} bytes is neither TFLite (no TFL3 mark) nor ONNX: expected a "
        ".tflite or .onnx file"
    )


def summarize(model: bytes) -> FileSummary:
    """Return what is inside a model file.

    Args:
        model: the content of a TFLite or ONNX file.

    Raises:
        InputError: neither of the two, or a damaged file.
    """
    if detect_format(model) == "tflite":
        from stnkit.runtime import tflite_file

        return tflite_file.summary(model)
    from stnkit.runtime import onnx_file

    return onnx_file.summary(model)


def list_nodes(model: bytes) -> tuple[FileNode, ...]:
    """Return the computed tensors of a model file's main graph, in the order of the file.

    Args:
        model: the content of a TFLite or ONNX file.

    Raises:
        InputError: neither of the two, or a damaged file.
    """
    if detect_format(model) == "tflite":
        from stnkit.runtime import tflite_file

        return tflite_file.nodes(model)
    from stnkit.runtime import onnx_nodes

    return onnx_nodes.nodes(model)
