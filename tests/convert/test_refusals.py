"""What cannot be exported, and what was exported wrongly, is an error that names its place."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

from stnkit.convert import ConversionOptions, convert, pipeline, source_from_keras
from stnkit.convert.artifact import ExportedArtifact
from stnkit.convert.frozen import freeze
from stnkit.convert.onnx import export_onnx
from stnkit.convert.onnx.checks import check_graph
from stnkit.convert.tflite import export_tflite
from stnkit.convert.tflite.checks import check_model
from stnkit.runtime.errors import ExportError, InputError, MismatchError


@keras.saving.register_keras_serializable(package="stnkit_tests")
class ProjectiveWarp(keras.layers.Layer):
    """A warp by an op that neither target has."""

    def call(self, image):
        row = tf.constant([[1.0, 0.1, 0, 0, 1.0, 0, 0, 0]])
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=image,
            transforms=tf.tile(row, [tf.shape(image)[0], 1]),
            output_shape=[16, 16],
            interpolation="BILINEAR",
            fill_mode="CONSTANT",
            fill_value=0.0,
        )


@keras.saving.register_keras_serializable(package="stnkit_tests")
class PythonLayer(keras.layers.Layer):
    """A layer that leaves the graph."""

    def call(self, image):
        result = tf.numpy_function(lambda x: x * 2, [image], tf.float32)
        return tf.ensure_shape(result, image.shape)


@keras.saving.register_keras_serializable(package="stnkit_tests")
class Counter(keras.layers.Layer):
    """A layer that changes a variable while it infers."""

    def build(self, input_shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, image):
        self.count.assign(self.count + 1)
        return image * self.count


def model_with(layer):
    return keras.Sequential(
        [
            keras.Input((16, 16, 1), name="photo"),
            layer,
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="scores"),
        ]
    )


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_an_op_that_cannot_be_exported_is_named_with_its_layer(format, tmp_path):
    source = source_from_keras(model_with(ProjectiveWarp(name="tilt")))
    with pytest.raises(ExportError) as caught:
        convert(source, tmp_path / "b", ConversionOptions(formats=(format,)))
    assert caught.value.op == "ImageProjectiveTransformV3"
    assert caught.value.layer == "tilt"
    assert caught.value.format == format
    for part in ("ImageProjectiveTransformV3", "'tilt'", "other ops"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layer", [PythonLayer(name="loop"), Counter(name="count")])
def test_state_and_python_code_cannot_be_frozen(layer, tmp_path):
    with pytest.raises(ExportError) as caught:
        convert(source_from_keras(model_with(layer)), tmp_path / "b")
    assert caught.value.layer == layer.name
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_was_never_built():
    model = keras.Sequential([keras.layers.Dense(3)])
    with pytest.raises(InputError, match="was never built"):
        source_from_keras(model)
    with pytest.raises(InputError, match="expected a keras\\.Model"):
        source_from_keras(keras.layers.Dense(3))


def test_nan_weights_are_the_sources_fault(build, tmp_path):
    model = build("sequential")
    model.layers[-1].kernel.assign(np.full(model.layers[-1].kernel.shape, np.nan))
    with pytest.raises(InputError, match="the model itself gives NaN or infinity at 'scores'"):
        convert(source_from_keras(model), tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def graph():
    from stnkit.models import SpatialTransformer, localization_cnn

    model = model_with(SpatialTransformer(localization_cnn((2,), units=4), name="stn"))
    return freeze(source_from_keras(model), None)


def test_missing_weight_in_tflite(graph):
    """A kernel whose buffer is gone: the interpreter itself would read whatever is there."""
    from ai_edge_litert import schema_py_generated as schema

    content = bytearray(export_tflite(graph).content)
    check_model(bytes(content), graph)
    model = schema.Model.GetRootAsModel(content, 0)
    main = model.Subgraphs(0)
    sizes = {
        i: model.Buffers(main.Tensors(i).Buffer()).DataLength() for i in range(main.TensorsLength())
    }
    largest = max(sizes, key=sizes.get)
    buffer = model.Buffers(main.Tensors(largest).Buffer())
    vector = buffer._tab.Vector(buffer._tab.Offset(4)) - 4  # where the length of the data stands
    content[vector : vector + 4] = bytes(4)
    with pytest.raises(ExportError, match="a weight is missing from the TFLite file") as caught:
        check_model(bytes(content), graph)
    assert caught.value.op == "FULLY_CONNECTED"


def test_custom_op_in_tflite(graph):
    from ai_edge_litert import schema_py_generated as schema

    converter = tf.lite.TFLiteConverter.from_keras_model(model_with(ProjectiveWarp(name="tilt")))
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS,
        tf.lite.OpsSet.SELECT_TF_OPS,
    ]
    content = converter.convert()
    assert schema.Model.GetRootAsModel(content, 0).OperatorCodesLength() > 1
    with pytest.raises(ExportError, match="FlexImageProjectiveTransformV3") as caught:
        check_model(content, graph)
    assert caught.value.format == "tflite"


def test_missing_weight_and_foreign_op_in_onnx(graph):
    model = onnx.load_from_string(export_onnx(graph, 17, "gather").content)
    check_graph(model, graph, 17)
    whole = model.SerializeToString()
    kernel = max(model.graph.initializer, key=lambda tensor: tensor.ByteSize())
    model.graph.initializer.remove(kernel)
    with pytest.raises(ExportError, match="a weight is missing from the ONNX file"):
        check_graph(model, graph, 17)
    model = onnx.load_from_string(whole)
    node = next(node for node in model.graph.node if node.op_type == "Floor")
    node.domain = "com.microsoft"
    with pytest.raises(ExportError, match="the op Floor of the layer 'stn' has no equivalent"):
        check_graph(model, graph, 17)


def spoiled(change):
    """Return an exporter that spoils what the real one returns."""

    def export(graph, opset, sampler):
        exported = export_onnx(graph, opset, sampler)
        model = onnx.load_from_string(exported.content)
        change(model)
        return ExportedArtifact(
            **{**vars(exported), "content": model.SerializeToString()},
        )

    return export


def scale(part, factor):
    """Return a change that multiplies the first float weight whose name holds `part`."""

    def change(model):
        for tensor in model.graph.initializer:
            if part in tensor.name and tensor.data_type == onnx.TensorProto.FLOAT:
                value = onnx.numpy_helper.to_array(tensor) * np.float32(factor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
                return
        raise AssertionError(f"no weight {part}")

    return change


def swap_batch_items(model):
    """Reverse the batch of the warped image: every item is right, and another's."""
    steps = onnx.numpy_helper.from_array(np.array([-1]), "minus_one")
    first = onnx.numpy_helper.from_array(np.array([2**31]), "first")
    last = onnx.numpy_helper.from_array(np.array([-(2**31)]), "last")
    axis = onnx.numpy_helper.from_array(np.array([0]), "axis_zero")
    model.graph.initializer.extend([steps, first, last, axis])
    for index, node in enumerate(model.graph.node):
        if "stn/warped" in node.output:
            node.output[0] = "before_swap"
            swap = onnx.helper.make_node(
                "Slice",
                ["before_swap", "first", "last", "axis_zero", "minus_one"],
                ["stn/warped"],
            )
            model.graph.node.insert(index + 1, swap)
            return
    raise AssertionError("no warped image")


