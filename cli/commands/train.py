"""`stnkit train`: train a model that ships with stnkit."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from stnkit.cli.native_output import native_stderr_hidden
from stnkit.cli.options import json_option


@click.group(
    name="train",
    short_help="Train a spatial-transformer network on real data.",
    epilog="Example: stnkit train digits --data mnist/ --output digits.keras",
)
def command() -> None:
    """Train a spatial-transformer network on real data."""


@command.command(
    epilog="Example: stnkit train digits --data mnist/ --output digits.keras --epochs 16"
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder with the four IDX files of MNIST, gzip or not. Else keras.datasets.mnist is used.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    required=True,
    help="The .keras file to write.",
)
@click.option("--epochs", type=click.IntRange(1, 1000), default=16, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--batch-size", type=click.IntRange(1, 4096), default=128, show_default=True)
@click.option(
    "--samples",
    type=click.IntRange(0, 10_000),
    default=0,
    help="Also store N distorted test digits with labels, as OUTPUT's .samples.npz.",
)
@click.option("--force", is_flag=True, help="Replace OUTPUT if it exists.")
@json_option
def digits(
    data: Path | None,
    output: Path,
    epochs: int,
    seed: int,
    batch_size: int,
    samples: int,
    force: bool,
    as_json: bool,
) -> None:
    """Train the digits network on rotated, scaled and shifted MNIST digits.

    After every epoch the state is saved beside OUTPUT; the same command resumes an interrupted run.
    """
    from stnkit.runtime.errors import InputError

    if output.suffix != ".keras":
        raise InputError(f"{output}: --output takes a file name that ends in .keras")
    if output.exists() and not force:
        raise InputError(f"{output} exists: choose another --output, or pass --force to replace it")
    if not output.parent.is_dir():
        raise InputError(f"{output.parent}: no such folder: create it first")
    shown = ["stnkit", "train", "digits", *(["--data", "DIR"] if data else [])]
    shown += ["--output", output.name, "--epochs", str(epochs), "--seed", str(seed)]
    shown += ["--batch-size", str(batch_size), *(["--samples", str(samples)] if samples else [])]
    with native_stderr_hidden():
        result = _train(data, output, epochs, seed, batch_size, samples, shlex.join(shown))
    if as_json:
        record = {
            "model": str(result.model),
            "provenance": str(result.provenance),
            "accuracy": result.accuracy,
            "test_count": result.test_count,
            "resumed_from_epoch": result.resumed_from_epoch,
            "seconds": round(result.seconds, 1),
        }
        click.echo(json.dumps(record))
        return
    click.echo(
        f"{result.model}: {result.accuracy:.2%} of {result.test_count} distorted test digits "
        f"correct. How it was made: {result.provenance}"
    )


def _train(
    data: Path | None,
    output: Path,
    epochs: int,
    seed: int,
    batch_size: int,
    samples: int,
    command_line: str,
) -> Any:
    from stnkit.cli.extras import require_convert
    from stnkit.cli.progress import EpochProgress
    from stnkit.runtime.errors import InputError

    require_convert()
    from stnkit.models.digits.mnist import DataError, load_mnist
    from stnkit.models.digits.training import Recipe, train_digits

    try:
        mnist = load_mnist(data)
    except DataError as exc:
        raise InputError(str(exc)) from exc
    steps = -(-len(mnist.train_images) // batch_size)
    with EpochProgress(epochs, steps) as progress:
        return train_digits(
            mnist,
            output,
            Recipe(epochs=epochs, seed=seed, batch_size=batch_size),
            command=command_line,
            sample_count=samples,
            progress=progress.update,
        )
