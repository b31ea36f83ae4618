"""Labelled images: how many of them an artifact gets right, and whether as the source does."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stnkit.runtime.errors import InputError
from stnkit.runtime.manifest import Classes, Preprocessing
from stnkit.runtime.preprocess import load_image

LABELS_FILE = "labels.csv"
_BATCH = 50

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LabelledImages:
    """Images as the model takes them, with their classes.

    Attributes:
        images: `[count, height, width, channels]` float32.
        classes: `[count]` int64, index of the right class.
    """

    images: Array
    classes: Array


@dataclass(frozen=True)
class Agreement:
    """How an artifact did on labelled images.

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


def read_labelled(folder: Path, preprocessing: Preprocessing, classes: Classes) -> LabelledImages:
    """Return the images of a folder that holds a `labels.csv` with the columns file and label.

    Raises:
        InputError: If the folder, the table or an image is missing or damaged, or a label is not
            one of the model's.
    """
    table = folder / LABELS_FILE
    try:
        with table.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise InputError(
            f"{table}: cannot be read ({exc}): --samples takes a folder with images and a "
            f"{LABELS_FILE}, as `stnkit samples` writes it"
        ) from exc
    if not rows or not {"file", "label"} <= set(rows[0]):
        raise InputError(f"{table}: expected the columns file and label and at least one row")
    images, indices = [], []
    for number, row in enumerate(rows, start=2):
        if row["label"] not in classes.labels:
            raise InputError(
                f"{table}, line {number}: the label {row['label']!r} is not one of the model's: "
                f"{', '.join(classes.labels[:20])}"
            )
        if not row["file"] or Path(row["file"]).name != row["file"]:
            raise InputError(f"{table}, line {number}: {row['file']!r} is not a plain file name")
        images.append(load_image(folder / row["file"], preprocessing))
        indices.append(classes.labels.index(row["label"]))
    return LabelledImages(np.stack(images), np.asarray(indices, np.int64))


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
