"""`stnkit-precommit`: the hook for pre-commit, from the files of a commit to folders to verify.

pre-commit passes the files of a commit, among them any `manifest.json`: those of browser extensions
and web apps too. A file counts where its folder is a bundle; a bundle is verified once, whichever
of its files changed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["bundles_of", "main"]

_MANIFEST = "manifest.json"
_GOLDEN = "golden.npz"
_MANIFEST_BYTES_MAX = 4 * 2**20


def bundles_of(files: Iterable[str]) -> tuple[Path, ...]:
    """Return the bundles that files belong to, each once, in the order of the files.

    Args:
        files: paths as pre-commit passes them.
    """
    found: dict[Path, None] = {}
    for file in files:
        folder = Path(file).parent
        if folder not in found and _is_bundle(folder):
            found[folder] = None
    return tuple(found)


def _is_bundle(folder: Path) -> bool:
    """Return whether a folder is a bundle, a damaged one too: that is what the hook is for."""
    manifest = folder / _MANIFEST
    if not manifest.is_file():
        return False
    if (folder / _GOLDEN).is_file():
        return True
    try:
        if manifest.stat().st_size > _MANIFEST_BYTES_MAX:
            return False
        document = json.loads(manifest.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and {"schema_version", "artifacts", "golden"} <= set(document)


def main(arguments: Sequence[str] | None = None) -> None:
    """Verify the bundles that the files belong to, and exit with the worst exit code.

    Args:
        arguments: paths of files; None takes those of the command line.
    """
    worst = 0
    for folder in bundles_of(sys.argv[1:] if arguments is None else arguments):
        worst = max(worst, _verify(folder))
    sys.exit(worst)


def _verify(folder: Path) -> int:
    from stnkit.cli.main import group

    # "--": a folder's name may begin with a dash.
    code = group.main(["verify", "--", str(folder)], prog_name="stnkit", standalone_mode=False)
    return code if isinstance(code, int) else 0
