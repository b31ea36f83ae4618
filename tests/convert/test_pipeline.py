"""Every kind of model to both formats: what is published equals the Keras model."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

import stnkit.runtime as runtime
from stnkit.convert import ConversionOptions, convert, load_source, source_from_keras
from stnkit.runtime.errors import InputError

NAMES = [
    "sequential",
    "functional",
    "dictionary",
    "given_theta",
    "given_theta_flat",
    "two_transformers",
    "shared_transformer",
    "no_transformer",
    "subclassed",
    "own_layer",
    "nearest_border_corners",
    "bilinear_reflection",
    "bilinear_border_corners",
]

TAPS = {
    "two_transformers": {"coarse/theta", "coarse/warped", "fine/theta", "fine/warped"},
    "shared_transformer": {"stn/theta", "stn/warped", "stn@2/theta", "stn@2/warped"},
    "no_transformer": set(),
    "own_layer": {"own/theta", "own/warped"},
}

SIGNATURES = {
    "sequential": ({"photo"}, {"scores"}),
    "functional": ({"photo"}, {"scores", "offset"}),
    "dictionary": ({"a_bias", "b_photo"}, {"sum", "mean"}),
    "shared_transformer": ({"left", "right"}, {"gap"}),
    "subclassed": ({"photo"}, {"output_0"}),
}


def inputs_of(source, batch, seed=3):
    rng = np.random.default_rng(seed)
    return {
        spec.name: rng.random((batch, *spec.shape[1:])).astype(spec.dtype) for spec in source.inputs
    }


@pytest.mark.parametrize("name", NAMES)
def test_artifacts_equal_the_model(name, build, tmp_path):
    source = source_from_keras(build(name))
    result = convert(source, tmp_path / "m.bundle")
    taps = {tap.name for tap in result.manifest.taps}
    assert taps == TAPS.get(name, {"stn/theta", "stn/warped"})
    if name in SIGNATURES:
        signature = result.manifest.signature
        names = tuple({s.name for s in specs} for specs in (signature.inputs, signature.outputs))
        assert names == SIGNATURES[name]
    for artifact in ("tflite", "onnx"):
        with runtime.load(result.bundle, artifact=artifact) as session:
            for batch in (1, 4):  # sizes that no probe had
                inputs = inputs_of(source, batch)
                expected = source.run(inputs)
                found = session.run(inputs)
                assert set(found) == set(expected)
                for output, value in expected.items():
                    np.testing.assert_allclose(found[output], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_fixed_batch(batch, build, tmp_path):
    source = source_from_keras(build("functional"))
    result = convert(source, tmp_path / "m.bundle", ConversionOptions(batch=batch))
    assert {artifact.batch for artifact in result.manifest.artifacts} == {batch}
    assert {spec.shape[0] for spec in result.manifest.signature.inputs} == {batch}
    # A fixed batch of one still sees every pattern of the probes, and every theta.
    cases = {item.case for item in result.reports[0].comparisons}
    assert len([name for name in cases if "thetas" not in name]) == (7 if batch == 1 else 3)
    assert len([name for name in cases if "thetas" in name]) == (14 if batch == 1 else 6)
    for artifact in ("tflite", "onnx"):
        with runtime.load(result.bundle, artifact=artifact) as session:
            inputs = inputs_of(source, batch)
            for output, value in source.run(inputs).items():
                np.testing.assert_allclose(session.run(inputs)[output], value, atol=1e-5)
            with pytest.raises(InputError):
                session.run(inputs_of(source, batch + 1))


@pytest.mark.parametrize("opset", [16, 17, 18])
def test_opsets(opset, build, tmp_path):
    source = source_from_keras(build("sequential"))
    options = ConversionOptions(formats=("onnx",), opset=opset)
    result = convert(source, tmp_path / "m.bundle", options)
    summary = runtime.summarize((result.bundle / "model.fp32.onnx").read_bytes())
    assert summary.opset == opset == result.manifest.artifacts[0].opset
    assert summary.foreign_ops == ()


@pytest.mark.parametrize("kind", ["keras", "h5", "saved_model"])
def test_saved_forms_give_the_same_answers(kind, build, tmp_path):
    model = build("sequential")
    inputs = {"photo": np.random.default_rng(0).random((3, 20, 20, 1)).astype("float32")}
    expected = np.asarray(model(inputs["photo"], training=False))
    path = tmp_path / {"keras": "m.keras", "h5": "m.h5", "saved_model": "m"}[kind]
    if kind == "saved_model":
        model.export(path, verbose=False)
    else:
        model.save(path)
    source = load_source(path)
    assert source.origin.kind == kind
    result = convert(source, tmp_path / "m.bundle")
    assert len(result.manifest.taps) == 2
    for artifact in ("tflite", "onnx"):
        with runtime.load(result.bundle, artifact=artifact) as session:
            (output,) = session.signature.outputs
            assert output.name == ("output_0" if kind == "saved_model" else "scores")
            np.testing.assert_allclose(session.run(inputs)[output.name], expected, atol=1e-5)


def test_subclassed_model_from_its_file(build, tmp_path):
    model = build("subclassed")
    model.save(tmp_path / "m.keras")
    source = load_source(tmp_path / "m.keras")
    photo = np.random.default_rng(0).random((2, 20, 20, 1)).astype("float32")
    expected = np.asarray(model(photo, training=False))
    result = convert(source, tmp_path / "m.bundle")
    with runtime.load(result.bundle, artifact="onnx") as session:
        np.testing.assert_allclose(session.run({"photo": photo})["output_0"], expected, atol=1e-5)


def test_dropout_is_off_and_batch_norm_uses_its_averages(build, tmp_path):
    model = build("sequential")
    photo = np.random.default_rng(0).random((4, 20, 20, 1)).astype("float32")
    training = np.asarray(model(photo, training=True))
    inference = np.asarray(model(photo, training=False))
    assert np.abs(training - inference).max() > 1e-3
    result = convert(source_from_keras(model), tmp_path / "m.bundle")
    with runtime.load(result.bundle) as session:
        np.testing.assert_allclose(session.run({"photo": photo})["scores"], inference, atol=1e-5)


def test_non_finite_and_huge_thetas_agree(build, tmp_path):
    """What leaves the frame by far, and what is no number, is the same picture everywhere."""
    source = source_from_keras(build("given_theta"))
    result = convert(source, tmp_path / "m.bundle")
    photo = np.random.default_rng(0).random((6, 16, 16, 2)).astype("float32")
    theta = np.tile(np.array([[1, 0, 0], [0, 1, 0]], "float32"), (6, 1, 1))
    theta[0] = np.nan
    theta[1, 0, 2] = np.inf
    theta[2, 1, 2] = -np.inf
    theta[3] *= 1e30
    theta[4, 0, 0] = -1e6
    theta[5, 0, 1] = np.nan
    expected = source.run({"photo": photo, "theta": theta})
    (name,) = expected
    assert np.isfinite(expected[name]).all()
    for artifact in ("tflite", "onnx"):
        with runtime.load(result.bundle, artifact=artifact) as session:
            found = session.run({"photo": photo, "theta": theta})[name]
            np.testing.assert_allclose(found, expected[name], atol=1e-5)


@pytest.mark.parametrize("batch", [None, 2])
def test_no_image_sized_constant(batch, tmp_path):
    side = 64
    from stnkit.models import SpatialTransformer, localization_cnn

    model = keras.Sequential(
        [
            keras.Input((side, side, 1), name="photo"),
            keras.layers.AveragePooling2D(8),
            keras.layers.UpSampling2D(8),
            SpatialTransformer(localization_cnn((2,), units=2, kernel_size=1), name="stn"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    result = convert(
        source_from_keras(model), tmp_path / "m.bundle", ConversionOptions(batch=batch)
    )
    # The largest constant there may be is the dense layer of the localisation network.
    dense = (side // 2) ** 2 * 2 * 2
    for artifact in result.manifest.artifacts:
        summary = runtime.summarize((result.bundle / artifact.file).read_bytes())
        assert summary.largest_constant.shape in ((dense // 2, 2), (2, dense // 2))
        assert summary.weights_bytes < 4 * dense + 4 * side * side


def test_bundle_holds_the_evidence(build, tmp_path):
    source = source_from_keras(build("sequential"))
    stages = []
    result = convert(source, tmp_path / "m.bundle", on_stage=stages.append)
    evidence = json.loads((result.bundle / "equivalence.json").read_text())
    assert [part["file"] for part in evidence["artifacts"]] == [
        artifact.file for artifact in result.manifest.artifacts
    ]
    kinds = {item["kind"] for part in evidence["artifacts"] for item in part["comparisons"]}
    assert kinds == {"output", "theta", "warped"}
    assert all(part["passed"] for part in evidence["artifacts"])
    assert [name for name in stages if name.startswith("exporting")] == [
        "exporting to TFLite",
        "exporting to ONNX",
    ]
    assert runtime.verify(result.bundle).passed


def test_inputs_without_a_fixed_size(tmp_path):
    from stnkit.models import SpatialTransformer

    net = keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()])
    model = keras.Sequential(
        [keras.Input((None, None, 1), name="photo"), SpatialTransformer(net, name="stn")]
    )
    source = source_from_keras(model)
    result = convert(source, tmp_path / "m.bundle")
    assert result.manifest.signature.inputs[0].shape == ("batch", "photo_dim_1", "photo_dim_2", 1)
    for artifact in ("tflite", "onnx"):
        with runtime.load(result.bundle, artifact=artifact) as session:
            for size in ((17, 23), (40, 9)):
                photo = np.random.default_rng(1).random((2, *size, 1)).astype("float32")
                (expected,) = source.run({"photo": photo}).values()
                (found,) = session.run({"photo": photo}).values()
                np.testing.assert_allclose(found, expected, atol=1e-5)
