"""Opsets 19 to 22, which tf2onnx does not write: the same network, under newer versions of ops."""

from __future__ import annotations

import functools
import itertools

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import stnkit.runtime as runtime
from stnkit.convert import ConversionOptions, convert, load_source, source_from_keras
from stnkit.convert.frozen import freeze
from stnkit.convert.onnx import export_onnx
from stnkit.convert.onnx.upgrade import upgrade
from stnkit.convert.options import OPSETS
from stnkit.models.zoo import make
from stnkit.runtime.errors import ExportError


def test_the_command_line_offers_every_opset():
    from stnkit.cli.commands.convert import command

    option = next(item for item in command.params if item.name == "opset")
    assert option.type.choices == tuple(str(opset) for opset in OPSETS)


def recurrent():
    """Return a network whose GRU becomes a Loop."""
    rows = keras.Input((4, 3), name="rows")
    return keras.Model(rows, keras.layers.GRU(2, name="gru")(rows))


NETWORKS = {
    "digits": lambda: load_source("digits"),
    "segmentation": lambda: source_from_keras(
        make("segmentation", input_shape=(32, 40, 2), classes=3, frame_size=(16, 16))
    ),
    "spline": lambda: source_from_keras(
        make("paper-st-cnn", input_shape=(28, 28, 1), classes=5, transform="thin_plate_spline")
    ),
    "recurrent": lambda: source_from_keras(recurrent()),
}


@pytest.fixture(scope="module")
def source():
    """Return a network's source by its name, made once."""
    keras.utils.set_random_seed(3)
    return functools.cache(lambda name: NETWORKS[name]())


@pytest.fixture(scope="module")
def exported(source):
    """Return the ONNX file of a network, by name, opset and batch, parsed."""

    @functools.cache
    def export(name, opset, batch):
        return onnx.load_from_string(export_onnx(freeze(source(name), batch), opset).content)

    return export


def outside(model):
    """Return what a model shows: (name, type and dimensions) of every input and output."""
    return [
        (value.name, value.type.SerializeToString())
        for value in (*model.graph.input, *model.graph.output)
    ]


QUICK = [
    *(("digits", opset, None if opset % 2 else 3) for opset in (16, 19, 20, 21, 22)),
    ("digits", 22, None),
    ("segmentation", 22, None),
    ("spline", 20, None),
    ("recurrent", 19, 2),
    ("recurrent", 22, None),
]
ALL = set(itertools.product(NETWORKS, OPSETS, (None, 1, 3)))


def prove(source, exported, name, opset, batch, folder):
    """Convert, which proves what is written, and look at the file; it is as that of opset 17."""
    options = ConversionOptions(formats=("onnx",), opset=opset, batch=batch)
    result = convert(source(name), folder / "m.bundle", options)
    artifact = result.manifest.artifacts[0]
    content = (result.bundle / artifact.file).read_bytes()
    summary = runtime.summarize(content)
    assert summary.opset == opset == artifact.opset
    assert summary.foreign_ops == ()
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    oldest = onnx.helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    assert model.ir_version == max(8, oldest)
    assert model.producer_name == "stnkit"
    usual = exported(name, 17, batch)
    assert outside(model) == outside(usual)
    assert model.graph.name == usual.graph.name
    inside = {tensor for node in model.graph.node for tensor in node.output}
    taps = {tap.name for tap in result.manifest.taps}
    assert taps <= inside
    assert set(summary.tap_names) == taps


@pytest.mark.parametrize(("name", "opset", "batch"), QUICK)
def test_networks(name, opset, batch, source, exported, tmp_path):
    prove(source, exported, name, opset, batch, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "opset", "batch"), sorted(ALL - set(QUICK), key=str))
def test_networks_at_every_opset_and_batch(name, opset, batch, source, exported, tmp_path):
    prove(source, exported, name, opset, batch, tmp_path)


@pytest.mark.parametrize("name", ["digits", "recurrent"])
def test_only_numbers_of_versions_change(name, exported):
    """What is written and what the converter of onnx makes of the same file, part by part."""
    model = exported(name, 18, None)
    helper.set_model_props(model, {"key": "value"})
    before = model.SerializeToString(deterministic=True)
    for opset in (19, 20, 21, 22):
        found = upgrade(model, opset)
        assert model.SerializeToString(deterministic=True) == before
        converted = onnx.version_converter.convert_version(model, opset)
        assert [node.op_type for node in found.graph.node] == [
            node.op_type for node in converted.graph.node
        ]
        modes = [a for node in converted.graph.node for a in node.attribute if a.name == "mode"]
        assert [a for node in found.graph.node for a in node.attribute if a.name == "mode"] == modes
        found.opset_import[0].version, found.ir_version = 18, model.ir_version
        for node in found.graph.node:
            if node.op_type == "GridSample" and opset >= 20:
                mode = next(item for item in node.attribute if item.name == "mode")
                mode.s = {b"linear": b"bilinear", b"cubic": b"bicubic"}.get(mode.s, mode.s)
        assert found.SerializeToString(deterministic=True) == before
    assert upgrade(model, 18) is model


