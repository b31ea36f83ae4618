"""The examples do what their first lines say: a model that knows nothing of stnkit is proven."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
STNKIT = Path(sys.executable).with_name("stnkit")


def run(*command, cwd, code=0):
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert result.returncode == code, result.stderr
    return result.stdout


def test_a_stranger_s_gather_nd_model_is_converted_and_proven(tmp_path):
    source = (EXAMPLES / "gather_nd_model.py").read_text("utf-8")
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert imported == {"sys", "keras", "numpy", "tensorflow"}
    model, bundle = tmp_path / "mine.keras", tmp_path / "mine.bundle"
    run(sys.executable, EXAMPLES / "gather_nd_model.py", model, cwd=tmp_path)
    own = ("--custom-objects", "gather_nd_model:OwnTransformer")
    said = run(STNKIT, "convert", model, "-o", bundle, *own, cwd=EXAMPLES)
    assert "No spatial transformer of stnkit's was found" in said
    files = [bundle / "model.fp32.tflite", bundle / "model.fp32.onnx"]
    said = run(STNKIT, "verify", model, *files, *own, cwd=EXAMPLES)
    assert len(re.findall(r"equal$", said, re.MULTILINE)) == 2
    # Without TensorFlow: the one file against the other.
    assert "equal" in run(STNKIT, "verify", *files, cwd=tmp_path)
