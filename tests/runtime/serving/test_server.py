"""The server as a process: how it starts, how it ends, and that no request is lost on the way."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from stnkit.runtime import load
from stnkit.runtime.errors import InputError
from stnkit.runtime.serving import ServerOptions
from stnkit.runtime.serving.server import _Ending

PATIENCE_S = 60
ONE = ("--threads", "1", "--instances", "1")


@pytest.fixture(scope="session")
def digits(digits_served):
    """Return images, one request each, and their answers."""
    rng = np.random.default_rng(1)
    images = [rng.random((1 + i % 2, 28, 28, 1), np.float32) for i in range(4)]
    with load(digits_served, artifact="onnx", threads=1) as session:
        return images, [session.run({"image": it})["probabilities"] for it in images]


@pytest.fixture
def load_of(helpers_served, digits):
    """Return `load_of(server)`: four clients that send without a pause."""
    images, answers = digits

    def make(server):
        return helpers_served.Load(server.port, "digits", [("image", it) for it in images], answers)

    return make


def wait_for_log(server, text):
    until = time.monotonic() + PATIENCE_S
    while text not in server.log:
        assert time.monotonic() < until, server.log
        time.sleep(0.01)


def wait_for_queue(server, found):
    """Wait until a request is in the queue: the only one that the server was asked so far."""
    until = time.monotonic() + PATIENCE_S
    while (
        b'stnkit_queue_depth{model="digits",version="1"} 1.0'
        not in server.ask("GET", "/metrics")[2]
    ):
        assert not found
        assert time.monotonic() < until


def end_under_load(server, load_of):
    with load_of(server) as clients:
        clients.wait_answered(50)
        server.send(signal.SIGTERM)
        clients.join()
        assert server.end() == 0
    assert clients.lost == []
    assert clients.wrong == []
    assert set(clients.statuses) == {200}
    assert "ended" in server.log
    assert "Traceback" not in server.log


@pytest.mark.parametrize("drain_ms", [0, 100, 500])
def test_sigterm_under_load_loses_no_request(drain_ms, process_served, digits_served, load_of):
    server = process_served(digits_served, *ONE, "--drain-ms", drain_ms)
    end_under_load(server, load_of)


@pytest.mark.slow
def test_sigterm_under_load_twenty_times(process_served, digits_served, load_of):
    for i in range(20):
        server = process_served(digits_served, *ONE, "--drain-ms", (0, 500)[i % 2])
        end_under_load(server, load_of)
        server.close()


def test_what_was_accepted_is_answered_after_the_drain(process_served, digits_served, digits):
    """A request that takes longer than the drain: it waits for company that never comes."""
    server = process_served(digits_served, *ONE, "--drain-ms", 0, "--max-delay-ms", 1500)
    (image, *_), (expected, *_) = digits
    found = []
    body = json.dumps(
        {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 28, 28, 1],
                     "data": image.ravel().tolist()}]}
    ).encode()  # fmt: skip
    path = "/v2/models/digits/infer"
    thread = threading.Thread(target=lambda: found.append(server.ask("POST", path, body)))
    thread.start()
    wait_for_queue(server, found)
    server.send()
    thread.join(PATIENCE_S)
    ((status, headers, answer),) = found
    assert status == 200
    assert headers["connection"] == "close"
    np.testing.assert_allclose(json.loads(answer)["outputs"][0]["data"], expected[0], atol=1e-6)
    assert server.end() == 0


def test_grpc_answers_what_was_accepted_and_then_refuses(process_served, digits_served, digits):
    grpcclient = pytest.importorskip("tritonclient.grpc")
    options = ("--grpc-port", "0", "--drain-ms", 0, "--max-delay-ms", 1500)
    server = process_served(digits_served, *ONE, *options)
    (image, *_), (expected, *_) = digits
    given = grpcclient.InferInput("image", image.shape, "FP32")
    given.set_data_from_numpy(image)
    with grpcclient.InferenceServerClient(server.addresses["grpc"].netloc) as client:
        found = []
        thread = threading.Thread(target=lambda: found.append(client.infer("digits", [given])))
        thread.start()
        wait_for_queue(server, found)
        server.send()
        thread.join(PATIENCE_S)
        (answer,) = found
        np.testing.assert_allclose(answer.as_numpy("probabilities"), expected, atol=1e-6)
        assert server.end() == 0
        with pytest.raises(grpcclient.InferenceServerException):
            client.infer("digits", [given], client_timeout=5)


def test_while_draining_it_is_not_ready_and_answers(process_served, digits_served, load_of):
    server = process_served(digits_served, *ONE, "--drain-ms", 3_600_000)
    assert server.ask("GET", "/v2/health/ready")[0] == 200
    assert server.ask("GET", "/v2/models/digits/ready")[0] == 200
    server.send()
    wait_for_log(server, "no longer ready")
    assert server.ask("GET", "/v2/health/live")[0] == 200
    for path in ("/v2/health/ready", "/v2/models/digits/ready"):
        status, headers, _ = server.ask("GET", path)
        assert (status, headers["connection"]) == (503, "close")
    with load_of(server) as clients:
        clients.wait_answered(20)
    assert (clients.lost, clients.wrong, set(clients.statuses)) == ([], [], {200})
    # Told once more: the wait is over.
    server.send()
    assert server.end() == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_told_several_times_it_ends_once(second, process_served, digits_served, load_of):
    server = process_served(digits_served, *ONE, "--drain-ms", 200)
    with load_of(server) as clients:
        clients.wait_answered(20)
        server.send(signal.SIGTERM)
        while server.process.poll() is None:
            server.send(second)
            time.sleep(0.02)
        assert server.end() == 0
        clients.join()
    assert (clients.lost, clients.wrong) == ([], [])


def test_ctrl_c_ends_it_the_same_way(process_served, digits_served):
    server = process_served(digits_served, *ONE, "--drain-ms", 0)
    server.send(signal.SIGINT)
    assert server.end() == 0
    assert "Traceback" not in server.log


def test_told_to_end_while_it_loads():
    with pytest.raises(SystemExit) as end, _Ending():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE_S)
    assert end.value.code == 0
    # What came meanwhile is ignored, for the process is at its end; here it goes on.
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_signals_are_given_back_where_none_came():
    before = signal.getsignal(signal.SIGTERM)
    with _Ending():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_takes_longer_than_the_grace_time_does_not_keep_it(process_served, digits_served):
    server = process_served(
        digits_served, *ONE, "--drain-ms", 0, "--grace-s", 0.3, "--max-delay-ms", 60_000
    )
    body = json.dumps(
        {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 28, 28, 1],
                     "data": [0] * 784}]}
    ).encode()  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    connection.request("POST", "/v2/models/digits/infer", body)
    while (
        b'stnkit_queue_depth{model="digits",version="1"} 1.0'
        not in server.ask("GET", "/metrics")[2]
    ):
        pass
    started = time.monotonic()
    server.send()
    assert server.end() == 0
    assert time.monotonic() - started < 30
    connection.close()


@pytest.mark.parametrize("sent", [b"", b"GET /v2 HT", b"GET /v2 HTTP/1.1\r\nhost: x\r\n"])
def test_connections_without_a_whole_request_do_not_keep_it(
    sent, process_served, digits_served, helpers_served
):
    server = process_served(digits_served, *ONE, "--drain-ms", 0)
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        with connection.makefile("rb") as stream:
            assert helpers_served.read_answer(stream)[0] == 200
            connection.sendall(sent)
            server.send()
            assert stream.read() == b""
    assert server.end() == 0


def test_reload_under_load_loses_no_request(
    process_served, digits_served, load_of, tmp_path, monkeypatch
):
    """Ten times, of bundles that are good and bad by turns; what served goes on serving."""
    token = "0123456789abcdef"
    served = tmp_path / "served.bundle"
    shutil.copytree(digits_served, served)
    server = process_served(
        f"digits={served}",
        "--threads",
        "1",
        "--model-control",
        "explicit",
        environment={"STNKIT_MANAGEMENT_TOKEN": token},
    )

    def swap(number):
        draft = tmp_path / "draft.bundle"
        shutil.copytree(digits_served, draft)
        if number % 2:
            (draft / "model.fp32.onnx").write_bytes(b"not what the manifest says")
        shutil.move(served, tmp_path / f"old-{number}.bundle")
        shutil.move(draft, served)

    path = "/v2/repository/models/digits/load"
    headers = {"authorization": f"Bearer {token}"}
    with load_of(server) as clients:
        clients.wait_answered(50)
        for number in range(10):
            swap(number)
            status, _, answer = server.ask("POST", path, b"", headers)
            assert status == (400 if number % 2 else 200), answer
            assert str(tmp_path).encode() not in answer
            clients.wait_answered(50)
    assert clients.lost == []
    assert clients.wrong == []
    assert set(clients.statuses) == {200}
    # One count, from the first bundle to the last.
    stats = json.loads(server.ask("GET", "/v2/models/digits/stats")[2])["model_stats"][0]
    assert stats["inference_stats"]["success"]["count"] == clients.answered
    assert stats["inference_stats"]["fail"]["count"] == 0
    server.send()
    assert server.end() == 0
    assert server.log.count("digits was not loaded") == 5
    assert server.log.count("digits version 1: ") == 6


def test_a_bundle_that_changes_on_disk_is_noticed_when_asked_alone(
    process_served, digits_served, load_of, tmp_path
):
    served = tmp_path / "served.bundle"
    shutil.copytree(digits_served, served)
    server = process_served(served, *ONE)
    (served / "model.fp32.onnx").write_bytes(b"damaged")
    (served / "manifest.json").unlink()
    with load_of(server) as clients:
        clients.wait_answered(30)
    assert (clients.lost, clients.wrong, set(clients.statuses)) == ([], [], {200})


def test_two_servers_at_once(process_served, digits_served, load_of):
    servers = [process_served(digits_served, *ONE) for _ in range(2)]
    loads = [load_of(it) for it in servers]
    for clients in loads:
        clients.__enter__()
    for clients in loads:
        clients.wait_answered(20)
    servers[0].send()
    assert servers[0].end() == 0
    loads[0].join()
    loads[1].wait_answered(20)
    loads[1].__exit__()
    for clients in loads:
        assert (clients.lost, clients.wrong) == ([], [])


def test_both_protocols_in_one_process(process_served, digits_served):
    pytest.importorskip("grpc")
    server = process_served(digits_served, *ONE, "--grpc-port", "0")
    assert set(server.addresses) == {"http", "grpc"}
    assert server.ask("GET", "/v2/health/ready")[0] == 200
    with socket.create_connection(("127.0.0.1", server.addresses["grpc"].port)):
        pass
    server.send()
    assert server.end() == 0


def test_grpc_alone(process_served, digits_served):
    server = process_served(digits_served, *ONE, "--http-port", "-1", "--grpc-port", "0")
    assert set(server.addresses) == {"grpc"}
    server.send()
    assert server.end() == 0


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """Return a folder with a certificate for 127.0.0.1, its key, another key, and one locked."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates")
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    for name in ("key", "other"):
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.pem")
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    openssl("req", "-x509", "-key", "key.pem", "-out", "cert.pem", "-days", "2", *subject)
    openssl("ec", "-in", "key.pem", "-aes256", "-passout", "pass:secret", "-out", "locked.pem")
    return folder


