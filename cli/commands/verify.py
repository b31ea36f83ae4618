"""`stnkit verify`: prove that models are equal, or repeat the proof of a bundle on this device."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stnkit.cli.limits import (
    OWN_PROCESS,
    SECONDS,
    bounded,
    collect_seldom,
    free_early,
    outlive_crashes,
)
from stnkit.cli.native_output import native_stderr_hidden
from stnkit.cli.options import artifact_option, device_option, json_option, threads_option

if TYPE_CHECKING:
    from stnkit.runtime.equivalence.results import EquivalenceReport

_PATH = click.Path(path_type=Path)
_MODEL_SUFFIXES = (".tflite", ".onnx", ".keras", ".h5", ".hdf5")


@click.command(
    name="verify",
    short_help="Prove that models are equal, or repeat a bundle's proof on this device.",
    epilog="Example: stnkit verify digits model.tflite model.onnx --html report.html",
)
@click.argument("models", nargs=-1, required=True)
@artifact_option
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="A_NAME=B_NAME",
    help="Which input or output of the others is which of the first; give it for each.",
)
@click.option(
    "--layout",
    "layouts",
    multiple=True,
    metavar="LETTER=nchw",
    help="Layout of images in a model: A is the first, B the second; nhwc where none is given.",
)
@click.option(
    "--data",
    type=_PATH,
    help="Real inputs to compare on as well: a folder of images, a .npz or a .npy file.",
)
@click.option(
    "--atol",
    "tolerances",
    multiple=True,
    metavar="NAME=VALUE",
    help="What may differ at outputs, theta, warped or the tensor of that name, in place of the "
    "computed error budget; give it for each.",
)
@click.option(
    "--input-range",
    type=float,
    nargs=2,
    default=(0.0, 1.0),
    show_default=True,
    metavar="LOW HIGH",
    help="Smallest and largest value of an image.",
)
@click.option(
    "--seed", type=click.IntRange(0), help="Seed of the probes. Default: always the same."
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "float16_weights", "float16", "int8_weights", "int8"]),
    default="auto",
    show_default=True,
    help="Judge the others as computing in this precision; auto takes it from each file.",
)
@click.option("--bisect", is_flag=True, help="Find the first layer where a model leaves the first.")
@threads_option
@device_option
@click.option("--html", type=_PATH, metavar="FILE", help="Write a report for people.")
@click.option("--junit", type=_PATH, metavar="FILE", help="Write a report for a CI server.")
@click.option(
    "--annotations", is_flag=True, help="Print GitHub Actions annotations, and fill its summary."
)
@click.option(
    "--custom-objects",
    multiple=True,
    metavar="MODULE:ATTR",
    help="Your own layer, looked for in the working directory too; give it once for each.",
)
@click.option("--trusted", is_flag=True, help="Run the Python code that Lambda layers carry.")
@click.option(
    "--time-limit",
    type=click.IntRange(1, 10**6),
    default=SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Longest that the comparison may take: a file can be made to run for ever.",
)
@click.option(
    "--memory-limit",
    type=click.IntRange(256, 2**30),
    metavar="MIB",
    help="Most memory that it may take, on Linux: a small file can ask for terabytes. Default: 90 "
    "% of what is available.",
)
@json_option
def command(models: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Compare MODELS with the first of them, or repeat the proof of a single bundle.

    A model is a .keras or .h5 file, a SavedModel folder, a .tflite or .onnx file made by anything,
    a bundle, or the name of a shipped model ("digits"). They are run on probes that find what goes
    wrong in practice, and compared at their outputs, at theta and at the warped image of every
    spatial transformer; what may differ is computed for the model and printed.

    A single BUNDLE is run on its stored probes and compared with the stored answers of its source,
    without TensorFlow. Exit code 1 if a model differs.
    """
    if click.get_current_context().obj is OWN_PROCESS:
        outlive_crashes()
        free_early()
        collect_seldom()
    reports = given["html"] or given["junit"] or given["annotations"]
    if len(models) == 1 and not reports:
        _stored_proof(Path(models[0]), given, as_json)
        return
    report = _compare(models, given)
    _write_reports(report, given)
    if as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        from stnkit.cli.views.comparison import print_comparison

        print_comparison(report)
    for candidate in report.candidates:
        if not candidate.passed:
            from stnkit.runtime.errors import MismatchError

            raise MismatchError(candidate.proof.file, candidate.proof.failures)


def _limited(given: dict[str, Any]) -> AbstractContextManager[None]:
    """Return the bounds for whatever runs models: nothing is written meanwhile."""
    return bounded(given["time_limit"], given["memory_limit"])


def _stored_proof(bundle: Path, given: dict[str, Any], as_json: bool) -> None:
    from stnkit.cli.views.verification import print_verification
    from stnkit.runtime import open_bundle, raise_on_mismatch, verify
    from stnkit.runtime.errors import InputError

    if bundle.suffix.lower() in _MODEL_SUFFIXES:
        raise InputError(f"{bundle}: is a single model: name the model to compare it with as well")
    with native_stderr_hidden(), _limited(given):
        opened = open_bundle(bundle)
        report = verify(
            opened,
            artifact=given["artifact"],
            threads=given["threads"],
            device=given["device"],
        )
    if as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        print_verification(opened.manifest, report)
    for part in report.artifacts:
        if part.not_run is None:
            raise_on_mismatch(part)


def _compare(models: tuple[str, ...], given: dict[str, Any]) -> EquivalenceReport:
    from stnkit.cli.values import layouts_by_number, name_pairs, tolerances_by_name, value_range
    from stnkit.runtime.equivalence.engine import compare_models
    from stnkit.runtime.equivalence.options import CompareOptions
    from stnkit.runtime.equivalence.stored import compare_bundle
    from stnkit.runtime.errors import InputError

    if given["device"] != "cpu":
        raise InputError(
            "--device is for the stored proof of a single bundle, without a report: leave it out"
        )
    options = CompareOptions(
        maps=name_pairs(given["maps"]),
        layouts=layouts_by_number(given["layouts"], len(models)),
        data=given["data"],
        atol=tolerances_by_name(given["tolerances"]),
        value_range=value_range(given["input_range"]),
        threads=given["threads"],
        precision=None if given["precision"] == "auto" else given["precision"],
        bisect=given["bisect"],
        views=given["html"] is not None,
        custom_objects=given["custom_objects"],
        trusted=given["trusted"],
        **({} if given["seed"] is None else {"seed": given["seed"]}),
    )
    with native_stderr_hidden(), _limited(given):
        if len(models) == 1:
            return compare_bundle(models[0], options, given["artifact"])
        if given["artifact"] is not None:
            raise InputError("--artifact is for a single bundle: name the artifact's file instead")
        return compare_models(models[0], models[1:], options)


def _write_reports(report: EquivalenceReport, given: dict[str, Any]) -> None:
    from stnkit.cli.report_files import append_step_summary, write_report
    from stnkit.runtime.equivalence import workflow_commands, write_html, write_junit

    if given["html"]:
        write_report(given["html"], write_html(report))
    if given["junit"]:
        write_report(given["junit"], write_junit(report))
    if given["annotations"]:
        # GitHub reads both streams; on stderr they do not spoil --json.
        click.echo(workflow_commands(report), err=True, nl=False)
        append_step_summary(report)