def floats(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape or None)


IMAGE, GRID = floats("image", 2, 3, 7, 6), floats("grid", 2, 5, 4, 2)


def model_of(nodes, inputs, outputs, opset=16, functions=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid("own", 1)] if functions else []
    return helper.make_model(
        graph, opset_imports=imports, functions=list(functions), ir_version=8, producer_name="me"
    )


def grid_sample(**modes):
    return helper.make_node("GridSample", ["image", "grid"], ["warped"], name="sample", **modes)


def feeds(**more):
    rng = np.random.default_rng(4)
    grid = rng.uniform(-1.6, 1.6, (2, 5, 4, 2)).astype("float32")
    grid[0, 0, 0] = (-1, 1)
    return {"image": rng.random((2, 3, 7, 6), dtype="float32"), "grid": grid, **more}


def run(model, inputs):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)[0]


def branches():
    """Return an If with a sampler in each body, one of them behind a second If."""
    out, flag = floats("warped", 2, 3, 5, 4), "flag"
    body = helper.make_graph([grid_sample(mode="bicubic")], "inner", [], [out])
    other = helper.make_graph([grid_sample(mode="nearest")], "other", [], [out])
    inner = helper.make_node("If", [flag], ["warped"], then_branch=body, else_branch=other)
    then = helper.make_graph([inner], "then", [], [out])
    last = helper.make_graph([grid_sample(mode="bilinear")], "else", [], [out])
    node = helper.make_node("If", [flag], ["warped"], then_branch=then, else_branch=last)
    asked = helper.make_tensor_value_info(flag, TensorProto.BOOL, [])
    return model_of([node], [IMAGE, GRID, asked], [out])


def function(node):
    """Return a model that calls a function of its own, which holds the node."""
    own = helper.make_function(
        "own",
        "Warp",
        ["image", "grid"],
        ["warped"],
        [node],
        [helper.make_opsetid("", 16)],
        ["mode"],
    )
    call = helper.make_node("Warp", ["image", "grid"], ["warped"], domain="own", mode="bilinear")
    return model_of([call], [IMAGE, GRID], [floats("warped", 2, 3, 5, 4)], functions=[own])


class TestGridSample:
    """The op whose modes have new names in opset 20."""

    @pytest.mark.parametrize("opset", [19, 20, 21, 22])
    @pytest.mark.parametrize("mode", [None, "bilinear", "nearest", "bicubic"])
    def test_bit_for_bit(self, mode, opset):
        for padding_mode in ("zeros", "border", "reflection"):
            for align_corners in (0, 1):
                modes = {"padding_mode": padding_mode, "align_corners": align_corners}
                node = grid_sample(**modes, **({"mode": mode} if mode else {}))
                model = model_of([node], [IMAGE, GRID], [floats("warped", 2, 3, 5, 4)])
                upgraded = upgrade(model, opset)
                np.testing.assert_array_equal(run(upgraded, feeds()), run(model, feeds()))
                by_onnx = onnx.version_converter.convert_version(model, opset)
                assert list(upgraded.graph.node[0].attribute) == sorted(
                    by_onnx.graph.node[0].attribute,
                    key=lambda item: [a.name for a in node.attribute].index(item.name),
                )

    @pytest.mark.parametrize("flag", [True, False])
    def test_in_bodies(self, flag):
        model, inputs = branches(), feeds(flag=np.array(flag))
        upgraded = upgrade(model, 22)
        np.testing.assert_array_equal(run(upgraded, inputs), run(model, inputs))

    def test_in_a_function(self):
        model = function(grid_sample(mode="bicubic"))
        upgraded = upgrade(model, 20)
        assert upgraded.functions[0].opset_import[0].version == 20
        assert {item.domain: item.version for item in upgraded.opset_import} == {"": 20, "own": 1}
        np.testing.assert_array_equal(run(upgraded, feeds()), run(model, feeds()))

    def test_a_mode_that_is_none(self):
        model = model_of([grid_sample(mode="linear")], [IMAGE, GRID], [floats("warped")])
        with pytest.raises(ExportError, match="its mode is 'linear'"):
            upgrade(model, 20)

    def test_a_mode_that_the_caller_gives(self):
        node = grid_sample()
        kind = onnx.AttributeProto.STRING
        node.attribute.append(helper.make_attribute_ref("mode", kind, ref_attr_name="m"))
        with pytest.raises(ExportError, match="its mode is 'm'"):
            upgrade(function(node), 20)


