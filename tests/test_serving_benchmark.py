"""The serving benchmarks' own arithmetic, tables and small tools; no server is measured here."""

from __future__ import annotations

import http.server
import json
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from stnkit.runtime.timing import Quartiles
from stnkit.runtime.timing.load import LoadResult

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def found_from_the_root():
    """Let `benchmarks` be imported, as where the scripts are run."""
    sys.path.insert(0, str(ROOT))
    yield
    sys.path.remove(str(ROOT))


@pytest.fixture
def rows():
    from benchmarks.serving.tables import Row

    return [
        Row("stnkit", "", 1, (100.0, 200.0, 300.0), (1.0, 1.1, 1.2), (2.0, 2.0, 2.0)),
        Row("stnkit", "", 8, (400.0, 400.0, 400.0), (4.0, 4.0, 4.0), (9.0, 9.0, 9.0)),
        Row("stnkit", "JSON", 1, (50.0, 50.0, 50.0), (3.0, 3.0, 3.0), (9.0, 9.0, 9.0)),
        Row("MLServer", "a", 1, (10.0, 20.0, 60.0), (9.0, 9.0, 9.0), (9.0, 9.0, 9.0)),
        Row("MLServer", "b", 1, (30.0, 10.0, 10.0), (9.0, 9.0, 9.0), (9.0, 9.0, 9.0)),
        Row("PyTriton", "", 0, reason="it has no wheel for this system"),
    ]


@pytest.fixture
def alone():
    from benchmarks.serving.subject import Bare, BareTime

    slow = [BareTime(900.0, 1.1)] * 3
    fast = [BareTime(1000.0, 0.8), BareTime(1000.0, 0.9), BareTime(1000.0, 1.0)]
    return {
        Bare(None, 1): slow,
        Bare(1, 1): fast,
        Bare(1, 2): [BareTime(1500.0, 0.1)] * 3,
    }


def test_ratios_are_taken_within_a_round():
    from benchmarks.serving.tables import differences, ratios

    # A machine that becomes slower by half changes no ratio.
    assert ratios((4.0, 2.0, 6.0), (2.0, 1.0, 3.0)) == Quartiles(2.0, 2.0, 2.0)
    assert differences((3.0, 5.0), (1.0, 3.0)) == Quartiles(2.0, 2.0, 2.0)
    assert ratios((1.0,), (0.0,)).median > 1e6  # a server that answered nothing right
    with pytest.raises(ValueError, match="argument 2 is longer"):
        ratios((1.0,), (1.0, 2.0))


def test_a_servers_best_setting_counts(rows):
    from benchmarks.serving.tables import best_of

    assert best_of(rows, "MLServer", 1) is rows[3]  # its median is 20, the other's 10
    assert best_of(rows, "MLServer", 8) is None
    assert best_of(rows, "PyTriton", 0) is None


def test_the_table_says_who_was_measured_and_who_was_not(rows):
    from benchmarks.serving.tables import format_rows

    lines = format_rows("a title", rows, "stnkit").splitlines()
    assert lines[0] == "a title"
    (own,) = (line for line in lines if line.startswith("  stnkit  ") and " 1  " in line)
    assert "200 (150-250)" in own
    assert own.endswith("-")
    (best,) = (line for line in lines if line.startswith("  MLServer, a"))
    assert "x 10.00 (7.50-10.00) *" in best
    (other,) = (line for line in lines if line.startswith("  MLServer, b"))
    assert not other.endswith("*")
    assert "  PyTriton: it has no wheel for this system" in lines


def test_errors_stand_under_the_table(rows):
    from dataclasses import replace

    from benchmarks.serving.tables import format_rows

    rows[3] = replace(rows[3], errors={"http 500": 3})
    assert "  MLServer, a at 1: {'http 500': 3}" in format_rows("x", rows, "stnkit").splitlines()
    # Nobody is compared with a server that did not run.
    assert "MLServer, a" in format_rows("x", rows[3:], "stnkit")


def test_claims(rows, alone):
    from benchmarks.serving.compare import added_ms, claims_of
    from benchmarks.serving.tables import Claim

    # At its fastest for one caller: 0.8, 0.9, 1.0; the server has 1.0, 1.1, 1.2.
    assert added_ms(rows, alone).median == pytest.approx(0.2)
    first, added = claims_of(rows, alone)
    assert (first.found, first.bound, first.held) == (10.0, 8.0, True)
    assert "MLServer, a, 1 at once" in str(first)
    assert added.held
    assert added_ms(rows[3:], alone) is None
    assert not Claim("x", float("nan"), 1.0, True).held
    assert not Claim("x", float("nan"), 1.0, False).held
    assert "NOT HELD" in str(Claim("x", 0.5, 1.0, True))


