"""What `stnkit run` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stnkit.cli.views.table import print_table

if TYPE_CHECKING:
    from stnkit.runtime.images import Prediction


def print_predictions(
    artifact: str,
    images: Sequence[Path],
    predictions: Sequence[Prediction],
    warps: Sequence[Path],
    probabilities: bool,
) -> None:
    """Print a row an image: its class and the score of it."""
    heading = ">probability" if probabilities else ">score"
    rows = []
    for index, (image, found) in enumerate(zip(images, predictions, strict=True)):
        score = f"{found.score:.2%}" if probabilities else f"{found.score:.4g}"
        rows.append([str(image), found.label, score, *([str(warps[index])] if warps else [])])
    print_table(["image", "class", heading, *(["warped"] if warps else [])], rows)
    click.echo(f"Ran on {artifact}.", err=True)


def predictions_json(
    artifact: str, images: Sequence[Path], predictions: Sequence[Prediction], warps: Sequence[Path]
) -> dict[str, Any]:
    """Return the predictions as JSON values."""
    return {
        "artifact": artifact,
        "predictions": [
            {
                "image": str(image),
                "class": found.label,
                "index": found.index,
                "score": found.score,
                "scores": list(found.scores),
                "warped": str(warps[index]) if warps else None,
            }
            for index, (image, found) in enumerate(zip(images, predictions, strict=True))
        ],
    }