FAULTS = {
    "a weight of the classifier off by a hundredth": (scale("scores", 1.01), "output"),
    "theta off by a thousandth": (scale("theta", 1.001), "theta"),
    "items of the batch mixed up": (swap_batch_items, "warped"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_artifact_is_not_published(fault, build, tmp_path, monkeypatch):
    change, kind = FAULTS[fault]
    monkeypatch.setattr(pipeline, "export_onnx", spoiled(change))
    source = source_from_keras(build("sequential"))
    with pytest.raises(MismatchError) as caught:
        convert(source, tmp_path / "b", ConversionOptions(formats=("onnx",)))
    assert kind in {item.kind for item in caught.value.comparisons}
    worst = caught.value.comparisons[0]
    assert worst.worst_index is not None
    message = str(caught.value)
    assert worst.tensor in message
    assert str(list(worst.worst_index)) in message
    assert "model.fp32.onnx" in message
    assert list(tmp_path.iterdir()) == []


def test_a_broken_warp_behind_equal_outputs_is_found(tmp_path, monkeypatch, build):
    """The classifier may not notice half a pixel: the warped image is compared itself."""
    model = build("sequential")
    for variable in model.layers[-1].weights:
        variable.assign(np.zeros(variable.shape))  # every class is equally likely, always
    monkeypatch.setattr(pipeline, "export_onnx", spoiled(scale("theta", 1.01)))
    with pytest.raises(MismatchError) as caught:
        convert(source_from_keras(model), tmp_path / "b", ConversionOptions(formats=("onnx",)))
    assert {item.kind for item in caught.value.comparisons} == {"theta", "warped"}
