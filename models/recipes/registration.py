"""`stnkit train registration`: brings a distorted digit onto another of its class."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import keras
import numpy as np

from stnkit.models.digits.distortion import Distortion, warp
from stnkit.models.digits.mnist import Mnist
from stnkit.models.recipes.figures import dice, folded
from stnkit.models.recipes.pairs import PartnerTable
from stnkit.models.training.batches import Batches
from stnkit.models.training.recipe import Evaluation, Recipe
from stnkit.models.training.task import Task
from stnkit.models.zoo.registration import registration_network
from stnkit.models.zoo.registration_losses import bending_energy

# The test pairs are the same whatever the seed of the training: figures of different runs compare.
TEST_SEED = 2015
DISTORTION = Distortion(rotation_degrees=30.0, scale=(0.8, 1.2), shift_px=3.0)
_LEARNING_RATE = 2e-3
_BENDING_WEIGHT = 1e-4


def evaluation_pairs(data: Mnist) -> dict[str, Any]:
    """Return "moving" and "fixed" `[n, height, width, 1]` float32 for every test digit."""
    images = data.test_images
    rng = np.random.default_rng(TEST_SEED)
    partners = PartnerTable(data.test_labels).draw(rng, np.arange(len(images)))
    return _pairs(rng, images[partners], images)


class RegistrationTask(Task):
    """The registration network on pairs of digits of the same class, the moving one distorted.

    Args:
        data: The digits.
        recipe: Epochs, seed and batch size.
        flow: "diffeomorphic" or "dense".
    """

    name = "registration"

    def __init__(self, data: Mnist, recipe: Recipe, flow: str = "diffeomorphic") -> None:
        super().__init__(recipe)
        self._data, self._flow = data, flow
        self._batches = Batches(len(data.train_images), recipe)
        self._partners = PartnerTable(data.train_labels)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        return len(self._batches)

    def build(self) -> Any:
        """Return the untrained registration network."""
        return registration_network((*self._data.train_images.shape[1:], 1), self._flow)

    def compile(self, model: Any, total_steps: int) -> None:
        """Compile for the squared difference of the images and the bending of the flow."""
        schedule = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, total_steps)
        model.compile(
            optimizer=keras.optimizers.Adam(schedule),
            loss={"warped": "mean_squared_error", "flow": bending_energy},
            loss_weights={"warped": 1.0, "flow": _BENDING_WEIGHT},
            jit_compile=False,  # XLA's code for the sampler is a third slower on a CPU
        )

    def batch(self, epoch: int, step: int) -> tuple[Any, ...]:
        """Return pairs `[n, height, width, 1]` float32 in [0, 1], and what is wanted of them."""
        chosen, rng = self._batches.at(epoch, step)
        images, partners = self._data.train_images, self._partners.draw(rng, chosen)
        pairs = _pairs(rng, images[partners], images[chosen])
        # `bending_energy` has no use for its target, but Keras wants one.
        return pairs, {"warped": pairs["fixed"], "flow": np.zeros((len(chosen), 1, 1, 2), "f4")}

    @cached_property
    def _test_pairs(self) -> dict[str, Any]:
        return evaluation_pairs(self._data)

    def evaluate(self, model: Any) -> Evaluation:
        """Measure how alike the images are: as they come, after the affine stage, after the flow.

        Dice is that of the pixels brighter than half; both it and the squared error are means over
        the pairs. A map that folds anywhere is one that cannot be undone there.
        """
        pairs = self._test_pairs
        affine = model.get_layer("affine_stage").output
        stages = keras.Model(model.input, {**model.output, "affine": affine})
        seen = stages.predict(pairs, batch_size=500, verbose=0)
        figures = {}
        images = {"before": pairs["moving"], "affine": seen["affine"], "flow": seen["warped"]}
        for stage, image in images.items():
            figures[f"dice_{stage}"] = float(_overlap(image, pairs["fixed"]).mean())
        for stage, image in images.items():
            figures[f"mse_{stage}"] = float(np.square(image - pairs["fixed"]).mean())
        figures["folded_pixels"] = float(folded(seen["flow"]).mean())
        return Evaluation(figures, len(pairs["fixed"]))

    def data(self) -> dict[str, Any]:
        """Return source, checksums and count of the training digits."""
        return {
            "source": self._data.source,
            "sha256": self._data.checksums,
            "train_count": len(self._data.train_images),
        }

    def settings(self) -> dict[str, Any]:
        """Return the kind of flow, the ranges of the distortion, and how the flow is smoothed."""
        return {
            "flow": self._flow,
            "distortion": DISTORTION.to_json(),
            "learning_rate": _LEARNING_RATE,
            "bending_weight": _BENDING_WEIGHT,
        }

    def measured(self, evaluation: Evaluation) -> dict[str, Any]:
        """Return the figures, and the seed of the test pairs."""
        return {"test": {**evaluation.figures, "count": evaluation.count, "pairs_seed": TEST_SEED}}


def _pairs(rng: np.random.Generator, moving: Any, fixed: Any) -> dict[str, Any]:
    """Return uint8 images `[n, h, w]` as inputs of the network, the moving ones distorted."""
    theta = DISTORTION.draw(rng, len(moving), moving.shape[1])
    moved = [
        warp(moving[i : i + 500], theta[i : i + 500]).numpy() for i in range(0, len(moving), 500)
    ]
    still = fixed[..., np.newaxis].astype(np.float32) / 255
    return {"moving": np.concatenate(moved), "fixed": still}


def _overlap(a: Any, b: Any) -> Any:
    return dice(a[..., 0] > 0.5, b[..., 0] > 0.5)
