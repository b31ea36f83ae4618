"""`stnkit inspect`: what is inside a model, a bundle or a converted file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from stnkit.cli.native_output import native_stderr_hidden
from stnkit.cli.options import json_option


@click.command(
    name="inspect",
    short_help="Show signature, ops, sizes and transformers of a model, bundle or file.",
    epilog="Example: stnkit inspect digits.bundle",
)
@click.argument("what", metavar="MODEL|BUNDLE|FILE")
@click.option(
    "--custom-objects",
    multiple=True,
    metavar="MODULE:ATTR",
    help="Your own layer, for a Keras model that has one.",
)
@click.option("--trusted", is_flag=True, help="Run the Python code that Lambda layers carry.")
@json_option
def command(what: str, custom_objects: tuple[str, ...], trusted: bool, as_json: bool) -> None:
    """Show what is inside a Keras model, a bundle, or a .tflite or .onnx file.

    Bundles and converted files need no TensorFlow.
    """
    from stnkit.cli.inspection import inspect_bundle, inspect_file, inspect_model
    from stnkit.cli.views.inspection import print_inspection
    from stnkit.runtime.errors import InputError

    path = Path(what)
    with native_stderr_hidden():
        if (path / "manifest.json").exists():
            found = inspect_bundle(path)
        elif path.suffix in (".tflite", ".onnx"):
            if not path.is_file():
                raise InputError(f"{path}: no such file")
            found = inspect_file(path)
        else:
            found = inspect_model(what, custom_objects, trusted)
    if as_json:
        click.echo(json.dumps(found))
    else:
        print_inspection(found)
