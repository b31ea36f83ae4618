"""Help, version, and wrong use of the commands themselves."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from stnkit.cli.main import group

COMMANDS = [
    "convert",
    "verify",
    "run",
    "serve",
    "bench",
    "inspect",
    "samples",
    "models",
    "models list",
    "models new",
    "train",
    "train digits",
    "train registration",
    "train segmentation",
]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_that_the_command_accepts(name, stnkit):
    text = stnkit(*name.split(), "--help").stdout
    example = re.search(r"Example: stnkit (.+)", " ".join(text.split()))
    assert example, text
    words = shlex.split(example[1])
    assert " ".join(words).startswith(name)
    context = click.Context(group, info_name="stnkit")
    command: click.Command = group
    while isinstance(command, click.Group):
        command = command.get_command(context, words.pop(0))
    # Parsing alone: an option that was renamed since would be refused here.
    assert command.make_context(command.name, words, parent=context).params


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_every_option_does(name):
    context = click.Context(group, info_name="stnkit")
    command: click.Command = group
    for word in name.split():
        command = command.get_command(context, word)
    assert command.help
    for option in command.params:
        if isinstance(option, click.Option) and option.name not in ("epochs", "seed", "batch_size"):
            assert option.help, f"{name} {option.name}"


def test_help_lists_every_command(stnkit):
    text = stnkit("--help").stdout
    listed = re.findall(r"^  (\w+)  +\S", text.partition("Commands:")[2], re.MULTILINE)
    assert listed == [name for name in COMMANDS if " " not in name]
    assert "Example: stnkit convert digits -o digits.bundle" in text


def test_short_help_option(stnkit):
    assert stnkit("verify", "-h").stdout == stnkit("verify", "--help").stdout


def test_version(stnkit):
    assert re.fullmatch(r"stnkit, version \d+\.\d+\.\d+\n", stnkit("--version").stdout)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--nonsense", ["--nonsense", "stnkit --help"]),
        ("translate", ["translate", "stnkit --help"]),
        ("convert", ["MODEL", "stnkit convert --help"]),
        ("convert digits", ["--output", "stnkit convert --help"]),
        ("convert digits -o x --opset 15", ["--opset", "15", "16", "22"]),
        ("convert digits -o x --opset 23", ["--opset", "23", "16", "22"]),
        ("convert digits -o x --to coreml", ["--to", "coreml", "tflite", "onnx"]),
        ("convert digits -o x --input-range 0 white", ["--input-range", "white"]),
        ("convert digits -o x --input-range 1 0", ["--input-range", "1.0 0.0", "lower first"]),
        ("convert digits -o x --input-range 0 inf", ["--input-range", "inf"]),
        ("convert digits -o x --batch 0", ["--batch", "'0'", "dynamic"]),
        ("convert digits -o x --batch x", ["--batch", "'x'", "dynamic"]),
        ("convert digits -o x --batch -3", ["--batch", "'-3'", "dynamic"]),
        ("convert digits -o x --batch 99999999", ["--batch", "65536"]),
        ("convert digits -o x --autotune --sampler gather", ["--autotune", "--sampler gather"]),
        ("convert digits -o x --mean a,b", ["--mean", "'a,b'", "numbers"]),
        ("convert digits -o x --mean nan", ["--mean", "'nan'"]),
        ("convert digits -o x --std 1,,2", ["--std", "'1,,2'"]),
        ("convert digits -o x --labels none.txt", ["--labels none.txt", "No such file"]),
        ("verify nowhere --threads 0", ["--threads", "0"]),
        ("run nowhere", ["IMAGES", "stnkit run --help"]),
        ("samples letters -o x", ["MODEL", "letters", "digits"]),
        ("train letters -o x.keras", ["letters", "stnkit train --help"]),
        ("train digits -o x.keras --epochs 0", ["--epochs", "0"]),
        ("train digits -o x.h5", ["x.h5", ".keras"]),
        ("train digits -o no/such/x.keras", ["no/such", "no such folder"]),
    ],
)
def test_wrong_use_is_one_line(arguments, says, refused):
    refused(*arguments.split(), says=says)


def test_no_command_at_all_shows_the_help(stnkit):
    result = stnkit(code=2)
    assert "Commands:" in result.stderr
    assert "error:" not in result.stderr


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00zero"])
def test_a_file_of_labels_that_holds_none(content, scratch, refused):
    (scratch / "labels.txt").write_bytes(content)
    refused("convert", "digits", "-o", "x", "--labels", "labels.txt", says=["--labels labels.txt"])


def test_a_bug_is_told_from_a_mistake(stnkit, monkeypatch, scratch):
    def broken(name):
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr("stnkit.models.pretrained.samples", broken)
    from click.testing import CliRunner

    result = CliRunner().invoke(group, ["samples", "digits", "-o", "x"])
    assert result.exit_code == 3
    assert result.stderr.count("\n") == 1
    assert "first line" in result.stderr
    assert "--traceback" in result.stderr
    result = CliRunner().invoke(group, ["--traceback", "samples", "digits", "-o", "x"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_a_full_disk_is_no_bug(monkeypatch, refused):
    def full(name):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("stnkit.models.pretrained.samples", full)
    refused("samples", "digits", "-o", "x", says=["No space left on device", "somewhere"])
