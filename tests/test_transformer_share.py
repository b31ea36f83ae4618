"""The benchmark of whole networks, tried small: answers, parts and records, no times."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
DIGITS = "digits, 28 px"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def script():
    """Return the script, loaded by its path as the others are."""
    path = list(sys.path)
    file = ROOT / "benchmarks" / "transformer_share.py"
    spec = importlib.util.spec_from_file_location("transformer_share", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there for their types
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]
    sys.path[:] = path


@pytest.fixture(autouse=True)
def quick(script, monkeypatch):
    import benchmarks.timing as timing

    short = {**timing.time_side_by_side.__kwdefaults__, "turn_s": 2e-3, "settle_s": 0.0}
    monkeypatch.setattr(timing.time_side_by_side, "__kwdefaults__", short)
    # TensorFlow has its threads from the tests before.
    monkeypatch.setattr(script, "prepare_process", lambda threads, spinning: None)


def test_digits_in_every_form_and_runtime(script, tmp_path, capsys):
    file = tmp_path / "new" / "share.json"
    options = ["--network", DIGITS, "--rounds", "2", "--threads", "1", "--json", str(file)]
    assert script.main(options) == 0
    printed = capsys.readouterr().out
    assert "share %" in printed
    assert printed.count(DIGITS) == 8

    record = json.loads(file.read_text("utf-8"))
    assert {"cpu", "cores", "architecture"} <= set(record["machine"])
    assert (record["rounds"], record["threads"], record["spinning"]) == (2, 1, False)
    rows = {(row["runtime"], row["form"]): row for row in record["results"]}
    assert list(rows) == [(runtime, form) for runtime in script.RUNTIMES for form in script.FORMS]
    for (runtime, _), row in rows.items():
        assert 0 < row["largest_difference"] <= script.TOLERANCE
        assert row["file_bytes"] > 100_000
        assert row["whole_ms"]["median"] > 0
        assert row["localisation_ms"]["median"] > 0
        assert 0 < row["share"]["median"] < 1
        assert row["method"] == ("cut file" if runtime == "LiteRT" else "profiler")
        if runtime == "ONNX Runtime":
            assert row["share"]["median"] < row["accounted"]["median"] <= 1
    assert rows["LiteRT", "before"]["operators"]["GATHER_ND"] == 4
    assert "GATHER_ND" not in rows["LiteRT", "after"]["operators"]
    assert "CONV_2D" not in rows["LiteRT", "after"]["operators"]
    kinds = [
        {name.split()[0] for name in rows["ONNX Runtime", form]["operators"]}
        for form in script.FORMS
    ]
    assert "GatherND" in kinds[0]
    assert "DeformConv" in kinds[1]
    assert not kinds[0] & {"Conv", "MaxPool", "DeformConv"}
    assert not kinds[1] & {"Conv", "MaxPool", "GatherND"}


def test_the_other_sampler_keeps_the_weights(script):
    from benchmarks.share_models import with_gather_nd

    network = script.NETWORKS[DIGITS]()
    copy, _ = with_gather_nd(network.model)
    expected = network.answers()["probabilities"]
    np.testing.assert_allclose(copy(network.image), expected, atol=script.TOLERANCE)
    layers = {layer.name: layer for layer in copy.layers}
    assert type(layers["spatial_transformer"]).__name__ == "GatherNdTransformer"


def test_different_answers_are_refused(script):
    one = {"warped": np.zeros((1, 2), np.float32)}
    near = {"warped": np.array([[0, 5e-5]], np.float32)}
    assert script.largest_differences({"a": one, "b": near})["a"] == pytest.approx(5e-5)
    for other in ([[0, 1e-3]], [[0, np.nan]], [0, 0]):
        with pytest.raises(script.WrongAnswerError, match="warped of"):
            script.largest_differences({"a": one, "b": {"warped": np.array(other, np.float32)}})


def test_a_profile_by_hand():
    from benchmarks.share_onnx import read_profile

    def event(name, ts, dur, kind=None):
        category = "Session" if kind is None else "Node"
        return {"cat": category, "name": name, "ts": ts, "dur": dur, "args": {"op_name": kind}}

    events = [
        event("model_loading_array", 0, 500),
        event("model_run", 1000, 1000),
        event("a_kernel_time", 1000, 100, "Conv"),
        event("x/b_kernel_time", 1200, 300, "GridSample"),
        event("c_kernel_time", 1600, 400, "Conv"),
        event("model_run", 3000, 2000),
        event("x/b_kernel_time", 3000, 500, "GridSample"),
    ]
    parts = {"a": "localisation", "x/b": "transformer", "c": "rest"}
    profile = read_profile(events, parts)
    assert profile.run_ms == (1.0, 2.0)
    assert profile.part_ms["transformer"] == (0.3, 0.5)
    assert profile.part_ms["localisation"] == (0.1, 0)
    assert profile.node_ms == {"GridSample b": 0.4}
    assert profile.share("transformer").median == pytest.approx((0.3 + 0.25) / 2)
    with pytest.raises(ValueError, match="no node of the optimized graph is called 'a'"):
        read_profile(events, {"x/b": "transformer", "c": "rest"})


def test_a_cut_takes_what_it_needs(script):
    from benchmarks.share_models import files_after
    from benchmarks.share_tflite import cut, operators

    file = files_after(script.NETWORKS[DIGITS]())["LiteRT"]
    behind = cut(file.content, [file.warped], [file.probabilities])
    assert "GATHER" not in operators(behind)
    with pytest.raises(ValueError, match="depend on more"):
        cut(file.content, [file.theta], [file.probabilities])
    with pytest.raises(ValueError, match="do not depend on"):
        cut(file.content, [file.warped, file.theta], [file.probabilities])
    with pytest.raises(ValueError, match="0 tensors are called 'nothing'"):
        cut(file.content, ["nothing"], [file.probabilities])


def test_the_command_refuses_what_makes_no_sense(script, capsys):
    for option in ("--rounds", "--threads"):
        with pytest.raises(SystemExit) as error:
            script.main([option, "0"])
        assert error.value.code == 2
    assert "are 1 or more" in capsys.readouterr().err
