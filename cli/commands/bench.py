"""`stnkit bench`: how long the artifacts of a bundle take on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import click

from stnkit.cli.native_output import native_stderr_hidden
from stnkit.cli.options import artifact_option, json_option, threads_option


@click.command(
    name="bench",
    short_help="Time the artifacts of a bundle on this machine.",
    epilog="Example: stnkit bench digits.bundle --threads 1 --batch 1 --batch 32",
)
@click.argument("bundle", type=click.Path(path_type=Path))
@artifact_option
@threads_option
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(1, 65536),
    multiple=True,
    metavar="N",
    help="Items in one run; give it once for each. Default: 1 and 8, or the only one that an "
    "artifact takes.",
)
@click.option("--device", default="cpu", show_default=True, help="Where to run: cpu.")
@click.option(
    "--rounds",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Turns of each artifact. Default: 20, and down to 5 where a run takes long.",
)
@json_option
def command(
    bundle: Path,
    artifact: str | None,
    threads: int | None,
    batches: tuple[int, ...],
    device: str,
    rounds: int | None,
    as_json: bool,
) -> None:
    """Time every artifact of BUNDLE on this machine, side by side.

    Runs through LiteRT and ONNX Runtime, without TensorFlow, on the bundle's stored probes or on
    noise. What is printed are medians and quartiles; a ratio compares turns of one round.
    """
    from stnkit.cli.progress import StageProgress
    from stnkit.cli.views.bench import print_timing
    from stnkit.runtime import time_bundle

    with native_stderr_hidden(), StageProgress(quiet=as_json) as progress:
        report = time_bundle(
            bundle,
            artifact=artifact,
            threads=threads,
            batches=batches,
            device=device,
            rounds=rounds,
            on_batch=lambda batch, files: progress.stage(
                f"timing {', '.join(files)} at batch {batch}"
            ),
        )
    if as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        print_timing(report)
