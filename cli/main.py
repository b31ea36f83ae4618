"""The `stnkit` command: commands found lazily, errors turned into exit codes."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from stnkit.cli.limits import OWN_PROCESS

# Name of each command, in the order of a first use: convert, prove, run, serve, time, look inside,
# make, train.
_COMMANDS = ("convert", "verify", "run", "serve", "bench", "inspect", "samples", "models", "train")


class _StnkitGroup(click.Group):
    """Imports a command when it is asked for, and ends every known error in one line.

    Exit codes: 0 well, 1 the check failed, 2 wrong use or bad input, 3 a bug in stnkit, 130
    interrupted.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"stnkit.cli.commands.{cmd_name}").command
        return command

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as exc:
            _end_wrong_use(exc)

    def invoke(self, ctx: click.Context) -> Any:
        from stnkit.runtime.errors import StnkitError

        try:
            return super().invoke(ctx)
        except StnkitError as exc:
            click.echo(f"error: {exc}", err=True)
            ctx.exit(exc.exit_code)
        except click.UsageError as exc:
            _end_wrong_use(exc)
        except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)  # as a shell reports it; 1 would say that a check failed
        except OSError as exc:
            if ctx.params.get("traceback"):
                raise
            where = f"{exc.filename}: " if exc.filename else ""
            click.echo(
                f"error: {where}the system refused ({exc.strerror or exc}): is there room on the "
                "disk, and the right to read and write there?",
                err=True,
            )
            ctx.exit(2)
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


def _end_wrong_use(error: click.UsageError) -> NoReturn:
    """Say what is wrong with an option or an argument in one line, where click takes four."""
    # No arguments at all show the help; click 8.1 has no such error, it does so by itself.
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        raise error
    text = " ".join(error.format_message().split()).rstrip(".")
    path = error.ctx.command_path if error.ctx else "stnkit"
    click.echo(f"error: {text} (`{path} --help` shows how it is used)", err=True)
    raise click.exceptions.Exit(2)


@click.group(
    cls=_StnkitGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: stnkit convert digits -o digits.bundle",
)
@click.version_option(package_name="stnkit", prog_name="stnkit")
@click.option("--traceback", is_flag=True, help="Show the traceback of an unexpected error.")
def group(traceback: bool) -> None:
    """Convert Keras models with spatial transformers to TFLite and ONNX, proven equal."""


def main() -> None:
    """Run the command line and exit."""
    try:
        group.main(standalone_mode=True, obj=OWN_PROCESS)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        sys.exit(0)
