"""`stnkit train digits`: the training loop, its checkpoints and its provenance."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from stnkit.models.digits.distortion import Distortion, warp
from stnkit.models.digits.mnist import Mnist
from stnkit.models.digits.network import CLASS_NAMES, digits_network

# The test digits are distorted the same way whatever the seed of the training: figures of
# different runs compare.
TEST_SEED = 2015
_LEARNING_RATE = 3e-3

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (epoch, step within it, figures so far); step = steps at the end of the epoch."""


@dataclass(frozen=True)
class Recipe:
    """What decides the result of a training run, next to the data.

    Attributes:
        epochs: Passes over the training digits, each freshly distorted.
        seed: Seed of weights, order and distortions.
        batch_size: Digits a step.
    """

    epochs: int = 16
    seed: int = 0
    batch_size: int = 128


@dataclass(frozen=True)
class TrainingResult:
    """A finished training run.

    Attributes:
        model: Path of the saved `.keras` file.
        provenance: Path of the JSON file that says how it was made.
        accuracy: Fraction of distorted test digits classified correctly, 0 to 1.
        test_count: How many those were.
        resumed_from_epoch: Finished epochs found in a checkpoint; 0 for a run from the start.
        seconds: Time spent training in this process.
    """

    model: Path
    provenance: Path
    accuracy: float
    test_count: int
    resumed_from_epoch: int
    seconds: float


