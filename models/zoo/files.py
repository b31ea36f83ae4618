"""A network of the zoo as a file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras

from stnkit.models.zoo.catalogue import Entry


def write_new(entry: Entry, arguments: dict[str, Any], output: Path, seed: int) -> dict[str, Any]:
    """Make a network, save it in one step, and return what it is as JSON.

    Args:
        entry: The network.
        arguments: Options of the entry.
        output: The `.keras` file to write.
        seed: Seed of the random weights.

    Raises:
        ValueError: If an argument is wrong.
        OSError: If the file cannot be written.
    """
    keras.utils.set_random_seed(seed)
    model = entry.make(**arguments)
    record = {
        "model": str(output),
        "name": entry.name,
        "parameters": int(model.count_params()),
        "trainable": sum(math.prod(variable.shape) for variable in model.trainable_variables),
        "inputs": {tensor.name: list(tensor.shape) for tensor in model.inputs},
        "outputs": _outputs(model),
    }
    draft = output.with_name(f".{output.stem}.new.keras")
    try:
        model.save(draft)
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
    return record


def _outputs(model: Any) -> dict[str, list[Any]]:
    if isinstance(model, keras.Sequential):  # has no `output` before it is called
        return {model.layers[-1].name: list(model.outputs[0].shape)}
    named = model.output
    if not isinstance(named, dict):
        named = dict(zip(model.output_names, model.outputs, strict=True))
    return {name: list(tensor.shape) for name, tensor in named.items()}
