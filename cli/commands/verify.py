"""`stnkit verify`: repeat the proof of a bundle on this device."""

from __future__ import annotations

import json
from pathlib import Path

import click

from stnkit.cli.native_output import native_stderr_hidden
from stnkit.cli.options import artifact_option, json_option, threads_option


@click.command(
    name="verify",
    short_help="Repeat a bundle's proof on this device, without TensorFlow.",
    epilog="Example: stnkit verify digits.bundle",
)
@click.argument("bundle", type=click.Path(path_type=Path))
@artifact_option
@threads_option
@json_option
def command(bundle: Path, artifact: str | None, threads: int | None, as_json: bool) -> None:
    """Run every artifact of BUNDLE on its stored probes and compare with the source's answers.

    The probes come with what the Keras model computed: its outputs, and theta and the warped image
    of every spatial transformer. TensorFlow is not needed. Exit code 1 if an artifact differs.
    """
    from stnkit.cli.views.verification import print_verification
    from stnkit.runtime import open_bundle, raise_on_mismatch, verify

    with native_stderr_hidden():
        opened = open_bundle(bundle)
        report = verify(opened, artifact=artifact, threads=threads)
    if as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        print_verification(opened.manifest, report)
    for part in report.artifacts:
        if part.not_run is None:
            raise_on_mismatch(part)
