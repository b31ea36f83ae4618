"""`stnkit train photos`: VGG16 behind a transformer, on photos that are rotated at random."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stnkit.models.grids import affine_grid
from stnkit.models.recipes.cifar import CLASS_NAMES, Photos
from stnkit.models.sampling import grid_sample
from stnkit.models.shapes import sizes
from stnkit.models.training.batches import Batches
from stnkit.models.training.recipe import Evaluation, Recipe
from stnkit.models.training.task import Task
from stnkit.models.transforms.linear import Similarity
from stnkit.models.zoo.backbone import vgg16_network
from stnkit.models.zoo.backbone_localization import backbone_localization

# The test photos are rotated the same way whatever the seed of the training.
TEST_SEED = 2015
ROTATION_DEGREES = 90.0
_LEARNING_RATE = 1e-3
# Half a turn is in reach, and a step that is too long cannot throw the photo out of the frame.
_BOUNDS = (1.0, 1.2, 0.2, 0.2)
# The gradient of the classes at theta is large and noisy: whole, it drowns the guidance.
_CLASSES_ON_THETA = 0.1
_TEST_BATCH = 250


@tf.function(reduce_retracing=True)
def rotate(images: Any, angle: Any) -> Any:
    """Return photos turned about their centre, with black corners.

    Args:
        images: `[n, height, width, 3]` uint8, square.
        angle: `[n]` float32, radians.

    Returns:
        `[n, height, width, 3]` float32 in [0, 1].
    """
    cos, sin = tf.cos(angle), tf.sin(angle)
    zero = tf.zeros_like(cos)
    theta = tf.stack([cos, -sin, zero, sin, cos, zero], axis=-1)
    pixels = tf.cast(images, tf.float32) / 255.0
    # Not the static shape: TensorFlow forgets it when photos of another size are turned as well.
    _, height, width, _ = sizes(pixels)
    return grid_sample(pixels, affine_grid(theta, (height, width)))


class PhotosTask(Task):
    """VGG16 with a transformer in front, trained on photos that are rotated afresh each epoch.

    The transformer's localisation network looks at features of VGG16's first blocks. The rotations
    are known here, so theta is guided: beside the loss of the classes it is drawn to the similarity
    that turns the photo back. From the classes of 5,000 small photos alone, what is up was not
    learnt in 5 epochs.

    Args:
        photos: The photos.
        recipe: Epochs, seed and batch size.
        weights: Weights file of VGG16 without its top, "imagenet", or None for random ones.
        trainable: What of VGG16 is trained: True, False, or the name of the first such block.
        transformer: False freezes the transformer at the identity: the same network without it.
        guidance: Weight of the squared distance of theta from the one that turns the photo back.

    Raises:
        ValueError: If the weights cannot be had, or there is no such block.
    """

    name = "photos"

    def __init__(
        self,
        photos: Photos,
        recipe: Recipe,
        weights: Path | str | None,
        trainable: bool | str = False,
        transformer: bool = True,
        guidance: float = 10.0,
    ) -> None:
        super().__init__(recipe)
        self._photos, self._weights, self._guidance = photos, weights, guidance
        self._trainable, self._transformer = trainable, transformer
        self._batches = Batches(len(photos.train_images), recipe)
        self.build()  # weights that cannot be had are found before anything is trained

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        return len(self._batches)

    def build(self) -> Any:
        """Return the network with theta as a second output, all but VGG16 untrained."""
        shape = self._photos.train_images.shape[1:]
        model = vgg16_network(
            shape,
            len(CLASS_NAMES),
            self._weights,
            self._trainable,
            transform=Similarity(bounds=_BOUNDS),
            localization_lr_multiplier=_CLASSES_ON_THETA,
            make_localization_net=lambda stage: backbone_localization(
                "VGG16", shape, "block3_pool", self._weights
            ),
        )
        if not self._transformer:
            for name in ("localization", "theta_head"):
                model.get_layer(name).trainable = False
        theta = model.get_layer("theta_head").output
        return keras.Model(model.input, {"probabilities": model.output, "theta": theta})

    def delivered(self, model: Any) -> Any:
        """Return the network with the probabilities as its only output."""
        return keras.Model(model.input, model.output["probabilities"], name="photos")

    def compile(self, model: Any, total_steps: int) -> None:
        """Compile for Adam with a rate that falls along a cosine to zero."""
        schedule = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, total_steps)
        model.compile(
            optimizer=keras.optimizers.Adam(schedule),
            loss={"probabilities": "sparse_categorical_crossentropy", "theta": "mse"},
            loss_weights={
                "probabilities": 1.0,
                "theta": self._guidance if self._transformer else 0.0,
            },
            metrics={"probabilities": "accuracy"},
            jit_compile=False,  # XLA's code for the sampler is a third slower on a CPU
        )

    def batch(self, epoch: int, step: int) -> tuple[Any, ...]:
        """Return rotated, perhaps mirrored photos, their classes, and the thetas that undo it."""
        chosen, rng = self._batches.at(epoch, step)
        images = self._photos.train_images[chosen]
        mirrored = rng.random(len(chosen)) < 0.5
        images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
        angles = _angles(rng, len(chosen))
        back = np.stack([np.cos(angles), -np.sin(angles), 0 * angles, 0 * angles], axis=1)
        targets = {"probabilities": self._photos.train_labels[chosen], "theta": back}
        return rotate(images, angles), targets

    @cached_property
    def _test_angles(self) -> Any:
        return _angles(np.random.default_rng(TEST_SEED), len(self._photos.test_images))

    def evaluate(self, model: Any) -> Evaluation:
        """Measure the accuracy on rotated and on upright test photos, and what is left to turn."""
        labels, angles = self._photos.test_labels, self._test_angles
        right: dict[str, int] = {"accuracy": 0, "accuracy_upright": 0}
        found = []
        for first in range(0, len(labels), _TEST_BATCH):
            part = slice(first, first + _TEST_BATCH)
            images = self._photos.test_images[part]
            for name, angle in (("accuracy", angles[part]), ("accuracy_upright", 0 * angles[part])):
                turned = rotate(images, angle)
                seen = model.predict_on_batch(turned)
                right[name] += int((seen["probabilities"].argmax(1) == labels[part]).sum())
                if name == "accuracy":
                    found.append(seen["theta"])
        figures = {name: count / len(labels) for name, count in right.items()}
        figures["rotation_left_degrees"] = rotation_left(angles, np.concatenate(found))
        return Evaluation(figures, len(labels))

    def data(self) -> dict[str, Any]:
        """Return source, checksums and count of the training photos."""
        return {
            "source": self._photos.source,
            "sha256": self._photos.checksums,
            "train_count": len(self._photos.train_images),
        }

    def settings(self) -> dict[str, Any]:
        """Return the distortion, and what is trained."""
        return {
            "rotation_degrees": ROTATION_DEGREES,
            "mirrored": 0.5,
            "weights": None if self._weights is None else Path(self._weights).name,
            "trainable": self._trainable,
            "transformer": self._transformer,
            "guidance": self._guidance if self._transformer else 0.0,
            "localization_lr_multiplier": _CLASSES_ON_THETA,
        }

    def measured(self, evaluation: Evaluation) -> dict[str, Any]:
        """Return the figures, and the seed of the test photos' rotations."""
        return {
            "test": {
                **evaluation.figures,
                "count": evaluation.count,
                "rotation_seed": TEST_SEED,
            }
        }


def _angles(rng: np.random.Generator, count: int) -> Any:
    limit = np.deg2rad(ROTATION_DEGREES)
    return rng.uniform(-limit, limit, count).astype(np.float32)


def rotation_left(angles: Any, theta: Any) -> float:
    """Return the median rotation that is left behind the transformer, degrees in [0, 180].

    A transformer may prefer any upright of its own, so a rotation that all photos share is taken
    out first.

    Args:
        angles: `[n]` rotations of the photos, radians.
        theta: `[n, 4]` thetas of a similarity.
    """
    left = np.exp(1j * (angles + np.arctan2(theta[:, 1], theta[:, 0])))
    common = left.mean()
    return float(np.rad2deg(np.median(np.abs(np.angle(left / common)))))
