"""Writing a bundle beside its final place and renaming it there in one step.

Whoever looks, at whatever moment the writer is killed, finds no bundle, the whole old one, or the
whole new one.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from stnkit.runtime.errors import BundleError, InputError
from stnkit.runtime.manifest import MANIFEST_BYTES_MAX, MANIFEST_FILE, read_manifest

_AT_FDCWD = -100  # linux/fcntl.h: relative paths start at the working directory
_RENAME_EXCHANGE = 2  # linux/fs.h
_RENAME_SWAP = 2  # macOS, sys/stdio.h
_LOCK = ".writing"


def check_target(target: Path, force: bool) -> None:
    """Check that a bundle may be published at `target`, before any long work.

    Raises:
        InputError: If it exists and `force` is not given, if what exists is not a bundle or holds
            other files too, or its parent is not a folder that can be written.
    """
    parent = target.absolute().parent
    if not parent.is_dir():
        raise InputError(f"{parent}: no such folder: create it first")
    if not os.access(parent, os.W_OK):
        raise InputError(f"{parent}: cannot be written: choose another place for the bundle")
    if not os.path.lexists(target):
        return
    if not force:
        raise InputError(f"{target} exists: choose another name, or pass --force to replace it")
    # A slip of the keyboard must not cost somebody's folder, nor what they keep in a bundle's.
    foreign = _not_ours(target)
    if foreign:
        raise InputError(
            f"{target} exists and {foreign}: --force replaces bundles alone; remove it yourself or "
            "choose another name"
        )


def _not_ours(target: Path) -> str | None:
    """Return what tells that a folder is not a bundle and nothing else, or None."""
    if target.is_symlink() or not target.is_dir():
        return "is not a bundle"
    try:
        with (target / MANIFEST_FILE).open("rb") as stream:
            manifest = read_manifest(stream.read(MANIFEST_BYTES_MAX + 1))
    except (OSError, BundleError):
        return "is not a bundle"
    listed = {MANIFEST_FILE, *(record.file for record in manifest.files)}
    more = sorted(path.name for path in target.iterdir() if path.name not in listed)
    return f"holds {more[0]!r}, which is not the bundle's" if more else None


def publish(target: Path, files: Mapping[str, bytes], force: bool) -> None:
    """Write `files` into a new folder and make it appear at `target` at once.

    Args:
        target: The bundle's folder.
        files: Content of every file, by plain name.
        force: Whether a bundle at `target` is replaced.

    Raises:
        InputError: As `check_target`, or if something else appeared at `target` meanwhile.
        OSError: If the disk is full or fails; nothing is left at `target` then.
    """
    check_target(target, force)
    target = target.absolute()
    _remove_abandoned(target)
    draft = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
    try:
        with (draft / f"{_LOCK}.new").open("wb") as lock:
            # Under its name the lock is always held, else another writer could take it first.
            fcntl.flock(lock, fcntl.LOCK_EX)
            (draft / f"{_LOCK}.new").rename(draft / _LOCK)
            content = draft / "bundle"
            content.mkdir()
            for name, data in files.items():
                _write(content / name, data)
            _sync_folder(content)
            _move(content, target, force)
            _sync_folder(target.parent)
    finally:
        # What remains in the draft is the lock, and the old bundle if there was one.
        shutil.rmtree(draft, ignore_errors=True)


def _prefix(target: Path) -> str:
    return f".{target.name}.draft-"


def _remove_abandoned(target: Path) -> None:
    """Remove drafts of the same bundle whose writer was killed; a living one holds its lock."""
    for draft in target.parent.iterdir():
        if not draft.name.startswith(_prefix(target)):
            continue
        try:
            with (draft / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(draft, ignore_errors=True)
        except OSError:
            continue  # being written, or killed before it had anything in it


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move(content: Path, target: Path, force: bool) -> None:
    try:
        # Onto an empty folder or nothing; a folder with files is refused by the system itself.
        content.rename(target)
        return
    except OSError as exc:
        if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    if not force:
        raise InputError(f"{target} appeared while its bundle was being made: nothing was changed")
    check_target(target, force)  # it may have changed since
    if not _exchange(content, target):
        # No atomic exchange on this system: for an instant there is no bundle at all.
        target.rename(content.with_name("old"))
        content.rename(target)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders atomically; return False where the system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    a, b = os.fsencode(first), os.fsencode(second)
    if sys.platform == "linux" and hasattr(libc, "renameat2"):
        failed = libc.renameat2(_AT_FDCWD, a, _AT_FDCWD, b, ctypes.c_uint(_RENAME_EXCHANGE))
    elif sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        failed = libc.renamex_np(a, b, ctypes.c_uint(_RENAME_SWAP))
    else:
        return False
    return not failed
