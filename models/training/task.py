"""What a recipe must say of itself, to be trained by `stnkit.models.training.loop`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from stnkit.models.training.recipe import Evaluation, Recipe


class Task(ABC):
    """A network, its data, and how it is trained and measured.

    Args:
        recipe: Epochs, seed and batch size.

    Attributes:
        name: Name of the task, by which its checkpoints are told from those of others.
        recipe: As given.
    """

    name: ClassVar[str]

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Steps of one epoch, 1 at least."""

    @abstractmethod
    def build(self) -> Any:
        """Return a new network: a built `keras.Model`, not compiled.

        Called for a new run, for a resumed one, and for the file that is saved: each time the same
        weights in the same order. Parts that stay as they are are frozen here (`layer.trainable =
        False`), and weights from elsewhere are loaded here. Whatever is saved must load without
        the task: layers of its own are registered with Keras.
        """

    @abstractmethod
    def compile(self, model: Any, total_steps: int) -> None:
        """Compile a network that `build` returned.

        A checkpoint keeps the optimizer's variables and no configuration, so that losses, metrics
        and schedules may be any Python objects; the saved model has none of them.

        Args:
            model: The network.
            total_steps: Steps of the whole run, for schedules.
        """

    def delivered(self, model: Any) -> Any:
        """Return the network to save: by default the one that was trained.

        Args:
            model: A network of `build` with the trained weights.
        """
        return model

    @abstractmethod
    def batch(self, epoch: int, step: int) -> tuple[Any, ...]:
        """Return what a step trains on, both numbers counted from 0.

        A function of (seed, epoch, step) alone, so that a resumed run sees exactly what an
        uninterrupted one would have seen; `stnkit.models.training.batches` helps.

        Returns:
            (inputs, targets) or (inputs, targets, sample weights), each an array, or a dict of
            arrays by the names of the model's inputs or outputs. Shapes differ in the first axis
            alone, dtypes not at all.
        """

    @abstractmethod
    def evaluate(self, model: Any) -> Evaluation:
        """Measure a trained network on the test data, which is the same whatever the seed."""

    @abstractmethod
    def data(self) -> dict[str, Any]:
        """Return where the training data is from, with checksums and counts, as JSON."""

    def settings(self) -> dict[str, Any]:
        """Return what else decides the result, such as distortions, as JSON."""
        return {}

    def measured(self, evaluation: Evaluation) -> dict[str, Any]:
        """Return the part of the provenance that says what was measured and how, as JSON."""
        return {"test": {**evaluation.figures, "count": evaluation.count}}

    def identity(self) -> dict[str, Any]:
        """Return what a checkpoint must have been made with to be resumed, as JSON."""
        return {
            "task": self.name,
            "recipe": {**asdict(self.recipe), **self.settings()},
            "data": self.data(),
        }

    def write_extras(self, stem: Path) -> None:  # noqa: B027  most tasks write none
        """Write further files beside the model, named `stem` and an ending."""
