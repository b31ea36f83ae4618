"""Every network of the zoo goes to both targets and is proven, at any batch size.

At sizes that a test can afford; with full-sized photos it is slow.
"""

from __future__ import annotations

import functools

import keras
import numpy as np
import onnx
import pytest
from tensorflow.lite.tools import flatbuffer_utils

import stnkit.runtime as runtime
from stnkit.convert import ConversionOptions, convert, source_from_keras
from stnkit.models.zoo import ENTRIES, make, parallel_network, registration_network

PAPER = {"input_shape": (28, 28, 1), "classes": 5}
PHOTO = {"input_shape": (32, 32, 3), "classes": 5}
TRANSFORMS = ("affine", "projective", "thin_plate_spline")
TWICE = {"transformers": 2, **PHOTO}
CROPS = {"input_shape": (40, 40, 3), "output_size": (32, 32), "classes": 5}

# Name of a row -> what makes the network, and the transformers that are to be found in it.
SMALL = {
    "tutorial": (functools.partial(make, "tutorial"), ["spatial_transformer"]),
    "digits": (functools.partial(make, "digits"), ["spatial_transformer"]),
    "paper-fcn": (functools.partial(make, "paper-fcn", **PAPER), []),
    "paper-cnn": (functools.partial(make, "paper-cnn", **PAPER), []),
    **{
        f"{name}_{transform}": (
            functools.partial(make, name, transform=transform, **PAPER),
            ["spatial_transformer"],
        )
        for name in ("paper-st-fcn", "paper-st-cnn")
        for transform in TRANSFORMS
    },
    "segmentation": (
        functools.partial(
            make, "segmentation", input_shape=(32, 40, 2), classes=3, frame_size=(16, 16)
        ),
        ["paste_back", "spatial_transformer"],
    ),
    **{
        f"registration_{flow}": (
            functools.partial(registration_network, (24, 32, 1), flow, steps=2),
            ["affine_stage", "flow_stage"],
        )
        for flow in ("diffeomorphic", "dense")
    },
}
PAIR = ["spatial_transformer_1", "spatial_transformer_2"]
LARGE = {
    "vgg16_once": (functools.partial(make, "vgg16", resampling="once", **TWICE), PAIR),
    "vgg16_each": (functools.partial(make, "vgg16", resampling="each", **TWICE), PAIR),
    "backbone": (functools.partial(make, "backbone", **PHOTO), ["spatial_transformer"]),
    "parallel_shared": (
        functools.partial(parallel_network, 2, "MobileNet", **CROPS),
        ["crop_1", "crop_2"],
    ),
    "parallel_separate": (
        functools.partial(parallel_network, 2, "MobileNet", shared=False, **CROPS),
        ["crop_1", "crop_2"],
    ),
}
QUICK = ("vgg16_once", "backbone", "parallel_shared")
FULL = {
    "registration": functools.partial(make, "registration"),
    "vgg16": functools.partial(make, "vgg16", transformers=2),
    "backbone": functools.partial(make, "backbone"),
    "parallel": functools.partial(make, "parallel"),
}


def stir(build):
    """Return the network with biases and statistics of its own, and thetas that see the image."""
    keras.utils.set_random_seed(1)
    model, rng = build(), np.random.default_rng(2)
    for variable in model.weights:
        name, shape = variable.path, tuple(variable.shape)
        if "theta" in name or "/field/" in name:
            # Of a kernel as much less as it has rows: theta stays near to where it starts.
            amount = 0.1 / np.sqrt(np.prod(shape[:-1]))
            variable.assign_add(rng.normal(0, amount, shape))
        elif "variance" in name or "gamma" in name:
            variable.assign(rng.uniform(0.5, 1.5, shape))
        elif len(shape) == 1:
            variable.assign_add(rng.normal(0, 0.1, shape))
    return model


def sizes_of_constants(content):
    """Return the number of elements of every constant in a model file."""
    if content[4:8] == b"TFL3":
        model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
        tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
        filled = [tensor for tensor in tensors if model.buffers[tensor.buffer].data is not None]
        return [int(np.prod(tensor.shape)) for tensor in filled]
    graph = onnx.load_from_string(content).graph
    inside = [a.t for node in graph.node for a in node.attribute if a.type == a.TENSOR]
    return [int(np.prod(tensor.dims)) for tensor in (*graph.initializer, *inside)]


def prove(model, transformers, folder, batches):
    """Convert for each batch, None for an open one; converting raises what differs."""
    source = source_from_keras(model)
    weights = {int(np.prod(variable.shape)) for variable in model.weights}
    pixels = min(int(np.prod(tensor.shape[1:3])) for tensor in model.inputs)
    for batch in batches:
        bundle = folder / f"{batch}.bundle"
        result = convert(source, bundle, ConversionOptions(batch=batch))
        assert [artifact.format for artifact in result.manifest.artifacts] == ["tflite", "onnx"]
        taps = {f"{name}/{kind}" for name in transformers for kind in ("theta", "warped")}
        assert {tap.name for tap in result.manifest.taps} == taps
        for artifact in result.manifest.artifacts:
            content = (bundle / artifact.file).read_bytes()
            summary = runtime.summarize(content)
            assert summary.foreign_ops == ()
            # The last warped image of registration is an output, and goes by the output's name.
            assert set(summary.tap_names) <= taps
            assert taps - set(summary.tap_names) <= {"flow_stage/warped"}
            # What is as large as an image is a weight: no grid, no kernel of a spline is baked in.
            baked = [size for size in sizes_of_constants(content) if size >= pixels]
            assert set(baked) <= weights, sorted(set(baked) - weights)


def test_the_table_has_every_network():
    rows = {name.partition("_")[0] for name in (*SMALL, *LARGE)}
    assert rows == {entry.name for entry in ENTRIES}


@pytest.mark.parametrize("name", SMALL)
def test_small_networks(name, tmp_path, served_round_trip):
    build, transformers = SMALL[name]
    prove(stir(build), transformers, tmp_path, (None, 3))
    served_round_trip(tmp_path / "None.bundle")


@pytest.mark.parametrize("name", QUICK)
def test_large_networks_on_small_photos(name, tmp_path, served_round_trip):
    build, transformers = LARGE[name]
    prove(stir(build), transformers, tmp_path, (None,))
    served_round_trip(tmp_path / "None.bundle")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_every_network_at_every_batch(name, tmp_path, served_round_trip):
    build, transformers = {**SMALL, **LARGE}[name]
    prove(stir(build), transformers, tmp_path, (1,) if name in SMALL else (None, 1, 3))
    for bundle in tmp_path.glob("*.bundle"):
        served_round_trip(bundle)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_full_size(name, tmp_path):
    model = stir(FULL[name])
    found = [layer.name for layer in model.layers if hasattr(layer, "padding_mode")]
    prove(model, found, tmp_path, (None,))


def test_what_was_baked_in_would_be_found():
    content = onnx.helper.make_model(
        onnx.helper.make_graph(
            [], "g", [], [], [onnx.numpy_helper.from_array(np.zeros((5, 7), np.float32), "w")]
        )
    ).SerializeToString()
    assert sizes_of_constants(content) == [35]
