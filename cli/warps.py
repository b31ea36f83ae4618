"""Writing what a spatial transformer looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stnkit.runtime.errors import InputError

if TYPE_CHECKING:
    from stnkit.runtime.session import Session


def write_warps(session: Session, images: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Write the warped image of every image into a folder; return the files, in order.

    Raises:
        InputError: If the bundle has no spatial transformer, the folder cannot be made, or two
            images would be written to one file.
    """
    from stnkit.runtime import save_warp

    preprocessing = session.manifest.preprocessing
    targets = [folder / f"{image.stem}.warped.png" for image in images]
    twice = {target.name for target in targets if targets.count(target) > 1}
    if twice:
        raise InputError(
            f"--save-warp: several images would be written to {sorted(twice)[0]}: run them in "
            "several calls with different folders"
        )
    warps = session.warp(images)
    assert preprocessing is not None  # else predicting and warping would have refused
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for target, warped in zip(targets, warps, strict=True):
            save_warp(warped, target, preprocessing)
    except OSError as exc:
        raise InputError(f"--save-warp {folder}: cannot be written ({exc})") from exc
    return tuple(targets)
