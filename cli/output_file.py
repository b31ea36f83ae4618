"""Where a command may write a Keras file."""

from __future__ import annotations

from pathlib import Path

from stnkit.runtime.errors import InputError


def check_keras_output(output: Path, force: bool) -> None:
    """Check the path of a `.keras` file before anything slow happens.

    Raises:
        InputError: If it has another ending, exists and `force` is not given, or its folder does
            not exist.
    """
    if output.suffix != ".keras":
        raise InputError(f"{output}: --output takes a file name that ends in .keras")
    if output.exists() and not force:
        raise InputError(f"{output} exists: choose another --output, or pass --force to replace it")
    if not output.parent.is_dir():
        raise InputError(f"{output.parent}: no such folder: create it first")
