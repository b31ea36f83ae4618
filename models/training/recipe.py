"""What decides a training run, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Recipe:
    """What decides the result of a training run, next to the task and its data.

    Attributes:
        epochs: Passes over the training data.
        seed: Seed of weights, order and whatever is drawn at random.
        batch_size: Examples a step.
    """

    epochs: int
    seed: int
    batch_size: int


@dataclass(frozen=True)
class Evaluation:
    """What was measured on the test data.

    Attributes:
        figures: Each figure by its name, e.g. {"accuracy": 0.99}.
        count: How many test examples it was measured on.
    """

    figures: dict[str, float]
    count: int


@dataclass(frozen=True)
class TrainingResult:
    """A finished training run.

    Attributes:
        model: Path of the saved `.keras` file.
        provenance: Path of the JSON file that says how it was made.
        figures: What was measured on the test data, by name.
        test_count: How many test examples those were.
        resumed_from_epoch: Finished epochs found in a checkpoint; 0 for a run from the start.
        seconds: Time spent training in this process.
    """

    model: Path
    provenance: Path
    figures: dict[str, float]
    test_count: int
    resumed_from_epoch: int
    seconds: float

    @property
    def accuracy(self) -> float:
        """Fraction of test examples classified correctly, 0 to 1, where the task classifies."""
        return self.figures["accuracy"]
