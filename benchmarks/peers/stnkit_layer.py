"""stnkit's own layer, exported as `stnkit convert` does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.cases import CONTROL_POINTS, Case
from benchmarks.peers.contender import Contender, Job
from benchmarks.peers.runtimes import (
    run_onnx,
    run_tensorflow,
    run_tensorflow_training,
    run_tflite,
)

MakeLayer = Callable[[Case], Any]


def layer_contender(name: str, make: MakeLayer) -> Contender:
    """Return a contender from a Keras layer that is called on [image, theta].

    Args:
        name: Name in the tables.
        make: Returns the layer for a case, e.g. a `stnkit.models.SpatialTransformer`.
    """

    def call(job: Job) -> Callable[[Any, Any], Any]:
        layer = make(job.case)
        return lambda image, theta: layer([image, theta])

    def train(job: Job) -> Callable[[Any, Any], Any]:
        layer = make(job.case)
        return lambda image, theta: layer([image, theta], training=True)

    def tflite(job: Job) -> bytes:
        from stnkit.convert.tflite import export_tflite

        return export_tflite(_frozen(make, job)).content

    return Contender(
        name=name,
        builds={
            "tflite": lambda job: run_tflite(tflite(job), job),
            "onnx": lambda job: run_onnx(_onnx(make, job), job),
            "tensorflow": lambda job: run_tensorflow(call(job), job),
            "tensorflow-training": lambda job: run_tensorflow_training(train(job), job),
            "tensorflow-xla": lambda job: run_tensorflow_training(train(job), job, compiled=True),
        },
    )


def _onnx(make: MakeLayer, job: Job, channels_first: bool = False) -> bytes:
    from stnkit.convert import ConversionOptions
    from stnkit.convert.onnx import export_onnx

    return export_onnx(_frozen(make, job, channels_first), ConversionOptions().opset).content


def _frozen(make: MakeLayer, job: Job, channels_first: bool = False) -> Any:
    """Return the graph that both exporters take: `convert` without the proof, which is done here.

    The reference of this benchmark is a stricter one, and independent of TensorFlow.
    """
    import keras

    from stnkit.convert import source_from_keras
    from stnkit.convert.frozen import freeze

    batch, *image_shape = job.case.shape
    if channels_first:
        image_shape = [image_shape[2], *image_shape[:2]]
    image = keras.Input(tuple(image_shape), batch_size=batch, name="image")
    theta = keras.Input(job.case.theta_shape, batch_size=batch, name="theta")
    there = keras.layers.Permute((2, 3, 1))(image) if channels_first else image
    warped = make(job.case)([there, theta])
    back = keras.layers.Permute((3, 1, 2))(warped) if channels_first else warped
    model = keras.Model([image, theta], back, name="model")
    return freeze(source_from_keras(model), batch)


def spatial_transformer(case: Case, **options: Any) -> Any:
    """Return the layer with its defaults: bilinear, zeros, `align_corners=False`."""
    from stnkit.models import SpatialTransformer, ThinPlateSpline

    transform = "affine" if case.transform == "affine" else ThinPlateSpline(CONTROL_POINTS)
    return SpatialTransformer(transform=transform, name="transformer", **options)


STNKIT = layer_contender("stnkit", spatial_transformer)

_COMPILED = layer_contender("stnkit, jit_compile", partial(spatial_transformer, jit_compile=True))
STNKIT_COMPILED = replace(
    _COMPILED, builds={"tensorflow-training": _COMPILED.builds["tensorflow-training"]}
)
"""The layer that has XLA compile its own part, in a graph that XLA does not compile."""

STNKIT_CHANNELS_FIRST = Contender(
    "stnkit, channels first",
    {
        "onnx": lambda job: run_onnx(
            _onnx(spatial_transformer, job, channels_first=True), job, channels_first=True
        )
    },
)
"""A model whose images are as PyTorch's: between two `Permute`, which the file is without."""