class _DistortedDigits(keras.utils.PyDataset):
    """Batches of freshly distorted digits, a function of (seed, epoch, step) alone.

    A resumed run therefore sees exactly what an uninterrupted one would have seen.
    """

    def __init__(self, images: Any, labels: Any, recipe: Recipe) -> None:
        super().__init__()
        self._images, self._labels, self._recipe = images, labels, recipe
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Shuffle for an epoch, the first being 0.

        Not `on_epoch_end`: Keras calls that once more at the start, unless the model is built.
        """
        self._key = [self._recipe.seed, epoch + 1]
        self._order = np.random.default_rng(self._key).permutation(len(self._images))

    def __len__(self) -> int:
        return -(-len(self._images) // self._recipe.batch_size)

    def __getitem__(self, step: int) -> tuple[Any, Any]:
        size = self._recipe.batch_size
        chosen = self._order[step * size : (step + 1) * size]
        rng = np.random.default_rng([*self._key, step])
        images = self._images[chosen]
        theta = Distortion().draw(rng, len(chosen), images.shape[1])
        return warp(images, theta), self._labels[chosen]


def _random_states(model: Any) -> list[Any]:
    """Return the variables that decide what dropout drops next; a `.keras` file omits them."""
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


class _Checkpoint:
    """The state of an unfinished run, in a folder beside the output."""

    def __init__(self, output: Path, recipe: Recipe, data: Mnist) -> None:
        self.folder = output.with_name(output.name + ".checkpoint")
        self._expected = {"recipe": asdict(recipe), "data": data.checksums}

    def load(self) -> tuple[Any, int] | None:
        """Return the model and its finished epochs, or None where there is no matching state."""
        try:
            state = json.loads((self.folder / "state.json").read_text("utf-8"))
            if {key: state[key] for key in self._expected} != self._expected:
                return None
            model = keras.saving.load_model(self.folder / state["model"])
            for variable, value in zip(_random_states(model), state["random"], strict=True):
                variable.assign(value)
            return model, int(state["epochs_done"])
        except Exception:  # a damaged file: zip, HDF5, JSON and Keras each raise their own kinds
            return None

    def save(self, model: Any, epochs_done: int) -> None:
        """Store the state after an epoch; being killed in here keeps the one before."""
        self.folder.mkdir(exist_ok=True)
        name = f"epoch-{epochs_done}.keras"
        model.save(self.folder / name)
        random = [variable.numpy().tolist() for variable in _random_states(model)]
        state = {**self._expected, "epochs_done": epochs_done, "model": name, "random": random}
        draft = self.folder / "state.json.new"
        draft.write_text(json.dumps(state), "utf-8")
        draft.replace(self.folder / "state.json")
        for old in self.folder.glob("epoch-*.keras"):
            if old.name != name:
                old.unlink()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class _Report(keras.callbacks.Callback):
    def __init__(
        self, digits: _DistortedDigits, progress: Progress, checkpoint: _Checkpoint
    ) -> None:
        super().__init__()
        self._digits, self._progress, self._checkpoint = digits, progress, checkpoint
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self._digits.begin(epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._progress(self._epoch, batch + 1, dict(logs or {}))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._checkpoint.save(self.model, epoch + 1)


def distorted_test_digits(data: Mnist) -> tuple[Any, Any]:
    """Return the distorted test digits `[n, 28, 28, 1]` float32 in [0, 1], and their labels."""
    count, side = len(data.test_images), data.test_images.shape[1]
    theta = Distortion().draw(np.random.default_rng(TEST_SEED), count, side)
    chunks = [
        warp(data.test_images[i : i + 500], theta[i : i + 500]).numpy()
        for i in range(0, count, 500)
    ]
    return np.concatenate(chunks), data.test_labels


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

    After every epoch the state is saved in `<output>.checkpoint`; the same call resumes there. The
    folder is removed at the end. Beside `output` comes `<stem>.provenance.json`, and
    `<stem>.samples.npz` when samples are asked for.

    Args:
        data: The digits.
        output: Path of the `.keras` file to write.
        recipe: Epochs, seed and batch size.
        command: The command line, for the provenance file.
        sample_count: How many distorted test digits to store as sample images.
        progress: Called after every step.

    Returns:
        Where the files are and how accurate the model is.

    Raises:
        OSError: If a file cannot be written.
    """
    started = time.monotonic()
    keras.utils.set_random_seed(recipe.seed)
    checkpoint = _Checkpoint(output, recipe, data)
    found = checkpoint.load()
    steps = -(-len(data.train_images) // recipe.batch_size)
    if found is None:
        model, done = digits_network(), 0
        schedule = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, recipe.epochs * steps)
        model.compile(
            optimizer=keras.optimizers.Adam(schedule),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
            jit_compile=False,  # XLA's code for the sampler is a third slower on a CPU
        )
    else:
        model, done = found
    digits = _DistortedDigits(data.train_images, data.train_labels, recipe)
    model.fit(
        digits,
        initial_epoch=done,
        epochs=recipe.epochs,
        shuffle=False,
        verbose=0,
        callbacks=[_Report(digits, progress, checkpoint)],
    )
    images, labels = distorted_test_digits(data)
    predicted = model.predict(images, batch_size=500, verbose=0).argmax(axis=1)
    accuracy = float((predicted == labels).mean())
    _save_without_optimizer(model, output)
    stem = output.with_suffix("")
    provenance = stem.with_name(stem.name + ".provenance.json")
    seconds = time.monotonic() - started
    record = {
        "model": output.name,
        "model_sha256": hashlib.sha256(output.read_bytes()).hexdigest(),
        "parameters": int(model.count_params()),
        "command": command,
        "recipe": {**asdict(recipe), "distortion": Distortion().to_json()},
        "data": {
            "source": data.source,
            "sha256": data.checksums,
            "train_count": len(data.train_images),
        },
        "accuracy": {
            "distorted_test_digits": accuracy,
            "count": len(labels),
            "distortion_seed": TEST_SEED,
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("stnkit", "tensorflow", "keras", "numpy")},
        },
        "machine": {"architecture": platform.machine(), "cores": os.cpu_count()},
        "training_seconds_of_last_process": round(seconds, 1),
        "resumed_from_epoch": done,
    }
    provenance.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    if sample_count:
        np.savez_compressed(
            stem.with_name(stem.name + ".samples.npz"),
            images=np.round(images[:sample_count] * 255).astype(np.uint8),
            labels=labels[:sample_count],
            class_names=np.array(CLASS_NAMES),
        )
    checkpoint.remove()
    return TrainingResult(output, provenance, accuracy, len(labels), done, seconds)


def _save_without_optimizer(model: Any, output: Path) -> None:
    """Save what inference needs, in one step: the optimizer's slots would triple the file."""
    bare = digits_network()
    bare.set_weights(model.get_weights())
    draft = output.with_name(f".{output.stem}.new.keras")
    bare.save(draft)
    draft.replace(output)
