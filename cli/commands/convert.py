"""`stnkit convert`: Keras to a bundle of proven artifacts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stnkit.cli.limits import OWN_PROCESS, collect_seldom
from stnkit.cli.native_output import native_stderr_hidden
from stnkit.cli.options import json_option

if TYPE_CHECKING:
    from stnkit.convert.options import Sampler

_FORMATS = ("tflite", "onnx")


@click.command(
    name="convert",
    short_help="Convert a Keras model to TFLite and ONNX, proven equal.",
    epilog="Example: stnkit convert digits.keras -o digits.bundle --to tflite --to onnx",
)
@click.argument("model")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), required=True, help="The bundle to write."
)
@click.option(
    "--to",
    "formats",
    type=click.Choice(_FORMATS),
    multiple=True,
    help="Format to write; give it once for each. Default: both.",
)
@click.option(
    "--opset",
    type=click.Choice(["16", "17", "18", "19", "20", "21", "22"]),
    default="19",
    show_default=True,
    help="ONNX opset.",
)
@click.option(
    "--sampler",
    type=click.Choice(["auto", "gather", "grid-sample", "deform-conv"]),
    default="auto",
    show_default=True,
    help="How samplers are written in ONNX; auto is DeformConv (ONNX Runtime 1.25) where it fits.",
)
@click.option(
    "--autotune",
    is_flag=True,
    help="Prove every form that the samplers can have, time them here, and keep the fastest.",
)
@click.option(
    "--batch",
    default="dynamic",
    show_default=True,
    metavar="dynamic|N",
    help="Batch size that the artifacts take: any, or exactly N.",
)
@click.option(
    "--custom-objects",
    multiple=True,
    metavar="MODULE:ATTR",
    help="Your own layer, looked for in the working directory too; give it once for each.",
)
@click.option("--trusted", is_flag=True, help="Run the Python code that Lambda layers carry.")
@click.option("--name", help="Name of the bundle. Default: that of OUTPUT.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="Text file with a class name a line, in the order of the scores. Default: 0, 1, 2, …",
)
@click.option(
    "--input-range",
    type=float,
    nargs=2,
    default=(0.0, 1.0),
    show_default=True,
    metavar="LOW HIGH",
    help="Values of black and white in the model's image input, before --mean and --std.",
)
@click.option("--mean", metavar="M[,M,M]", help="Subtracted from the image, a number a channel.")
@click.option("--std", metavar="S[,S,S]", help="Divided by, a number a channel.")
@click.option(
    "--samples",
    type=click.Path(path_type=Path),
    help="Folder of labelled images (with labels.csv), to count classes that stay the same.",
)
@click.option(
    "--atol",
    "tolerances",
    multiple=True,
    metavar="KIND=VALUE",
    help="Largest absolute difference allowed at outputs, theta or warped; give it for each.",
)
@click.option("--force", is_flag=True, help="Replace the bundle at OUTPUT.")
@json_option
def command(
    model: str,
    output: Path,
    formats: tuple[str, ...],
    opset: str,
    sampler: Sampler,
    autotune: bool,
    batch: str,
    custom_objects: tuple[str, ...],
    trusted: bool,
    name: str | None,
    labels: Path | None,
    input_range: tuple[float, float],
    mean: str | None,
    std: str | None,
    samples: Path | None,
    tolerances: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> None:
    """Convert MODEL and prove that every artifact computes what it computes.

    MODEL is a .keras file, a legacy .h5 file, a SavedModel folder, or the name of a shipped model
    ("digits"). Every artifact is loaded back and compared with the model at its outputs, and at
    theta and the warped image of every spatial transformer. Only if all of them agree, the bundle
    appears at OUTPUT, in one step.
    """
    from stnkit.cli.extras import require_backends, require_convert
    from stnkit.cli.progress import StageProgress
    from stnkit.cli.values import absolute_tolerances, batch_size, lines_of, numbers, value_range
    from stnkit.cli.views.conversion import conversion_json, print_conversion

    size = batch_size(batch)
    span = value_range(input_range)
    names = lines_of(labels, "--labels") if labels else None
    atol = absolute_tolerances(tolerances)
    means, deviations = numbers(mean, "--mean"), numbers(std, "--std")
    require_convert()
    require_backends(formats or _FORMATS)
    from stnkit.convert.model_path import find_model
    from stnkit.convert.options import FORMATS, ConversionOptions
    from stnkit.convert.publish import check_target

    # All of this before TensorFlow, which takes seconds to start.
    options = ConversionOptions(
        formats=tuple(f for f in FORMATS if f in formats) or FORMATS,
        opset=int(opset),
        sampler=sampler,
        autotune=autotune,
        batch=size,
        name=name,
        labels=names,
        value_range=span,
        mean=means,
        std=deviations,
        samples=samples,
        atol=atol,
    )
    find_model(model)
    check_target(output, force)
    if click.get_current_context().obj is OWN_PROCESS:
        collect_seldom()
    with native_stderr_hidden(), StageProgress() as progress:
        progress.stage("starting TensorFlow")
        from stnkit.convert.pipeline import convert
        from stnkit.convert.source import load_source

        progress.stage(f"loading {model}")
        source = load_source(model, custom_objects=custom_objects, trusted=trusted)
        result = convert(source, output, options, force=force, on_stage=progress.stage)
    if as_json:
        click.echo(json.dumps(conversion_json(result)))
    else:
        print_conversion(result)
