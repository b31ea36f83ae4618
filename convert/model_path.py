"""Finding the model that a user names, before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from stnkit.models.pretrained import NAMES, model_file
from stnkit.runtime.errors import InputError, one_line

FileKind = Literal["keras", "h5"]

SUFFIXES: dict[FileKind, tuple[str, ...]] = {"keras": (".keras",), "h5": (".h5", ".hdf5")}
"""Suffixes of a model's file, in lower case, by what it is."""

_FIRST_BYTES: dict[bytes, FileKind] = {b"PK\x03\x04": "keras", b"\x89HDF": "h5"}


def find_model(path: str | Path) -> Path:
    """Return the file or folder of a model.

    Args:
        path: A `.keras` file, a legacy `.h5` file, a SavedModel folder, or the name of a shipped
            model ("digits"), where no file has that name.

    Raises:
        InputError: If there is none, it is empty, or by its name it is something else.
    """
    if str(path) in NAMES and not Path(path).exists():
        return model_file(str(path))
    path = Path(path)
    if not path.exists():
        shipped = ", ".join(NAMES)
        raise InputError(f"{path}: no such file or folder (shipped models: {shipped})")
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise InputError(
                f"{path}: has no saved_model.pb: expected a SavedModel folder, as model.export() "
                "writes"
            )
        return path
    if path.suffix.lower() not in (*SUFFIXES["keras"], *SUFFIXES["h5"]):
        raise InputError(
            f"{path}: is not a Keras model by its name: expected .keras, .h5 or a SavedModel folder"
        )
    if not path.stat().st_size:
        raise InputError(f"{path}: is empty: save the model again")
    return path


def file_kind(path: Path) -> FileKind:
    """Return what a model's file is: by its first bytes, or by its name where those say nothing.

    Files are renamed, and some tools save the one format under the other's name.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            found = _FIRST_BYTES.get(file.read(4))
    except OSError as exc:
        raise InputError(f"{path}: cannot be read ({one_line(exc)})") from exc
    return found or ("keras" if path.suffix.lower() in SUFFIXES["keras"] else "h5")
