"""Loading a `.keras` file, a legacy `.h5` file or a SavedModel folder."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

import stnkit.models.registered  # noqa: F401  makes Keras know stnkit's layers by name
from stnkit.convert.model_path import SUFFIXES, FileKind, file_kind, find_model
from stnkit.convert.source.archive import classes, layers_with_code, read_config
from stnkit.convert.source.custom_objects import resolve_custom_objects
from stnkit.convert.source.model import SourceModel, base_name, source_from_keras
from stnkit.convert.source.saved_model import load_saved_model
from stnkit.runtime.errors import InputError, one_line
from stnkit.runtime.manifest import Source


def load_source(
    path: str | Path, *, custom_objects: Iterable[str] = (), trusted: bool = False
) -> SourceModel:
    """Load the model to convert.

    Args:
        path: A `.keras` file, a legacy `.h5` file, a SavedModel folder, or the name of a shipped
            model ("digits").
        custom_objects: References `module:attr` to the user's own layers.
        trusted: Whether Python code inside the file (Lambda layers) may run.

    Raises:
        InputError: If the file is missing, damaged or of another kind, carries code and is not
            trusted, or names a layer that is not known.
    """
    path = find_model(path)
    objects = resolve_custom_objects(custom_objects)
    if path.is_dir():
        return load_saved_model(path)
    return _load_file(path, objects, trusted)


def _load_file(path: Path, objects: dict[str, Any], trusted: bool) -> SourceModel:
    config = read_config(path)
    code = layers_with_code(config)
    if code and not trusted:
        raise InputError(
            f"{path}: the layer {code[0]!r} is a Lambda: it carries Python code that loading would "
            "run. Pass --trusted if you know who made the file, or replace it by a Layer class"
        )
    kind = file_kind(path)
    try:
        with _under_its_suffix(path, kind) as readable:
            model = keras.saving.load_model(
                readable, custom_objects=objects, compile=False, safe_mode=not trusted
            )
    except Exception as exc:  # Keras raises whatever its layers raise
        unknown = _unknown_class(config, objects)
        if unknown:
            raise InputError(f"{path}: {unknown}") from exc
        raise InputError(f"{path}: Keras cannot load it ({one_line(exc)})") from exc
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    origin = Source(base_name(path.name), kind, digest)
    return source_from_keras(model, name=base_name(path.stem), origin=origin)


@contextmanager
def _under_its_suffix(path: Path, kind: FileKind) -> Iterator[Path]:
    """Give the file a name by which Keras, which looks at nothing else, reads it as what it is."""
    if path.suffix in SUFFIXES[kind]:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="stnkit-") as folder:
        alias = Path(folder, f"model{SUFFIXES[kind][0]}")
        try:
            alias.symlink_to(path.resolve())
        except OSError:  # some file systems have no links
            shutil.copyfile(path, alias)
        yield alias


def _unknown_class(config: Any, objects: dict[str, Any]) -> str | None:
    """Return a sentence on the first class that nothing here knows, or None."""
    for saved in classes(config):
        if saved.class_name in objects or (saved.module or "").split(".")[0] == "keras":
            continue
        names = {saved.class_name, saved.registered_name or ""}
        if any(name and keras.saving.get_registered_object(name) for name in names):
            continue
        if saved.module is None and _is_builtin(saved.class_name):
            continue
        where = saved.module if saved.module not in (None, "builtins", "__main__") else "my_layers"
        return (
            f"the layer {saved.layer!r} is a {saved.class_name}, which is not known here: pass "
            f"--custom-objects {where}:{saved.class_name}"
        )
    return None


def _is_builtin(class_name: str) -> bool:
    homes = (keras, keras.layers, keras.initializers, keras.regularizers, keras.constraints)
    # Keras writes tuples, tensors and slices as classes with such names, and has no public name for
    # a functional model.
    special = class_name.startswith("__") and class_name.endswith("__")
    return special or class_name == "Functional" or any(hasattr(home, class_name) for home in homes)
