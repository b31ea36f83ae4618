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
    "--device",
    default="auto",
    show_default=True,
    help="Where to run: cpu, cuda, cuda:N; auto takes a GPU that can be used.",
)
@click.option("--explain", is_flag=True, help="Say what was taken to run it, and why.")
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
    device: str,
    explain: bool,
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

    with (
        native_stderr_hidden(),
        load(bundle, artifact=artifact, threads=threads, device=device) as session,
    ):
        predictions = session.predict(images)
        written = write_warps(session, images, save_warp) if save_warp else ()
        chosen, explanation = session.artifact.file, session.explain()
        probabilities = bool(
            session.manifest.classes and session.manifest.classes.scores == "probabilities"
        )
    if as_json:
        found = predictions_json(chosen, images, predictions, written)
        if explain:
            found["explanation"] = explanation.to_json()
        click.echo(json.dumps(found))
    else:
        on_gpu = "" if session.device == "cpu" else f" on {session.device}"
        print_predictions(chosen + on_gpu, images, predictions, written, probabilities)
        if explain:
            click.echo(str(explanation), err=True)
