"""The `stnkit` command: commands found lazily, errors turned into exit codes."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from typing import Any

import click

# Name of each command, in the order of a first use: convert, prove, run, look inside, train.
_COMMANDS = ("convert", "verify", "run", "inspect", "samples", "train")


class _StnkitGroup(click.Group):
    """Imports a command when it is asked for, and ends every known error in one line.

    Exit codes: 0 well, 1 the check failed, 2 wrong use or bad input, 3 a bug in stnkit.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"stnkit.cli.commands.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        from stnkit.runtime.errors import StnkitError

        try:
            return super().invoke(ctx)
        except StnkitError as exc:
            click.echo(f"error: {exc}", err=True)
            ctx.exit(exc.exit_code)
        except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
            raise
        except Exception as exc:
            if ctx.params.get("traceback"):
                raise
            first = str(exc).strip().splitlines()
            click.echo(
                f"error: unexpected {type(exc).__name__}: {first[0] if first else ''} "
                "(this is a bug in stnkit; `stnkit --traceback …` shows where)",
                err=True,
            )
            ctx.exit(3)


@click.group(
    cls=_StnkitGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: stnkit convert digits -o digits.bundle",
)
@click.version_option(version("stnkit"), prog_name="stnkit")
@click.option("--traceback", is_flag=True, help="Show the traceback of an unexpected error.")
def group(traceback: bool) -> None:
    """Convert Keras models with spatial transformers to TFLite and ONNX, proven equal."""


def main() -> None:
    """Run the command line and exit."""
    try:
        group.main(standalone_mode=True)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        sys.exit(0)
