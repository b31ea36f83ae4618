"""The benchmark of what sessions are for, tried small: settings, work and records, no times."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from stnkit.runtime.purposes import PURPOSES, settings_for, usable_cores

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    path = list(sys.path)
    file = ROOT / "benchmarks" / "session_purposes.py"
    spec = importlib.util.spec_from_file_location("session_purposes", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there for their types
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]
    sys.path[:] = path


@pytest.mark.parametrize("backend", ["litert", "onnxruntime"])
def test_what_load_takes_is_among_what_is_compared(script, backend):
    taken = [script.purposes_of(it, backend) for it in script.settings_of(backend).values()]
    assert sorted(name for names in taken for name in names) == sorted(PURPOSES)


def test_a_turn_of_each_kind(script, both_path, monkeypatch):
    from stnkit.runtime.bundle import open_bundle
    from stnkit.runtime.choice import choose
    from stnkit.runtime.session import Session

    monkeypatch.setattr(script, "TURN_S", 0.11)
    bundle = open_bundle(both_path)
    choice = choose(bundle, "cpu", "auto", "onnx")
    with Session(bundle, choice, settings_for("throughput", None)) as session:
        make_run = script.runs_of(bundle, session)
        found = {work: script.turn(make_run, work) for work in script.WORKS}
    for turn in found.values():
        assert 0 < turn.run_ms < 1000
        assert turn.runs_a_second > 0
        assert 0 <= turn.cores_busy <= usable_cores() + 1
    assert found["paced"].runs_a_second <= 3 / 0.1  # three runs in the time of a turn


def test_record(script, both_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "TURN_S", 0.01)
    monkeypatch.setattr(script, "SETTLE_S", 0.0)
    file = tmp_path / "new" / "purposes.json"
    assert script.main([str(both_path), "--rounds", "1", "--json", str(file)]) == 0
    # A line for each setting and kind of work, and one for each purpose in the table.
    assert capsys.readouterr().out.count("toy") == 4 * 9 + len(PURPOSES) * 2
    record = json.loads(file.read_text("utf-8"))
    assert {"cpu", "cores", "architecture"} <= set(record["machine"])
    assert (record["rounds"], record["usable_cores"]) == (1, usable_cores())
    assert {row["work"] for row in record["results"]} == set(script.WORKS)
    for row in record["results"]:
        assert row["model"] == "toy"
        assert row["run_ms"]["q1"] <= row["run_ms"]["median"] <= row["run_ms"]["q3"]


def test_the_stored_result_is_what_the_documentation_says(script):
    record = json.loads((ROOT / "benchmarks/results/session_purposes.json").read_text("utf-8"))
    rows = [
        script.Row(
            **{
                name: script.Quartiles(**value) if isinstance(value, dict) else value
                for name, value in row.items()
            }
        )
        for row in record["results"]
    ]
    assert len({row.model for row in rows}) == 2
    assert script.markdown(rows) in (ROOT / "docs/runtime.md").read_text("utf-8")
