"""The state of an unfinished training run, on disk."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _random_states(model: Any) -> list[Any]:
    """Return the variables that decide what dropout drops next; Keras's files omit them."""
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Checkpoint:
    """The state of an unfinished run, in a folder beside the output.

    It holds the variables of network and optimizer; the two themselves are built anew, so that
    nothing of a task needs to be written down by Keras and read back.

    Args:
        output: Path of the model that is trained.
        identity: What a state must have been made with, as JSON.
    """

    def __init__(self, output: Path, identity: dict[str, Any]) -> None:
        self.folder = output.with_name(output.name + ".checkpoint")
        self._identity = json.loads(json.dumps(identity))  # with lists for tuples, as in the file

    def load(self, compiled: Callable[[], Any]) -> tuple[Any, int] | None:
        """Return the model and its finished epochs, or None where there is no matching state.

        Args:
            compiled: Returns a new model, built and compiled, to put the state into.
        """
        try:
            state = json.loads((self.folder / "state.json").read_text("utf-8"))
            path = self.folder / state["weights"]
            if state["identity"] != self._identity or _sha256(path) != state["sha256"]:
                return None
            epochs_done, random = int(state["epochs_done"]), state["random"]
        except (OSError, ValueError, TypeError, KeyError):  # none, or damaged
            return None
        model: Any = compiled()
        try:
            model.optimizer.build(model.trainable_variables)  # else Keras skips its variables
            model.load_weights(path)
            for variable, value in zip(_random_states(model), random, strict=True):
                variable.assign(value)
        except Exception:  # of another version of the network: HDF5 and Keras raise many kinds
            model = None
        if model is None:
            # Keras leaves the file open, in a cycle of its own: HDF5 would refuse to write it anew.
            gc.collect()
            return None
        return model, epochs_done

    def save(self, model: Any, epochs_done: int) -> None:
        """Store the state after an epoch; being killed in here keeps the one before."""
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"epoch-{epochs_done}.weights.h5"
        model.save_weights(path)
        state = {
            "identity": self._identity,
            "epochs_done": epochs_done,
            "weights": path.name,
            "sha256": _sha256(path),
            "random": [variable.numpy().tolist() for variable in _random_states(model)],
        }
        draft = self.folder / "state.json.new"
        draft.write_text(json.dumps(state), "utf-8")
        draft.replace(self.folder / "state.json")
        for old in self.folder.glob("epoch-*"):
            if old.name != path.name:
                old.unlink()

    def remove(self) -> None:
        """Delete the state, if there is one."""
        shutil.rmtree(self.folder, ignore_errors=True)
