"""`stnkit train digits`: the digits network on freshly distorted MNIST digits."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from stnkit.models.digits.distortion import Distortion, warp
from stnkit.models.digits.mnist import Mnist
from stnkit.models.digits.network import CLASS_NAMES
from stnkit.models.training.batches import Batches
from stnkit.models.training.loop import Progress, train
from stnkit.models.training.recipe import Evaluation, Recipe, TrainingResult
from stnkit.models.training.task import Task
from stnkit.models.zoo.arguments import check_choice
from stnkit.models.zoo.catalogue import entry

# The test digits are distorted the same way whatever the seed of the training: figures of
# different runs compare.
TEST_SEED = 2015
# The network that ships normalises its batches, and learns well at a rate that breaks others.
_LEARNING_RATES = {"digits": 3e-3}
_LEARNING_RATE = 1e-3
# Networks of the zoo that classify digits, beside the one that ships.
NETWORKS = ("digits", "tutorial", "paper-fcn", "paper-cnn", "paper-st-fcn", "paper-st-cnn")


def distorted_test_digits(data: Mnist) -> tuple[Any, Any]:
    """Return the distorted test digits `[n, 28, 28, 1]` float32 in [0, 1], and their labels."""
    count, side = len(data.test_images), data.test_images.shape[1]
    theta = Distortion().draw(np.random.default_rng(TEST_SEED), count, side)
    chunks = [
        warp(data.test_images[i : i + 500], theta[i : i + 500]).numpy()
        for i in range(0, count, 500)
    ]
    return np.concatenate(chunks), data.test_labels


class DigitsTask(Task):
    """A network for digits, trained on digits that are distorted afresh each epoch.

    Args:
        data: The digits.
        recipe: Epochs, seed and batch size.
        sample_count: How many distorted test digits to store as sample images.
        network: One of `NETWORKS`.
        transform: What theta means, for a network that lets it be chosen; None for its default.

    Raises:
        ValueError: If there is no such network, or it does not take a transform.
    """

    name = "digits"

    def __init__(
        self,
        data: Mnist,
        recipe: Recipe,
        sample_count: int = 0,
        network: str = "digits",
        transform: str | None = None,
    ) -> None:
        super().__init__(recipe)
        check_choice(network, "network", NETWORKS)
        self._network = network
        self._arguments: dict[str, Any] = {} if transform is None else {"transform": transform}
        if "input_shape" in entry(network).options:
            self._arguments["input_shape"] = (*data.train_images.shape[1:], 1)
        self.build()  # a wrong transform is found before anything is trained
        self._data, self._sample_count = data, sample_count
        self._batches = Batches(len(data.train_images), recipe)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        return len(self._batches)

    def build(self) -> Any:
        """Return the untrained network."""
        return entry(self._network).make(**self._arguments)

    def compile(self, model: Any, total_steps: int) -> None:
        """Compile for Adam with a rate that falls along a cosine to zero."""
        rate = _LEARNING_RATES.get(self._network, _LEARNING_RATE)
        schedule = keras.optimizers.schedules.CosineDecay(rate, total_steps)
        model.compile(
            optimizer=keras.optimizers.Adam(schedule),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
            jit_compile=False,  # XLA's code for the sampler is a third slower on a CPU
        )

    def batch(self, epoch: int, step: int) -> tuple[Any, ...]:
        """Return distorted digits `[n, 28, 28, 1]` float32 in [0, 1], and their labels."""
        chosen, rng = self._batches.at(epoch, step)
        images = self._data.train_images[chosen]
        theta = Distortion().draw(rng, len(chosen), images.shape[1])
        return warp(images, theta), self._data.train_labels[chosen]

    @cached_property
    def _test_digits(self) -> tuple[Any, Any]:
        return distorted_test_digits(self._data)

    def evaluate(self, model: Any) -> Evaluation:
        """Measure the accuracy on distorted test digits."""
        images, labels = self._test_digits
        predicted = model.predict(images, batch_size=500, verbose=0).argmax(axis=1)
        return Evaluation({"accuracy": float((predicted == labels).mean())}, len(labels))

    def data(self) -> dict[str, Any]:
        """Return source, checksums and count of the training digits."""
        return {
            "source": self._data.source,
            "sha256": self._data.checksums,
            "train_count": len(self._data.train_images),
        }

    def settings(self) -> dict[str, Any]:
        """Return the network and the ranges of the distortion."""
        chosen: dict[str, Any] = {"network": self._network}
        if "transform" in self._arguments:
            chosen["transform"] = self._arguments["transform"]
        return {**chosen, "distortion": Distortion().to_json()}

    def measured(self, evaluation: Evaluation) -> dict[str, Any]:
        """Return the accuracy, and the seed of the test digits' distortion."""
        return {
            "accuracy": {
                "distorted_test_digits": evaluation.figures["accuracy"],
                "count": evaluation.count,
                "distortion_seed": TEST_SEED,
            }
        }

    def write_extras(self, stem: Path) -> None:
        """Write `<stem>.samples.npz` where samples were asked for."""
        if not self._sample_count:
            return
        images, labels = self._test_digits
        np.savez_compressed(
            stem.with_name(stem.name + ".samples.npz"),
            images=np.round(images[: self._sample_count] * 255).astype(np.uint8),
            labels=labels[: self._sample_count],
            class_names=np.array(CLASS_NAMES),
        )


def train_digits(
    data: Mnist,
    output: Path,
    recipe: Recipe,
    *,
    command: str,
    sample_count: int = 0,
    progress: Progress = lambda epoch, step, figures: None,
) -> TrainingResult:
    """Train the digits network, measure it on distorted test digits, and save it.

    Args:
        data: The digits.
        output: Path of the `.keras` file to write; `<stem>.samples.npz` comes beside it.
        recipe: Epochs, seed and batch size.
        command: The command line, for the provenance file.
        sample_count: How many distorted test digits to store as sample images.
        progress: Called after every step.

    Returns:
        Where the files are and how accurate the model is.

    Raises:
        OSError: If a file cannot be written.
    """
    task = DigitsTask(data, recipe, sample_count)
    return train(task, output, command=command, progress=progress)
