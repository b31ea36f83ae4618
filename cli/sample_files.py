"""Sample images as PNG files beside a table of their labels."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from stnkit.runtime.errors import InputError

if TYPE_CHECKING:
    from stnkit.models.pretrained import Samples


def write_samples(samples: Samples, folder: Path, force: bool) -> list[Path]:
    """Write every image as PNG and their labels as `labels.csv`; return the image files.

    Raises:
        InputError: If the folder has files and `force` is not given, or it cannot be written.
    """
    from PIL import Image

    files: list[Path] = []
    try:
        if folder.is_dir() and any(folder.iterdir()) and not force:
            raise InputError(
                f"{folder} has files in it: choose another folder, or pass --force to write there"
            )
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            table.writerow(["file", "label"])
            for index, (image, label) in enumerate(
                zip(samples.images, samples.labels, strict=True)
            ):
                name = samples.class_names[int(label)]
                path = folder / f"{index:03d}_{name}.png"
                Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)
                table.writerow([path.name, name])
                files.append(path)
    except OSError as exc:
        raise InputError(f"{folder}: cannot be written ({exc})") from exc
    return files
