"""Faults that are put into a TFLite file through the classes of its schema."""

from __future__ import annotations

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


def edited(change):
    """Return a function from a file's content to that of a changed one."""

    def apply(content):
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        change(model, model.subgraphs[0])
        builder = flatbuffers.Builder(len(content) + 4096)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    return apply


def constant(*words, change, rank=None):
    """Change a float constant whose name has all these words in it."""

    def edit(model, graph):
        found = [
            tensor
            for tensor in graph.tensors
            if model.buffers[tensor.buffer].data is not None
            and len(model.buffers[tensor.buffer].data)
            and all(word in tensor.name.decode() for word in words)
            and tensor.type == schema.TensorType.FLOAT32
            and rank in (None, len(tensor.shape))
        ]
        assert len(found) == 1, [tensor.name for tensor in found]
        buffer = model.buffers[found[0].buffer]
        shape = tuple(int(size) for size in found[0].shape)
        old = np.frombuffer(np.asarray(buffer.data, np.uint8).tobytes(), np.float32).reshape(shape)
        new = np.asarray(change(old), np.float32)
        assert new.shape == old.shape
        buffer.data = np.frombuffer(np.ascontiguousarray(new).tobytes(), np.uint8)

    return edited(edit)


def _operators(model, graph, op, word):
    number = getattr(schema.BuiltinOperator, op)
    found = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        names = [graph.tensors[int(i)].name.decode() for i in (*operator.inputs, *operator.outputs)]
        if max(code.builtinCode, code.deprecatedBuiltinCode) == number and any(
            word in name for name in names
        ):
            found.append(operator)
    assert found, f"no {op} with {word!r}"
    return found


def option(op, word, **values):
    """Change options of an operator."""

    def edit(model, graph):
        operator = _operators(model, graph, op, word)[0]
        for name, value in values.items():
            assert hasattr(operator.builtinOptions, name)
            assert getattr(operator.builtinOptions, name) != value
            setattr(operator.builtinOptions, name, value)

    return edited(edit)


def replace_operator(op, word, new_op):
    """Replace an operator by one with the same options."""

    def edit(model, graph):
        operator = _operators(model, graph, op, word)[0]
        number = getattr(schema.BuiltinOperator, new_op)
        code = schema.OperatorCodeT()
        code.builtinCode = number
        code.deprecatedBuiltinCode = min(number, 127)
        code.version = 1
        model.operatorCodes.append(code)
        operator.opcodeIndex = len(model.operatorCodes) - 1

    return edited(edit)


def swapped_outputs(content):
    """Give two outputs each other's names in the signature."""

    def edit(model, _):
        first, second = model.signatureDefs[0].outputs
        first.tensorIndex, second.tensorIndex = second.tensorIndex, first.tensorIndex

    return edited(edit)(content)


def half_weights(content):
    """Round every weight to float16 and keep it as float32."""

    def edit(model, graph):
        for tensor in graph.tensors:
            buffer = model.buffers[tensor.buffer]
            if (
                tensor.type == schema.TensorType.FLOAT32
                and buffer.data is not None
                and len(buffer.data) > 4
            ):
                values = np.frombuffer(np.asarray(buffer.data, np.uint8).tobytes(), np.float32)
                rounded = values.astype(np.float16).astype(np.float32)
                buffer.data = np.frombuffer(rounded.tobytes(), np.uint8)

    return edited(edit)(content)
