"""Options that several commands share."""

from __future__ import annotations

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")

artifact_option = click.option(
    "--artifact",
    metavar="NAME",
    help="Artifact of the bundle, by file name or format (tflite, onnx).",
)

device_option = click.option(
    "--device",
    default="cpu",
    show_default=True,
    help="Where to run: cpu, cuda, or cuda:N for the GPU of that number.",
)

threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 256),
    help="Threads that share one run. Default: the backend's own choice.",
)
