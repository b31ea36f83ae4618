"""Read TFLite files, and expose tensors inside them, without an interpreter.

Source: the flatbuffer schema, https://github.com/google-ai-edge/LiteRT (tflite/schema/schema.fbs),
through the classes that ai-edge-litert generates from it.
"""

from __future__ import annotations

import contextlib
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from stnkit.runtime.errors import BackendMissingError, InputError
from stnkit.runtime.json_reader import join_names
from stnkit.runtime.model_file import FileNode, FileSummary, FileTensor, LargestConstant

__all__ = [
    "buffer_content",
    "check_file",
    "damage_as_input_error",
    "nodes",
    "quantised_tensors",
    "schema",
    "signature_names",
    "summary",
    "with_extra_outputs",
]

_OUTPUTS_SLOT = 8  # vtable entry of SubGraph.outputs, its third field: 4 + 2 * 2
_GRID_DTYPES = ("int8", "uint8", "int16")
_VISITS_MAX = 5_000_000
"""Bounds the walk: tables may be shared, so a small hostile file can describe a huge one."""


def schema() -> Any:
    """Return the classes generated from the flatbuffer schema.

    Raises:
        BackendMissingError: ai-edge-litert is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated
    except ModuleNotFoundError as exc:
        raise BackendMissingError("litert", "ai-edge-litert", None) from exc
    return schema_py_generated


@contextlib.contextmanager
def damage_as_input_error() -> Iterator[None]:
    """Map what the flatbuffer reader raises when an offset leads out of the file.

    The generated classes check nothing: an offset past the end is a struct.error, a missing table
    None, a name in the wrong place bytes that are not UTF-8.
    """
    try:
        yield
    except (
        struct.error,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as exc:
        raise InputError(
            "the TFLite file is damaged (an offset leads nowhere): expected a whole file"
        ) from exc


def check_file(model: bytes) -> None:
    """Check that a file says of itself that it is TFLite.

    Raises:
        InputError: it does not.
    """
    if len(model) < 8 or model[4:8] != b"TFL3":
        raise InputError(
            f"the file of {len(model)} bytes has no TFL3 mark: expected a whole .tflite file"
        )


def _open(model: bytes) -> tuple[Any, Any]:
    """Return the root table and the main subgraph."""
    check_file(model)
    root = schema().Model.GetRootAsModel(model, 0)
    if root.SubgraphsLength() < 1:
        raise InputError("the TFLite file holds no graph: expected a whole .tflite file")
    return root, root.Subgraphs(0)


class _Visits:
    def __init__(self) -> None:
        self.left = _VISITS_MAX

    def range(self, length: int) -> range:
        self.left -= length
        if length < 0 or self.left < 0:
            raise InputError(f"the TFLite file describes more than {_VISITS_MAX} things: refused")
        return range(length)


def with_extra_outputs(model: bytes, names: Iterable[str]) -> bytes:
    """Return the model with further tensors of its main graph as outputs.

    A new vector of outputs is appended to the file, and the one offset that leads to the old one
    is changed. The kernels then run as in the file that ships; an interpreter that preserves all
    tensors would run others.

    Args:
        model: a TFLite file's content.
        names: tensors of the main graph; those that are outputs already are left as they are.

    Returns:
        The content of the extended file.

    Raises:
        InputError: a damaged file, a name that the graph does not have, or has twice.
        BackendMissingError: ai-edge-litert is not installed.
    """
    with damage_as_input_error():
        _, graph = _open(model)
        visits = _Visits()
        indices: dict[str, list[int]] = {}
        for index in visits.range(graph.TensorsLength()):
            indices.setdefault(_text(graph.Tensors(index).Name()), []).append(index)
        outputs = [graph.Outputs(i) for i in visits.range(graph.OutputsLength())]
        count = len(outputs)
        for name in dict.fromkeys(names):
            found = indices.get(name, [])
            if not any(index in outputs for index in found):
                if len(found) != 1:
                    have = "several tensors" if found else "no tensor"
                    raise InputError(
                        f"the TFLite graph has {have} {join_names([name])}: expected one for a tap"
                    )
                outputs.append(found[0])
        if len(outputs) == count:
            return model
        slot = graph._tab.Offset(_OUTPUTS_SLOT)
        if not slot:
            raise InputError("the TFLite graph has no outputs: expected at least one")
        field_position = graph._tab.Pos + slot
        extended = bytearray(model)
        extended += bytes(-len(extended) % 4)
        struct.pack_into("<I", extended, field_position, len(extended) - field_position)
        extended += struct.pack(f"<I{len(outputs)}i", len(outputs), *outputs)
        return bytes(extended)


def summary(model: bytes) -> FileSummary:
    """Return what is inside a TFLite file.

    Args:
        model: the file's content.

    Raises:
        InputError: a damaged file.
        BackendMissingError: ai-edge-litert is not installed.
    """
    with damage_as_input_error():
        tables = schema()
        root, main = _open(model)
        visits = _Visits()
        types = _names_of(tables.TensorType)
        codes = [
            _op_name(root.OperatorCodes(i), tables)
            for i in visits.range(root.OperatorCodesLength())
        ]
        ops: Counter[str] = Counter()
        dtypes: Counter[str] = Counter()
        buffers: dict[int, LargestConstant] = {}
        for graph_index in visits.range(root.SubgraphsLength()):
            graph = root.Subgraphs(graph_index)
            for i in visits.range(graph.OperatorsLength()):
                ops[codes[graph.Operators(i).OpcodeIndex()]] += 1
            for i in visits.range(graph.TensorsLength()):
                tensor = graph.Tensors(i)
                size = _buffer_bytes(root, tensor.Buffer(), len(model))
                # Several tensors may share one buffer: count its bytes once.
                if size and tensor.Buffer() not in buffers:
                    dtypes[_type_name(types, tensor.Type())] += 1
                    buffers[tensor.Buffer()] = LargestConstant(
                        _text(tensor.Name()), _sizes(tensor, visits), size
                    )
        main_tensors = [main.Tensors(i) for i in visits.range(main.TensorsLength())]

        def declared(index: int) -> FileTensor:
            tensor = main_tensors[index]
            open_sizes = visits.range(tensor.ShapeSignatureLength())
            sizes = [tensor.ShapeSignature(i) for i in open_sizes] or _sizes(tensor, visits)
            return FileTensor(
                _text(tensor.Name()),
                _type_name(types, tensor.Type()),
                tuple("?" if size < 0 else int(size) for size in sizes),
            )

        return FileSummary(
            format="tflite",
            bytes=len(model),
            inputs=tuple(declared(main.Inputs(i)) for i in visits.range(main.InputsLength())),
            outputs=tuple(declared(main.Outputs(i)) for i in visits.range(main.OutputsLength())),
            ops=dict(ops.most_common()),
            weights_bytes=sum(constant.bytes for constant in buffers.values()),
            weight_dtypes=dict(dtypes.most_common()),
            opset=None,
            producer=_text(root.Description()),
            tensor_names=tuple(
                _text(tensor.Name()) for tensor in main_tensors if tensor.Buffer() not in buffers
            ),
            largest_constant=max(buffers.values(), key=lambda it: it.bytes, default=None),
            constant_shapes=tuple(constant.shape for constant in buffers.values()),
        )


def buffer_content(root: Any, model: bytes, index: int) -> bytes | memoryview:
    """Return the bytes of a constant, wherever the file keeps them; none where it has none.

    Args:
        root: the file's root table.
        model: the file's content.
        index: number of the buffer.

    Raises:
        InputError: the buffer leads out of the file.
    """
    size = _buffer_bytes(root, index, len(model))
    buffer = root.Buffers(index)
    if not size:
        return b""
    if buffer.DataLength():
        return memoryview(buffer.DataAsNumpy())
    offset = int(buffer.Offset())
    if not 0 < offset <= len(model) - size:
        raise InputError(f"a TFLite buffer of {size} bytes leads out of the file: expected inside")
    return memoryview(model)[offset : offset + size]


def nodes(model: bytes) -> tuple[FileNode, ...]:
    """Return the computed tensors of the main graph in the order of computation.

    A tensor without a name of its own is called by its number: it cannot be read by name.

    Args:
        model: the file's content.

    Raises:
        InputError: a damaged file.
        BackendMissingError: ai-edge-litert is not installed.
    """
    with damage_as_input_error():
        tables = schema()
        root, main = _open(model)
        visits = _Visits()
        codes = [
            _op_name(root.OperatorCodes(i), tables)
            for i in visits.range(root.OperatorCodesLength())
        ]
        names = [_text(main.Tensors(i).Name()) for i in visits.range(main.TensorsLength())]
        owners = Counter(names)
        names = [
            name if name and owners[name] == 1 else f"{name}#{index}"
            for index, name in enumerate(names)
        ]
        found = []
        for index in visits.range(main.OperatorsLength()):
            operator = main.Operators(index)
            read = [operator.Inputs(i) for i in visits.range(operator.InputsLength())]
            # An optional input that is left out has the number -1.
            inputs = tuple(names[i] for i in read if i >= 0)
            op = codes[operator.OpcodeIndex()]
            for i in visits.range(operator.OutputsLength()):
                found.append(FileNode(names[operator.Outputs(i)], op, inputs))
        return tuple(found)


def quantised_tensors(model: bytes) -> tuple[tuple[str, str, float, int], ...]:
    """Return the tensors of the main graph that are fed or computed and stand on a grid.

    Args:
        model: the file's content.

    Returns:
        (name, NumPy's dtype, scale, zero point) of each that has one scale; constants, and those
        with a scale a channel, are left out.

    Raises:
        InputError: a damaged file.
        BackendMissingError: ai-edge-litert is not installed.
    """
    with damage_as_input_error():
        tables = schema()
        root, main = _open(model)
        types = {getattr(tables.TensorType, name.upper()): name for name in _GRID_DTYPES}
        found = []
        for index in _Visits().range(main.TensorsLength()):
            tensor = main.Tensors(index)
            grid = tensor.Quantization()
            if grid is None or grid.ScaleLength() != 1 or tensor.Type() not in types:
                continue
            if _buffer_bytes(root, tensor.Buffer(), len(model)):
                continue
            zero_point = int(grid.ZeroPoint(0)) if grid.ZeroPointLength() else 0
            name = _text(tensor.Name())
            found.append((name, types[tensor.Type()], float(grid.Scale(0)), zero_point))
        return tuple(found)


def signature_names(model: bytes) -> tuple[dict[str, str], dict[str, str]]:
    """Return the names of inputs and outputs, and the tensors that have them.

    A file with one signature calls them by it. One without, or with several, by the names of the
    tensors.

    Args:
        model: the file's content.

    Returns:
        Inputs and outputs, each name -> name of the tensor in the main graph.

    Raises:
        InputError: a damaged file.
        BackendMissingError: ai-edge-litert is not installed.
    """
    with damage_as_input_error():
        root, main = _open(model)
        visits = _Visits()

        def tensor(index: int) -> str:
            return _text(main.Tensors(index).Name())

        if root.SignatureDefsLength() == 1 and root.SignatureDefs(0).SubgraphIndex() == 0:
            signature = root.SignatureDefs(0)
            maps = [
                [signature.Inputs(i) for i in visits.range(signature.InputsLength())],
                [signature.Outputs(i) for i in visits.range(signature.OutputsLength())],
            ]
            inputs, outputs = (
                {_text(item.Name()): tensor(item.TensorIndex()) for item in items} for items in maps
            )
            return inputs, outputs
        plain = [
            [tensor(main.Inputs(i)) for i in visits.range(main.InputsLength())],
            [tensor(main.Outputs(i)) for i in visits.range(main.OutputsLength())],
        ]
        return {name: name for name in plain[0]}, {name: name for name in plain[1]}


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode("utf-8")


def _names_of(enumeration: Any) -> dict[int, str]:
    return {value: key for key, value in vars(enumeration).items() if isinstance(value, int)}


def _type_name(types: dict[int, str], value: int) -> str:
    return types.get(value, f"type {value}").lower()


def _sizes(tensor: Any, visits: _Visits) -> tuple[int, ...]:
    return tuple(int(tensor.Shape(i)) for i in visits.range(tensor.ShapeLength()))


def _buffer_bytes(root: Any, index: int, file_bytes: int) -> int:
    # Some writers keep buffers behind the flatbuffer, and state offset and size instead.
    buffer = root.Buffers(index)
    size = int(buffer.DataLength() or buffer.Size())
    if not 0 <= size <= file_bytes:
        raise InputError(f"a TFLite buffer declares {size} bytes: expected less than the file has")
    return size


def _op_name(code: Any, schema: Any) -> str:
    # Builtin codes beyond 127 do not fit the first field: readers take the larger of the two.
    number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
    names = _names_of(schema.BuiltinOperator)
    if number != schema.BuiltinOperator.CUSTOM:
        return names.get(number, f"CUSTOM:builtin {number}, unknown to this version")
    name = _text(code.CustomCode())
    return f"FLEX:{name.removeprefix('Flex')}" if name.startswith("Flex") else f"CUSTOM:{name}"
