"""`stnkit train segmentation`: finds the pixels of a digit that lies somewhere on clutter."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stnkit.models.digits.mnist import Mnist
from stnkit.models.recipes.clutter import Clutter
from stnkit.models.recipes.figures import dice, iou
from stnkit.models.training.batches import Batches
from stnkit.models.training.recipe import Evaluation, Recipe
from stnkit.models.training.task import Task
from stnkit.models.zoo.segmentation import segmentation_network

# The test scenes are the same whatever the seed of the training: figures of different runs compare.
TEST_SEED = 2015
CLUTTER = Clutter()
_LEARNING_RATE = 1e-3
_TEST_CHUNK = 500  # scenes at a time: all of them would take half a gigabyte
# Where the frame does not reach, the digit's probability is 0 and its logarithm infinite.
_LEAST_PROBABILITY = 1e-3


def mask_loss(mask: Any, probabilities: Any) -> Any:
    r"""Return the cross-entropy of a mask's pixels and 1 less its soft Dice overlap, per item.

    $$-\frac{1}{N} \sum_p \log q_p + 1 - \frac{2 \sum_p m_p f_p + 1}{\sum_p m_p + \sum_p f_p + 1}$$

    The overlap does not sink when the digit is small in the scene, as the cross-entropy does.

    Args:
        mask: m, `[batch, height, width]`, 1 where the digit is, else 0.
        probabilities: f in channel 1, `[batch, height, width, 2]`; q is that of the right class.

    Returns:
        `[batch]`.

    Source:
        Milletari et al. 2016, V-Net, section 3 (the overlap; without its squares).
    """
    mask, found = tf.cast(mask, tf.float32), probabilities[..., 1]
    right = tf.where(mask > 0, found, 1 - found)
    entropy = -tf.reduce_mean(tf.math.log(tf.maximum(right, _LEAST_PROBABILITY)), axis=[1, 2])
    both = tf.reduce_sum(mask * found, axis=[1, 2])
    total = tf.reduce_sum(mask, axis=[1, 2]) + tf.reduce_sum(found, axis=[1, 2])
    return entropy + 1 - (2 * both + 1) / (total + 1)


class SegmentationTask(Task):
    """The segmentation network on digits that lie on clutter.

    Args:
        data: The digits.
        recipe: Epochs, seed and batch size.
        transformer: False keeps theta at the identity: the same network, which sees all of the
            scene in its frame, for comparison.

    Raises:
        DataError: If there are too few digits to make clutter of.
    """

    name = "segmentation"

    def __init__(self, data: Mnist, recipe: Recipe, transformer: bool = True) -> None:
        super().__init__(recipe)
        self._data, self._transformer = data, transformer
        self._batches = Batches(len(data.train_images), recipe)
        for images in (data.train_images, data.test_images):
            CLUTTER.check(images)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        return len(self._batches)

    def build(self) -> Any:
        """Return the untrained segmentation network, what gives theta frozen if so wanted."""
        model = segmentation_network((CLUTTER.side_px, CLUTTER.side_px, 1))
        for name in ("localization", "theta_head"):
            model.get_layer(name).trainable = self._transformer
        return model

    def compile(self, model: Any, total_steps: int) -> None:
        """Compile for `mask_loss`, with a rate that falls along a cosine to zero."""
        schedule = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, total_steps)
        model.compile(
            optimizer=keras.optimizers.Adam(schedule),
            loss=mask_loss,
            jit_compile=False,  # XLA's code for the sampler is a third slower on a CPU
        )

    def batch(self, epoch: int, step: int) -> tuple[Any, ...]:
        """Return scenes `[n, side, side, 1]` float32 in [0, 1], and the masks of their digits."""
        chosen, rng = self._batches.at(epoch, step)
        return CLUTTER.draw(rng, self._data.train_images, chosen)

    def evaluate(self, model: Any) -> Evaluation:
        """Measure how well the digits of the test scenes are found.

        A pixel is the digit's where its probability is above a half. IoU and Dice are means over
        the scenes.
        """
        rng, count = np.random.default_rng(TEST_SEED), len(self._data.test_images)
        measured: dict[str, list[Any]] = {"iou": [], "dice": [], "pixel_accuracy": []}
        for start in range(0, count, _TEST_CHUNK):
            chosen = np.arange(start, min(start + _TEST_CHUNK, count))
            scenes, masks = CLUTTER.draw(rng, self._data.test_images, chosen)
            found = model.predict(scenes, batch_size=100, verbose=0)[..., 1] > 0.5
            measured["iou"].append(iou(found, masks > 0))
            measured["dice"].append(dice(found, masks > 0))
            measured["pixel_accuracy"].append((found == masks).mean((1, 2)))
        figures = {name: float(np.concatenate(parts).mean()) for name, parts in measured.items()}
        return Evaluation(figures, count)

    def data(self) -> dict[str, Any]:
        """Return source, checksums and count of the training digits."""
        return {
            "source": self._data.source,
            "sha256": self._data.checksums,
            "train_count": len(self._data.train_images),
        }

    def settings(self) -> dict[str, Any]:
        """Return whether theta is learnt, and the ranges of the scenes."""
        return {
            "transformer": self._transformer,
            "clutter": CLUTTER.to_json(),
            "learning_rate": _LEARNING_RATE,
        }

    def measured(self, evaluation: Evaluation) -> dict[str, Any]:
        """Return the figures, and the seed of the test scenes."""
        return {"test": {**evaluation.figures, "count": evaluation.count, "scenes_seed": TEST_SEED}}
