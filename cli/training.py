"""What the commands of `stnkit train` share: options, checks, progress and the printed result."""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stnkit.cli.native_output import native_stderr_hidden
from stnkit.cli.options import json_option
from stnkit.cli.output_file import check_keras_output

if TYPE_CHECKING:
    from stnkit.models.training.recipe import Recipe, TrainingResult
    from stnkit.models.training.task import Task


@dataclass(frozen=True)
class TrainingOptions:
    """The options that every recipe takes.

    Attributes:
        data: Folder with the training data, or None.
        output: The `.keras` file to write.
        epochs: Passes over the training data.
        seed: Seed of the run.
        batch_size: Examples a step.
        force: Replace `output` if it exists.
        as_json: Print JSON.
    """

    data: Path | None
    output: Path
    epochs: int
    seed: int
    batch_size: int
    force: bool
    as_json: bool


def training_options(
    *own: Callable[[Any], Any], data: str, epochs: int, batch_size: int = 128
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the common options, as one `TrainingOptions`.

    Args:
        own: Options of the recipe's own, handed to the command by their names.
        data: Help of `--data`.
        epochs: Default of `--epochs`.
        batch_size: Default of `--batch-size`.
    """
    path = click.Path(path_type=Path)
    seeds = click.IntRange(0, 2**32 - 1)
    options = [
        click.option("--data", type=path, help=data),
        click.option("--output", "-o", type=path, required=True, help="The .keras file to write."),
        click.option("--epochs", type=click.IntRange(1, 1000), default=epochs, show_default=True),
        click.option("--seed", type=seeds, default=0, show_default=True),
        click.option(
            "--batch-size", type=click.IntRange(1, 4096), default=batch_size, show_default=True
        ),
        *own,
        click.option("--force", is_flag=True, help="Replace OUTPUT if it exists."),
        json_option,
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def gathered(**given: Any) -> None:
            names = TrainingOptions.__dataclass_fields__
            common = TrainingOptions(**{name: given.pop(name) for name in names})
            command(common, **given)

        decorated: Callable[..., None] = gathered
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def run_training(
    recipe: str,
    options: TrainingOptions,
    task: Callable[[Recipe], Task],
    summary: Callable[[TrainingResult], str],
    own: tuple[str, ...] = (),
) -> None:
    """Check the output's path, train with progress on stderr, and print the result.

    Args:
        recipe: Name of the command, for the provenance file.
        options: The common options.
        task: Imports the recipe and returns its task; a `ValueError` becomes an `InputError`.
        summary: Returns what was measured in a few words, for people.
        own: Options of the recipe's own as they were given, for the provenance file.

    Raises:
        InputError: If the output or the data will not do.
    """
    check_keras_output(options.output, options.force)
    shown = ["stnkit", "train", recipe, *(["--data", "DIR"] if options.data else [])]
    shown += ["--output", options.output.name, "--epochs", str(options.epochs)]
    shown += ["--seed", str(options.seed), "--batch-size", str(options.batch_size), *own]
    with native_stderr_hidden():
        result = _train(options, task, shlex.join(shown))
    if options.as_json:
        record = {
            "model": str(result.model),
            "provenance": str(result.provenance),
            **result.figures,
            "test_count": result.test_count,
            "resumed_from_epoch": result.resumed_from_epoch,
            "seconds": round(result.seconds, 1),
        }
        click.echo(json.dumps(record))
        return
    click.echo(f"{result.model}: {summary(result)}. How it was made: {result.provenance}")


def _train(
    options: TrainingOptions, task_of: Callable[[Recipe], Task], command_line: str
) -> TrainingResult:
    from stnkit.cli.extras import require_convert
    from stnkit.cli.progress import EpochProgress
    from stnkit.runtime.errors import InputError

    require_convert()
    from stnkit.models.training.loop import train
    from stnkit.models.training.recipe import Recipe

    recipe = Recipe(epochs=options.epochs, seed=options.seed, batch_size=options.batch_size)
    try:
        task = task_of(recipe)
    except ValueError as exc:  # of the data, or of an option's value
        raise InputError(str(exc)) from exc
    with EpochProgress(recipe.epochs, task.steps_per_epoch) as progress:
        return train(task, options.output, command=command_line, progress=progress.update)
