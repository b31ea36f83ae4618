"""The README's commands and code run as they stand; its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks():
    """Return (language, text) of every fenced block of the README, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_every_block_in_order(tmp_path):
    """Run the console and python blocks in one empty folder, as a newcomer would."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ran = []
    for language, text in blocks():
        if language == "console":
            commands = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
            assert len(commands) == len(text.splitlines())
        elif language == "python":
            script = tmp_path / "block.py"
            script.write_text(text, "utf-8")
            commands = [f"{sys.executable} {script.name}"]
        else:
            continue
        for command in commands:
            result = subprocess.run(
                command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
            ran.append((command, result.stdout))
    outputs = dict(ran)
    assert len([command for command in outputs if command.startswith("stnkit")]) == 10
    verified = outputs["stnkit verify digits.bundle"]
    assert verified.count("equal") == 2
    assert outputs["stnkit bench digits.bundle"].count("fastest") == 3  # two, and the heading
    assert any(said.split("\n")[:2] == ["7", "(4, 10)"] for _, said in ran)
    compared = next(said for command, said in ran if "--html report.html" in command)
    assert compared.count(" equal") == 2
    assert (tmp_path / "report.html").is_file()
    assert len(list((tmp_path / "seen").glob("*.png"))) == 2


def test_the_table_is_what_convert_prints():
    """The README's example of a table has the columns that the command has."""
    from stnkit.cli.views import conversion

    source = Path(conversion.__file__).read_text("utf-8")
    table = next(text for language, text in blocks() if language == "text")
    for heading in re.split(r"\s{2,}", table.splitlines()[0]):
        assert heading in source


def test_shell_blocks_name_things_that_exist():
    """Blocks that are not run (setting up, training, installing) name real targets and options."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    text = "\n".join(text for language, text in blocks() if language == "sh")
    targets = re.findall(r"^make (\w+)", text, flags=re.MULTILINE)
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    for extra in {
        name for group in re.findall(r"stnkit\[([\w,]+)\]", text) for name in group.split(",")
    }:
        assert re.search(rf"^{extra} = \[", project, flags=re.MULTILINE)
    from stnkit.cli.commands.train import digits

    known = {option for parameter in digits.params for option in parameter.opts}
    (training,) = re.findall(r"^stnkit train digits (.*)$", text, flags=re.MULTILINE)
    assert set(re.findall(r"--[\w-]+", training)) <= known


def test_accuracy_is_the_one_that_was_measured():
    from stnkit.models.pretrained import provenance

    accuracy = provenance("digits")["accuracy"]
    assert f"{accuracy['distorted_test_digits']:.2%}".replace("%", " %") in README
    assert f"{accuracy['count']:,} such digits" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).is_file(), target
