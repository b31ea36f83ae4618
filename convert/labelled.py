"""Reading a folder of labelled images."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stnkit.runtime.errors import InputError
from stnkit.runtime.manifest import Classes, Preprocessing
from stnkit.runtime.preprocess import load_image

LABELS_FILE = "labels.csv"

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


def read_labelled(folder: Path, preprocessing: Preprocessing, classes: Classes) -> LabelledImages:
    """Return the images of a folder that holds a `labels.csv` with the columns file and label.

    Raises:
        InputError: If the folder, the table or an image is missing or damaged, or a label is not
            one of the model's.
    """
    table = folder / LABELS_FILE
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
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
