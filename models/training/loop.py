"""The training loop: resumes what was interrupted, and writes down how its result was made."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras

from stnkit.models.training.checkpoint import Checkpoint
from stnkit.models.training.recipe import TrainingResult
from stnkit.models.training.task import Task

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (epoch, step within it, figures so far); step = steps at the end of the epoch."""


class _TaskBatches(keras.utils.PyDataset):
    """The batches of one epoch of a task."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._task = task
        # Not set by `on_epoch_end`: Keras calls that once more at the start, unless the model is
        # built.
        self.epoch = 0

    def __len__(self) -> int:
        return self._task.steps_per_epoch

    def __getitem__(self, step: int) -> tuple[Any, ...]:
        return self._task.batch(self.epoch, step)


class _Report(keras.callbacks.Callback):
    def __init__(self, batches: _TaskBatches, progress: Progress, checkpoint: Checkpoint) -> None:
        super().__init__()
        self._batches, self._progress, self._checkpoint = batches, progress, checkpoint

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._batches.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._progress(self._batches.epoch, batch + 1, dict(logs or {}))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._checkpoint.save(self.model, epoch + 1)


def train(
    task: Task,
    output: Path,
    *,
    command: str,
    progress: Progress = lambda epoch, step, figures: None,
) -> TrainingResult:
    """Train the network of a task, measure it on the test data, and save it.

    After every epoch the state is saved in `<output>.checkpoint`; the same call resumes there. The
    folder is removed at the end. Beside `output` comes `<stem>.provenance.json`, and what the task
    writes of its own.

    Args:
        task: What is trained, with its recipe and data.
        output: Path of the `.keras` file to write.
        command: The command line, for the provenance file.
        progress: Called after every step.

    Returns:
        Where the files are and what was measured.

    Raises:
        OSError: If a file cannot be written.
    """
    started = time.monotonic()
    epochs = task.recipe.epochs

    def compiled() -> Any:
        keras.utils.set_random_seed(task.recipe.seed)
        model = task.build()
        task.compile(model, epochs * task.steps_per_epoch)
        return model

    checkpoint = Checkpoint(output, task.identity())
    model, done = checkpoint.load(compiled) or (compiled(), 0)
    batches = _TaskBatches(task)
    model.fit(
        batches,
        initial_epoch=done,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[_Report(batches, progress, checkpoint)],
    )
    evaluation = task.evaluate(model)
    _save_without_optimizer(task, model, output)
    stem = output.with_suffix("")
    provenance = stem.with_name(stem.name + ".provenance.json")
    seconds = time.monotonic() - started
    record = {
        "model": output.name,
        "model_sha256": hashlib.sha256(output.read_bytes()).hexdigest(),
        "parameters": int(model.count_params()),
        "command": command,
        "recipe": {**asdict(task.recipe), **task.settings()},
        "data": task.data(),
        **task.measured(evaluation),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("stnkit", "tensorflow", "keras", "numpy")},
        },
        "machine": {"architecture": platform.machine(), "cores": os.cpu_count()},
        "training_seconds_of_last_process": round(seconds, 1),
        "resumed_from_epoch": done,
    }
    provenance.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    task.write_extras(stem)
    checkpoint.remove()
    return TrainingResult(output, provenance, evaluation.figures, evaluation.count, done, seconds)


def _save_without_optimizer(task: Task, model: Any, output: Path) -> None:
    """Save what inference needs, in one step: the optimizer's slots would triple the file."""
    bare = task.build()
    bare.set_weights(model.get_weights())
    draft = output.with_name(f".{output.stem}.new.keras")
    task.delivered(bare).save(draft)
    draft.replace(output)
