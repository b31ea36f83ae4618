"""From an error of TensorFlow's converter to the op, the layer and the reason."""

from __future__ import annotations

import re
from typing import Any

from stnkit.convert.frozen import FrozenGraph
from stnkit.runtime.errors import ExportError, one_line

# The type of an operation as MLIR prints it, "(tensor<?x4xf64>, tensor<f64>) -> tensor<?x4xf64>".
_TYPES = re.compile(r": \((tensor<.*)\) -> ")
_ELEMENT = re.compile(r"tensor<(?:[^<>]*x)?([a-z]+\d+)>")
_DTYPES = {
    "f16": "float16",
    "bf16": "bfloat16",
    "f32": "float32",
    "f64": "float64",
    "i1": "bool",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "ui8": "uint8",
    "ui16": "uint16",
    "ui32": "uint32",
    "ui64": "uint64",
}
# What nearly every builtin op takes; with other types, an op that is builtin may be none.
_COMMON = ("float32", "int32", "int64", "bool")


def explain(error: Exception, graph: FrozenGraph) -> ExportError:
    """Return the error with the op and the layer that the converter's diagnostics name.

    Args:
        error: What the converter raised; its attribute `errors`, where it has one, is a list of
            diagnostics.
        graph: What was being converted, to name layers.
    """
    entries = [entry for entry in getattr(error, "errors", []) if _node(entry)]
    if not entries:
        return ExportError(
            f"TensorFlow's converter cannot convert the model ({type(error).__name__}: "
            f"{one_line(error)})",
            format="tflite",
        )
    entry = entries[0]
    op = entry.operator.name.removeprefix("tf.")
    layer = graph.layer_of(_node(entry))
    dtypes = operand_dtypes(entry.error_message)
    unusual = [dtype for dtype in dict.fromkeys(dtypes) if dtype not in _COMMON]
    if op.startswith("TensorList"):
        text = f"the op {op} of the layer {layer!r} has no TFLite form here: " + (
            "the size of its list is that of the batch, which is open: try --batch 1"
            if graph.batch is None
            else "build the layer with unroll=True, or without loops over lists of tensors"
        )
    elif unusual:
        text = (
            f"the op {op} of the layer {layer!r} is not a builtin TFLite op for "
            f"{' and '.join(unusual)} (its operands are {', '.join(dtypes)}): cast them to float32 "
            "or int32 in the layer"
        )
    else:
        text = (
            f"the op {op} of the layer {layer!r} is not a builtin TFLite op: write the layer with "
            "other ops (stnkit.models.grid_sample is one that exports)"
        )
    text += ", or convert with --to onnx alone"
    return ExportError(text, format="tflite", op=op, layer=layer)


def operand_dtypes(message: str) -> tuple[str, ...]:
    """Return NumPy's names of the dtypes of an op's operands, in order.

    Args:
        message: A diagnostic that quotes the operation; one that does not gives an empty tuple.
    """
    types = _TYPES.search(message)
    found = _ELEMENT.findall(types[1]) if types else []
    return tuple(_DTYPES.get(name, name) for name in found)


def _node(entry: Any) -> str:
    """Return the graph node that a diagnostic is about, or an empty string.

    A constant is where the converter puts what is wrong with the whole: it names no node of it.
    """
    if entry.operator.name in ("", "tf.Const"):
        return ""
    calls: list[str] = [call.name for call in entry.location.call if call.name]
    return calls[0] if calls else entry.operator.name.removeprefix("tf.")
