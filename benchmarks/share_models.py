"""The networks whose transformer is weighed, as files before and after.

"After" is what stnkit writes. "Before" is the same network with the sampler of
`benchmarks/peers/gather_nd.py` in the place of stnkit's, written by `tf.lite.TFLiteConverter` and
tf2onnx: most spatial transformers for TensorFlow are made and converted so. Localisation network,
weights and answers are the same. In all files theta and the warped image stay tensors that can be
found: the converters take them for outputs, and they are taken off the outputs afterwards.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from benchmarks.cases import Array, Case, make_inputs
from benchmarks.peers.gather_nd import gather_nd_warp
from benchmarks.peers.tensorflow_function import OPSET
from benchmarks.share_tflite import cut
from stnkit.convert import ConversionOptions, source_from_keras
from stnkit.convert.frozen import freeze
from stnkit.convert.onnx import export_onnx
from stnkit.convert.tflite import export_tflite
from stnkit.models import SpatialTransformer, read_transformers
from stnkit.models.pretrained import model_file, samples
from stnkit.models.zoo import make

FORMS = ("before", "after")
RUNTIMES = ("LiteRT", "ONNX Runtime")
TOLERANCE = 1e-4
"""Largest difference between any two answers, of images and probabilities in [0, 1]."""


@dataclass(frozen=True)
class Network:
    """A Keras model with one transformer, and what it is run on.

    Attributes:
        model: From an image to probabilities; its transformer is affine, bilinear and padded with
            zeros, `align_corners=False`.
        image: `[1, height, width, channels]` float32 in [0, 1].
    """

    model: Any = field(repr=False)
    image: Array = field(repr=False)

    def answers(self) -> dict[str, Array]:
        """Return theta, the warped image and the probabilities, by Keras."""
        (found,) = read_transformers(self.model, self.image)
        probabilities = np.asarray(self.model(self.image, training=False))
        return {"theta": found.theta, "warped": found.warped, "probabilities": probabilities}


@dataclass(frozen=True)
class NetworkFile:
    """A file of the whole network, and the names of its tensors."""

    content: bytes = field(repr=False)
    image: str
    theta: str
    warped: str
    probabilities: str


def digits() -> Network:
    """Return the shipped model with one of its samples."""
    image = samples("digits").images[:1].astype(np.float32) / 255
    model = keras.models.load_model(model_file("digits"), compile=False)
    return Network(model, image.reshape(1, 28, 28, 1))


def mobilenet() -> Network:
    """Return MobileNetV2 behind a transformer whose theta is a little off the identity."""
    keras.utils.set_random_seed(0)
    model = make("backbone")
    rng = np.random.default_rng(0)
    # Zeros, as the kernel is at its start, would let a converter fold theta into a constant.
    kernel, bias = model.get_layer("theta_head").weights
    kernel.assign(rng.normal(0, 0.01, kernel.shape))
    bias.assign_add(rng.normal(0, 0.1, bias.shape))
    return Network(model, make_inputs(Case((1, 224, 224, 3), "affine")).image)


NETWORKS: Mapping[str, Callable[[], Network]] = {
    "digits, 28 px": digits,
    "MobileNetV2, 224 px": mobilenet,
}


class _Seen:
    """What a layer computed when it was last called. Keras tracks no such object."""

    theta: Any
    warped: Any


class GatherNdTransformer(SpatialTransformer):
    """A `SpatialTransformer` that reads the image by four gather_nd with masks, for a batch of 1.

    Convention: as `SpatialTransformer` with its defaults.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen = _Seen()

    def call(self, inputs: Any, training: Any = None) -> Any:
        """Return the warped image `[1, height, width, channels]`."""
        if self.localization_net is None:
            image, theta = inputs
        else:
            image = inputs
            head: Any = self.theta_head
            theta = head(self.localization_net(image, training=training))
        theta = self.transform.check_theta(theta)
        warped = gather_nd_warp(Case((1, *image.shape[1:]), "affine"))(image, theta)
        self.seen.theta, self.seen.warped = theta, warped
        return warped


def with_gather_nd(model: Any) -> tuple[Any, GatherNdTransformer]:
    """Return a copy of a model with another sampler, and the layer that holds it."""
    replaced: list[GatherNdTransformer] = []

    def copy_of(layer: Any) -> Any:
        if not isinstance(layer, SpatialTransformer):
            return type(layer).from_config(layer.get_config())
        replaced.append(GatherNdTransformer.from_config(layer.get_config()))
        return replaced[-1]

    copy = keras.models.clone_model(model, clone_function=copy_of)
    copy.set_weights(model.get_weights())
    (layer,) = replaced
    return copy, layer


def files_after(network: Network) -> dict[str, NetworkFile]:
    """Return what stnkit writes, by runtime."""
    graph = freeze(source_from_keras(network.model), 1)
    onnx = export_onnx(graph, ConversionOptions().opset)
    exported = {"LiteRT": export_tflite(graph), "ONNX Runtime": onnx}
    kinds = {tap.spec.kind: tap.spec.name for tap in graph.taps}
    return {
        runtime: NetworkFile(
            content=it.content,
            image=next(iter(it.inputs.values())),
            theta=it.taps[kinds["theta"]],
            warped=it.taps[kinds["warped"]],
            probabilities=next(iter(it.outputs.values())),
        )
        for runtime, it in exported.items()
    }


def files_before(network: Network) -> dict[str, NetworkFile]:
    """Return what the converters make of the network with the other sampler, by runtime."""
    import tensorflow as tf

    model, layer = with_gather_nd(network.model)
    spec = tf.TensorSpec(network.image.shape, tf.float32, "image")

    def call(image: Any) -> dict[str, Any]:
        probabilities = model(image, training=False)
        # Ordered by their names, as the converters order them.
        found = {"0": layer.seen.theta, "1": layer.seen.warped, "2": probabilities}
        return {name: tf.identity(value) for name, value in found.items()}

    function = tf.function(call, input_signature=[spec])
    return {"LiteRT": _tflite(function), "ONNX Runtime": _onnx(function, spec)}


def _tflite(function: Any) -> NetworkFile:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    # The converter writes no weights for the variables of a Keras 3 model: constants it does.
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own deprecations
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
        content: bytes = converter.convert()
    interpreter = Interpreter(model_content=content)
    (image,) = (item["name"] for item in interpreter.get_input_details())
    # By their ranks: the converter orders them as it likes.
    names = {len(item["shape"]): item["name"] for item in interpreter.get_output_details()}
    theta, warped, probabilities = names[3], names[4], names[2]
    whole = cut(content, [image], [probabilities])
    return NetworkFile(whole, image, theta, warped, probabilities)


def _onnx(function: Any, spec: Any) -> NetworkFile:
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    model, _ = tf2onnx.convert.from_function(function, input_signature=[spec], opset=OPSET)
    theta, warped, probabilities = (output.name for output in model.graph.output)
    del model.graph.output[:2]
    (image,) = (given.name for given in model.graph.input)
    return NetworkFile(model.SerializeToString(), image, theta, warped, probabilities)