def test_the_share_of_the_best(rows, alone):
    from benchmarks.serving.heavy import share_of_best

    best, way, share = share_of_best(rows, alone)
    assert best is rows[1]
    assert (way.threads, way.callers) == (1, 2)
    assert share.median == pytest.approx(400 / 1500)


def test_growth_is_counted_from_the_first_minute_on():
    from benchmarks.serving.tables import growth

    samples = [(float(at), 100 if at < 60 else 200) for at in range(120)]
    assert growth(samples, 60).share == 0
    leak = [(float(at), 1000 + at) for at in range(600)]
    found = growth(leak, 60)
    assert found.settled_bytes == pytest.approx(1064.5)
    assert found.last_bytes == pytest.approx(1594.5)
    assert found.largest_bytes == 1599
    assert found.share == pytest.approx(1594.5 / 1064.5 - 1)
    peak = [*samples, (120.0, 900), *((float(at), 200) for at in range(121, 200))]
    assert growth(peak, 60).share == 0
    assert growth(peak, 60).largest_bytes == 900
    with pytest.raises(ValueError, match="1 samples after 60 s"):
        growth(samples[:61], 60)


def test_overload_by_hand():
    from benchmarks.serving.overload import claims_of, overload_of

    count = 1000
    scheduled = (np.arange(count) * 1_000_000).astype(np.int64)  # 1000 a second
    status = np.where(np.arange(count) % 5 == 0, 200, 503).astype(np.int16)
    latency = np.where(status == 200, 20_000_000, 1_000_000).astype(np.int64)
    latency[1] = 80_000_000
    nothing = np.zeros(count, np.int64)
    found = LoadResult(scheduled, nothing, latency, status, 0.0, 1.0, 1, 0, 0, 0.1, 1.0)
    it = overload_of(found, 200.0)
    assert it.times == pytest.approx(5.0)
    assert it.goodput == pytest.approx(0.98)  # the last few come after the end
    assert it.accepted_ms.p99 == 20
    assert it.refused_ms.largest == 80
    assert it.refused_late == pytest.approx(1 / 800)
    assert it.others == {}
    assert all(claim.held for claim in claims_of(it, 1000))
    assert not all(claim.held for claim in claims_of(it, 10))

    status[7] = 500
    it = overload_of(found, 400.0)
    assert it.others == {"http 500": 1}
    assert [claim.held for claim in claims_of(it, 1000)] == [False, True, True, False]


def test_nothing_refused_is_no_error():
    from benchmarks.serving.overload import claims_of, overload_of

    one = np.ones(1, np.int64)
    found = LoadResult(one, one, one + 1, one.astype(np.int16) * 503, 0, 1, 1, 0, 0, 0.1, 1)
    it = overload_of(found, 1.0)
    assert it.accepted_ms is None
    assert not any(claim.held for claim in claims_of(it, 1000)[:2])


@pytest.mark.parametrize("own", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "127.3.4.5:1"])
def test_perf_analyzer_asks_this_machine(own):
    from benchmarks.serving.perf_analyzer import check_address

    check_address(["-m", "x", "-u", own])


@pytest.mark.parametrize(
    "options",
    [
        ["-u", "10.0.0.1:8000"],
        ["-u", "example.com:8000"],
        ["-u", "127.0.0.1:80", "-u", "10.0.0.1:8000"],
        ["-m", "x"],
        ["-u"],
    ],
    ids=" ".join,
)
def test_perf_analyzer_asks_no_other(options, capsys):
    from benchmarks.serving import perf_analyzer

    with pytest.raises(ValueError, match="expected an address such as"):
        perf_analyzer.check_address(options)
    assert perf_analyzer.main(options) == 2
    assert "expected an address" in capsys.readouterr().err


def test_environments_that_cannot_be_made_say_why(tmp_path, monkeypatch):
    from benchmarks.peers.contender import UnavailableError
    from benchmarks.serving import environments

    monkeypatch.setattr(environments.sys, "executable", sys.executable)
    commands = []

    def fail(command, name):
        commands.append(command)
        if "pip" in command:
            raise UnavailableError(f"{name} cannot be installed: no wheel")

    monkeypatch.setattr(environments, "_run", fail)
    with pytest.raises(UnavailableError, match="peer cannot be installed: no wheel"):
        environments.environment(tmp_path, "peer", ["peer==1.*"])
    assert commands[0][1:3] == ["-m", "venv"]
    assert commands[1][-1] == "peer==1.*"


