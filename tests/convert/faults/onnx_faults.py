"""Faults that are put into an ONNX file with the onnx package."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper


def edited(change):
    """Return a function from a file's content to that of a changed one."""

    def apply(content):
        model = onnx.load_from_string(content)
        change(model.graph)
        onnx.checker.check_model(model)
        return model.SerializeToString()

    return apply


def flip_bit(rank=0, bit=23):
    """Flip a bit of the largest value but `rank`; bit 23 is the lowest of the exponent."""

    def change(values):
        flat = np.array(values, np.float32).ravel()
        place = np.argsort(-np.abs(flat), kind="stable")[rank]
        flat.view(np.uint32)[place] ^= np.uint32(1 << bit)
        return flat.reshape(values.shape)

    return change


def constant(*words, change, rank=None):
    """Change a constant whose name has all these words in it."""

    def edit(graph):
        found = [
            item
            for item in graph.initializer
            if all(word in item.name for word in words) and rank in (None, len(item.dims))
        ]
        assert len(found) == 1, [item.name for item in found]
        old = numpy_helper.to_array(found[0])
        new = np.asarray(change(old), old.dtype)
        assert new.shape == old.shape
        found[0].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(new), found[0].name))

    return edited(edit)


def _the(graph, op, word=""):
    found = [
        node for node in graph.node if node.op_type == op and (word in node.name + node.output[0])
    ]
    assert found, f"no {op} with {word!r}"
    return found


def replace_node(op, word, new_op, drop=(), extra=(), **attributes):
    """Replace a node's operation."""

    def edit(graph):
        node = _the(graph, op, word)[0]
        node.op_type = new_op
        kept = [item for item in node.attribute if item.name not in {*drop, *attributes}]
        del node.attribute[:]
        node.attribute.extend(kept)
        for name, value in attributes.items():
            node.attribute.append(helper.make_attribute(name, value))
        for number, value in enumerate(extra):
            name = f"fault_{number}"
            graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
            node.input.append(name)

    return edited(edit)


def after(op, word, make):
    """Put nodes behind a node: `make(old name, new name)` gives them."""

    def edit(graph):
        for number, node in enumerate(_the(graph, op, word)):
            old, new = f"fault_before_{number}", node.output[0]
            node.output[0] = old
            position = list(graph.node).index(node) + 1
            made, constants = make(old, new, str(number))
            for step, item in enumerate(made):
                graph.node.insert(position + step, item)
            graph.initializer.extend(
                numpy_helper.from_array(np.asarray(value), name)
                for name, value in constants.items()
            )
            return

    return edited(edit)


def before_input(name, make):
    """Put nodes between an input and all that reads it."""

    def edit(graph):
        for node in graph.node:
            for index, read in enumerate(node.input):
                if read == name:
                    node.input[index] = "fault_input"
        made, constants = make(name, "fault_input", "in")
        for step, item in enumerate(made):
            graph.node.insert(step, item)
        graph.initializer.extend(
            numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
        )

    return edited(edit)


def in_half(old, new, number):
    half = f"fault_half_{number}"
    return [
        helper.make_node("Cast", [old], [half], to=onnx.TensorProto.FLOAT16),
        helper.make_node("Cast", [half], [new], to=onnx.TensorProto.FLOAT),
    ], {}


def one_node(op, *constants, **attributes):
    def make(old, new, number):
        names = {f"fault_{number}_{i}": np.asarray(c) for i, c in enumerate(constants)}
        return [helper.make_node(op, [old, *names], [new], **attributes)], names

    return make


def coordinates_in_half(content):
    """Compute pixel coordinates in float16: what is compared before they are clipped."""

    def edit(graph):
        names = {node.input[0] for node in graph.node if node.op_type == "Greater"}
        assert len(names) == 2
        for number, node in enumerate([n for n in graph.node if n.output[0] in names]):
            old, new = f"fault_before_{number}", node.output[0]
            node.output[0] = old
            position = list(graph.node).index(node) + 1
            for step, item in enumerate(in_half(old, new, str(number))[0]):
                graph.node.insert(position + step, item)

    return edited(edit)(content)


def swapped_outputs(content):
    """Give two outputs each other's names."""

    def edit(graph):
        first, second = (output.name for output in graph.output)
        names = {first: second, second: first}
        for node in graph.node:
            for place in (node.input, node.output):
                for index, name in enumerate(place):
                    place[index] = names.get(name, name)

    return edited(edit)(content)


def half_weights(content):
    """Round every weight to float16 and keep it as float32."""

    def edit(graph):
        for item in graph.initializer:
            if item.data_type == onnx.TensorProto.FLOAT and len(item.dims) >= 1:
                values = numpy_helper.to_array(item).astype(np.float16).astype(np.float32)
                item.CopyFrom(numpy_helper.from_array(values, item.name))

    return edited(edit)(content)


def dropout_active(content):
    """Set half of the features behind the pooling to zero, others each time."""

    def make(old, new, number):
        steps = [
            helper.make_node("RandomUniformLike", [old], ["fault_random"]),
            helper.make_node("Less", ["fault_random", "fault_half"], ["fault_kept"]),
            helper.make_node("Cast", ["fault_kept"], ["fault_mask"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", ["fault_mask", "fault_two"], ["fault_factor"]),
            helper.make_node("Mul", [old, "fault_factor"], [new]),
        ]
        return steps, {"fault_half": np.array(0.5, "f4"), "fault_two": np.array(2, "f4")}

    return after("GlobalAveragePool", "average", make)(content)


def int8_weights(word):
    """Round a kernel to 8 bits."""

    def rounded(values):
        scale = np.abs(values).max() / 127
        return np.round(values / scale) * scale

    return constant(word, change=rounded, rank=4)


def replace_attributes(**attributes):
    """Change attributes of the first GridSample."""
    return replace_node("GridSample", "", "GridSample", **attributes)


def _before_grid_sample(index, make):
    """Put a node in front of an input of the first GridSample."""

    def edit(graph):
        node = _the(graph, "GridSample")[0]
        old, node.input[index] = node.input[index], "fault_new"
        made, constants = make(old, "fault_new", "op")
        for step, item in enumerate(made):
            graph.node.insert(list(graph.node).index(node) + step, item)
        graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in constants.items()
        )

    return edited(edit)


grid_swapped = _before_grid_sample(1, one_node("Gather", np.array([1, 0]), axis=3))
image_turned = _before_grid_sample(0, one_node("Transpose", perm=[0, 1, 3, 2]))
