"""Importing the runtime is cheap and brings nothing that it does not need."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import stnkit.runtime

ROOT = Path(stnkit.runtime.__file__).parent
FORBIDDEN = {"tensorflow", "keras", "tf2onnx", "onnx", "jsonschema"}


def fresh(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def loaded(code: str) -> set[str]:
    names = json.loads(fresh(f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"))
    return {name for name in names} | {name.split(".")[0] for name in names}


def test_import_takes_at_most_a_quarter_of_a_second():
    code = (
        "import time; start = time.perf_counter(); import stnkit.runtime; "
        "print(time.perf_counter() - start)"
    )
    assert min(float(fresh(code)) for _ in range(5)) <= 0.25


def test_import_brings_nothing_heavy():
    found = loaded("import stnkit.runtime")
    heavy = {*FORBIDDEN, "numpy", "PIL", "onnxruntime", "ai_edge_litert", "click", "rich"}
    assert found & heavy == set()


def test_all_public_names_together_bring_no_converter():
    found = loaded("from stnkit.runtime import *")
    assert found & {*FORBIDDEN, "stnkit.models", "stnkit.convert", "stnkit.cli"} == set()
    assert "onnxruntime" not in found


def test_running_brings_no_converter(both_path):
    found = loaded(
        "from stnkit.runtime import load, summarize, verify\n"
        f"path = {str(both_path)!r}\n"
        "assert verify(path).passed\n"
        "import numpy\n"
        "for name in ('tflite', 'onnx'):\n"
        "    with load(path, artifact=name) as session:\n"
        "        session.warp([numpy.zeros((4, 4), numpy.uint8)])\n"
        "        summarize(session._bundle.read(session.artifact.file))\n"
    )
    assert {"onnxruntime", "ai_edge_litert"} <= found
    assert found & {*FORBIDDEN, "stnkit.models", "stnkit.convert", "stnkit.cli"} == set()


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.name)
def test_no_module_imports_what_is_forbidden(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [item.name for item in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] not in FORBIDDEN
            assert not name.startswith(("stnkit.models", "stnkit.convert", "stnkit.cli"))


def test_public_names():
    names = stnkit.runtime.__all__
    assert names == sorted(names)
    assert set(stnkit.runtime._HOMES) == set(names)
    assert dir(stnkit.runtime) == names
    for name in names:
        assert getattr(stnkit.runtime, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = stnkit.runtime.nothing


def test_every_module_says_what_it_offers():
    for path in ROOT.rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        assigned = [
            target.id
            for node in tree.body
            if isinstance(node, (ast.Assign, ast.AnnAssign))
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        ]
        assert "__all__" in assigned, path
