"""`stnkit bench`: how long the artifacts of a bundle take on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import click

from stnkit.cli.native_output import native_stderr_hidden
from stnkit.cli.options import artifact_option, device_option, json_option, threads_option


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
@device_option
@click.option(
    "--rounds",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Turns of each artifact. Default: 20, and down to 5 where a run takes long.",
)
@click.option(
    "--serve",
    "serving",
    is_flag=True,
    help="Time it served over HTTP, next to the bare session.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 4096),
    multiple=True,
    metavar="N",
    help="With --serve: requests at a time; give it once for each. Default: 1, 8 and 32.",
)
@json_option
def command(
    bundle: Path,
    artifact: str | None,
    threads: int | None,
    batches: tuple[int, ...],
    device: str,
    rounds: int | None,
    serving: bool,
    connections: tuple[int, ...],
    as_json: bool,
) -> None:
    """Time every artifact of BUNDLE on this machine, side by side.

    Runs through LiteRT and ONNX Runtime, without TensorFlow, on the bundle's stored probes or on
    noise. What is printed are medians and quartiles; a ratio compares turns of one round.

    With --serve one artifact is served by a process of its own and loaded by another; the bare
    session beside it has the same threads.
    """
    if connections and not serving:
        raise click.UsageError("--connections is of --serve: give both")
    if serving:
        _serve(bundle, artifact, threads, batches, device, rounds, connections, as_json=as_json)
        return
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


def _serve(
    bundle: Path,
    artifact: str | None,
    threads: int | None,
    batches: tuple[int, ...],
    device: str,
    rounds: int | None,
    connections: tuple[int, ...],
    *,
    as_json: bool,
) -> None:
    from stnkit.cli.extras import require_serve

    if len(batches) > 1:
        raise click.UsageError("--serve takes one --batch: the items of a request")
    require_serve()
    from stnkit.cli.progress import StageProgress
    from stnkit.cli.views.serving import print_serving
    from stnkit.runtime.serving import ModelOptions
    from stnkit.runtime.timing.serving import CONNECTIONS, time_serving

    with native_stderr_hidden(), StageProgress(quiet=as_json) as progress:
        report = time_serving(
            bundle,
            ModelOptions(device=device, artifact=artifact, threads=threads),
            batch=batches[0] if batches else 1,
            connections=connections or CONNECTIONS,
            rounds=rounds,
            on_stage=progress.stage,
        )
    if as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        print_serving(report)
