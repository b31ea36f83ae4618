"""What onnx says of every op between the opsets, next to what the upgrade knows of it."""

from __future__ import annotations

import functools
import itertools

import onnx

from stnkit.convert.onnx.upgrade import CHANGES, only_adds_types, versions_between
from stnkit.convert.options import OPSETS

# Changed texts of ops whose attributes and tensors stayed: read, and found to mean the same.
REVIEWED = {
    ("Dropout", 22): "the ratio left out is 0.5 in both; only training drops anything",
    ("EyeLike", 22): "a type for an input that has none, which no input may be",
    ("LSTM", 22): "a letter in the name of a dimension",
    ("OptionalGetElement", 18): "also takes what is not optional",
    ("Pad", 19): "a fourth mode",
    ("ReduceMax", 20): "an order of booleans, which were not allowed before",
    ("ReduceMin", 20): "an order of booleans, which were not allowed before",
    ("Resize", 19): "one more coordinate_transformation_mode; the formulas of the others stayed",
    ("ScatterElements", 18): "two more reductions",
    ("ScatterND", 18): "two more reductions",
    ("Transpose", 21): "perm has as many entries as the input has axes, as it had to have before",
}
REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
# Without an entry in `CHANGES`, and with more than new types: refused by what the schemas say.
REFUSED = {
    ("LpPool", 18),
    ("OptionalHasElement", 18),
    ("Pad", 18),
    ("Resize", 18),
    ("Split", 18),
    *((f"Reduce{name}", 18) for name in REDUCTIONS),
}


@functools.cache
def history():
    """Return every schema of the standard, by op and by version."""
    found = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            found.setdefault(schema.name, {})[schema.since_version] = schema
    return found


def steps():
    """Return every (op, old schema, new schema) between the first opset and the last."""
    found = []
    for op, versions in sorted(history().items()):
        first = max((v for v in versions if v <= OPSETS[0]), default=None)
        later = [v for v in sorted(versions) if OPSETS[0] < v <= OPSETS[-1]]
        chain = later if first is None else [first, *later]
        found += [(op, versions[a], versions[b]) for a, b in itertools.pairwise(chain)]
    return found


def text_of(schema):
    """Return all that a schema says of its meaning, words and formulas."""
    parts = [schema.doc or ""]
    parts += [f"{item.name}: {item.description}" for item in (*schema.inputs, *schema.outputs)]
    parts += [f"{name}: {item.description}" for name, item in sorted(schema.attributes.items())]
    if schema.has_function:
        parts += [str(node) for node in schema.function_body.node]
    return [" ".join(part.split()) for part in parts]


def test_every_change_is_known():
    walked = steps()
    assert len(walked) > 100
    changed = {(op, new.since_version) for op, a, new in walked if not only_adds_types(a, new)}
    assert changed - set(CHANGES) == REFUSED


def test_every_changed_text_was_read():
    changed = {(op, new.since_version) for op, a, new in steps() if text_of(a) != text_of(new)}
    assert changed - set(CHANGES) - REFUSED <= set(REVIEWED)
    # Its attributes and tensors are the same: only a sentence tells that its meaning is not.
    assert ("MaxPool", 22) in changed


def test_no_rule_is_for_a_version_that_is_not():
    known = {(op, new.since_version) for op, _, new in steps()}
    assert set(CHANGES) <= known
    assert set(REVIEWED) <= known


def test_versions_come_in_order():
    for op, versions in history().items():
        if onnx.defs.has(op, OPSETS[0], "") and min(versions) <= OPSETS[0]:
            found = [(a.since_version, b.since_version) for a, b in versions_between(op, 16, 22)]
            wanted = [(a.since_version, b.since_version) for name, a, b in steps() if name == op]
            assert found == wanted, op


def test_fewer_types_are_a_change():
    older, newer = onnx.defs.get_schema("Conv", 11), onnx.defs.get_schema("Conv", 22)
    assert only_adds_types(older, newer)
    assert not only_adds_types(newer, older)
