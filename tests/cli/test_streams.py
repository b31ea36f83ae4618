"""What goes to a terminal, to a pipe, to stdout and to stderr, seen from outside the process."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

STNKIT = Path(sys.executable).with_name("stnkit")
BOX = "┏━┳┓│└┴┘"


def on_a_terminal(*arguments, columns=100):
    """Run a command with a terminal as its stdout; return its exit code and what it showed."""
    primary, secondary = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "LINES": "30", "TERM": "xterm-256color"}
    with subprocess.Popen(
        [STNKIT, *arguments], stdin=secondary, stdout=secondary, stderr=secondary, env=environment
    ) as process:
        os.close(secondary)
        shown = b""
        try:
            while chunk := os.read(primary, 65536):
                shown += chunk
        except OSError:  # EIO: the process closed the terminal
            pass
        os.close(primary)
        code = process.wait(60)
    return code, shown.decode()


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_a_terminal_gets_a_table(columns, digits_bundle):
    code, shown = on_a_terminal("verify", str(digits_bundle), columns=columns)
    assert code == 0
    assert set(BOX) <= set(shown)
    for cell in ("artifact", "model.fp32.tflite", "model.fp32.onnx", "verdict", "equal"):
        assert cell in shown
    assert all(len(line.rstrip("\r")) <= columns for line in shown.splitlines() if "│" in line)


def test_a_terminal_sees_progress_and_the_result(scratch):
    code, shown = on_a_terminal("convert", "digits", "-o", "x.bundle", "--to", "tflite")
    assert code == 0
    assert "exporting to TFLite" in shown
    assert "Published: x.bundle" in shown
    assert "│ model.fp32.tflite" in shown
    for noise in ("WARNING", "INFO", "I0000", "W0000", "oneDNN", "delegate"):
        assert noise not in shown


def test_a_pipe_gets_plain_lines(digits_bundle, process):
    result = process("verify", digits_bundle)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.isascii()
    assert "\x1b" not in result.stdout
    assert result.stdout.splitlines()[0].startswith("artifact ")


def test_converting_adds_no_noise(process, samples, scratch):
    arguments = ["convert", "digits", "-o", "x.bundle", "--samples", samples, "--json"]
    result = process(*arguments)
    assert result.returncode == 0
    assert json.loads(result.stdout)["passed"] is True
    assert result.stdout.count("\n") == 1
    assert result.stderr.splitlines() == [
        "starting TensorFlow",
        "loading digits",
        "freezing the model",
        "running the model on the probes",
        "exporting to TFLite",
        "comparing model.fp32.tflite with the model",
        "exporting to ONNX",
        "comparing model.fp32.onnx with the model",
        "classifying 200 labelled images",
        "publishing the bundle",
    ]


def test_running_adds_no_noise(digits_bundle, digit, process):
    for artifact in ("tflite", "onnx"):
        arguments = ["run", digits_bundle, digit, "--artifact", artifact, "--save-warp", "seen"]
        result = process(*arguments, "--json")
        assert (result.returncode, result.stderr) == (0, "")
        assert json.loads(result.stdout)["artifact"] == f"model.fp32.{artifact}"


def test_an_error_is_all_that_stderr_holds(refused_process, keras_file, scratch):
    (scratch / "x.keras").write_bytes(keras_file.read_bytes()[:5_000])
    line = refused_process("convert", "x.keras", "-o", "x.bundle", says=["truncated"])
    assert line.count("error") == 1
    refused_process("inspect", "x.keras", says=["truncated"])


def test_a_reader_that_leaves_is_no_error(digits_bundle):
    with subprocess.Popen(
        [STNKIT, "inspect", digits_bundle], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) in (0, 1)


def test_a_closed_stderr_is_no_error(digits_bundle):
    command = f"exec '{STNKIT}' verify '{digits_bundle}' 2>&-"
    result = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, check=False)
    assert result.returncode == 0
    assert b"2 of 2 artifacts" in result.stdout