def test_pip_is_quoted(tmp_path):
    from benchmarks.peers.contender import UnavailableError
    from benchmarks.serving.environments import _run

    said = "import sys; sys.exit('WARNING: x\\nERROR: no matching   distribution\\nbye')"
    with pytest.raises(UnavailableError, match="y cannot be installed: ERROR: no matching dist"):
        _run([sys.executable, "-c", said], "y")


SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
print("listening", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_server_is_started_watched_and_stopped(tmp_path):
    from benchmarks.serving.processes import Command, free_ports, running, status_of

    (port,) = free_ports(1)
    command = Command([sys.executable, "-c", SERVER, str(port)], "/ready", port)
    with running(command, tmp_path / "new" / "log") as server:
        assert server.port == port
        assert status_of(port, "/") == 200
        assert server.rss_bytes() > 1_000_000
        assert server.cpu_s() > 0
        assert "listening" in server.last_words()
    assert server.process.poll() is not None
    assert status_of(port, "/") is None
    assert server.rss_bytes() == 0


def test_a_server_that_ends_says_its_last_words(tmp_path):
    from benchmarks.peers.contender import UnavailableError
    from benchmarks.serving.processes import Command, running

    command = Command([sys.executable, "-c", "raise SystemExit('no library')"], "/", 1)
    with (
        pytest.raises(UnavailableError, match="it ended with 1: no library"),
        running(command, tmp_path / "log"),
    ):
        pass
    missing = Command([str(tmp_path / "nothing")], "/", 1)
    with (
        pytest.raises(UnavailableError, match="cannot be started"),
        running(missing, tmp_path / "log"),
    ):
        pass


def test_statuses_other_than_200(tmp_path):
    from benchmarks.serving.processes import status_of

    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert status_of(server.server_port, "/") == 501
        finally:
            server.shutdown()
            thread.join()


def test_every_contender_runs_the_same_file(tmp_path):
    from benchmarks.serving.contenders import _mlserver, _pytriton, stnkit_contenders
    from benchmarks.serving.environments import Environment
    from benchmarks.serving.subject import Subject

    inputs = {"image": np.zeros((2, 28, 28, 1), np.float32)}
    subject = Subject(tmp_path, "model.fp32.onnx", 2, inputs, {})
    assert subject.shapes == "2x28x28x1"
    binary, plain = stnkit_contenders(("--threads", "1"))
    argv = list(binary.command(subject, tmp_path).argv)
    assert argv[argv.index("--artifact") + 1] == "model.fp32.onnx"
    assert argv[-2:] == ["--threads", "1"]
    assert argv[argv.index("--host") + 1] == "127.0.0.1"
    assert inputs["image"].tobytes() in binary.request(subject)
    assert b"Inference-Header-Content-Length" not in plain.request(subject)

    made = Environment(tmp_path, {})
    settings = {"batching": True, "max_batch": 4, "delay_us": 0, "threads": 1}
    triton = json.loads(_pytriton(made, settings)(subject, tmp_path / "p").argv[-1])
    assert triton["onnx"] == str(subject.file)
    assert triton["threads"] == 1
    folder = tmp_path / "m"
    command = _mlserver(made, 1, {"max_batch_size": 8}, 2)(subject, folder)
    described = json.loads((folder / "model-settings.json").read_text("utf-8"))
    assert described["parameters"] == {"uri": str(subject.file), "extra": {"threads": 2}}
    assert described["max_batch_size"] == 8
    server = json.loads((folder / "settings.json").read_text("utf-8"))
    assert (server["host"], server["parallel_workers"]) == ("127.0.0.1", 1)
    assert server["http_port"] == command.port


def test_base64_for_a_server_without_binary_data(tmp_path):
    import base64

    from benchmarks.serving.contenders import _base64
    from benchmarks.serving.subject import Subject

    image = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1)
    asked = _base64(Subject(tmp_path, "x", 1, {"image": image}, {}))
    (given,) = json.loads(asked.partition(b"\r\n\r\n")[2])["inputs"]
    assert base64.b64decode(given["data"][0]) == image.tobytes()


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("compare", ["--rounds", "0"]),
        ("heavy", ["--seconds", "0"]),
        ("endurance", ["--seconds", "10", "--settle", "9"]),
        ("overload", ["--times", "0"]),
    ],
)
def test_scripts_refuse_what_makes_no_sense(script, options, capsys):
    import importlib

    module = importlib.import_module(f"benchmarks.serving.{script}")
    with pytest.raises(SystemExit) as error:
        module.main(options)
    assert error.value.code == 2
    assert "--" in capsys.readouterr().err