def one_op(op, inputs, opset=18, **attributes):
    node = helper.make_node(op, [value.name for value in inputs], ["y"], name="it", **attributes)
    open_sizes = [f"size_{i}" for i, _ in enumerate(inputs[0].type.tensor_type.shape.dim)]
    return model_of([node], inputs, [floats("y", *open_sizes)], opset)


POOL = {"kernel_shape": [3, 3], "strides": [2, 2]}
NORMALIZED = (floats("x", 1, 4, 3, 3), floats("scale", 2), floats("bias", 2))


def test_an_op_that_only_the_newer_opset_has_is_taken_as_it_is():
    offset = floats("offset", 1, 2, 4, 4)
    model = one_op("DeformConv", [floats("x", 1, 1, 4, 4), floats("w", 1, 1, 1, 1), offset])
    for opset in (19, 22):
        assert upgrade(model, opset).graph.node[0].op_type == "DeformConv"


class TestRefused:
    """Nothing is written that would compute something else."""

    @pytest.mark.parametrize(
        ("model", "opset", "says"),
        [
            (one_op("MaxPool", [IMAGE], ceil_mode=1, **POOL), 22, "ceil_mode"),
            (one_op("AveragePool", [IMAGE], ceil_mode=1, **POOL), 22, "ceil_mode"),
            (one_op("GroupNormalization", NORMALIZED, num_groups=2), 21, "a value a channel"),
            (one_op("DFT", [floats("x", 1, 8, 1)], axis=1), 20, "its axis is a tensor"),
            (one_op("ReduceMean", [IMAGE], 17, axes=[2]), 19, "its version 18 differs from 13"),
            (one_op("Split", [IMAGE], 16, axis=0), 18, "its version 18 differs from 13"),
            (one_op("Conv4D", [IMAGE]), 19, "opset 18 has no such op"),
        ],
        ids=lambda value: value.graph.node[0].op_type if hasattr(value, "graph") else None,
    )
    def test_ops_with_another_meaning(self, model, opset, says):
        source, op = model.opset_import[0].version, model.graph.node[0].op_type
        with pytest.raises(ExportError, match=says) as caught:
            upgrade(model, opset)
        assert (caught.value.format, caught.value.op) == ("onnx", op)
        told = f"the op {op} of the node 'it' cannot be taken from ONNX opset {source} to {opset}"
        assert told in str(caught.value)
        assert f"use --opset {source} or less" in str(caught.value)

    @pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
    def test_pooling_that_rounds_down_is_kept(self, op):
        image = {"image": feeds()["image"]}
        for sizes in ({}, {"ceil_mode": 0}, {"auto_pad": "SAME_UPPER"}, {"pads": [0, 1, 1, 0]}):
            model = one_op(op, [IMAGE], **POOL, **sizes)
            for opset in (19, 22):
                found, expected = run(upgrade(model, opset), image), run(model, image)
                # The kernels of AveragePool 18 and 19 add in another order.
                np.testing.assert_allclose(found, expected, rtol=3e-7, atol=0)
        assert upgrade(one_op(op, [IMAGE], ceil_mode=1, **POOL), 21).opset_import[0].version == 21

    def test_types_that_are_no_longer_allowed(self):
        numbers = helper.make_tensor_value_info("x", TensorProto.INT32, [4])
        node = helper.make_node("QuantizeLinear", ["x", "scale"], ["y"])
        result = helper.make_tensor_value_info("y", TensorProto.UINT8, [4])
        model = model_of([node], [numbers, floats("scale", 1)], [result], 18)
        with pytest.raises(ExportError, match=r"not valid in ONNX opset 19 .*y_scale.*--opset 18"):
            upgrade(model, 19)

    @pytest.mark.parametrize(("source", "opset"), [(15, 22), (20, 19), (18, 23), (13, 18)])
    def test_opsets_that_are_none_of_ours(self, source, opset):
        model = one_op("Relu", [IMAGE], source)
        with pytest.raises(ValueError, match=rf"is {source} and {opset} is wanted: expected"):
            upgrade(model, opset)

    def test_a_function_of_another_opset(self):
        model = function(grid_sample(mode="nearest"))
        model.functions[0].opset_import[0].version = 13
        with pytest.raises(ValueError, match="the opset of Warp is 13"):
            upgrade(model, 20)
