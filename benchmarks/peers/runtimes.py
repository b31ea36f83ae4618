"""Files and TensorFlow functions, ready to run.

Every file is run from NumPy arrays to a NumPy array; every TensorFlow function from tensors that
exist already, as in training, to a NumPy array, which waits for it and copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.peers.contender import Job, Prepared

GRAPH_RUNS = 8
"""How many times a small step runs in one TensorFlow graph."""

_SMALL_IMAGE = 2**18  # numbers; beyond, the start of a graph does not matter

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
    image, theta = _tensors(job, "image", "theta")
    run, runs = _in_graph(lambda *given: [warp(*given)], [image, theta], [image], job)
    return Prepared(run, lambda results: {"warped": results[0]}, runs=runs)


def run_tensorflow_training(warp: WarpFunction, job: Job, *, compiled: bool = False) -> Prepared:
    """Return the same with the gradients of a loss by image and theta.

    Args:
        warp: The function.
        job: What it is run on.
        compiled: Whether XLA compiles it, as Keras has it in `fit` where there is a GPU.
    """
    import tensorflow as tf

    image, theta, upstream = _tensors(job, "image", "theta", "upstream")

    def step(image: Any, theta: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch([image, theta])
            warped = warp(image, theta)
            loss = tf.reduce_sum(upstream * warped)
        gradients = tape.gradient(loss, [image, theta])
        return [tf.convert_to_tensor(value) for value in (warped, *gradients)]

    run, runs = _in_graph(step, [image, theta], [image, image, theta], job, compiled)
    names = ("warped", "image_gradient", "theta_gradient")
    return Prepared(run, lambda results: dict(zip(names, results, strict=True)), runs=runs)


def _tensors(job: Job, *names: str) -> list[Any]:
    import tensorflow as tf

    return [tf.constant(getattr(job.inputs, name)) for name in names]


def _in_graph(
    step: Callable[..., list[Any]],
    given: list[Any],
    like: list[Any],
    job: Job,
    compiled: bool = False,
) -> tuple[Any, int]:
    """Return what runs a step in a graph, and how many times it does.

    To start a graph takes TensorFlow 0.2 to 0.4 ms, ten times as long as to warp a small image. A
    network starts one graph for all of its layers, so that small steps are repeated in one: it is
    the layer that is timed. Nothing that depends on the image is shared between repetitions: each
    is given what the one before may have changed, though it did not.

    Args:
        step: Makes the results' tensors from those that are given.
        given: Image and theta.
        like: Tensors of the results' shapes.
        job: What it is run on.
        compiled: Whether XLA compiles the graph.
    """
    import tensorflow as tf

    runs = GRAPH_RUNS if job.inputs.image.size <= _SMALL_IMAGE else 1

    def again(count: Any, image: Any, theta: Any, *_: Any) -> tuple[Any, ...]:
        results = step(image, theta)
        # Too little to change a number, which XLA cannot know; else it would do all but once.
        nudge = 1e-30 * tf.reshape(results[0], [-1])[0]
        return (count + 1, image + nudge, theta + nudge, *results)

    @tf.function(autograph=False, jit_compile=compiled or None)
    def function() -> Any:
        if runs == 1:
            return step(*given)
        state = (tf.constant(0), *given, *map(tf.zeros_like, like))
        done = tf.while_loop(lambda count, *_: count < runs, again, state, parallel_iterations=1)
        return done[1 + len(given) :]

    return lambda: [value.numpy() for value in function()], runs


def tensor_specs(job: Job) -> list[Any]:
    """Return TensorFlow's description of both inputs."""
    import tensorflow as tf

    inputs = job.inputs
    return [
        tf.TensorSpec(inputs.image.shape, tf.float32, "image"),
        tf.TensorSpec(inputs.theta.shape, tf.float32, "theta"),
    ]
