"""docs/serving.md: its commands and code run as they stand, and its tables are what is there."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from stnkit.runtime.serving import Limits
from stnkit.runtime.serving.http.app import ServingApp

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text("utf-8")
HELPERS = ROOT / "tests" / "runtime" / "serving" / "served_process.py"


def blocks(language):
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert found
    return found


@pytest.fixture
def server(bundle, samples, scratch, tmp_path):
    """Return the server that the page's first command starts, at a free port."""
    shutil.copytree(samples, scratch / "samples")
    if HELPERS.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(HELPERS.stem, HELPERS)
        sys.modules[HELPERS.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[HELPERS.stem])
    command = blocks("console")[0].splitlines()[0]
    assert command == "$ stnkit serve digits.bundle"
    with sys.modules[HELPERS.stem].processes(tmp_path) as start:
        yield start(*command.split()[3:])


def run(command, port):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    result = subprocess.run(
        command.replace("localhost:8000", f"localhost:{port}"),
        shell=True,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def test_commands(server):
    if shutil.which("curl") is None:
        pytest.skip("the page asks with curl")
    lines = "".join(blocks("console")).splitlines()
    first, second = [
        json.loads(run(line.removeprefix("$ "), server.port)) for line in lines if "curl" in line
    ]
    shown = json.loads(blocks("json")[0])
    assert first["predictions"][0].pop("score") == pytest.approx(
        shown["predictions"][0].pop("score"), abs=1e-4
    )
    assert first == shown
    assert second["id"] == "mine"
    assert len(second["predictions"]) == 2
    assert second["predictions"][0]["label"] == "2"


def test_python_for_ray(bundle, scratch, monkeypatch):
    """Without Ray: it is given a function, which it can pickle, and which makes an application."""
    given = []
    serve = types.SimpleNamespace(
        ingress=lambda made: given.append(made) or (lambda cls: cls),
        deployment=lambda **options: lambda cls: types.SimpleNamespace(bind=lambda: options),
    )
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(serve=serve))
    monkeypatch.chdir(scratch)
    exec(compile(blocks("python")[2], "hosted_ray.py", "exec"), {"__name__": "hosted_ray"})
    (made,) = given
    assert isinstance(made, types.FunctionType)
    assert isinstance(made(), ServingApp)


def test_python(server, scratch):
    ask, host, _ = blocks("python")
    for name, text in (("ask.py", ask), ("hosted.py", host)):
        (scratch / name).write_text(text.replace("localhost:8000", f"localhost:{server.port}"))
    assert run(f"{sys.executable} ask.py", server.port) == "[1, 10]\n"
    assert run(f"{sys.executable} hosted.py", server.port) == ""


def test_every_option_is_there():
    from stnkit.cli.commands.serve import command

    options = {it for parameter in command.params for it in parameter.opts if it.startswith("--")}
    table = PAGE.split("## The protocol")[0]
    assert {option for option in options if f"`{option}`" in table} == options
    shell = "\n".join(re.findall(r"stnkit serve [^\n]*", PAGE))
    assert set(re.findall(r"--[a-z][\w-]+", shell)) <= options


def test_every_metric_is_there(server):
    assert server.ask("GET", "/v2/models/digits/infer")[0] == 405
    text = server.ask("GET", "/metrics")[2].decode()
    there = set(re.findall(r"^# TYPE (stnkit_\w+)", text, flags=re.MULTILINE))
    named = set(re.findall(r"`(stnkit_\w+)`", PAGE))
    # Counters end in _total, in the text and on the page alike.
    assert named == there


def test_every_route_is_there(server):
    rows = re.findall(r"^\| (`(?:GET|POST) .*?) \|", PAGE, flags=re.MULTILINE)
    assert len(rows) == 11
    for row in rows:
        method = row[1:].split()[0]
        for path in re.findall(r"[/…][\w/\[\]\-.…]*", row.removeprefix(f"`{method} ")):
            for found in (re.sub(r"\[.*?\]", "", path), path.replace("[", "").replace("]", "")):
                found = found.replace("…/models", "/v2/repository/models").replace(
                    "…/unload", "/v2/repository/models/M/unload"
                )
                found = found.replace("/M", "/digits").replace("/V", "/1")
                status, _, answer = server.ask(method, found, b"" if method == "POST" else None)
                assert status != 405, (method, found)
                # Management is off, which is told in words of its own.
                if status == 404:
                    assert b"managed" in answer or b"manage" in answer, (method, found, answer)


def test_limits_are_the_ones_that_hold():
    limits = Limits()
    table = PAGE.split("## Limits")[1].split("## ")[0]
    for value in (limits.body_bytes_max, limits.json_bytes_max, limits.bodies_bytes_max):
        assert f"| {value // 2**20} MiB" in table
    assert f"| {limits.header_bytes_max // 2**10} KiB |" in table
    assert f"| {limits.connections_max:,} (" in table
    assert f"| {limits.receive_timeout_s:g} s |" in table
    assert f"| {limits.idle_timeout_s:g} s |" in table
    assert f"| {limits.tensors_max} |" in table
    assert f"| {limits.text_length_max}; {limits.rank_max} |" in table
    assert f"{limits.image_pixels_max // 10**6} million pixels" in PAGE
