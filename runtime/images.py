"""Classify images, and show what the transformer looked at, with a session."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from stnkit.runtime.errors import BackendError, InputError
from stnkit.runtime.json_reader import join_names
from stnkit.runtime.manifest import Manifest
from stnkit.runtime.manifest_records import Artifact, Classes, Preprocessing
from stnkit.runtime.preprocess import load_image, prepare_array

if TYPE_CHECKING:
    import numpy.typing as npt

    Images = Sequence[str | os.PathLike[str] | npt.NDArray[Any]] | npt.NDArray[Any]

    class _Runs(Protocol):
        @property
        def manifest(self) -> Manifest: ...

        @property
        def artifact(self) -> Artifact: ...

        def run(
            self, inputs: dict[str, npt.NDArray[Any]], *, taps: bool = False
        ) -> dict[str, npt.NDArray[Any]]: ...
else:
    Images = Any

__all__ = ["Images", "Prediction", "predict", "predictions_of", "warp"]


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one image.

    Attributes:
        index: number of the class with the largest score.
        label: its label.
        score: its probability in [0, 1].
        scores: probability of every class, in the labels' order.
    """

    index: int
    label: str
    score: float
    scores: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values."""
        return {
            "index": self.index,
            "label": self.label,
            "score": self.score,
            "scores": list(self.scores),
        }


def predict(session: _Runs, images: Images, *, batch_size: int) -> list[Prediction]:
    """Classify images; see `Session.predict`.

    Args:
        session: an open session.
        images: paths or arrays.
        batch_size: how many images run at once.

    Raises:
        InputError: see `Session.predict`.
        BackendError: the model gave scores that are not finite.
    """
    classes = session.manifest.classes
    if classes is None:
        raise InputError(
            f'the bundle "{session.manifest.name}" has no labels: use run(), and read the outputs '
            "yourself"
        )
    return [
        prediction
        for result in _batches(session, images, batch_size, taps=False)
        for prediction in predictions_of(result[classes.output], classes, session.artifact.file)
    ]


def predictions_of(
    output: npt.NDArray[Any], classes: Classes, file: str = "the model"
) -> list[Prediction]:
    """Return what a classifier's output says.

    Args:
        output: `[batch, labels]`, as the model gave it.
        classes: what its numbers mean.
        file: the artifact's name, for messages.

    Returns:
        One prediction an item, in order.

    Raises:
        BackendError: another number of scores than of labels, or scores that are not finite.
    """
    import numpy as np

    scores = np.asarray(output, dtype=np.float64)
    if scores.shape[1] != len(classes.labels):
        raise BackendError(
            f"{file} gave {scores.shape[1]} scores an image: expected {len(classes.labels)}, one a "
            "label"
        )
    if not np.isfinite(scores).all():
        raise BackendError(
            f"{file} gave scores that are not finite: expected numbers; are the image's values "
            "finite?"
        )
    if classes.scores == "logits":
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    predictions = []
    for row in scores:
        index = int(np.argmax(row))
        values = tuple(float(value) for value in row)
        predictions.append(Prediction(index, classes.labels[index], values[index], values))
    return predictions


def warp(
    session: _Runs, images: Images, *, transformer: str | None, batch_size: int
) -> list[npt.NDArray[Any]]:
    """Return what a transformer looked at; see `Session.warp`.

    Args:
        session: an open session.
        images: paths or arrays.
        transformer: name of the transformer; None for the first one.
        batch_size: how many images run at once.

    Raises:
        InputError: see `Session.warp`.
    """
    taps = [tap for tap in session.manifest.taps if tap.kind == "warped"]
    chosen = [tap for tap in taps if transformer in (None, tap.transformer)]
    if not chosen:
        asked = f'transformer "{transformer}"' if transformer is not None else "transformer"
        there = join_names([tap.transformer for tap in taps])
        raise InputError(
            f'the bundle "{session.manifest.name}" has no {asked} with a warped image: there is '
            f"{there}"
        )
    name = chosen[0].name
    return [
        image.copy()
        for result in _batches(session, images, batch_size, taps=True)
        for image in result[name]
    ]


def _batches(
    session: _Runs, images: Images, batch_size: int, *, taps: bool
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Run images a batch at a time; every array that comes out has one row an image."""
    import numpy as np

    preprocessing = _preprocessing(session)
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}: expected at least 1")
    if isinstance(images, (str, os.PathLike)):
        raise InputError(f"images is one path, {os.fspath(images)}: expected a list of images")
    spec = session.manifest.signature.inputs[0]
    fixed = session.artifact.batch
    step = batch_size if fixed == "dynamic" else fixed
    wanted = [spec.name for spec in session.manifest.signature.outputs]
    if taps:
        wanted += [tap.name for tap in session.manifest.taps]
    for start in range(0, len(images), step):
        rows = [
            prepare_array(image, preprocessing, spec, f"image {start + i}")
            if isinstance(image, np.ndarray)
            else load_image(image, preprocessing)
            for i, image in enumerate(images[start : start + step])
        ]
        count = len(rows)
        if fixed != "dynamic":
            # A fixed batch is filled up with its last image, and the answers to those are cut off.
            rows += rows[-1:] * (fixed - count)
        batch = np.stack(rows).astype(spec.dtype, copy=False)
        result = session.run({preprocessing.input: batch}, taps=taps)
        for name in wanted:
            if result[name].shape[:1] != (len(rows),):
                raise BackendError(
                    f'{session.artifact.file} gave "{name}" with shape '
                    f"{list(result[name].shape)}: expected {len(rows)} rows, one an image"
                )
        yield {name: result[name][:count] for name in wanted}


def _preprocessing(session: _Runs) -> Preprocessing:
    preprocessing = session.manifest.preprocessing
    inputs = session.manifest.signature.inputs
    if preprocessing is None or len(inputs) != 1 or inputs[0].dtype not in ("float32", "float16"):
        names = join_names([spec.name for spec in inputs])
        raise InputError(
            f'the bundle "{session.manifest.name}" does not say how one image becomes its inputs '
            f"{names}: use run() with arrays"
        )
    return preprocessing
