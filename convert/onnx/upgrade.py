"""Opsets that tf2onnx does not write: the same nodes under newer versions of their ops.

1. An op that has one version in both opsets stays as it is.
2. An op with newer versions passes through each of them. Where `CHANGES` has an entry, that
   rewrites the node, keeps it, or refuses it.
3. Where it has none, the new schema must only allow more types; anything else is refused.
4. An op that the older opset does not have at all is as the newer one has it.
5. Bodies of If, Loop and Scan, and functions of the model, are taken along.

`onnx.version_converter` is not used: it takes a GroupNormalization of opset 18 for one of opset
21, where the scale has another length, says nothing of pooling that rounds sizes up, drops the
model's functions, and leaves an IR version that is too old for the opset.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import onnx

from stnkit.convert.onnx.checks import STANDARD_DOMAINS, all_nodes
from stnkit.convert.options import OPSETS
from stnkit.runtime.errors import ExportError, one_line

TF2ONNX_OPSET = 18
"""The last opset that tf2onnx 1.17 writes."""

Rule = Callable[[Any], str | None]
"""Change a node in place to its op's new version; return why it cannot be done, or None."""


def upgrade(model: Any, opset: int) -> Any:
    """Return a model of another opset that computes the same.

    Names of nodes, tensors and dimensions, initializers, metadata and the order of everything
    stay as they are. The IR version becomes the oldest one that may hold the opset, where it was
    older than that.

    Args:
        model: `onnx.ModelProto` of one of `OPSETS`, not newer than `opset`; it is not changed.
        opset: One of `OPSETS`.

    Returns:
        A new `onnx.ModelProto`, checked with the types and shapes of all its tensors; `model`
        itself where it has the opset already.

    Raises:
        ExportError: If an op changed its meaning and cannot be rewritten, or what comes out is
            not valid; names op, node and opsets.
        ValueError: If one of the opsets is none of those.
    """
    if _opset_of(model) == opset:
        return model
    upgraded = onnx.ModelProto()
    upgraded.CopyFrom(model)
    for part, body in ((upgraded, upgraded.graph), *((f, f) for f in upgraded.functions)):
        source = _opset_of(part)
        if source is None and part is not upgraded:
            continue  # a function that has no standard ops
        if source not in OPSETS or opset not in OPSETS or source > opset:
            raise ValueError(
                f"the opset of {'the model' if part is upgraded else part.name} is {source} and "
                f"{opset} is wanted: expected two of {OPSETS}, the wanted one not the older"
            )
        for node in all_nodes(body):
            if node.domain in STANDARD_DOMAINS:
                _upgrade_node(node, source, opset)
        for entry in part.opset_import:
            if entry.domain in STANDARD_DOMAINS:
                entry.version = opset
    oldest = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    upgraded.ir_version = max(model.ir_version, oldest)
    try:
        onnx.checker.check_model(upgraded, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise ExportError(
            f"the model is not valid in ONNX opset {opset} ({one_line(exc)}): use --opset "
            f"{_opset_of(model)} or less",
            format="onnx",
        ) from exc
    return upgraded


def versions_between(op: str, source: int, target: int) -> Iterator[tuple[Any, Any]]:
    """Yield (old, new) schemas of every new version of an op behind one opset, up to another.

    Args:
        op: An op of the standard that the source opset has.
        source: The opset that it is written in.
        target: The opset that it is taken to.
    """
    chain = [onnx.defs.get_schema(op, target, "")]
    while chain[-1].since_version > source:
        chain.append(onnx.defs.get_schema(op, chain[-1].since_version - 1, ""))
    chain.reverse()
    yield from itertools.pairwise(chain)


def only_adds_types(old: Any, new: Any) -> bool:
    """Return whether a schema has the attributes and tensors of another, and all its types.

    The text of a schema, which can change alone, is compared by a test.
    """
    if new.deprecated or _attributes(old) != _attributes(new):
        return False
    for before, after in ((old.inputs, new.inputs), (old.outputs, new.outputs)):
        if len(before) != len(after):
            return False
        for was, now in zip(before, after, strict=True):
            # Equal names of types: what had to have the type of another tensor still has to.
            same = (was.name, was.option, was.type_str, was.is_homogeneous) == (
                now.name,
                now.option,
                now.type_str,
                now.is_homogeneous,
            )
            if not same or not was.types <= now.types:
                return False
    return bool(old.min_input == new.min_input and old.min_output == new.min_output)


def _attributes(schema: Any) -> dict[str, tuple[Any, bool, bytes]]:
    return {
        name: (item.type, item.required, item.default_value.SerializeToString())
        for name, item in schema.attributes.items()
    }


def _opset_of(part: Any) -> int | None:
    found = [o.version for o in part.opset_import if o.domain in STANDARD_DOMAINS]
    return found[0] if found else None


def _upgrade_node(node: Any, source: int, target: int) -> None:
    if not onnx.defs.has(node.op_type, source, ""):
        if onnx.defs.has(node.op_type, target, ""):
            return  # written for what it is taken to
        raise _refusal(node, source, target, f"opset {source} has no such op")
    for old, new in versions_between(node.op_type, source, target):
        rule = CHANGES.get((node.op_type, new.since_version))
        if rule is not None:
            reason = rule(node)
        elif only_adds_types(old, new):
            reason = None
        else:
            versions = f"its version {new.since_version} differs from {old.since_version}"
            reason = f"{versions} by more than types"
        if reason is not None:
            raise _refusal(node, source, target, reason)


def _refusal(node: Any, source: int, target: int, reason: str) -> ExportError:
    return ExportError(
        f"the op {node.op_type} of the node {node.name!r} cannot be taken from ONNX opset {source} "
        f"to {target}: {reason}; use --opset {source} or less",
        format="onnx",
        op=node.op_type,
    )


def _keep(_node: Any) -> None:
    """What is new is an attribute or a type that, left out, means what was meant before."""


def _grid_sample(node: Any) -> str | None:
    """Call the modes by the names that hold for volumes too."""
    for attribute in node.attribute:
        if attribute.name == "mode":
            names = {b"bilinear": b"linear", b"bicubic": b"cubic", b"nearest": b"nearest"}
            # Taken from the caller of a function, it has no value here.
            if attribute.s not in names:
                return f"its mode is {attribute.ref_attr_name or attribute.s.decode()!r}"
            attribute.s = names[attribute.s]
    return None


def _floor_alone(node: Any) -> str | None:
    """Keep pooling whose sizes are rounded down.

    Rounded up, windows that start behind the image are left out from opset 22 on: the output can
    be smaller.
    """
    for attribute in node.attribute:
        if attribute.name == "ceil_mode" and (attribute.i or attribute.ref_attr_name):
            return "with ceil_mode it has another meaning there"
    return None


def _group_normalization(_node: Any) -> str:
    return "its scale and bias have a value a channel there, not one a group"


def _dft(_node: Any) -> str:
    return "its axis is a tensor there, and another one where none is given"


CHANGES: Mapping[tuple[str, int], Rule] = {
    ("AveragePool", 19): _keep,
    ("AveragePool", 22): _floor_alone,
    ("Cast", 19): _keep,
    ("CastLike", 19): _keep,
    ("DFT", 20): _dft,
    ("DequantizeLinear", 19): _keep,
    ("DequantizeLinear", 21): _keep,
    ("GridSample", 20): _grid_sample,
    ("GroupNormalization", 21): _group_normalization,
    ("MaxPool", 22): _floor_alone,
    ("QLinearMatMul", 21): _keep,
    # Of int32 with a float scale it is no longer; the check of types at the end finds that.
    ("QuantizeLinear", 19): _keep,
    ("QuantizeLinear", 21): _keep,
}
"""What to do at (op, version) where more than the list of allowed types changed."""