def test_tls(process_served, digits_served, certificates):
    server = process_served(
        digits_served,
        *ONE,
        *("--tls-certificate", certificates / "cert.pem", "--tls-key", certificates / "key.pem"),
        *("--grpc-port", "0"),
    )
    assert set(server.addresses) == {"https", "grpcs"}
    context = ssl.create_default_context(cafile=certificates / "cert.pem")
    connection = http.client.HTTPSConnection(
        "127.0.0.1", server.port, timeout=PATIENCE_S, context=context
    )
    connection.request("GET", "/v2/health/ready")
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())) == (200, {"ready": True})
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 28, 28, 1], "data": [0] * 784}
    found = set()
    for _ in range(3):  # the first one goes another way than the others
        body = json.dumps({"inputs": [tensor]})
        connection.request("POST", "/v2/models/digits/infer", body)
        answer = connection.getresponse()
        assert answer.status == 200
        found.add(answer.read())
    assert len(found) == 1
    server.send()
    # The client does not close its side: that must not take the grace time of 30 s.
    ended = time.monotonic()
    assert server.end() == 0
    assert time.monotonic() - ended < 20
    connection.close()


@pytest.mark.parametrize("key", ["other.pem", "locked.pem", "cert.pem"])
def test_a_wrong_key_is_told_before_anything_is_loaded(key, certificates):
    from stnkit.runtime.serving.listening import check_certificate

    with pytest.raises(InputError, match="the certificate or its key cannot be used"):
        check_certificate(certificates / "cert.pem", certificates / key)
    check_certificate(certificates / "cert.pem", certificates / "key.pem")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"http_port": None, "grpc_port": None}, "at least one port"),
        ({"certificate": Path(__file__)}, "name both, or none"),
        ({"key": Path(__file__)}, "name both, or none"),
        ({"certificate": Path("nothing"), "key": Path(__file__)}, "nothing is not a file"),
        ({"drain_ms": float("nan")}, "drain_ms is nan"),
        ({"drain_ms": -1.0}, "drain_ms is -1"),
        ({"grace_s": float("inf")}, "grace_s is inf"),
        ({"grace_s": float("nan")}, "grace_s is nan"),
    ],
)
def test_options(changes, says):
    with pytest.raises(InputError, match=says):
        ServerOptions(**changes)


def test_serving_without_grpc_does_not_import_it():
    code = (
        "import sys, stnkit.runtime.serving.server\n"
        "print(sorted({'grpc', 'google.protobuf', 'prometheus_client', 'PIL', 'tensorflow', "
        "'keras', 'onnx', 'onnxruntime', 'ai_edge_litert'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"
