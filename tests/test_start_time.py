"""The command line starts fast, because it loads nothing that it does not need yet."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

LIMIT_S = 0.3
STNKIT = Path(sys.executable).with_name("stnkit")
HEAVY = {"tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "ai_edge_litert", "h5py"}
NOT_YET = {*HEAVY, "numpy", "PIL", "stnkit.models", "stnkit.convert"}

PROBE = """
import json, sys
from stnkit.cli.main import group
try:
    group.main(sys.argv[1:], prog_name="stnkit")
except SystemExit as end:
    assert end.code == 0, end.code
print("\\n" + json.dumps(sorted(sys.modules)))
"""


def modules_after(*arguments):
    """Return what a command has loaded in a fresh interpreter when it ends."""
    result = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", PROBE, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def seconds(*arguments):
    start = time.perf_counter()
    subprocess.run([STNKIT, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def test_help_is_fast():
    seconds("--help")  # the first start writes bytecode
    # Other tests share the machine: the best of the runs is what the command itself takes.
    best = seconds("--help")
    for _ in range(9):
        if best <= LIMIT_S:
            break
        best = min(best, seconds("--help"))
    assert best <= LIMIT_S


@pytest.mark.parametrize(
    "arguments",
    ["--help", "--version", *(f"{c} --help" for c in ("convert", "verify", "run", "inspect"))],
)
def test_help_loads_nothing_heavy(arguments):
    assert modules_after(*arguments.split()) & NOT_YET == set()


def test_help_of_the_rest_loads_nothing_heavy():
    for arguments in ("bench --help", "samples --help", "train --help", "train digits --help"):
        assert modules_after(*arguments.split()) & NOT_YET == set()


def test_writing_samples_loads_no_tensorflow(tmp_path):
    loaded = modules_after("samples", "digits", "--output", str(tmp_path / "samples"))
    assert "PIL" in loaded
    assert loaded & HEAVY == set()
