"""The taps: marks by which a proof finds theta and the warped image in any graph."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import SpatialTransformer, localization_cnn, mark_theta, mark_warped

MARKS = [(mark_theta, "stnkit_theta"), (mark_warped, "stnkit_warped")]
every_mark = pytest.mark.parametrize(("mark", "name"), MARKS)


def owner(name):
    """Return the layer in the name of an operation; TensorFlow numbers a scope entered again."""
    return re.sub(r"_\d+$", "", name.split("/")[-2])


def marks_of(function, *specs):
    """Return the operations of a traced function that are marks, by their full name."""
    graph = tf.function(function).get_concrete_function(*specs).graph
    return {
        operation.name: operation
        for operation in graph.get_operations()
        if operation.name.split("/")[-1].startswith(("stnkit_theta", "stnkit_warped"))
    }


@every_mark
def test_a_mark_returns_the_very_values(mark, name):
    value = np.array([[1.5, np.nan, -np.inf]], np.float64)
    received = mark(value)
    assert received.dtype == tf.float64
    assert np.array_equal(received.numpy(), value, equal_nan=True)


@every_mark
def test_a_mark_is_one_named_identity(mark, name):
    found = marks_of(lambda x: mark(x * 2) + 1, tf.TensorSpec((None, 6)))
    assert list(found) == [name]
    operation = found[name]
    assert operation.type == "Identity"
    assert operation.inputs[0].op.type == "Mul"
    assert operation.outputs[0].shape.as_list() == [None, 6]


@every_mark
def test_a_mark_passes_the_gradient(mark, name):
    x = tf.constant([1.0, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        result = tf.reduce_sum(mark(x) * [3.0, 4.0])
    assert tape.gradient(result, x).numpy().tolist() == [3, 4]


def test_a_mark_takes_the_name_of_the_layer_it_is_made_in():
    class MyTransformer(keras.layers.Layer):
        def call(self, image):
            return mark_warped(image + 0 * tf.reduce_sum(mark_theta(tf.ones((1, 6)))))

    model = keras.Sequential([keras.Input((4, 4, 1)), MyTransformer(name="mine")])
    found = marks_of(model, tf.TensorSpec((None, 4, 4, 1)))
    assert sorted((owner(name), name.split("/")[-1]) for name in found) == [
        ("mine", "stnkit_theta"),
        ("mine", "stnkit_warped"),
    ]


@pytest.mark.parametrize("output_size", [None, (3, 2)], ids=str)
def test_the_layer_marks_its_theta_and_its_result(output_size):
    layer = SpatialTransformer(localization_cnn((2,), 3), output_size, name="look")
    model = keras.Sequential([keras.Input((6, 5, 2)), layer])
    found = marks_of(model, tf.TensorSpec((2, 6, 5, 2)))
    by_name = {name.split("/")[-1]: operation for name, operation in found.items()}
    assert len(by_name) == len(found) == 2
    assert {owner(name) for name in found} == {"look"}
    assert by_name["stnkit_theta"].outputs[0].shape.as_list()[1:] == [2, 3]
    expected = [2, *(output_size or (6, 5)), 2]
    assert by_name["stnkit_warped"].outputs[0].shape.as_list() == expected
