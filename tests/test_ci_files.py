"""The files that other people's CI reads: the action, the hook, what docs/ci.md says of them."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PAGE = (ROOT / "docs" / "ci.md").read_text("utf-8")

FAKE_STNKIT = """#!/bin/sh
for word in "$@"; do printf '%s\\0' "$word"; done > "$SEEN"
exit "$FAKE_STATUS"
"""


def texts(node):
    """Yield every string of a YAML document."""
    if isinstance(node, dict):
        for value in node.values():
            yield from texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from texts(value)
    elif isinstance(node, str):
        yield node


def test_every_step_of_the_action_is_whole():
    assert ACTION["runs"]["using"] == "composite"
    for step in STEPS.values():
        assert ("run" in step) != ("uses" in step), step
        if "run" in step:
            assert step["shell"] == "bash"
        else:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])


def test_scripts_hold_no_expression():
    """What `${{ }}` puts into a script is run, whatever it says."""
    for step in STEPS.values():
        assert "${{" not in step.get("run", "")


def test_inputs_and_outputs_exist():
    used = set(re.findall(r"inputs\.([\w-]+)", "\n".join(texts(ACTION))))
    assert used == set(ACTION["inputs"])
    for name, spec in ACTION["inputs"].items():
        assert spec["required"] == ("default" not in spec), name
        assert spec["description"]
    steps = {step["id"]: step for step in STEPS.values() if "id" in step}
    for step, output in re.findall(r"steps\.([\w-]+)\.outputs\.([\w-]+)", "\n".join(texts(ACTION))):
        assert re.search(rf"\b{output}(=|<<)", steps[step]["run"]), output


def test_every_variable_of_a_script_is_given():
    for step in STEPS.values():
        if "run" in step:
            assert set(re.findall(r"\$(STNKIT_\w+)", step["run"])) == set(step["env"])


def test_the_report_is_kept_when_a_model_differs():
    step = STEPS["Keep the report"]
    assert step["if"].startswith("always()")
    assert step["with"]["path"] == "${{ inputs.report-dir }}"


def run_step(name, folder, **variables):
    output = folder / "github-output"
    output.touch()
    environment = {
        "PATH": os.environ["PATH"],
        "RUNNER_TEMP": str(folder),
        "GITHUB_OUTPUT": str(output),
        **variables,
    }
    result = subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", STEPS[name]["run"]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return result, output.read_text()


def verify_step(folder, status=0, **variables):
    """Run the action's script with a program that notes its arguments; return those as well."""
    binary = folder / "bin" / "stnkit"
    binary.parent.mkdir()
    binary.write_text(FAKE_STNKIT)
    binary.chmod(0o755)
    seen = folder / "seen"
    values = {
        "STNKIT_REFERENCE": "digits.keras",
        "STNKIT_CANDIDATES": "a.onnx\n",
        "STNKIT_ARGS": "",
        "STNKIT_REPORT_DIR": "reports",
        "STNKIT_BIN": str(binary.parent),
        "SEEN": str(seen),
        "FAKE_STATUS": str(status),
        **variables,
    }
    result, output = run_step("Verify", folder, **values)
    return result, output, seen.read_text().split("\0")[:-1]


@pytest.mark.parametrize("status", [0, 1, 2])
def test_the_action_keeps_the_exit_code(status, tmp_path):
    result, output, words = verify_step(tmp_path, status)
    assert result.returncode == status, result.stderr
    assert f"exit-code={status}\n" in output
    assert "reports/report.html\n" in output
    assert words == [
        *("verify", "--html", "reports/report.html", "--junit", "reports/junit.xml"),
        *("--annotations", "--", "digits.keras", "a.onnx"),
    ]


def test_hostile_inputs_of_the_action_stay_words(tmp_path):
    result, _, words = verify_step(
        tmp_path,
        STNKIT_REFERENCE='$(touch pwned) "; touch pwned; `touch pwned`',
        STNKIT_CANDIDATES="a b.onnx\n\n-dash.tflite\n*\n",
        STNKIT_ARGS="--atol\nscores=1e-5; touch pwned",
    )
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "pwned").exists()
    assert words[6:] == [
        *("--atol", "scores=1e-5; touch pwned", "--"),
        *('$(touch pwned) "; touch pwned; `touch pwned`', "a b.onnx", "-dash.tflite", "*"),
    ]


