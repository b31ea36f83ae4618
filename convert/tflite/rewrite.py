"""Editing a TFLite file in place: names, and outputs that become tensors inside.

The file is a flatbuffer: tables point at strings and vectors by offsets. A new string is appended
and one offset changed; a vector is shortened where it lies. Weights stay untouched and aligned,
which writing the whole file again from Python would not give.

Source: schema.fbs of TFLite, version 3; FlatBuffers internals (vtables, uoffset).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stnkit.convert.unique_names import unique_name

# Slots of fields in their tables' vtables: 4 + 2 * index of the field in the schema.
_TENSOR_NAME = 10
_SUBGRAPH_OUTPUTS = 8
_SIGNATURE_OUTPUTS = 6
_TENSOR_MAP_NAME = 4


@dataclass(frozen=True)
class Names:
    """Names by role. What the values are, the function says that takes or returns them."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    taps: Mapping[str, str]


def rewrite(content: bytes, wanted: Names) -> tuple[bytes, Names]:
    """Return a TFLite file with other names and with its taps no longer among the outputs.

    Args:
        content: A file whose only signature has the keys of `wanted`.
        wanted: New name for every key of the signature; taps are taken out of it.

    Returns:
        The new file; and by new name, the name of the tensor that carries it.

    Raises:
        ValueError: If the file's signature has other keys.
    """
    file = _File(bytearray(content))
    signature = file.model.SignatureDefs(0)
    graph = file.model.Subgraphs(signature.SubgraphIndex())
    entries = [signature.Inputs(i) for i in range(signature.InputsLength())]
    entries += [signature.Outputs(i) for i in range(signature.OutputsLength())]
    by_key = {entry.Name().decode(): entry for entry in entries}
    roles = {**wanted.inputs, **wanted.outputs, **wanted.taps}
    if set(by_key) != set(roles):
        raise ValueError(f"the signature has {sorted(by_key)}: expected {sorted(roles)}")

    taken = {graph.Tensors(i).Name().decode() for i in range(graph.TensorsLength())}
    named: dict[int, str] = {}
    for key, name in roles.items():
        index = by_key[key].TensorIndex()
        if index in named:  # an output that is a tap, or a tap that is an input
            continue
        own = graph.Tensors(index).Name().decode()
        unique = name if name == own else unique_name(name, taken)
        taken.add(unique)
        named[index] = unique
    for index, name in named.items():
        file.set_string(graph.Tensors(index), _TENSOR_NAME, name)
    for key, name in {**wanted.inputs, **wanted.outputs}.items():
        file.set_string(by_key[key], _TENSOR_MAP_NAME, name)

    tap_entries = {key: by_key[key] for key in wanted.taps}
    kept_outputs = {by_key[key].TensorIndex() for key in wanted.outputs}
    graph_outputs = [graph.Outputs(i) for i in range(graph.OutputsLength())]
    # Once each: an output that is a tap as well stands there twice.
    keep = [
        i
        for i, index in enumerate(graph_outputs)
        if index in kept_outputs and index not in graph_outputs[:i]
    ]
    dropped = {entry._tab.Pos for entry in tap_entries.values()}
    keep_entries = [
        i for i in range(signature.OutputsLength()) if signature.Outputs(i)._tab.Pos not in dropped
    ]
    tensors = Names(
        inputs={name: named[by_key[key].TensorIndex()] for key, name in wanted.inputs.items()},
        outputs={name: named[by_key[key].TensorIndex()] for key, name in wanted.outputs.items()},
        taps={name: named[by_key[key].TensorIndex()] for key, name in wanted.taps.items()},
    )
    file.shorten_numbers(graph, _SUBGRAPH_OUTPUTS, keep)
    file.shorten_tables(signature, _SIGNATURE_OUTPUTS, keep_entries)
    return bytes(file.data), tensors


class _File:
    """A flatbuffer that is being changed."""

    def __init__(self, data: bytearray) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.data = data
        self.model = schema.Model.GetRootAsModel(data, 0)

    def _field(self, table: Any, slot: int) -> int:
        """Return the position of the offset that a field of a table holds."""
        relative = table._tab.Offset(slot)
        if not relative:
            raise ValueError(f"a table has no field at slot {slot}: not the file that was written")
        return int(table._tab.Pos + relative)

    def _vector(self, table: Any, slot: int) -> int:
        position = self._field(table, slot)
        return position + int(struct.unpack_from("<I", self.data, position)[0])

    def set_string(self, table: Any, slot: int, text: str) -> None:
        """Point a string field at a new string, appended to the file."""
        position = self._field(table, slot)
        self.data.extend(bytes(-len(self.data) % 4))
        start = len(self.data)
        encoded = text.encode()
        self.data.extend(struct.pack("<I", len(encoded)) + encoded + b"\0")
        struct.pack_into("<I", self.data, position, start - position)

    def shorten_numbers(self, table: Any, slot: int, keep: list[int]) -> None:
        """Keep the int32 entries of a vector at the given places."""
        start = self._vector(table, slot)
        values = [struct.unpack_from("<i", self.data, start + 4 + 4 * i)[0] for i in keep]
        struct.pack_into(f"<I{len(values)}i", self.data, start, len(values), *values)

    def shorten_tables(self, table: Any, slot: int, keep: list[int]) -> None:
        """Keep the tables of a vector at the given places; offsets count from their own place."""
        start = self._vector(table, slot)
        targets = []
        for i in keep:
            place = start + 4 + 4 * i
            targets.append(place + struct.unpack_from("<I", self.data, place)[0])
        offsets = [target - (start + 4 + 4 * i) for i, target in enumerate(targets)]
        struct.pack_into(f"<I{len(offsets)}I", self.data, start, len(offsets), *offsets)
