"""Read ONNX files, and expose tensors inside them, without the onnx package.

Source: field numbers from onnx.proto3, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from stnkit.runtime.errors import BundleError, InputError, one_line
from stnkit.runtime.json_reader import join_names
from stnkit.runtime.model_file import FileSummary, FileTensor, LargestConstant
from stnkit.runtime.protobuf_wire import BYTES, bytes_field, fields, integers, text

__all__ = ["refuse_external_data", "summary", "with_extra_outputs"]

_DEPTH_MAX = 100  # protobuf's own limit for nested messages

_GRAPH = 7  # ModelProto.graph
_OUTPUT = 12  # GraphProto.output
_VALUE_NAME = 1  # ValueInfoProto.name
_DATA_LOCATION, _EXTERNAL_DATA = 14, 13  # of TensorProto

# Message -> field number -> message within it: every way that leads to a node or to a tensor.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {_GRAPH: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}

# TensorProto.DataType -> name, bits of an element
_TYPES: dict[int, tuple[str, int]] = {
    1: ("float32", 32),
    2: ("uint8", 8),
    3: ("int8", 8),
    4: ("uint16", 16),
    5: ("int16", 16),
    6: ("int32", 32),
    7: ("int64", 64),
    8: ("string", 0),
    9: ("bool", 8),
    10: ("float16", 16),
    11: ("float64", 64),
    12: ("uint32", 32),
    13: ("uint64", 64),
    14: ("complex64", 64),
    15: ("complex128", 128),
    16: ("bfloat16", 16),
    17: ("float8e4m3fn", 8),
    18: ("float8e4m3fnuz", 8),
    19: ("float8e5m2", 8),
    20: ("float8e5m2fnuz", 8),
    21: ("uint4", 4),
    22: ("int4", 4),
    23: ("float4e2m1", 4),
}


def _walk(
    message: str, data: memoryview, owner: str = "", depth: int = 0
) -> Iterator[tuple[str, memoryview, str]]:
    """Yield every node and tensor at any depth, with the name of the node around it."""
    if depth > _DEPTH_MAX:
        raise InputError(f"an ONNX file nests deeper than {_DEPTH_MAX} messages: expected less")
    if message in ("node", "tensor"):
        yield message, data, owner
    if message == "node":
        owner = next((text(v) for n, _, v in fields(data) if n == 2), owner)  # its first output
    children = _CHILDREN[message]
    if not children:
        return
    for number, wire, value in fields(data):
        if wire == BYTES and number in children and not isinstance(value, int):
            yield from _walk(children[number], value, owner, depth + 1)


def refuse_external_data(model: bytes, *, name: str = "the ONNX file") -> None:
    """Refuse a model of which any tensor, at any depth, lies in another file.

    ONNX Runtime would open that file, wherever its path leads.

    Args:
        model: the file's content.
        name: what to call it in the message.

    Raises:
        BundleError: a tensor with external data.
        InputError: a damaged file.
    """
    for message, data, owner in _walk("model", memoryview(model)):
        if message == "tensor" and any(
            number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)
            for number, _, value in fields(data)
        ):
            tensor = _Tensor.read(data, owner)
            raise BundleError(
                f'{name}: tensor "{one_line(tensor.name)}" has its data in another file: '
                "expected all data inside"
            )


def with_extra_outputs(model: bytes, names: Iterable[str]) -> bytes:
    """Return the model with further tensors of its graph as outputs.

    Protobuf merges a field that stands twice, so the outputs are appended as a second `graph`
    that holds nothing else: the file itself is not rewritten.

    Args:
        model: an ONNX file's content.
        names: tensors of the main graph; those that are outputs already are left as they are.

    Returns:
        The content of the extended file.

    Raises:
        InputError: a damaged file, or a name that the graph does not have.
    """
    graph = _Graph.read(model)
    known = set(graph.tensor_names)
    outputs = {tensor.name for tensor in graph.outputs}
    wanted = dict.fromkeys(names)  # each once, in order
    missing = [name for name in wanted if name not in known]
    if missing:
        raise InputError(f"the ONNX graph has no tensor {join_names(missing)}: expected its taps")
    extra = b"".join(
        bytes_field(_OUTPUT, bytes_field(_VALUE_NAME, name.encode("utf-8")))
        for name in wanted
        if name not in outputs
    )
    return model + bytes_field(_GRAPH, extra) if extra else model


def summary(model: bytes) -> FileSummary:
    """Return what is inside an ONNX file.

    Args:
        model: the file's content.

    Raises:
        InputError: a damaged file.
    """
    graph = _Graph.read(model)
    initializers = {tensor.name for tensor in graph.initializers}
    ops: Counter[str] = Counter()
    constants: list[_Tensor] = []
    for message, data, owner in _walk("model", memoryview(model)):
        if message == "node":
            op = domain = ""
            for number, _, value in fields(data):
                if number == 4:
                    op = text(value)
                elif number == 7:
                    domain = text(value)
            ops[op if domain in ("", "ai.onnx") else f"{domain}::{op}"] += 1
        else:
            constants.append(_Tensor.read(data, owner))
    largest = max(constants, key=lambda it: it.bytes, default=None)
    return FileSummary(
        format="onnx",
        bytes=len(model),
        # Before IR version 4 every initializer had to be listed as an input too.
        inputs=tuple(tensor for tensor in graph.inputs if tensor.name not in initializers),
        outputs=tuple(graph.outputs),
        ops=dict(ops.most_common()),
        weights_bytes=sum(tensor.bytes for tensor in constants),
        weight_dtypes=dict(Counter(tensor.dtype for tensor in constants).most_common()),
        opset=graph.opset,
        producer=" ".join(part for part in graph.producer if part),
        tensor_names=tuple(name for name in graph.tensor_names if name not in initializers),
        largest_constant=None
        if largest is None
        else LargestConstant(largest.name, largest.shape, largest.bytes),
        constant_shapes=tuple(tensor.shape for tensor in constants),
    )


@dataclass(frozen=True)
class _Tensor:
    """A TensorProto without its data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int

    @classmethod
    def read(cls, data: memoryview, owner: str = "") -> _Tensor:
        name, kind = "", 0
        shape: list[int] = []
        for number, wire, value in fields(data):
            if number == 1:
                shape += integers(wire, value)
            elif number == 2 and isinstance(value, int):
                kind = value
            elif number == 8:
                name = text(value)
        dtype, bits = _TYPES.get(kind, (f"type {kind}", 0))
        # A tensor in a node's attribute usually has no name: its node's output names it.
        return cls(name or owner, dtype, tuple(shape), (math.prod(shape) * bits + 7) // 8)


@dataclass
class _Graph:
    """The main graph's surface; a second `graph` field merges into the first, as in protobuf."""

    inputs: list[FileTensor] = field(default_factory=list)
    outputs: list[FileTensor] = field(default_factory=list)
    initializers: list[_Tensor] = field(default_factory=list)
    tensor_names: dict[str, None] = field(default_factory=dict)
    opset: int | None = None
    producer: tuple[str, str] = ("", "")
    graphs: int = 0

    @classmethod
    def read(cls, model: bytes) -> _Graph:
        graph = cls()
        for number, wire, value in fields(memoryview(model)):
            if number == 2:
                graph.producer = (text(value), graph.producer[1])
            elif number == 3:
                graph.producer = (graph.producer[0], text(value))
            elif wire == BYTES and not isinstance(value, int):
                if number == _GRAPH:
                    graph.graphs += 1
                    graph._merge(value)
                elif number == 8:
                    graph._read_opset(value)
        if not graph.graphs:
            raise InputError("the ONNX file holds no graph: expected a whole ONNX model")
        return graph

    def _merge(self, data: memoryview) -> None:
        for number, wire, value in fields(data):
            if wire != BYTES or isinstance(value, int):
                continue
            if number == 1:
                for key, _, name in fields(value):
                    if key == 2:
                        self.tensor_names[text(name)] = None
            elif number == 5:
                tensor = _Tensor.read(value)
                self.initializers.append(tensor)
                self.tensor_names[tensor.name] = None
            elif number == 11:
                self.inputs.append(_value_info(value))
                self.tensor_names[self.inputs[-1].name] = None
            elif number == _OUTPUT:
                self.outputs.append(_value_info(value))
                self.tensor_names[self.outputs[-1].name] = None
        self.tensor_names.pop("", None)  # an optional output that is left out has no name

    def _read_opset(self, data: memoryview) -> None:
        domain, version = "", 0
        for number, _, value in fields(data):
            if number == 1:
                domain = text(value)
            elif number == 2 and isinstance(value, int):
                version = value
        if domain in ("", "ai.onnx"):
            self.opset = version


def _messages(data: memoryview, number: int) -> Iterator[memoryview]:
    for found, wire, value in fields(data):
        if found == number and wire == BYTES and not isinstance(value, int):
            yield value


def _value_info(data: memoryview) -> FileTensor:
    """Read a ValueInfoProto: name, and type.tensor_type with elem_type and shape.dim."""
    name, dtype = "", "?"
    shape: list[int | str] = []
    for number, _, value in fields(data):
        if number == _VALUE_NAME:
            name = text(value)
    for kind in _messages(data, 2):
        for tensor_type in _messages(kind, 1):
            for number, _, value in fields(tensor_type):
                if number == 1 and isinstance(value, int):
                    dtype = _TYPES.get(value, (f"type {value}", 0))[0]
            for shapes in _messages(tensor_type, 2):
                for dim in _messages(shapes, 1):
                    size: int | str = "?"
                    for number, wire, value in fields(dim):
                        if number == 1:
                            size = integers(wire, value)[0] if isinstance(value, int) else "?"
                        elif number == 2:
                            size = text(value) or "?"
                    shape.append(size)
    return FileTensor(name, dtype, tuple(shape))
