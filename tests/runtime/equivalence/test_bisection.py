"""Where a file leaves another, without TensorFlow: names, values, layouts, and the way back."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stnkit.cli.views.bisection import print_bisection
from stnkit.runtime.compare import Tolerance
from stnkit.runtime.equivalence.allowance import allowance_for
from stnkit.runtime.equivalence.answers import answer
from stnkit.runtime.equivalence.binding import bind
from stnkit.runtime.equivalence.bisection import bisect
from stnkit.runtime.equivalence.file_subject import FileSubject, Names
from stnkit.runtime.equivalence.probes import make_probes
from stnkit.runtime.equivalence.readings import Readings
from stnkit.runtime.equivalence.results import Bisection
from stnkit.runtime.equivalence.tensor_gap import facts_of, gap_between, may_agree
from stnkit.runtime.equivalence.tensor_names import match_names
from stnkit.runtime.errors import BackendError
from stnkit.runtime.model_file import list_nodes

TAPS = {"st/theta": "loc:0/theta", "st/warped": "sampler/warped"}
NAMES = Names({"image": "image_in"}, {"probabilities": "out_p", "features": "out_f"}, TAPS)
TOLERANCE = Tolerance(1e-6, 1e-5)


def changed(content, name, change):
    model = onnx.load_from_string(content)
    for item in model.graph.initializer:
        if item.name == name:
            values = change(numpy_helper.to_array(item))
            item.CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    return model.SerializeToString()


def renamed(content):
    model = onnx.load_from_string(content)
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    names = {}
    for node in model.graph.node:
        for places in (node.input, node.output):
            for index, name in enumerate(places):
                if name not in kept:
                    places[index] = names.setdefault(name, f"t{len(names)}")
    for item in model.graph.initializer:
        item.name = names.setdefault(item.name, f"t{len(names)}")
    return model.SerializeToString(), names


def found_in(reference, candidate, **arguments):
    answers = [answer(reference, probe) for probe in make_probes(reference.inputs, None, (0, 1))]
    allowance = allowance_for(reference, answers, {}, 1)
    return bisect(reference, candidate, bind(reference, candidate), answers[0], allowance)


def toy_bisection(toy, content):
    return found_in(FileSubject("a", toy.onnx(), NAMES), FileSubject("b", content, NAMES))


class TestToy:
    """theta = flatten(image) @ W + B; warped = image * theta[0] + theta[2]; logits = warped @ V."""

    def test_equal_files(self, toy):
        found = toy_bisection(toy, toy.onnx())
        assert found.first is None
        assert found.neighbours == ()
        assert [node.name for node in found.curve] == [n.name for n in list_nodes(toy.onnx())]
        assert {node.max_abs for node in found.curve} == {0.0}
        assert found.runs == 1

    @pytest.mark.parametrize(
        ("constant", "first", "op"),
        [("W", "xw", "MatMul"), ("B", "loc:0/theta", "Add"), ("V", "logits", "MatMul")],
    )
    def test_a_weight(self, toy, constant, first, op):
        found = toy_bisection(toy, changed(toy.onnx(), constant, lambda old: old + 0.01))
        assert (found.first.name, found.first.op) == (first, op)
        assert constant in found.first.inputs
        assert found.first.layer == ""
        assert found.first.relative > 1e-3

    def test_an_error_that_no_output_shows(self, toy):
        found = toy_bisection(toy, toy.onnx(warp_error=0.3))
        assert found.first.name == "sampler/warped"
        assert found.first.max_abs == pytest.approx(0.3, rel=1e-5)
        assert found.first.inputs == ("moved", "offset")
        names = [node.name for node in found.neighbours]
        assert names[:2] == ["scaled", "moved"]
        assert names[2:] == ["w_flat", "logits"]

    @pytest.mark.parametrize(("constant", "first"), [("W", "xw"), ("V", "logits")])
    def test_names_that_say_nothing(self, toy, constant, first):
        content, names = renamed(changed(toy.onnx(), constant, lambda old: old + 0.01))
        candidate = FileSubject("b", content, Names(NAMES.inputs, NAMES.outputs, {}))
        found = found_in(FileSubject("a", toy.onnx(), NAMES), candidate)
        assert found.first.name == names[first]
        assert found.first.relative > 1e-3

    def test_a_transformer_that_is_driven(self, toy):
        reference = FileSubject("a", toy.onnx(), NAMES)
        theta = np.tile(np.array([2, 0, 0.5, 0, 0, 0], np.float32), (2, 1))
        image = {"image": toy.images(2)}
        nodes = [node.name for node in reference.nodes()]
        found = reference.fetch(image, nodes, {"st/theta": theta})
        assert set(found) == set(nodes) - {"loc:0/theta"}
        np.testing.assert_allclose(found["sampler/warped"], 2 * image["image"] + 0.5, atol=1e-6)

    def test_both_formats_have_their_nodes(self, toy, tflite_model):
        names = Names({"image": "image"}, {"features": "Identity"}, {})
        subject = FileSubject("b.tflite", tflite_model, names)
        nodes = subject.nodes()
        assert {"FULLY_CONNECTED", "RESHAPE", "MUL", "TANH", "SOFTMAX"} <= {n.op for n in nodes}
        values = subject.fetch({"image": toy.images(2)}, [node.name for node in nodes])
        truth = toy.run(toy.images(2))
        assert subject.node_of("output", "features") in values
        np.testing.assert_allclose(
            values[subject.node_of("output", "features")], truth["features"], atol=1e-5
        )
        known = {subject.node_of("input", "image")}
        for node in nodes:
            assert not known.isdisjoint(node.inputs)
            known.add(node.name)


class TestNames:
    SOURCE = ("m/conv/Conv2D", "m/conv/BiasAdd", "m/conv/Relu", "m/add_1", "m/add_11")

    @pytest.mark.parametrize(
        ("name", "others", "expected"),
        [
            ("m/conv/Relu:0", (), "m/conv/Relu"),
            ("StatefulPartitionedCall/m/conv/Relu", (), "m/conv/Relu"),
            # Of what was fused, the last; the order in the name says nothing.
            ("m/conv/Relu;m/conv/Conv2D;m/conv/BiasAdd", (), "m/conv/Relu"),
            ("m/conv/Conv2D;m/conv/BiasAdd1", ("m/conv/Conv2D;m/conv/BiasAdd",), "m/conv/BiasAdd"),
            ("m/conv/Conv2D1", ("m/conv/Conv2D",), "m/conv/Conv2D"),
            # A number that belongs to the name stays, unless several names were joined.
            ("m/add_11", ("m/add_1",), "m/add_11"),
            ("m/conv/Conv2D;m/add_11", ("m/conv/Conv2D;m/add_1",), "m/add_1"),
            # What tf2onnx puts in front of an operation is not that operation.
            ("m/conv/Conv2D__10:0", (), None),
            ("arith.constant7", (), None),
            (";", (), None),
        ],
    )
    def test_one_name(self, name, others, expected):
        # Beside a name that is known: scopes are called the same then.
        found = match_names(self.SOURCE, [name, "m/add_1"], {name, *others})
        assert found.get(name) == expected

    def test_scopes_of_another_name(self):
        found = match_names(self.SOURCE, ["other/conv/Relu:0", "conv/BiasAdd", "Relu", "t0"], ())
        assert found == {"other/conv/Relu:0": "m/conv/Relu", "conv/BiasAdd": "m/conv/BiasAdd"}

    def test_an_end_that_two_have_says_nothing(self):
        assert match_names(["a/conv/Relu", "b/conv/Relu"], ["conv/Relu"], ()) == {}


class TestGaps:
    VALUE = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)

    @pytest.mark.parametrize(
        "there",
        [
            VALUE,
            VALUE.reshape(6, 20),
            VALUE.transpose(0, 3, 1, 2),
            VALUE.transpose(0, 2, 3, 1),
            VALUE.astype(np.float64),
        ],
        ids=["same", "reshaped", "channels_first", "channels_last", "float64"],
    )
    def test_a_layout_is_no_difference(self, there):
        assert gap_between(self.VALUE, there, TOLERANCE).max_abs == 0
        assert may_agree(facts_of(self.VALUE), facts_of(there), TOLERANCE)

    def test_rows_and_columns_swapped_are_one(self):
        gap = gap_between(self.VALUE, self.VALUE.transpose(0, 2, 1, 3), TOLERANCE)
        assert gap.share > 1

    def test_shares_of_what_is_allowed(self):
        gap = gap_between(np.float32([1, 0]), np.float32([1, 2e-6]), TOLERANCE)
        assert gap.max_abs == pytest.approx(2e-6)
        assert gap.share == pytest.approx(2)

    def test_other_sizes_cannot_be_compared(self):
        assert gap_between(self.VALUE, self.VALUE[:1], TOLERANCE) is None
        assert not may_agree(facts_of(self.VALUE), facts_of(self.VALUE[:1]), TOLERANCE)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_what_is_not_finite(self, value):
        odd = np.float32([1, value])
        assert gap_between(odd, odd, TOLERANCE).share == 0
        assert gap_between(odd, np.float32([1, 2]), TOLERANCE).share == np.inf
        assert gap_between(np.float32([1, 2]), odd, TOLERANCE).share == np.inf
        assert not may_agree(facts_of(odd), facts_of(odd), TOLERANCE)

    def test_numbers_and_truths(self):
        assert gap_between(np.int64([1, 2]), np.int32([1, 2]), TOLERANCE).share == 0
        assert gap_between(np.array([True, False]), np.array([True, True]), TOLERANCE).share > 1


class TestReadings:
    """As few runs as memory allows, and none lost for a tensor that cannot be read."""

    @staticmethod
    def subject(size, refused=()):
        def fetch(inputs, names, drives):
            asked.append(list(names))
            if set(names) & set(refused):
                raise BackendError("no")
            return {name: np.zeros(size, np.uint8) for name in names if name != "absent"}

        asked = []
        return SimpleNamespace(fetch=fetch, asked=asked)

    @staticmethod
    def all_of(readings, names):
        return [name for chunk in readings.chunks(names) for name in chunk]

    NAMES = tuple(f"n{i}" for i in range(40))

    def test_small_tensors_in_one_run(self):
        readings = Readings(self.subject(8), {"x": np.zeros(4)}, {}, 2**20)
        assert self.all_of(readings, self.NAMES) == list(self.NAMES)
        assert readings.runs == 1
        self.all_of(readings, self.NAMES)
        assert readings.runs == 1  # they were kept

    def test_large_tensors_in_parts(self):
        subject = self.subject(16 * 2**20)
        readings = Readings(subject, {"x": np.zeros(2**20, np.uint8)}, {}, 0)
        assert self.all_of(readings, self.NAMES[:20]) == list(self.NAMES[:20])
        assert readings.runs > 1
        assert max(map(len, subject.asked)) <= 8

    def test_what_cannot_be_read_is_left_out(self):
        readings = Readings(self.subject(8, {"n3", "n30"}), {"x": np.zeros(4)}, {}, 0)
        names = [*self.NAMES, "absent"]
        assert self.all_of(readings, names) == [n for n in self.NAMES if n not in ("n3", "n30")]

    def test_a_model_that_refuses_everything_is_given_up(self):
        subject = self.subject(8, self.NAMES)
        readings = Readings(subject, {"x": np.zeros(4)}, {}, 0)
        assert self.all_of(readings, self.NAMES) == []
        assert readings.runs < 60


def test_onnx_nodes_know_what_a_branch_reads():
    branch = helper.make_graph(
        [helper.make_node("Add", ["inner_x", "outside"], ["sum"])],
        "then",
        [],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.ones(1, np.float32), "inner_x")],
    )
    nodes = [
        helper.make_node("Identity", ["x"], ["outside"]),
        helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch),
        # An optional input and an optional output that are left out.
        helper.make_node("Clip", ["y", "", "high"], ["z"]),
        helper.make_node("Dropout", ["z"], ["w", ""]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, [1])], [value("w", TensorProto.FLOAT, [1])]
    )
    found = list_nodes(helper.make_model(graph).SerializeToString())
    assert [(node.name, node.op) for node in found] == [
        ("outside", "Identity"),
        ("y", "If"),
        ("z", "Clip"),
        ("w", "Dropout"),
    ]
    assert "outside" in found[1].inputs
    assert found[2].inputs == ("y", "high")


class TestView:
    def test_where_the_two_part(self, reports, capsys):
        print_bisection(reports.curve(23))
        lines = capsys.readouterr().out.splitlines()
        assert "model/layer_23/out (GATHER, layer layer_23)" in lines[0]
        assert "computed from model/layer_22/out" in lines[1]
        assert "40 tensors" in lines[1]
        rows = [line.split()[0] for line in lines[3:]]
        assert rows == [f"model/layer_{i}/out" for i in (21, 22, 23, 24, 25)]
        assert [line.endswith("first wrong") for line in lines[3:]] == [0, 0, 1, 0, 0]

    def test_nowhere(self, capsys):
        print_bisection(Bisection(None, (), (), 1))
        out = capsys.readouterr().out
        assert "No tensor inside" in out
        assert "one run" in out
