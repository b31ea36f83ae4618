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
from benchmarks.peers.tensorflow_function import OPSET

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

    def onnx(job: Job) -> bytes:
        from stnkit.convert.onnx import export_onnx

        return export_onnx(_frozen(make, job), OPSET).content

    return Contender(
        name=name,
        builds={
            "tflite": lambda job: run_tflite(tflite(job), job),
            "onnx": lambda job: run_onnx(onnx(job), job),
            "tensorflow": lambda job: run_tensorflow(call(job), job),
            "tensorflow-training": lambda job: run_tensorflow_training(train(job), job),
            "tensorflow-xla": lambda job: run_tensorflow_training(train(job), job, compiled=True),
        },
    )


def _frozen(make: MakeLayer, job: Job) -> Any:
    """Return the graph that both exporters take: `convert` without the proof, which is done here.

    The reference of this benchmark is a stricter one, and independent of TensorFlow.
    """
    import keras

    from stnkit.convert import source_from_keras
    from stnkit.convert.frozen import freeze

    batch, *image_shape = job.case.shape
    image = keras.Input(tuple(image_shape), batch_size=batch, name="image")
    theta = keras.Input(job.case.theta_shape, batch_size=batch, name="theta")
    model = keras.Model([image, theta], make(job.case)([image, theta]), name="model")
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
