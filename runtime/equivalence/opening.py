"""Opening whatever a user names as a subject."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from stnkit.runtime.bundle import open_bundle
from stnkit.runtime.equivalence.file_subject import FileSubject, Names
from stnkit.runtime.equivalence.subject import Subject
from stnkit.runtime.errors import BackendMissingError, InputError
from stnkit.runtime.manifest import MANIFEST_FILE
from stnkit.runtime.manifest_records import FILE_BYTES_MAX

__all__ = ["open_subjects"]

_LOADERS = "stnkit.loaders"
"""Group of entry points that open what this package cannot; it never imports TensorFlow itself."""


def open_subjects(
    model: Any,
    *,
    threads: int | None = None,
    custom_objects: Iterable[str] = (),
    trusted: bool = False,
) -> tuple[Subject, ...]:
    """Return what a path, a Keras model or a subject stands for.

    Args:
        model: path of a TFLite, ONNX, Keras or SavedModel file or folder, or of a bundle; the name
            of a shipped model; a Keras model; or a `Subject`.
        threads: threads that share one run of a file.
        custom_objects: references `module:attr` to layers of a Keras model.
        trusted: whether Python code inside a Keras file may run.

    Returns:
        One subject, or one for each artifact of a bundle.

    Raises:
        InputError: there is no such file, or it is of no known kind or damaged.
        BackendMissingError: what would run it is not installed.
        BackendError: a backend refuses a file.
    """
    if isinstance(model, Subject):
        return (model,)
    if not isinstance(model, (str, os.PathLike)):
        return (_loader("keras")(model, custom_objects=custom_objects, trusted=trusted),)
    path = Path(model)
    if path.is_dir() and (path / MANIFEST_FILE).is_file():
        return _artifacts(path, threads)
    if path.is_file() and path.suffix.lower() not in (".keras", ".h5", ".hdf5"):
        if path.stat().st_size > FILE_BYTES_MAX:
            raise InputError(f"{path}: is larger than 2 GiB: no model file can be")
        try:
            content = path.read_bytes()
        except OSError as exc:
            raise InputError(f"{path}: cannot be read ({exc})") from exc
        try:
            return (FileSubject(str(model), content, threads=threads),)
        except InputError as exc:
            raise InputError(f"{path}: {exc}") from exc
    # By the text and not the path: it may be the name of a shipped model.
    return (_loader("keras")(os.fspath(model), custom_objects=custom_objects, trusted=trusted),)


def _artifacts(path: Path, threads: int | None) -> tuple[Subject, ...]:
    bundle = open_bundle(path)
    return tuple(
        FileSubject(
            str(path / record.file),
            bundle.read(record.file),
            Names(record.inputs, record.outputs, record.taps),
            threads,
        )
        for record in bundle.manifest.artifacts
    )


def _loader(name: str) -> Callable[..., Subject]:
    for point in entry_points(group=_LOADERS, name=name):
        try:
            loader: Callable[..., Subject] = point.load()
        except ModuleNotFoundError as exc:
            package = (exc.name or "tensorflow").split(".")[0]
            raise BackendMissingError(
                backend="tensorflow", package=package, extra="convert"
            ) from exc
        return loader
    raise InputError(
        "nothing here opens Keras models: install stnkit again, its entry points are missing"
    )
