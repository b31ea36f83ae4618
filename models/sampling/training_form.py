"""What layers compute in another form where no converter will ever see it: in training, under XLA.

A graph that is exported holds only ops that converters take, stores nothing of an image's size, and
can be frozen and saved: a gradient written by hand refers to tensors of the graph that it was made
in, and would be in the way. A graph that trains is bound by none of this, and is to be fast. Nor is
one that XLA compiles, as Keras has it do by itself where there is a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

_TRAINING = ContextVar("training", default=False)


@contextmanager
def training_form(training: Any) -> Iterator[None]:
    """Use the forms for training in the ops that are made inside, if `training` is True.

    Args:
        training: What Keras hands to a layer's `call`.
    """
    token = _TRAINING.set(training is True)
    try:
        yield
    finally:
        _TRAINING.reset(token)


def is_training() -> bool:
    """Return whether the form for training is asked for."""
    return _TRAINING.get()


def is_compiled() -> bool:
    """Return whether XLA compiles the ops that are made now, as in `tf.function(jit_compile=True)`.

    XLA joins ops into loops over the numbers that come out, and computes again in each loop what is
    cheap. So it is fast with other ops than TensorFlow is, one by one.
    """
    return bool(GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


def with_gradient(function: Callable[..., tuple[Any, Any]], *arguments: Any) -> Any:
    """Return the value of a function that has a gradient of its own.

    Args:
        function: From tensors to the value and its gradient, as `tf.custom_gradient` takes it. The
            gradient is used in training; elsewhere TensorFlow finds it.
        *arguments: The tensors.
    """
    if is_training():
        return tf.custom_gradient(function)(*arguments)
    value, _ = function(*arguments)
    return value
