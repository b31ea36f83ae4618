"""What the file computes for DeformConv and GridSample.

Few ops, nothing as large as an image, no rounding; and the same pixels, whatever theta is.
"""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from stnkit.convert import ConversionOptions, source_from_keras
from stnkit.convert.frozen import freeze
from stnkit.convert.onnx import export_onnx
from stnkit.models import DenseFlow, Projective, SpatialTransformer, ThinPlateSpline
from stnkit.runtime.errors import ExportError, InputError

SIZE = (40, 36)
OUTPUT = (28, 33)


def model_of(transform="affine", channels=1, output_size=OUTPUT, **modes):
    image = keras.Input((*SIZE, channels), name="image")
    layer = SpatialTransformer(transform=transform, output_size=output_size, name="stn", **modes)
    theta = keras.Input(layer.transform.theta_shape, name="theta")
    return keras.Model([image, theta], layer([image, theta]))


FORMS = ("deform-conv", "grid-sample")
OPS = {"deform-conv": "DeformConv", "grid-sample": "GridSample"}


def exported(model, form, batch=None, opset=19):
    artifact = export_onnx(freeze(source_from_keras(model), batch), opset, form)
    assert artifact.sampler == form
    return artifact.content


def run(content, feeds):
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, feeds)
    return found


def feeds_of(model, batch, scale=0.2, seed=0):
    rng = np.random.default_rng(seed)
    shape = model.inputs[1].shape[1:]
    identity = model.get_layer("stn").transform.identity()
    return {
        "image": rng.random((batch, *SIZE, model.inputs[0].shape[-1]), np.float32),
        "theta": (identity + rng.normal(0, scale, (batch, *shape))).astype(np.float32),
    }


