"""Files and TensorFlow functions, ready to run.

Every file is run from NumPy arrays to a NumPy array; every TensorFlow function from tensors that
exist already, as in training, to a NumPy array, which waits for it and copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.peers.contender import Job, Prepared

WarpFunction = Callable[[Any, Any], Any]
"""From image and theta, TensorFlow tensors of static shape, to the warped image."""


def run_tflite(content: bytes, job: Job) -> Prepared:
    """Return a TFLite file with inputs image and theta, run by LiteRT with XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=job.threads)
    interpreter.allocate_tensors()
    # By their ranks: converters name and order the inputs each in their own way.
    inputs = {len(item["shape"]): item["index"] for item in interpreter.get_input_details()}
    image, theta = inputs[4], inputs[3]
    # A file may name one tensor as an output twice, under two meanings.
    (output,) = {item["index"] for item in interpreter.get_output_details()}

    def run() -> Any:
        interpreter.set_tensor(image, job.inputs.image)
        interpreter.set_tensor(theta, job.inputs.theta)
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return Prepared(run, lambda warped: {"warped": warped}, len(content))


def run_onnx(content: bytes, job: Job, *, channels_first: bool = False) -> Prepared:
    """Return an ONNX file with inputs image and theta, run by ONNX Runtime on the CPU.

    Args:
        content: The file.
        job: What it is run on.
        channels_first: Whether it takes and gives images `[batch, channels, height, width]`.
    """
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(job.spinning)))
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = {len(item.shape): item.name for item in session.get_inputs()}
    image = job.inputs.image
    if channels_first:
        image = np.ascontiguousarray(image.transpose(0, 3, 1, 2))
    feeds = {names[4]: image, names[3]: job.inputs.theta}

    def answer(results: Any) -> dict[str, Any]:
        (warped,) = results
        return {"warped": warped.transpose(0, 2, 3, 1) if channels_first else warped}

    return Prepared(lambda: session.run(None, feeds), answer, len(content))


def run_tensorflow(warp: WarpFunction, job: Job) -> Prepared:
    """Return a TensorFlow function, compiled to a graph."""
    import tensorflow as tf

    function = tf.function(warp)
    image, theta = tf.constant(job.inputs.image), tf.constant(job.inputs.theta)
    return Prepared(lambda: function(image, theta).numpy(), lambda warped: {"warped": warped})


def run_tensorflow_training(warp: WarpFunction, job: Job) -> Prepared:
    """Return the same with the gradients of a loss by image and theta."""
    import tensorflow as tf

    image, theta = tf.constant(job.inputs.image), tf.constant(job.inputs.theta)
    upstream = tf.constant(job.inputs.upstream)

    @tf.function
    def step(image: Any, theta: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([image, theta])
            warped = warp(image, theta)
            loss = tf.reduce_sum(upstream * warped)
        gradients = tape.gradient(loss, [image, theta])
        return [tf.convert_to_tensor(value) for value in (warped, *gradients)]

    def run() -> Any:
        return [value.numpy() for value in step(image, theta)]

    names = ("warped", "image_gradient", "theta_gradient")
    return Prepared(run, lambda results: dict(zip(names, results, strict=True)))


def tensor_specs(job: Job) -> list[Any]:
    """Return TensorFlow's description of both inputs."""
    import tensorflow as tf

    inputs = job.inputs
    return [
        tf.TensorSpec(inputs.image.shape, tf.float32, "image"),
        tf.TensorSpec(inputs.theta.shape, tf.float32, "theta"),
    ]
