"""A function of TensorFlow ops as a contender on every target, by the usual converters."""

from __future__ import annotations

import logging
from collections.abc import Callable

from benchmarks.cases import Case
from benchmarks.peers.contender import Contender, Job
from benchmarks.peers.runtimes import (
    WarpFunction,
    run_onnx,
    run_tensorflow,
    run_tensorflow_training,
    run_tflite,
    tensor_specs,
)

OPSET = 17
"""ONNX opset: the default of `stnkit convert`."""


def function_contender(
    name: str, make: Callable[[Case], WarpFunction], *, may_fail: bool = False
) -> Contender:
    """Return a contender whose files are written by `tf.lite.TFLiteConverter` and tf2onnx.

    Args:
        name: Name in the tables.
        make: Returns the function for a case.
        may_fail: As in `Contender`.
    """
    return Contender(
        name=name,
        builds={
            "tflite": lambda job: run_tflite(_tflite(make(job.case), job), job),
            "onnx": lambda job: run_onnx(_onnx(make(job.case), job), job),
            "tensorflow": lambda job: run_tensorflow(make(job.case), job),
            "tensorflow-training": lambda job: run_tensorflow_training(make(job.case), job),
            "tensorflow-xla": lambda job: run_tensorflow_training(
                make(job.case), job, compiled=True
            ),
        },
        may_fail=may_fail,
    )


def _tflite(warp: WarpFunction, job: Job) -> bytes:
    import tensorflow as tf

    module = tf.Module()
    module.warp = tf.function(warp, input_signature=tensor_specs(job))
    concrete = module.warp.get_concrete_function()
    content: bytes = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module).convert()
    return content


def _onnx(warp: WarpFunction, job: Job) -> bytes:
    import tensorflow as tf
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    specs = tensor_specs(job)
    function = tf.function(warp, input_signature=specs)
    model, _ = tf2onnx.convert.from_function(function, input_signature=specs, opset=OPSET)
    content: bytes = model.SerializeToString()
    return content
