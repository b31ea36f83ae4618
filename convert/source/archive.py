"""Reading a saved model's description without running anything of it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stnkit.convert.model_path import file_kind
from stnkit.runtime.errors import InputError, one_line

_CONFIG_BYTES_MAX = 256 * 2**20


@dataclass(frozen=True)
class SavedClass:
    """A class that a saved model names.

    Attributes:
        layer: Name of the layer.
        class_name: Name of its class.
        module: Python module of the class, where the file says so.
        registered_name: Name under which it was registered, as `package>Class`, or None.
    """

    layer: str
    class_name: str
    module: str | None
    registered_name: str | None


def read_config(path: Path) -> dict[str, Any]:
    """Return the model's configuration as saved in a `.keras` or `.h5` file, whatever its name.

    Raises:
        InputError: If the file is truncated, not of that kind, or holds weights alone.
    """
    text = _keras_config(path) if file_kind(path) == "keras" else _h5_config(path)
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InputError(f"{path}: the model's configuration is damaged ({one_line(exc)})") from exc
    if not isinstance(config, dict):
        raise InputError(f"{path}: the model's configuration is not a JSON object")
    return config


def _keras_config(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > _CONFIG_BYTES_MAX:
                raise InputError(f"{path}: config.json is larger than any model's: not a model")
            damaged = archive.testzip()
            if damaged:
                raise InputError(f"{path}: {damaged} inside it is damaged: save the model again")
            return archive.read("config.json")
    except KeyError as exc:
        raise InputError(f"{path}: has no config.json: it is not a model saved by Keras 3") from exc
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError) as exc:
        raise InputError(
            f"{path}: is not a readable .keras file ({one_line(exc)}): it may be truncated; "
            "expected what model.save('x.keras') writes"
        ) from exc


def _h5_config(path: Path) -> Any:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            config = file.attrs.get("model_config")
    except (OSError, RuntimeError) as exc:
        raise InputError(
            f"{path}: is not a readable HDF5 file ({one_line(exc)}): it may be truncated; expected "
            "what model.save('x.h5') writes"
        ) from exc
    if config is None:
        raise InputError(
            f"{path}: holds weights but no model: save the whole model with model.save(), not with "
            "save_weights()"
        )
    return config


def classes(config: Any) -> Iterator[SavedClass]:
    """Yield every object of a model's configuration that has a class, outer ones first."""
    waiting = [config]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            name = node.get("class_name")
            if isinstance(name, str):
                inner = node.get("config")
                layer = inner.get("name") if isinstance(inner, dict) else None
                yield SavedClass(
                    layer=str(layer or node.get("name") or name),
                    class_name=name,
                    module=node.get("module") or None,
                    registered_name=node.get("registered_name") or None,
                )
            waiting.extend(reversed(list(node.values())))
        elif isinstance(node, list):
            waiting.extend(reversed(node))


def layers_with_code(config: Any) -> list[str]:
    """Return the names of the layers that carry Python code, which loading would run."""
    return [
        saved.layer for saved in classes(config) if saved.class_name in ("Lambda", "__lambda__")
    ]
