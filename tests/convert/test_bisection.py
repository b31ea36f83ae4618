"""The first tensor that is wrong in a converted model, found in real artifacts with one fault each.

The layer of the fault is known: it is where the weight that was changed belongs.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper

from stnkit.convert.frozen import freeze
from stnkit.convert.graph_nodes import graph_nodes
from stnkit.convert.keras_subject import KerasSubject, open_keras
from stnkit.convert.onnx import export_onnx
from stnkit.convert.source import source_from_keras
from stnkit.convert.tflite import export_tflite
from stnkit.runtime.equivalence.allowance import allowance_for
from stnkit.runtime.equivalence.answers import answer, driven_answers
from stnkit.runtime.equivalence.binding import bind
from stnkit.runtime.equivalence.bisection import bisect
from stnkit.runtime.equivalence.engine import compare_subjects
from stnkit.runtime.equivalence.file_subject import FileSubject
from stnkit.runtime.equivalence.options import CompareOptions
from stnkit.runtime.equivalence.probes import make_probes

FORMATS = ("onnx", "tflite")


class Bench:
    """A source with its artifacts and its answers."""

    def __init__(self, subject):
        self.subject = subject
        self.files = {
            "onnx": export_onnx(subject.graph, 17, "gather").content,
            "tflite": export_tflite(subject.graph).content,
        }
        probes = make_probes(subject.inputs, None, (0.0, 1.0))
        self.answers = [answer(subject, probe) for probe in probes]
        self.allowance = allowance_for(subject, self.answers, {}, 1)

    def bisect(self, content, item=None):
        candidate = FileSubject("candidate", content)
        binding = bind(self.subject, candidate)
        item = item or self._smallest_failed(candidate, binding)
        return bisect(self.subject, candidate, binding, item, self.allowance)

    def _smallest_failed(self, candidate, binding):
        """Return the smallest probe with a wrong output or tap, else the smallest of all."""
        for item in self.answers:
            values = candidate.run(item.probe.inputs)
            if binding.taps:
                values |= candidate.run(item.probe.inputs, taps=True)
            for name, expected in {**item.outputs, **item.taps}.items():
                there = {**binding.outputs, **binding.taps}.get(name)
                tolerance = self.allowance.of(name, item.probe)
                if there is not None and not np.allclose(
                    values[there], expected, rtol=tolerance.rtol, atol=tolerance.atol
                ):
                    return item
        return self.answers[0]

    def check(self, format):
        """Check that the artifact itself agrees, tensor by tensor."""
        found = self.bisect(self.files[format])
        assert found.first is None
        assert found.neighbours == ()
        return found


@pytest.fixture(scope="module")
def digits():
    return Bench(open_keras("digits"))


def one_weight(values):
    """Change the largest weight by a tenth."""
    flat = values.reshape(-1)
    flat[np.abs(flat).argmax()] *= 1.1


def exponent_bit(values):
    flat = values.reshape(-1)
    place = np.abs(flat).argmax()
    flat[place : place + 1].view(np.uint32)[:] ^= np.uint32(1 << 24)


def scaled(values):
    values *= 1.02


def zeroed(values):
    values[:] = 0


def fault(content, word, rank, change):
    """Return a file with a change in its only float constant of a rank and with a word in its name.

    A constant may be named after several operations: nothing else decides in whose layer it is.
    """
    if content[4:8] == b"TFL3":
        changed = bytearray(content)
        model = schema.Model.GetRootAsModel(changed, 0)
        graph = model.Subgraphs(0)
        tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
        found = [
            tensor
            for tensor in tensors
            if word in tensor.Name().decode()
            and tensor.ShapeLength() == rank
            and tensor.Type() == schema.TensorType.FLOAT32
            and model.Buffers(tensor.Buffer()).DataLength()
        ]
        assert len(found) == 1, [tensor.Name() for tensor in found]
        # A view into the file itself.
        change(model.Buffers(found[0].Buffer()).DataAsNumpy().view(np.float32))
        return bytes(changed)
    model = onnx.load_from_string(content)
    found = [
        item
        for item in model.graph.initializer
        if word in item.name and len(item.dims) == rank and item.data_type == onnx.TensorProto.FLOAT
    ]
    assert len(found) == 1, [item.name for item in found]
    values = numpy_helper.to_array(found[0]).copy()
    change(values)
    found[0].CopyFrom(numpy_helper.from_array(values, found[0].name))
    return model.SerializeToString()


# Word in the constant's name, its rank, what happens to it, its layer.
FAULTS = {
    "one_weight_of_a_kernel": ("block2_conv", 4, one_weight, "block2_conv"),
    "exponent_bit_in_a_folded_kernel": ("block3_conv", 4, exponent_bit, "block3_conv"),
    "scale_of_a_folded_norm": ("block4_conv", 4, scaled, "block4_norm"),
    "shift_of_a_folded_norm": ("block1_norm", 1, zeroed, "block1_norm"),
    "kernel_of_the_localization": ("conv2d_2", 4, one_weight, "conv2d_2"),
    "bias_of_the_localization": ("conv2d_3", 1, zeroed, "conv2d_3"),
    "dense_of_the_localization": ("/dense_1_1/", 2, one_weight, "dense_1"),
    "theta_kernel": ("/theta_1/", 2, exponent_bit, "theta"),
    "theta_bias": ("/theta_1/", 1, zeroed, "theta"),
    "last_layer": ("probabilities_1/", 2, exponent_bit, "probabilities"),
    "bias_of_the_last_layer": ("probabilities_1/", 1, zeroed, "probabilities"),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", FAULTS)
def test_the_layer_of_a_fault_is_found(digits, format, name):
    word, rank, change, layer = FAULTS[name]
    found = digits.bisect(fault(digits.files[format], word, rank, change))
    assert layer in found.first.layer.split(", ")
    assert len(found.first.layer.split(", ")) <= 3
    assert found.first.relative > 1e-4
    assert found.first in found.curve
    # All that is computed before it is right, and what follows is wrong.
    before = found.curve[: found.curve.index(found.first)]
    assert max((node.relative or 0) for node in before[-3:]) < 1e-4
    assert len(found.neighbours) >= 2
    assert found.first not in found.neighbours


def test_a_fault_inside_the_sampler_is_found(digits):
    content = digits.files["onnx"]
    # What theta is multiplied by: the columns, and the size of the image.
    names = {
        item.name: len(item.dims)
        for item in onnx.load_from_string(content).graph.initializer
        if list(item.dims) in ([28], [2, 1]) and "spatial_transformer" in item.name
    }
    multiplied = 0
    for name, rank in names.items():
        found = digits.bisect(fault(content, name, rank, scaled))
        if found.first is None:  # the offset of a pixel's centre: 2 % of it are allowed here
            continue
        assert found.first.layer == "spatial_transformer"
        assert name in found.first.inputs
        multiplied += found.first.op == "Mul"
    assert multiplied >= 2


@pytest.mark.parametrize("format", FORMATS)
def test_thetas_that_are_given(digits, format):
    """Coordinates lie on ties there, and may be NaN: neither is taken for a fault."""
    faulty = fault(digits.files[format], "block2_conv", 4, zeroed)
    driven = driven_answers(digits.subject, digits.answers, 1, None)
    # At a coordinate of a million anything is allowed.
    items = [item for item in driven if not item.probe.name.startswith("huge")]
    assert len(items) >= 2
    for item in items:
        assert digits.bisect(digits.files[format], item).first is None
        first = digits.bisect(faulty, item).first
        assert first is not None, item.probe.name
        assert "block2_conv" in first.layer.split(", ")


@pytest.mark.parametrize("scope", ["coarse", "fine"])
@pytest.mark.parametrize("format", FORMATS)
def test_two_transformers(two, format, scope):
    word = next(
        node.name.rpartition("/")[0]
        for node in two.subject.nodes()
        if node.op == "Conv2D" and f"{scope}_1/" in node.name
    )
    found = two.bisect(fault(two.files[format], word, 4, one_weight))
    assert f"{scope}_1/" in found.first.name
    assert word.rpartition("/")[2].removesuffix("_1") in found.first.layer.split(", ")


@pytest.mark.parametrize("format", FORMATS)
def test_two_faithful_transformers(two, format):
    assert len(two.check(format).curve) > 100


@pytest.fixture(scope="module")
def two(build):
    return Bench(KerasSubject("two", source_from_keras(build("two_transformers"))))


def renamed(content, new_name):
    """Return an ONNX file in which every tensor inside has another name."""
    model = onnx.load_from_string(content)
    graph = model.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    old = [name for node in graph.node for name in node.output]
    old += [item.name for item in graph.initializer]
    names = {name: new_name(name, number) for number, name in enumerate(old) if name not in kept}
    for node in graph.node:
        node.name = ""
        for places in (node.input, node.output):
            for index, name in enumerate(places):
                places[index] = names.get(name, name)
    for item in graph.initializer:
        item.name = names[item.name]
    del graph.value_info[:]
    return model.SerializeToString()


def numbered(name, number):
    return f"t{number}"


def in_another_scope(name, number):
    return name.replace("digits_1/", "exported/model/")


def test_a_faithful_file_with_foreign_names_is_matched_by_value(digits):
    found = digits.bisect(renamed(digits.files["onnx"], numbered))
    assert found.first is None
    assert len(found.curve) > 100
    layers = {layer for node in found.curve for layer in node.layer.split(", ")}
    assert {"conv2d_2", "spatial_transformer", "block1_conv", "block4_norm"} <= layers


@pytest.mark.parametrize("new_name", [numbered, in_another_scope])
@pytest.mark.parametrize("name", FAULTS)
def test_the_layer_of_a_fault_is_found_under_foreign_names(digits, name, new_name):
    word, rank, change, layer = FAULTS[name]
    content = renamed(fault(digits.files["onnx"], word, rank, change), new_name)
    found = digits.bisect(content)
    assert layer in found.first.layer.split(", ")
    assert found.first.relative > 1e-4
    # What follows is matched by its place: the error can be followed to the output.
    if layer != "probabilities":
        order = [node.name for node in found.curve]
        assert order.index(found.first.name) < len(order) - 3


def test_one_format_against_the_other(digits):
    """No source is needed: the layers are then not known, the tensors are."""
    reference = FileSubject("a.onnx", digits.files["onnx"])
    whole = FileSubject("b.tflite", digits.files["tflite"])
    faulty = FileSubject("c.tflite", fault(digits.files["tflite"], "block2_conv", 4, one_weight))
    options = CompareOptions(bisect=True, drive=False)
    report = compare_subjects(reference, [whole, faulty], options)
    right, wrong = report.candidates
    assert right.passed
    assert right.bisection is None
    assert "block2_conv" in wrong.bisection.first.name
    assert wrong.bisection.first.op == "CONV_2D"
    assert wrong.bisection.first.layer == ""


def test_the_engine_looks_inside_what_failed_alone(digits):
    faulty = FileSubject("c.onnx", fault(digits.files["onnx"], "block2_conv", 4, one_weight))
    options = CompareOptions(bisect=True, drive=False)
    report = compare_subjects(digits.subject, [faulty], options)
    assert "block2_conv" in report.candidates[0].bisection.first.layer
    assert report.to_json()["candidates"][0]["bisection"]["first"]["op"] == "Conv"
    quiet = compare_subjects(digits.subject, [faulty], CompareOptions(drive=False))
    assert quiet.candidates[0].bisection is None


def test_nodes_stand_behind_what_they_are_computed_from(digits):
    seen = set(digits.subject.graph.inputs.values())
    nodes = graph_nodes(digits.subject.graph)
    names = {node.name for node in nodes}
    assert len(names) == len(nodes) > 100
    for node in nodes:
        assert {name for name in node.inputs if name in names} <= seen
        seen.add(node.name)
    # What only constants go into is not computed from an input.
    assert not any(node.op in ("Const", "Placeholder", "Rsqrt") for node in nodes)


def test_fetched_tensors_are_those_of_the_run(digits):
    subject = digits.subject
    image = digits.answers[1].probe.inputs
    theta = subject.node_of("tap", "spatial_transformer/theta")
    output = subject.node_of("output", "probabilities")
    found = subject.fetch(image, [theta, output])
    taps = digits.answers[1].taps
    np.testing.assert_allclose(found[theta], taps["spatial_transformer/theta"], atol=1e-6)
    np.testing.assert_allclose(found[output], digits.answers[1].outputs["probabilities"], atol=1e-6)
    assert subject.node_of("output", "image") is None


def test_a_graph_without_functions_to_sort(build):
    """A fixed batch changes nothing of the nodes."""
    source = source_from_keras(build("no_transformer"))
    counts = {len(graph_nodes(freeze(source, batch))) for batch in (None, 2)}
    assert len(counts) == 1