def ops_behind_constants(content, tmp_path):
    """Return the ops that ONNX Runtime runs: what is left when it has folded constants."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    return Counter(node.op_type for node in graph.node)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [None, 1])
def test_an_affine_transformer_is_ten_ops(form, batch, tmp_path):
    ops = ops_behind_constants(exported(model_of(), form, batch), tmp_path)
    assert ops[OPS[form]] == 1
    assert sum(ops.values()) - ops["Identity"] <= 10, ops


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [None, 2])
def test_a_spline_is_folded_when_the_file_is_opened(form, batch, tmp_path):
    content = exported(model_of(ThinPlateSpline(4)), form, batch)
    there = Counter(node.op_type for node in onnx.load_from_string(content).graph.node)
    assert there["Log"] == there["Max"] == 1
    ops = ops_behind_constants(content, tmp_path)
    assert ops["Log"] == ops["Max"] == ops["Expand"] == 0
    assert ops["MatMul"] == (2 if form == "deform-conv" else 1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("transform", ["affine", ThinPlateSpline(4)], ids=str)
def test_nothing_stored_grows_with_the_image(transform, form):
    def stored(output_size):
        model = model_of(transform, output_size=output_size)
        content = exported(model, form)
        graph = onnx.load_from_string(content).graph
        return sum(numpy_helper.to_array(item).nbytes for item in graph.initializer), len(content)

    (small, _), (large, size) = stored((64, 63)), stored((4000, 5000))
    assert abs(small - large) <= 64  # equal constants are stored once
    assert size < 20_000


SIZES = [SIZE, OUTPUT, (1, 1), (1, 36), (40, 1), (39, 37), (41, 71), (80, 72), (13, 5)]
MODES = [("zeros", False), ("zeros", True), ("border", False), ("border", True)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("output_size", SIZES, ids=str)
@pytest.mark.parametrize("modes", MODES, ids=str)
@pytest.mark.parametrize("transform", ["affine", ThinPlateSpline(3), DenseFlow((5, 4))], ids=str)
def test_every_output_size_reads_as_the_layer_does(transform, modes, output_size, form):
    padding_mode, align_corners = modes
    model = model_of(
        transform, 3, output_size, padding_mode=padding_mode, align_corners=align_corners
    )
    feeds = feeds_of(model, 2)
    expected = np.asarray(model([feeds["image"], feeds["theta"]]))
    np.testing.assert_allclose(run(exported(model, form), feeds), expected, atol=3e-5)


@pytest.mark.parametrize("transform", ["affine", ThinPlateSpline(4)], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 1), (16, 15), (224, 223)], ids=str)
def test_the_identity_is_exact(size, transform):
    image = keras.Input((*size, 2), name="image")
    layer = SpatialTransformer(transform=transform, name="stn")
    theta = keras.Input(layer.transform.theta_shape, name="theta")
    model = keras.Model([image, theta], layer([image, theta]))
    pixels = np.random.default_rng(0).random((2, *size, 2), np.float32)
    same = np.repeat(layer.transform.identity()[np.newaxis], 2, axis=0).astype(np.float32)
    found = run(exported(model, "deform-conv"), {"image": pixels, "theta": same})
    np.testing.assert_array_equal(found, pixels)


def test_an_infinite_pixel_stays_in_its_channel_and_its_surroundings():
    model = model_of(channels=3)
    feeds = feeds_of(model, 1, scale=0)
    plain = run(exported(model, "deform-conv"), feeds)
    feeds["image"][0, 20, 18, 1] = np.inf
    found = run(exported(model, "deform-conv"), feeds)
    spoiled = ~np.isfinite(found)
    assert 1 <= spoiled[..., 1].sum() <= 4
    assert not spoiled[..., [0, 2]].any()
    np.testing.assert_array_equal(found[~spoiled], plain[~spoiled])


class TestChoice:
    """Which op "auto" takes, and what the named ones refuse."""

    @pytest.mark.parametrize(
        ("opset", "modes", "form"),
        [
            (18, {}, "grid-sample"),
            (19, {}, "deform-conv"),
            (22, {"channels": 64}, "deform-conv"),
            (22, {"channels": 65}, "grid-sample"),
            (22, {"padding_mode": "border"}, "deform-conv"),
            (18, {"padding_mode": "border"}, "grid-sample"),
            (22, {"padding_mode": "reflection"}, "gather"),
            (22, {"interpolation": "nearest"}, "gather"),
        ],
    )
    def test_auto(self, opset, modes, form):
        graph = freeze(source_from_keras(model_of(**modes)), None)
        assert export_onnx(graph, opset).sampler == form

    @pytest.mark.parametrize("form", FORMS)
    def test_channels_of_a_named_op(self, form):
        model = model_of(channels=65)
        feeds = feeds_of(model, 1)
        expected = np.asarray(model([feeds["image"], feeds["theta"]]))
        np.testing.assert_allclose(run(exported(model, form), feeds), expected, atol=3e-5)

    @pytest.mark.parametrize(
        ("form", "opset", "modes"),
        [
            ("deform-conv", 19, {"padding_mode": "reflection"}),
            ("deform-conv", 18, {}),
            ("grid-sample", 19, {"padding_mode": "reflection"}),
        ],
    )
    def test_a_named_op_that_cannot(self, form, opset, modes):
        graph = freeze(source_from_keras(model_of(**modes)), None)
        with pytest.raises(ExportError, match=f"{OPS[form]} can stand for 0 of the 1 samplers"):
            export_onnx(graph, opset, form)

    def test_an_opset_without_the_op_is_refused_at_once(self):
        with pytest.raises(InputError, match=r"deform-conv takes --opset 19 or more.* is 18"):
            ConversionOptions(sampler="deform-conv", opset=18)


@pytest.mark.parametrize(
    ("padding_mode", "form", "opset"),
    [
        ("zeros", "grid-sample", 16),
        ("border", "grid-sample", 17),
        ("zeros", "deform-conv", 19),
        ("border", "deform-conv", 20),
        ("zeros", "grid-sample", 22),
        ("zeros", "deform-conv", 22),
    ],
)
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("transform", ["affine", ThinPlateSpline(3)], ids=str)
def test_thetas_that_are_not_finite_read_as_in_the_layer(
    transform, align_corners, padding_mode, form, opset
):
    model = model_of(transform, padding_mode=padding_mode, align_corners=align_corners)
    content = exported(model, form, opset=opset)
    plain = feeds_of(model, 1, scale=0.05)
    size = plain["theta"].size
    values = [np.nan, np.inf, -np.inf, 1e12, -1e30, 1e36]
    thetas = np.repeat(plain["theta"], len(values) * size, axis=0).reshape(-1, size)
    for number, value in enumerate(values):
        for place in range(size):
            thetas[number * size + place, place] = value
    feeds = {
        "image": np.repeat(plain["image"] + 1, len(thetas), axis=0),
        "theta": thetas.reshape(-1, *plain["theta"].shape[1:]),
    }
    expected = np.asarray(model([feeds["image"], feeds["theta"]]))
    np.testing.assert_allclose(run(content, feeds), expected, atol=2e-4)


HOSTILE = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30], np.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("padding_mode", ["zeros", "border"])
@pytest.mark.parametrize("transform", ["affine", ThinPlateSpline(3)], ids=str)
def test_several_values_that_are_not_finite(transform, padding_mode, form):
    # An even size: at 0, in the middle, what is huge would be as large as its rounding.
    model = model_of(transform, padding_mode=padding_mode, output_size=(8, 6))
    thetas = feeds_of(model, 300)["theta"]
    rng = np.random.default_rng(3)
    spoiled = rng.random(thetas.shape) < 0.4
    thetas[spoiled] = rng.choice(HOSTILE, spoiled.sum())
    image = np.repeat(feeds_of(model, 1)["image"] + 1, len(thetas), axis=0)
    expected = np.asarray(model([image, thetas]))
    found = run(exported(model, form), {"image": image, "theta": thetas})
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("transform", [Projective(), DenseFlow((5, 4))], ids=str)
def test_points_that_are_not_finite_read_outside(transform, form):
    model = model_of(transform)
    for value in HOSTILE[:3]:
        feeds = feeds_of(model, 2)
        feeds["image"] += 1
        feeds["theta"][0] = value
        expected = np.asarray(model([feeds["image"], feeds["theta"]]))
        assert not expected[0].any()
        np.testing.assert_allclose(run(exported(model, form), feeds), expected, atol=3e-5)


@pytest.mark.parametrize("transform", ["affine", ThinPlateSpline(4)], ids=str)
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_tools_that_quantise_products_leave_the_grid_alone(transform, folded, form, tmp_path):
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = model_of(transform)
    before, after = tmp_path / "before.onnx", tmp_path / "after.onnx"
    before.write_bytes(exported(model, form))
    if folded:  # ONNX Runtime's advice: what it folds is then a constant in the file
        quant_pre_process(str(before), str(tmp_path / "folded.onnx"), skip_symbolic_shape=True)
        before = tmp_path / "folded.onnx"
    quantize_dynamic(str(before), str(after), weight_type=QuantType.QInt8)
    feeds = feeds_of(model, 3)
    found = [run(str(path), feeds) for path in (tmp_path / "before.onnx", after)]
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
