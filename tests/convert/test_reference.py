"""What an artifact is compared with: probes, tolerances, and what a proof cannot show."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import stnkit.runtime as runtime
from stnkit.convert import ConversionOptions, convert, source_from_keras
from stnkit.convert import reference as reference_module
from stnkit.models import SpatialTransformer, localization_cnn
from stnkit.runtime.errors import InputError, MismatchError


def averaging(side):
    """A mean over many pixels: TensorFlow's own float32 sum is off by more than 1e-5."""
    return keras.Sequential(
        [keras.Input((side, side, 3), name="photo"), keras.layers.GlobalAveragePooling2D()]
    )


def test_a_long_sum_is_allowed_what_tensorflow_itself_rounds(tmp_path):
    """A mean over 224 x 224 pixels: TensorFlow's own was measured to be off by 3.7e-4."""
    result = convert(source_from_keras(averaging(224)), tmp_path / "b", ConversionOptions())
    error = max(artifact.errors.outputs for artifact in result.manifest.artifacts)
    assert 1e-5 < error < result.manifest.tolerances.outputs.atol < 0.02


def test_a_tolerance_of_ones_own(tmp_path):
    source = source_from_keras(averaging(224))
    only_onnx = {"formats": ("onnx",)}
    with pytest.raises(MismatchError) as caught:
        convert(source, tmp_path / "b", ConversionOptions(**only_onnx, atol={"outputs": 1e-7}))
    required = max(item.required for item in caught.value.comparisons)
    options = ConversionOptions(**only_onnx, atol={"outputs": 2 * required})
    result = convert(source, tmp_path / "b", options)
    assert result.manifest.tolerances.outputs.atol == 2 * required
    assert runtime.verify(result.bundle).passed


def test_tolerances_follow_the_units_of_the_model(tmp_path):
    """The same transformer on 0..255 rounds 255 times as much, in its own units."""

    def tolerances(factor):
        keras.utils.set_random_seed(3)
        net = keras.Sequential(
            [keras.layers.Rescaling(1 / factor), localization_cnn((4,), units=8)]
        )
        model = keras.Sequential(
            [keras.Input((48, 48, 3), name="photo"), SpatialTransformer(net, name="stn")]
        )
        kernel = model.layers[0].theta_head.dense.kernel
        kernel.assign(np.random.default_rng(0).normal(0, 0.02, kernel.shape))
        options = ConversionOptions(formats=("onnx",), value_range=(0.0, float(factor)))
        result = convert(source_from_keras(model), tmp_path / str(factor), options)
        assert any(f"from 0 to {factor}" in note for note in result.notes)
        return result.manifest.tolerances

    small, large = tolerances(1), tolerances(255)
    assert large.warped.atol == pytest.approx(255 * small.warped.atol, rel=0.05)
    assert large.outputs.atol == pytest.approx(255 * small.outputs.atol, rel=0.05)
    assert large.theta.atol == pytest.approx(small.theta.atol, rel=0.05)
    assert 1e-6 < small.theta.atol < 1e-4


def test_an_untrained_transformer_is_said_to_be_one(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((16, 16, 1), name="photo"),
            SpatialTransformer(localization_cnn((2,), units=4), name="stn"),
            keras.layers.GlobalAveragePooling2D(name="mean"),
        ]
    )
    result = convert(source_from_keras(model), tmp_path / "b", ConversionOptions(formats=("onnx",)))
    assert any("theta 'stn/theta' was the same for every probe" in note for note in result.notes)
    assert not any("'mean'" in note for note in result.notes)


def test_division_of_signed_integers_is_put_to_the_test(tmp_path):
    """ONNX rounds a negative quotient towards zero, TensorFlow downwards."""

    @keras.saving.register_keras_serializable(package="stnkit_tests")
    class Halve(keras.layers.Layer):
        def call(self, x):
            return x // 2

    number = keras.Input((3,), name="number", dtype="int32")
    source = source_from_keras(keras.Model(number, Halve(name="halve")(number)))
    with pytest.raises(MismatchError) as caught:
        convert(source, tmp_path / "b", ConversionOptions(formats=("onnx",)))
    assert {item.case for item in caught.value.comparisons} == {"wide_integers_b7"}
    result = convert(source, tmp_path / "b", ConversionOptions(formats=("tflite",)))
    assert "wide_integers_b7" in {item.case for item in result.reports[0].comparisons}


def test_a_table_that_has_no_negative_rows_is_not_asked_for_them(tmp_path):
    token = keras.Input((4,), name="token", dtype="int32")
    model = keras.Model(token, keras.layers.Embedding(5, 3, name="vectors")(token))
    result = convert(source_from_keras(model), tmp_path / "b", ConversionOptions(formats=("onnx",)))
    assert {item.case for item in result.reports[0].comparisons} == {
        "noise_b1",
        "edges_b2",
        "patterns_b7",
    }


def test_probes_larger_than_a_bundle_are_refused_first(tmp_path, monkeypatch):
    monkeypatch.setattr(reference_module, "GOLDEN_EXPANDED_BYTES_MAX", 10_000)
    with pytest.raises(InputError, match="convert with a smaller --batch"):
        convert(source_from_keras(averaging(32)), tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_the_model_fixes(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), batch_size=2, name="photo"),
            keras.layers.Conv2D(2, 3),
            keras.layers.Reshape((72,)),
        ]
    )
    source = source_from_keras(model)
    result = convert(source, tmp_path / "b", ConversionOptions(formats=("onnx",)))
    assert {artifact.batch for artifact in result.manifest.artifacts} == {2}
    with pytest.raises(InputError, match="the model takes batches of exactly 2"):
        convert(source, tmp_path / "c", ConversionOptions(batch=3))
