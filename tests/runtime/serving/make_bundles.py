"""Make bundles that take more than one image of one size: run as a process, for TensorFlow."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

from stnkit.convert import ConversionOptions, convert, source_from_keras
from stnkit.models import SpatialTransformer
from stnkit.models.zoo import make, registration_network


def stir(model: keras.Model) -> keras.Model:
    """Give every weight that is a constant a value of its own."""
    rng = np.random.default_rng(2)
    for variable in model.weights:
        if variable.path.endswith(("bias", "gamma")) or "theta" in variable.path:
            variable.assign_add(rng.normal(0, 0.05, tuple(variable.shape)))
    return model


def any_size() -> keras.Model:
    """Return a network for photos of any size."""
    layers = keras.layers
    net = keras.Sequential(
        [
            layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(6, name="theta"),
        ]
    )
    photo = keras.Input((None, None, 3), name="photo")
    seen = SpatialTransformer(net, output_size=(8, 8), name="stn")(photo)
    scores = layers.Dense(4, activation="softmax", name="scores")(layers.Flatten()(seen))
    return keras.Model(photo, scores)


def main(folder: Path) -> None:
    """Write the bundles."""
    keras.utils.set_random_seed(1)
    made = {
        "pair": (registration_network((24, 32, 1), "dense", (4, 8, 8)), None),
        "any-size": (any_size(), None),
        "threes": (make("tutorial"), 3),
    }
    folder.mkdir()
    for name, (model, batch) in made.items():
        options = ConversionOptions(batch=batch, name=name)
        convert(source_from_keras(stir(model)), folder / f"{name}.bundle", options)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
