"""`stnkit models`: the networks that can be made by name."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from stnkit.cli.native_output import native_stderr_hidden
from stnkit.cli.options import json_option

_PATH = click.Path(path_type=Path)


@click.group(
    name="models",
    short_help="List the networks with spatial transformers, and make one to train.",
    epilog="Example: stnkit models new paper-st-cnn -o model.keras",
)
def command() -> None:
    """List the networks with spatial transformers, and make one to train."""


@command.command("list", epilog="Example: stnkit models list --json")
@json_option
def list_models(as_json: bool) -> None:
    """List the networks, with their number of parameters and what can be chosen."""
    from stnkit.cli.views.table import print_table
    from stnkit.models.zoo.catalogue import ENTRIES

    if as_json:
        records = [
            {
                "name": entry.name,
                "summary": entry.summary,
                "parameters": entry.parameters,
                "options": list(entry.options),
            }
            for entry in ENTRIES
        ]
        click.echo(json.dumps(records))
        return
    rows = [[entry.name, f"{entry.parameters:,}", entry.summary] for entry in ENTRIES]
    print_table(["name", ">parameters", "what it is"], rows)
    click.echo(
        "\n`stnkit models new NAME -o model.keras` makes one; docs/models.md shows them all."
    )


@command.command(
    epilog="Example: stnkit models new vgg16 -o model.keras --weights vgg16.weights.h5 "
    "--trainable block5 --transformers 2"
)
@click.argument("name", metavar="NAME")
@click.option("--output", "-o", type=_PATH, required=True, help="The .keras file to write.")
@click.option("--input-shape", metavar="H,W,C", help="Height, width and channels of the image.")
@click.option("--classes", type=click.IntRange(1, 1_000_000), help="How many classes there are.")
@click.option("--transform", help="What theta means, e.g. affine, projective, thin_plate_spline.")
@click.option("--output-size", metavar="H,W", help="What the network sees behind the transformer.")
@click.option("--frame-size", metavar="H,W", help="Frame in which segmentation happens.")
@click.option("--backbone", help="A network of keras.applications, e.g. MobileNetV2.")
@click.option(
    "--weights",
    metavar="none|imagenet|FILE",
    help="Weights of the backbone: random, downloaded by Keras, or a file without top.",
)
@click.option(
    "--trainable",
    metavar="all|none|BLOCK",
    help="What of the backbone is trained; a block's name means from that block on.",
)
@click.option("--transformers", type=click.IntRange(1, 16), help="Transformers in sequence.")
@click.option(
    "--resampling",
    type=click.Choice(["once", "each"]),
    help="Whether several transformers sample the image once in all, or once each.",
)
@click.option("--crops", type=click.IntRange(1, 64), help="Transformers side by side.")
@click.option(
    "--shared/--separate", "shared", default=None, help="One backbone for all crops, or one each."
)
@click.option(
    "--flow", type=click.Choice(["diffeomorphic", "dense"]), help="Second stage of registration."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--force", is_flag=True, help="Replace OUTPUT if it exists.")
@json_option
def new(name: str, output: Path, seed: int, force: bool, as_json: bool, **given: Any) -> None:
    """Make the network NAME, untrained, and save it as a Keras file.

    `stnkit models list` shows the names. An option that the network does not have is an error.
    """
    from stnkit.cli.output_file import check_keras_output
    from stnkit.cli.values import integers
    from stnkit.models.zoo.catalogue import entry
    from stnkit.runtime.errors import InputError

    check_keras_output(output, force)
    arguments = {key: value for key, value in given.items() if value is not None}
    for key, count in (("input_shape", 3), ("output_size", 2), ("frame_size", 2)):
        if key in arguments:
            arguments[key] = integers(arguments[key], f"--{key.replace('_', '-')}", count)
    if "trainable" in arguments:
        words = {"all": True, "none": False}
        arguments["trainable"] = words.get(arguments["trainable"], arguments["trainable"])
    if arguments.get("weights") == "none":
        del arguments["weights"]
    try:
        found = entry(name)
    except ValueError as exc:
        raise InputError(str(exc)) from exc
    for key in given:
        if given[key] is not None and key not in found.options:
            known = ", ".join(_option(option) for option in found.options)
            raise InputError(f"the model {name} has no {_option(key)}: it takes {known or 'none'}")
    with native_stderr_hidden():
        record = _make(found, arguments, output, seed)
    if as_json:
        click.echo(json.dumps(record))
        return
    click.echo(
        f"{output}: {name}, {record['parameters']:,} parameters, {record['trainable']:,} of them "
        "trainable, untrained"
    )
    for role in ("inputs", "outputs"):
        for tensor, shape in record[role].items():
            sizes = ", ".join("batch" if size is None else str(size) for size in shape)
            click.echo(f"  {role[:-1]:<6} {tensor} [{sizes}]")
    click.echo(f"Train it with fit(), then: stnkit convert {output} -o {output.stem}.bundle")


def _option(argument: str) -> str:
    return "--shared/--separate" if argument == "shared" else f"--{argument.replace('_', '-')}"


def _make(found: Any, arguments: dict[str, Any], output: Path, seed: int) -> dict[str, Any]:
    from stnkit.cli.extras import require_convert
    from stnkit.runtime.errors import InputError

    require_convert()
    from stnkit.models.zoo.files import write_new

    try:
        # Keras tells of a download on stdout, where the result goes.
        with contextlib.redirect_stdout(sys.stderr):
            return write_new(found, arguments, output, seed)
    except ValueError as exc:
        raise InputError(str(exc)) from exc
