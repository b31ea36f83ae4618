"""Progress of long work: bars on a terminal, plain lines where there is none."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class EpochProgress:
    """Progress of a training run on stderr.

    Args:
        epochs: Epochs of the whole run.
        steps: Steps of one epoch.
    """

    def __init__(self, epochs: int, steps: int) -> None:
        self._epochs, self._steps = epochs, steps
        console = Console(stderr=True)
        self._bar = (
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
                console=console,
            )
            if console.is_terminal
            else None
        )
        self._task: Any = None

    def __enter__(self) -> EpochProgress:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(
                "training", total=self._epochs * self._steps, figures=""
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, epoch: int, step: int, figures: dict[str, float]) -> None:
        """Show that `step` steps of `epoch` (counted from 0) are done."""
        text = "  ".join(f"{name} {value:.4f}" for name, value in sorted(figures.items()))
        label = f"epoch {epoch + 1}/{self._epochs}"
        if self._bar:
            done = epoch * self._steps + step
            self._bar.update(self._task, completed=done, description=label, figures=text)
        elif step == self._steps:
            click.echo(f"{label}  {text}", err=True)


class StageProgress:
    """Names of the stages of one piece of work, on stderr: a spinner, or a line each."""

    def __init__(self, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self._quiet = quiet
        self._bar = (
            Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            )
            if console.is_terminal and not quiet
            else None
        )
        self._task: Any = None

    def __enter__(self) -> StageProgress:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task("starting", total=None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def stage(self, description: str) -> None:
        """Say that the work has come to `description`."""
        if self._bar:
            self._bar.update(self._task, description=description)
        elif not self._quiet:
            click.echo(description, err=True)
