"""`stnkit run`: classify image files with a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import click

from stnkit.cli.native_output import native_stderr_hidden
from stnkit.cli.options import artifact_option, json_option, threads_option


@click.command(
    name="run",
    short_help="Classify image files with a bundle.",
    epilog="Example: stnkit run digits.bundle samples/*.png --save-warp seen",
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@artifact_option
@threads_option
@click.option(
    "--save-warp",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write what the spatial transformer looked at, as PNG files.",
)
@json_option
def command(
    bundle: Path,
    images: tuple[Path, ...],
    artifact: str | None,
    threads: int | None,
    save_warp: Path | None,
    as_json: bool,
) -> None:
    """Classify IMAGES with the preprocessing and the labels of BUNDLE.

    Runs through LiteRT or ONNX Runtime, without TensorFlow. An image in another size than the
    model's is resized; one with another number of channels is refused.
    """
    from stnkit.cli.views.predictions import predictions_json, print_predictions
    from stnkit.cli.warps import write_warps
    from stnkit.runtime import load

    with native_stderr_hidden(), load(bundle, artifact=artifact, threads=threads) as session:
        predictions = session.predict(images)
        written = write_warps(session, images, save_warp) if save_warp else ()
        chosen = session.artifact.file
        probabilities = bool(
            session.manifest.classes and session.manifest.classes.scores == "probabilities"
        )
    if as_json:
        click.echo(json.dumps(predictions_json(chosen, images, predictions, written)))
    else:
        print_predictions(chosen, images, predictions, written, probabilities)
