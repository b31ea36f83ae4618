"""Finding the model that a user names, before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from stnkit.models.pretrained import NAMES, model_file
from stnkit.runtime.errors import InputError

H5_SUFFIXES = (".h5", ".hdf5")


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
    if path.suffix not in (".keras", *H5_SUFFIXES):
        raise InputError(
            f"{path}: is not a Keras model by its name: expected .keras, .h5 or a SavedModel folder"
        )
    if not path.stat().st_size:
        raise InputError(f"{path}: is empty: save the model again")
    return path
