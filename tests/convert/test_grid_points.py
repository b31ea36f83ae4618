"""What the file computes around GridSample: few ops, nothing as large as an image, no rounding."""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from stnkit.convert import source_from_keras
from stnkit.convert.frozen import freeze
from stnkit.convert.onnx import export_onnx
from stnkit.models import SpatialTransformer, ThinPlateSpline

SIZE = (40, 36)
OUTPUT = (28, 33)


def model_of(transform="affine", channels=1, output_size=OUTPUT, **modes):
    image = keras.Input((*SIZE, channels), name="image")
    layer = SpatialTransformer(transform=transform, output_size=output_size, name="stn", **modes)
    theta = keras.Input(layer.transform.theta_shape, name="theta")
    return keras.Model([image, theta], layer([image, theta]))


def exported(model, batch=None, opset=17):
    artifact = export_onnx(freeze(source_from_keras(model), batch), opset)
    assert artifact.sampler == "grid-sample"
    return artifact.content


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


def test_an_affine_transformer_is_ten_ops(tmp_path):
    ops = ops_behind_constants(exported(model_of()), tmp_path)
    assert ops["GridSample"] == 1
    assert sum(ops.values()) - ops["Identity"] <= 10, ops


@pytest.mark.parametrize("batch", [None, 2])
def test_a_spline_is_folded_when_the_file_is_opened(batch, tmp_path):
    content = exported(model_of(ThinPlateSpline(4)), batch)
    there = Counter(node.op_type for node in onnx.load_from_string(content).graph.node)
    assert there["Log"] == there["Max"] == 1
    ops = ops_behind_constants(content, tmp_path)
    assert ops["Log"] == ops["Max"] == ops["Expand"] == 0
    assert ops["MatMul"] == 1


@pytest.mark.parametrize("transform", ["affine", ThinPlateSpline(4)], ids=str)
def test_nothing_stored_grows_with_the_image(transform):
    def stored(output_size):
        graph = onnx.load_from_string(exported(model_of(transform, output_size=output_size))).graph
        return sum(numpy_helper.to_array(item).nbytes for item in graph.initializer)

    # Rows and columns twice as long: what is stored of them doubles at most, with 4 numbers an
    # entry of a column and 2 of a row.
    small, large = stored((64, 64)), stored((128, 128))
    assert large - small <= 4 * 64 * (6 + 2)


@pytest.mark.parametrize(("padding_mode", "opset"), [("zeros", 16), ("border", 17), ("zeros", 22)])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("transform", ["affine", ThinPlateSpline(3)], ids=str)
def test_thetas_that_are_not_finite_read_as_in_the_layer(
    transform, align_corners, padding_mode, opset
):
    model = model_of(transform, padding_mode=padding_mode, align_corners=align_corners)
    content = exported(model, opset=opset)
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
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
    (found,) = session.run(None, feeds)
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("transform", ["affine", ThinPlateSpline(4)], ids=str)
@pytest.mark.parametrize("folded", [False, True])
def test_tools_that_quantise_products_leave_the_grid_alone(transform, folded, tmp_path):
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = model_of(transform)
    before, after = tmp_path / "before.onnx", tmp_path / "after.onnx"
    before.write_bytes(exported(model))
    if folded:  # ONNX Runtime's advice: what it folds is then a constant in the file
        quant_pre_process(str(before), str(tmp_path / "folded.onnx"), skip_symbolic_shape=True)
        before = tmp_path / "folded.onnx"
    quantize_dynamic(str(before), str(after), weight_type=QuantType.QInt8)
    feeds = feeds_of(model, 3)
    found = [
        ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        for path in (tmp_path / "before.onnx", after)
    ]
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