@pytest.mark.parametrize(
    ("reference", "candidates", "extras"),
    [
        ("digits.keras", "a.onnx", "cpu,convert"),
        ("a.onnx", "old.h5\n", "cpu,convert"),
        ("a.onnx", "a.tflite\n", "cpu"),
        ("saved", "a.onnx", "cpu,convert"),
        ("digits.bundle", "", "cpu"),
        ("digits", "a.onnx", "cpu,convert"),
    ],
)
def test_the_action_installs_tensorflow_where_it_is_needed(reference, candidates, extras, tmp_path):
    for name in ("a.onnx", "a.tflite"):
        (tmp_path / name).touch()
    (tmp_path / "digits.bundle").mkdir()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    fake = tmp_path / "fake"
    fake.mkdir()
    # `python -m venv DIR` makes a python there that notes what pip is asked for.
    (fake / "python").write_text(
        f'#!/bin/sh\nmkdir -p "$3/bin"\n'
        f'printf \'#!/bin/sh\\nfor w in "$@"; do l=$w; done; echo "$l" > "{tmp_path}/asked"\\n\' '
        '> "$3/bin/python"\nchmod +x "$3/bin/python"\n'
    )
    (fake / "python").chmod(0o755)
    result, output = run_step(
        "Install stnkit",
        tmp_path,
        PATH=f"{fake}:{os.environ['PATH']}",
        STNKIT_REFERENCE=reference,
        STNKIT_CANDIDATES=candidates,
        STNKIT_SOURCE="/src/stnkit",
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "asked").read_text() == f"/src/stnkit[{extras}]\n"
    assert output == f"bin={tmp_path}/stnkit/bin\n"


def test_the_hook_is_whole():
    (hook,) = HOOKS
    assert hook["id"] == "stnkit-verify"
    assert hook["entry"] in PROJECT["scripts"]
    assert hook["language"] == "python"
    assert hook["require_serial"] is True
    # Without a backend for ONNX it could not repeat the proof of half the artifacts.
    assert hook["additional_dependencies"] == PROJECT["optional-dependencies"]["cpu"]


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("digits.bundle/manifest.json", True),
        ("manifest.json", True),
        ("a/b/model.fp32.tflite", True),
        ("a/golden.npz", True),
        ("app/webmanifest.json", False),
        ("README.md", False),
        ("model.onnx.md", False),
    ],
)
def test_the_hook_is_passed_the_files_of_bundles(file, counts):
    assert (re.search(HOOKS[0]["files"], file) is not None) == counts


def test_the_plugin_is_announced_to_pytest():
    points = PROJECT["entry-points"]["pytest11"]
    assert points == {"stnkit": "pytest_stnkit"}


def test_the_page_names_what_there_is():
    for name, spec in ACTION["inputs"].items():
        default = spec.get("default")
        assert re.search(rf"^\| `{name}` \|.*{default or ''}", PAGE, flags=re.MULTILINE), name
    assert f"id: {HOOKS[0]['id']}" in PAGE
    for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL):
        document = yaml.safe_load(block)
        for step in [it for it in texts(document) if it.startswith("OWNER/stnkit@")]:
            assert re.fullmatch(r"OWNER/stnkit@v\d+\.\d+\.\d+", step)
    (used,) = re.findall(r"uses: OWNER/stnkit.*?with:\n(.*?)^```", PAGE, re.M | re.S)
    assert set(re.findall(r"^ {10}([\w-]+):", used, re.M)) <= set(ACTION["inputs"])


def test_ci_installs_the_browser():
    assert "make browser" in (ROOT / ".ci" / "run").read_text()
    assert re.search(r"^browser:", (ROOT / "Makefile").read_text(), re.M)
