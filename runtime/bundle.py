"""Open a bundle: one folder with a manifest, artifacts, probes and the evidence.

Opening checks every file that the manifest lists: that it is a plain file in the folder itself,
its size before it is read, its hash, and that no ONNX file points at data outside itself.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from stnkit.runtime import onnx_file
from stnkit.runtime.errors import BundleError, InputError, one_line
from stnkit.runtime.golden import GoldenCase, read_golden
from stnkit.runtime.json_reader import join_names
from stnkit.runtime.manifest import MANIFEST_BYTES_MAX, MANIFEST_FILE, Manifest, read_manifest
from stnkit.runtime.manifest_records import Artifact, FileRecord

__all__ = ["BUNDLE_BYTES_MAX", "Bundle", "open_bundle"]

BUNDLE_BYTES_MAX = 8 * 2**30
"""Bounds what opening a bundle reads: four artifacts of the largest size that a format allows."""

_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Bundle:
    """An opened bundle; every file it lists was checked when it was opened.

    Attributes:
        path: the folder.
        manifest: what is in it.
    """

    path: Path
    manifest: Manifest

    def artifact(self, name: str | None = None) -> Artifact:
        """Return one artifact.

        Args:
            name: a file name, or a format (`"onnx"`, `"tflite"`) where only one artifact has it;
                None for the first one.

        Raises:
            InputError: no such artifact, or several of that format.
        """
        artifacts = self.manifest.artifacts
        if name is None:
            return artifacts[0]
        by_file = [it for it in artifacts if it.file == name]
        chosen = by_file or [it for it in artifacts if it.format == name]
        if len(chosen) == 1:
            return chosen[0]
        problem = "no artifact" if not chosen else f"{len(chosen)} artifacts named"
        there = join_names([it.file for it in artifacts])
        raise InputError(f'{self.path} has {problem} "{one_line(name)}": expected one of {there}')

    def read(self, file: str) -> bytes:
        """Return the content of a listed file, hashed again: it may have changed since opening.

        Args:
            file: a file name from the manifest.

        Raises:
            InputError: not a file of this bundle.
            BundleError: the file is gone, or is not what the manifest says.
        """
        for record in self.manifest.files:
            if record.file == file:
                data = _read_plain_file(self.path, record.file, exact_bytes=record.bytes)
                _check_hash(self.path, record, hashlib.sha256(data).hexdigest())
                return data
        there = join_names([record.file for record in self.manifest.files])
        raise InputError(f'{self.path} lists no file "{one_line(file)}": expected one of {there}')

    def golden(self) -> tuple[GoldenCase, ...]:
        """Return the probes with the source's answers, at least one.

        Raises:
            BundleError: the golden file is not what the manifest says.
        """
        record = self.manifest.golden
        return read_golden(self.read(record.file), self.manifest, name=record.file)


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Open a bundle and check every file that its manifest lists.

    Args:
        path: the bundle's folder.

    Returns:
        The bundle.

    Raises:
        InputError: no such folder.
        BundleError: a damaged, hostile or incomplete bundle.
    """
    folder = Path(path)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{one_line(str(folder))} {what}: expected the folder of a bundle")
    manifest = read_manifest(_read_plain_file(folder, MANIFEST_FILE, most_bytes=MANIFEST_BYTES_MAX))
    total = sum(record.bytes for record in manifest.files)
    if total > BUNDLE_BYTES_MAX:
        raise BundleError(
            f"{folder} lists {total} bytes: expected at most {BUNDLE_BYTES_MAX} in one bundle"
        )
    onnx_files = {it.file for it in manifest.artifacts if it.format == "onnx"}
    for record in manifest.files:
        if record.file in onnx_files:
            data = _read_plain_file(folder, record.file, exact_bytes=record.bytes)
            _check_hash(folder, record, hashlib.sha256(data).hexdigest())
            try:
                onnx_file.refuse_external_data(data, name=record.file)
            except BundleError:
                raise
            except InputError as exc:
                raise BundleError(str(exc)) from exc
        else:
            _check_hash(folder, record, _hash_plain_file(folder, record))
    return Bundle(folder, manifest)


def _check_hash(folder: Path, record: FileRecord, actual: str) -> None:
    if actual != record.sha256:
        raise BundleError(
            f"{folder / record.file} has sha256 {actual}: expected {record.sha256}; the file was "
            "changed after the bundle was made, get the bundle again or convert again"
        )


def _open_plain_file(folder: Path, file: str) -> tuple[int, int]:
    """Open without following a link and without waiting on a pipe; return descriptor and size."""
    path = folder / file
    flags = os.O_RDONLY
    for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, flag, 0)
    try:
        # Where O_NOFOLLOW does not exist this is the only guard, and elsewhere the clearer message.
        if path.is_symlink():
            raise BundleError(f"{path} is a link: expected a plain file inside the bundle")
        descriptor = os.open(path, flags)
    except FileNotFoundError as exc:
        raise BundleError(
            f"{path} is missing: expected it in the bundle; get the bundle again"
        ) from exc
    except OSError as exc:
        raise BundleError(f"{path} cannot be read: {one_line(exc)}") from exc
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise BundleError(f"{path} is not a plain file: expected one inside the bundle")
    return descriptor, status.st_size


def _read_plain_file(
    folder: Path, file: str, *, exact_bytes: int | None = None, most_bytes: int | None = None
) -> bytes:
    descriptor, size = _open_plain_file(folder, file)
    with os.fdopen(descriptor, "rb") as stream:
        if exact_bytes is not None:
            _check_size(folder / file, size, exact_bytes)
        if most_bytes is not None and size > most_bytes:
            raise BundleError(f"{folder / file} has {size} bytes: expected at most {most_bytes}")
        try:
            # One byte more than the size: a file that grows meanwhile is noticed, and bounded.
            data = stream.read(size + 1)
        except OSError as exc:
            raise BundleError(f"{folder / file} cannot be read: {one_line(exc)}") from exc
    _check_size(folder / file, len(data), size)
    return data


def _hash_plain_file(folder: Path, record: FileRecord) -> str:
    descriptor, size = _open_plain_file(folder, record.file)
    digest = hashlib.sha256()
    with os.fdopen(descriptor, "rb") as stream:
        _check_size(folder / record.file, size, record.bytes)
        left = record.bytes
        try:
            while left and (chunk := stream.read(min(_CHUNK_BYTES, left))):
                digest.update(chunk)
                left -= len(chunk)
        except OSError as exc:
            raise BundleError(f"{folder / record.file} cannot be read: {one_line(exc)}") from exc
    return digest.hexdigest()


def _check_size(path: Path, actual: int, expected: int) -> None:
    if actual != expected:
        raise BundleError(
            f"{path} has {actual} bytes: expected {expected}; the file was changed after the "
            "bundle was made, get the bundle again or convert again"
        )
