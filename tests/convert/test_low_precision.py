"""Artifacts that other tools made coarser: judged by what is stated for their precision."""

import itertools
import warnings

import numpy as np
import pytest
import tensorflow as tf

from stnkit.convert import load_source
from stnkit.convert.keras_subject import KerasSubject
from stnkit.convert.onnx import export_onnx
from stnkit.models.pretrained.catalogue import model_file, samples
from stnkit.runtime.equivalence.engine import compare_subjects
from stnkit.runtime.equivalence.file_subject import FileSubject
from stnkit.runtime.equivalence.options import CompareOptions

ITEMS = 20  # of calibration


@pytest.fixture(scope="module")
def source():
    return KerasSubject("digits", load_source("digits"))


def images():
    return (samples("digits").images[:ITEMS] / 255).astype(np.float32)


@pytest.fixture(scope="module")
def onnx_file(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    path.write_bytes(export_onnx(source.graph, 17).content)
    return path


def report_of(source, content, **options):
    candidate = FileSubject("candidate", content)
    try:
        return compare_subjects(source, [candidate], CompareOptions(**options)).candidates[0]
    finally:
        candidate.close()


def converted_by_tensorflow(kind):
    """Return the digits network as TensorFlow's own converter writes it: without any tap."""
    model = tf.keras.models.load_model(model_file("digits"))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind == "int16x8":
        converter.representative_dataset = lambda: ([image[None]] for image in images())
        int16 = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [int16, tf.lite.OpsSet.TFLITE_BUILTINS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return converter.convert()


def quantised(onnx_file, keep=()):
    """Return the file with int8 everywhere but in the nodes named."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self):
            self.left = iter(images())

        def get_next(self):
            image = next(self.left, None)
            return None if image is None else {"image": image[None]}

    path = onnx_file.with_name(f"int8_{len(keep)}.onnx")
    quantize_static(str(onnx_file), str(path), Images(), nodes_to_exclude=[*keep])
    return path.read_bytes()


def up_to_the_warp(onnx_file):
    import onnx

    nodes = onnx.load(onnx_file).graph.node
    before = itertools.takewhile(lambda n: "spatial_transformer/warped" not in n.output, nodes)
    names = [node.name for node in before]
    return [*names, nodes[len(names)].name]


@pytest.mark.parametrize(
    ("kind", "precision"), [("float16", "float16_weights"), ("int8", "int8_weights")]
)
def test_coarser_weights_fit_their_precision_and_not_float32(source, kind, precision):
    content = converted_by_tensorflow(kind)
    found = report_of(source, content)
    assert found.precision == precision
    assert found.passed, [item.describe() for item in found.proof.failures]
    # Theta and warped image have no names in such a file: they were found by their values.
    assert {item.kind for item in found.proof.comparisons} == {"output", "theta", "warped"}
    assert any("was taken to be 'spatial_transformer/warped'" in note for note in found.notes)
    assert not report_of(source, content, precision="float32").passed


def test_a_transformer_in_int8_is_caught_whatever_the_scores_say(source, onnx_file):
    found = report_of(source, quantised(onnx_file))
    assert found.precision == "int8"
    assert not found.passed
    ranks = found.rankings["probabilities"]
    assert ranks.top1 == ranks.items  # what others look at
    thetas = [item for item in found.proof.failures if item.kind == "theta"]
    assert max(item.pixels for item in thetas) > 1
    assert "px apart, allowed 0.5 px" in thetas[0].describe()
    assert found.findings[0].cause == "quantised_transformer"


def test_int8_behind_a_float_transformer_passes(source, onnx_file):
    found = report_of(source, quantised(onnx_file, up_to_the_warp(onnx_file)))
    assert found.precision == "int8"
    assert found.passed, [item.describe() for item in found.proof.failures]


def test_dynamic_int8_passes(source, onnx_file):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = onnx_file.with_name("dynamic.onnx")
    quantize_dynamic(str(onnx_file), str(path), weight_type=QuantType.QInt8)
    found = report_of(source, path.read_bytes())
    assert found.precision == "int8_weights"
    assert found.passed, [item.describe() for item in found.proof.failures]
    # The sampler computes in float32 still: where theta is given it is right to the last digits.
    driven = [c for c in found.proof.comparisons if c.kind == "warped" and "thetas" in c.case]
    assert driven
    assert max(item.max_abs for item in driven) < 1e-5


def test_a_file_that_hides_a_broken_warp_fails(source):
    found = report_of(source, converted_by_tensorflow("int16x8"))
    assert found.precision == "int8"
    assert not found.passed
    assert {"theta", "warped"} & {item.kind for item in found.proof.failures}


def test_integers_at_the_border_are_turned_into_floats(source):
    import keras

    inputs = keras.Input((8, 8, 1), name="image")
    outputs = keras.layers.Conv2D(2, 3, name="scores")(inputs)
    model = keras.Model(inputs, outputs)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    rng = np.random.default_rng(0)
    converter.representative_dataset = lambda: (
        [rng.random((1, 8, 8, 1), np.float32)] for _ in range(20)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        candidate = FileSubject("int8.tflite", converter.convert())
    assert candidate.precision == "int8"
    assert [spec.dtype for spec in (*candidate.inputs, *candidate.outputs)] == ["float32"] * 2
    image = rng.random((1, 8, 8, 1), np.float32)
    found = next(iter(candidate.run({candidate.inputs[0].name: image}).values()))
    np.testing.assert_allclose(found, model.predict(image, verbose=0), atol=0.05)
    candidate.close()
