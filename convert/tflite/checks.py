"""What a TFLite file must be before anyone runs it."""

from __future__ import annotations

from typing import Any

from stnkit.convert.frozen import FrozenGraph
from stnkit.runtime.errors import ExportError

_STATE_OPS = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE")


def check_model(content: bytes, source: FrozenGraph) -> None:
    """Check that a file has builtin ops alone and that every tensor has a value.

    Args:
        content: The TFLite file.
        source: The graph it was made from, to name layers.

    Raises:
        ExportError: If there is a custom or Flex op, or a weight is missing.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(content, 0)
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    for index in range(model.SubgraphsLength()):
        _check_graph(model, model.Subgraphs(index), names, source)


def _check_graph(model: Any, graph: Any, op_names: dict[int, str], source: FrozenGraph) -> None:
    tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
    written = {graph.Inputs(i) for i in range(graph.InputsLength())}
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex())
        number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
        op = op_names.get(number, str(number))
        outputs = [operator.Outputs(k) for k in range(operator.OutputsLength())]
        node = _first_name(tensors, outputs)
        layer = source.layer_of(node)
        if op == "CUSTOM":
            custom = code.CustomCode().decode()
            raise ExportError(
                f"the op {custom} of the layer {layer!r} is not a builtin TFLite op: write the "
                "layer with other ops, or convert with --to onnx alone",
                format="tflite",
                op=custom,
                layer=layer,
            )
        reads = [operator.Inputs(k) for k in range(operator.InputsLength())]
        missing = [t for t in reads if t >= 0 and not _has_value(model, tensors[t], t, written)]
        if missing or op in _STATE_OPS:
            what = tensors[missing[0]].Name().decode() if missing else node
            raise ExportError(
                f"a weight is missing from the TFLite file: the op {op} of the layer {layer!r} "
                f"reads {what!r}, which nothing provides",
                format="tflite",
                op=op,
                layer=layer,
            )
        written.update(outputs)


def _has_value(model: Any, tensor: Any, index: int, written: set[int]) -> bool:
    if index in written or tensor.IsVariable():
        return True
    buffer = model.Buffers(tensor.Buffer())
    if buffer.DataLength() or buffer.Size():
        return True
    # A constant without elements has no bytes: it is there nevertheless.
    return any(tensor.Shape(i) == 0 for i in range(tensor.ShapeLength()))


def _first_name(tensors: list[Any], outputs: list[int]) -> str:
    for index in outputs:
        name: str = tensors[index].Name().decode()
        # Fused ops list the names of all they were made of, separated by semicolons.
        for part in name.split(";"):
            if "/" in part:
                return part
    return tensors[outputs[0]].Name().decode() if outputs else ""
