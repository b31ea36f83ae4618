"""`stnkit samples`: the sample images of a shipped model as files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from stnkit.cli.options import json_option


@click.command(
    name="samples",
    short_help="Write the sample images of a shipped model as PNG files.",
    epilog="Example: stnkit samples digits --output samples",
)
@click.argument("model", metavar="MODEL", type=click.Choice(["digits"]))
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), required=True, help="Folder to write to."
)
@click.option("--force", is_flag=True, help="Write into a folder that has files already.")
@json_option
def command(model: str, output: Path, force: bool, as_json: bool) -> None:
    """Write the sample images of MODEL as PNG files, with their labels in labels.csv.

    For digits: 200 handwritten test digits, rotated, scaled and shifted; the label is also at the
    end of each file's name.
    """
    from stnkit.cli.sample_files import write_samples
    from stnkit.models.pretrained import samples

    files = write_samples(samples(model), output, force)
    if as_json:
        click.echo(json.dumps({"folder": str(output), "files": [file.name for file in files]}))
    else:
        click.echo(f"{len(files)} images and labels.csv written to {output}")
