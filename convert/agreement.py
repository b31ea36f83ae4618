"""Whether artifacts classify labelled images as their source does, and how often rightly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stnkit.convert.labelled import LabelledImages
from stnkit.convert.source import SourceModel
from stnkit.runtime.backends import backend_for, open_runner
from stnkit.runtime.manifest import Artifact, Classes

_BATCH = 50

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Agreement:
    """How a model did on labelled images.

    Attributes:
        artifact: File name, or "source".
        count: Number of images.
        correct: How many it classified correctly.
        same_class: How many got the class that the source gives them.
    """

    artifact: str
    count: int
    correct: int
    same_class: int

    @property
    def accuracy(self) -> float:
        """Fraction classified correctly, 0 to 1."""
        return self.correct / self.count

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values."""
        return {**asdict(self), "accuracy": self.accuracy}


def agreement_of(
    source: SourceModel,
    artifacts: Sequence[tuple[Artifact, bytes]],
    labelled: LabelledImages,
    classes: Classes,
    batch: int | None,
    threads: int | None,
) -> tuple[Agreement, ...]:
    """Return how the source, then each artifact, classifies labelled images.

    A class that changed is counted, not an error: a tie may fall either way.

    Args:
        source: The model.
        artifacts: Records with their contents.
        labelled: The images.
        classes: Which output holds the scores.
        batch: Fixed batch size, or None.
        threads: Threads of one run; None leaves it to the backend.
    """
    name, count = source.inputs[0].name, len(labelled.images)
    truth = predicted_classes(source.run, labelled.images, classes, name, batch)

    def counted(label: str, found: Array) -> Agreement:
        correct, same = (found == labelled.classes).sum(), (found == truth).sum()
        return Agreement(label, count, int(correct), int(same))

    rows = [counted("source", truth)]
    for artifact, content in artifacts:
        backend = backend_for(artifact.format).name
        runner = open_runner(backend, content, artifact, threads=threads)
        try:
            found = predicted_classes(runner.run, labelled.images, classes, name, batch)
        finally:
            runner.close()
        rows.append(counted(artifact.file, found))
    return tuple(rows)


def predicted_classes(
    run: Any, images: Array, classes: Classes, input_name: str, batch: int | None
) -> Array:
    """Return the class that a model gives each image.

    Args:
        run: From inputs by name to outputs by name, NumPy arrays.
        images: `[count, height, width, channels]`.
        classes: Which output holds the scores.
        input_name: Name of the image input.
        batch: Fixed batch size, or None.
    """
    size = batch or _BATCH
    found = []
    for start in range(0, len(images), size):
        chunk = images[start : start + size]
        missing = (batch or 0) - len(chunk)
        full = np.concatenate([chunk, np.repeat(chunk[-1:], missing, 0)]) if missing > 0 else chunk
        scores = run({input_name: full})[classes.output]
        found.append(np.asarray(scores)[: len(chunk)].argmax(axis=1))
    return np.concatenate(found)
