"""Networks of the zoo at sizes that a test can afford, and what is asked of all of them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from stnkit.models.zoo import bending_energy, make

# Options that make an entry small; those that are small by themselves have none.
SMALL = {
    "tutorial": {"classes": 5},
    "digits": {},
    "paper-fcn": {"classes": 3},
    "paper-cnn": {"classes": 3},
    "paper-st-fcn": {"classes": 3},
    "paper-st-cnn": {"classes": 3},
    "vgg16": {"input_shape": (32, 32, 3), "classes": 3, "transformers": 2},
    "backbone": {"input_shape": (32, 32, 3), "classes": 3},
    "parallel": {"input_shape": (64, 64, 3), "output_size": (32, 32), "classes": 3},
    "segmentation": {"input_shape": (32, 40, 2), "classes": 3, "frame_size": (16, 16)},
    "registration": {"input_shape": (32, 40, 1)},
}


@pytest.fixture(scope="session")
def small():
    """Return `small(name, **more)`: a new small network of that name."""

    def build(name, **more):
        keras.utils.set_random_seed(1)
        return make(name, **{**SMALL[name], **more})

    return build


@pytest.fixture(scope="session")
def draw():
    """Return `draw(model, count)`: inputs for a network, noise in [0, 1]."""

    def noise(model, count=2, seed=2):
        rng = np.random.default_rng(seed)
        found = {
            tensor.name: rng.uniform(0, 1, (count, *tensor.shape[1:])).astype(np.float32)
            for tensor in model.inputs
        }
        return found if len(found) > 1 else next(iter(found.values()))

    return noise


@pytest.fixture(scope="session")
def disturb():
    """Return `disturb(model)`: give every variable a random part, and hand the model back."""

    def change(model, amount=0.1, seed=3):
        rng = np.random.default_rng(seed)
        for variable in model.variables:
            if "float" in variable.dtype:
                variable.assign_add(rng.uniform(0, amount, variable.shape))
        return model

    return change


@pytest.fixture(scope="session")
def fit_once(draw):
    """Return `fit_once(model)`: one step of training on noise; returns what `fit` does."""

    def step(model, count=4):
        inputs = draw(model, count, seed=4)
        rng = np.random.default_rng(5)
        if len(model.outputs) > 1:
            loss = {"warped": "mse", "flow": bending_energy}
            wanted = {"warped": inputs["fixed"], "flow": np.zeros((count, 1, 1, 2), np.float32)}
        else:
            loss = "sparse_categorical_crossentropy"
            *places, classes = model.outputs[0].shape[1:]
            wanted = rng.integers(0, classes, (count, *places))
        # Tracing the gradients of a large network takes many times longer than one step of it.
        model.compile(keras.optimizers.SGD(0.05), loss, run_eagerly=True)
        return model.fit(inputs, wanted, batch_size=count, epochs=1, verbose=0)

    return step
