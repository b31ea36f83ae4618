"""The server, asked by the real client; the core behind it is a fake one."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import subprocess
import threading
import time

import grpc
import numpy as np
import pytest

from stnkit.runtime.errors import InputError
from stnkit.runtime.serving.grpc_v2 import GrpcServer
from stnkit.runtime.serving.grpc_v2.messages import message_class

triton = pytest.importorskip("tritonclient.grpc")
triton_errors = pytest.importorskip("tritonclient.utils")

X = np.array([[1, 2, 3, 4]], np.float32)
INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
CHECK = "/grpc.health.v1.Health/Check"
Request = message_class("inference.ModelInferRequest")
Health = message_class("grpc.health.v1.HealthCheckResponse")


def tensor(array=X, datatype="FP32", name="x"):
    found = triton.InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array)
    return found


def message(model="m", array=X):
    made = Request(model_name=model, id="1")
    made.inputs.add(name="x", datatype="FP32", shape=array.shape)
    made.raw_input_contents.append(array.tobytes())
    return made.SerializeToString()


@contextlib.contextmanager
def client_of(address, **options):
    with triton.InferenceServerClient(address, **options) as client:
        yield client


@pytest.fixture
def client(address):
    with client_of(address) as opened:
        yield opened


def wait_for(condition, timeout_s=5.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def test_health_and_metadata(client, fake_core):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m", "1")
    fake_core.is_ready = False
    assert not client.is_server_ready()
    assert not client.is_model_ready("m")
    metadata = client.get_server_metadata(as_json=True)
    assert metadata == {"name": "stnkit", "version": "1", "extensions": ["classification"]}
    model = client.get_model_metadata("m")
    assert list(model.versions) == ["1", "2"]
    assert (model.inputs[0].name, list(model.inputs[0].shape)) == ("x", [-1, 4])
    with pytest.raises(triton_errors.InferenceServerException, match="there is no model 'unknown'"):
        client.is_model_ready("unknown")


def test_configuration_and_statistics(client):
    config = client.get_model_config("m").config
    assert (config.name, config.backend, config.max_batch_size) == ("m", "onnxruntime", 8)
    assert config.input[0].data_type == 11
    assert list(config.dynamic_batching.preferred_batch_size) == [1, 8]
    assert config.instance_group[0].kind == 2
    assert config.parameters["a"].string_value == "b"
    statistics = client.get_inference_statistics("m").model_stats
    assert [(entry.name, entry.inference_stats.success.ns) for entry in statistics] == [
        ("m", 2**40)
    ]
    assert client.get_inference_statistics().model_stats[0].name == "every"


def test_inference(client):
    result = client.infer("m", [tensor()], request_id="seven")
    np.testing.assert_array_equal(result.as_numpy("x_sum"), np.float32([10]))
    np.testing.assert_array_equal(result.as_numpy("x_echo"), X, strict=True)
    answer = result.get_response()
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", "seven")


def test_what_the_core_is_asked(client, fake_core):
    two = tensor(np.ones((2, 1), np.int8), "INT8", "z")
    asked = [triton.InferRequestedOutput("z_sum")]
    client.infer("m", [tensor(), two], "3", outputs=asked, request_id="a", timeout=1500)
    (request,) = fake_core.requests
    assert (request.model, request.version, request.id) == ("m", "3", "a")
    assert list(request.inputs) == ["x", "z"]
    assert request.inputs["z"].dtype == np.int8
    assert [(output.name, output.classes) for output in request.outputs] == [("z_sum", 0)]
    assert request.timeout_ms == 1.5
    client.infer("m", [tensor()], client_timeout=20.0)
    # gRPC rounds it up.
    assert 10_000 < fake_core.requests[-1].timeout_ms <= 21_000
    client.infer("m", [tensor()], client_timeout=20.0, timeout=10**6)
    assert fake_core.requests[-1].timeout_ms == 1000
    client.infer("m", [tensor()])
    assert fake_core.requests[-1].timeout_ms is None


def test_classification(client):
    asked = [triton.InferRequestedOutput("y", class_count=2)]
    result = client.infer("m", [tensor()], outputs=asked)
    assert result.as_numpy("y").tolist() == [[b"0.9:1:one", b"0.1:0"]]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("count", [4, 2**16])
def test_compressed_requests(client, algorithm, count):
    array = np.arange(count, dtype=np.float32)[None]
    result = client.infer("m", [tensor(array)], compression_algorithm=algorithm)
    np.testing.assert_array_equal(result.as_numpy("x_echo"), array)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_decompression_bomb_is_not_unpacked(channel, compression):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(INFER)(bytes(200 * 2**20), compression=compression, timeout=60)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "after decompression" in caught.value.details()


@pytest.mark.parametrize(
    ("model", "code", "text"),
    [
        ("unknown", "NOT_FOUND", "there is no model 'unknown'"),
        ("full", "UNAVAILABLE", "8 requests wait: expected at most 8"),
        ("late", "DEADLINE_EXCEEDED", "the request's time was over"),
        ("broken", "INTERNAL", "the model failed"),
        ("bug", "INTERNAL", "the server failed on this request"),
        ("n" * 257, "RESOURCE_EXHAUSTED", "257 characters"),
    ],
)
def test_errors_have_a_status_and_a_reason(client, model, code, text, caplog):
    with (
        caplog.at_level(logging.ERROR, "stnkit.serving"),
        pytest.raises(triton_errors.InferenceServerException) as caught,
    ):
        client.infer(model, [tensor()])
    assert caught.value.status() == f"StatusCode.{code}"
    assert text in caught.value.message()
    # What nobody foresaw is in the server's log, with its traceback, and there alone.
    assert ("secret" in caplog.text) == (model == "bug")
    assert "secret" not in str(caught.value)


def test_a_full_queue_says_when_to_come_back(channel):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(INFER)(message("full"))
    assert ("grpc-retry-pushback-ms", "3000") in caught.value.trailing_metadata()


def test_long_names_do_not_make_long_errors(channel, fake_core):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(INFER)(message("\N{SNOWMAN}" * 5000))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    fake_core.model_ready = _raise_long
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/inference.GRPCInferenceService/ModelReady")(b"\x0a\x01m")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert len(caught.value.details().encode()) <= 1000


def _raise_long(*_):
    from stnkit.runtime.serving.errors import NotFoundError

    raise NotFoundError("\N{SNOWMAN}" * 5000)


def test_messages_over_the_limit(channel, limits):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(INFER)(bytes(limits.body_bytes_max + 2**17))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_unknown_methods(channel):
    for method in ("/inference.GRPCInferenceService/SystemSharedMemoryStatus", "/x.Y/Z"):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(method)(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_call_without_a_message(channel):
    with pytest.raises(grpc.RpcError) as caught:
        channel.stream_unary(INFER)(iter(()))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_message_that_does_not_come(channel):
    """Who opens a call and sends nothing does not keep it open."""
    hold = threading.Event()

    def never():
        hold.wait(20)
        yield b""

    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        channel.stream_unary(INFER)(never())
    hold.set()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "did not arrive within 1 s" in caught.value.details()
    assert 0.9 < time.monotonic() - started < 5


def test_the_clients_deadline_and_its_cancellation_reach_the_core(client, channel, fake_core):
    with pytest.raises(triton_errors.InferenceServerException, match="Deadline Exceeded"):
        client.infer("slow", [tensor()], client_timeout=0.2)
    wait_for(lambda: fake_core.cancelled == 1)
    call = channel.unary_unary(INFER).future(message("slow"))
    wait_for(lambda: len(fake_core.requests) == 2)
    call.cancel()
    wait_for(lambda: fake_core.cancelled == 2)


def test_bytes_held_at_once_are_bounded(serve_grpc, make_core, limits):
    core = make_core()
    array = np.zeros((1, 2**18 - 64), np.float32)
    held = limits.bodies_bytes_max // limits.body_bytes_max
    with grpc.insecure_channel(serve_grpc(core)) as channel:
        call = channel.unary_unary(INFER)
        calls = [call.future(message("slow", array)) for _ in range(12)]
        # One more may begin while there is room for a part of it.
        wait_for(lambda: sum(found.done() for found in calls) >= 12 - held - 1, 10)
        refused = [found for found in calls if found.done()]
        assert {found.code() for found in refused} == {grpc.StatusCode.UNAVAILABLE}
        assert all("as many bytes" in found.details() for found in refused)
        assert len(calls) - len(refused) <= held + 1
        for found in calls:
            found.cancel()
        wait_for(lambda: core.cancelled == len(calls) - len(refused))
        assert call(message())


def test_a_stream_answers_in_order(client, fake_core):
    fake_core.hold_s = 0.3
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for index in range(40):
        model = "slow" if index == 0 else "m"
        client.async_stream_infer(model, [tensor()], request_id=str(index))
    found = [answers.get(timeout=10) for _ in range(40)]
    client.stop_stream()
    assert [error for _, error in found] == [None] * 40
    assert [result.get_response().id for result, _ in found] == [str(it) for it in range(40)]
    assert found[0][0].get_response().parameters["triton_final_response"].bool_param


def test_errors_in_a_stream_leave_it_open(client):
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for model in ("unknown", "bug", "m"):
        client.async_stream_infer(model, [tensor()], request_id=model)
    errors = [answers.get(timeout=10)[1] for _ in range(3)]
    client.stop_stream()
    assert "there is no model" in errors[0].message()
    assert errors[1].message() == "the server failed on this request"
    assert errors[2] is None


def test_a_stream_of_nonsense(channel):
    streamed = message_class("inference.ModelStreamInferResponse")
    answers = [
        streamed.FromString(data)
        for data in channel.stream_stream(STREAM)(iter([b"\xff", message(), b"", message()]))
    ]
    assert [bool(answer.error_message) for answer in answers] == [True, False, True, False]


def test_requests_in_flight_of_one_stream_are_bounded(channel, fake_core):
    sent = [0]

    def many():
        for _ in range(100):
            sent[0] += 1
            yield message("slow")

    call = channel.stream_stream(STREAM)(many())
    wait_for(lambda: len(fake_core.requests) == 16)
    time.sleep(0.2)
    assert len(fake_core.requests) == 16
    call.cancel()
    wait_for(lambda: fake_core.cancelled == 16)


def test_management_takes_the_token(client, fake_core, token):
    for call in (
        client.get_model_repository_index,
        lambda headers=None: client.load_model("a", headers=headers),
        lambda headers=None: client.unload_model("a", headers=headers),
    ):
        for headers in (None, {"authorization": "Bearer wrong"}):
            with pytest.raises(triton_errors.InferenceServerException) as caught:
                call(headers=headers)
            assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
        call(headers={"authorization": token})
    assert fake_core.managed == ["load a", "unload a"]
    index = client.get_model_repository_index(headers={"authorization": token})
    assert [(model.name, model.state) for model in index.models] == [
        ("a", "READY"),
        ("b", "UNAVAILABLE"),
    ]


def test_models_come_from_their_bundles_alone(client, fake_core, token):
    with pytest.raises(triton_errors.InferenceServerException, match="parameter 'config'"):
        client.load_model("a", headers={"authorization": token}, config="{}")
    with pytest.raises(triton_errors.InferenceServerException) as caught:
        client.load_model(
            "a", headers={"authorization": token}, config="{}", files={"file:1/m": b"x" * 10**5}
        )
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
    assert fake_core.managed == []


def test_health_service(channel, fake_core):
    check = channel.unary_unary(CHECK, response_deserializer=Health.FromString)
    assert check(b"").status == 1
    fake_core.is_ready = False
    assert check(b"").status == 2
    with pytest.raises(grpc.RpcError) as caught:
        check(b"\x0a\x01x")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_is_watched(channel, fake_core):
    watch = channel.unary_stream(
        "/grpc.health.v1.Health/Watch", response_deserializer=Health.FromString
    )
    call = watch(b"")
    assert next(call).status == 1
    fake_core.is_ready = False
    assert next(call).status == 2
    call.cancel()
    assert next(watch(b"\x0a\x01x")).status == 3


def test_who_watches_is_told_of_the_end(fake_core):
    server = GrpcServer(fake_core)
    with grpc.insecure_channel(f"127.0.0.1:{server.start('127.0.0.1', 0)}") as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch", response_deserializer=Health.FromString
        )
        call = watch(b"")
        assert next(call).status == 1
        fake_core.is_ready = False
        server.stop(2.0)
        assert [answer.status for answer in call] == [2]
    server.stop(0.1)


def test_a_port_that_is_in_use(address, fake_core):
    host, port = address.split(":")
    with pytest.raises(InputError, match=f"port {port} .*in use.*--grpc-port"):
        GrpcServer(fake_core).start(host, int(port))
    with pytest.raises(InputError, match=r"cannot listen on 192\.0\.2\.1"):
        GrpcServer(fake_core).start("192.0.2.1", 0)


def test_connections_are_bounded(serve_grpc, make_core):
    from stnkit.runtime.serving.limits import Limits

    address = serve_grpc(make_core(Limits(connections_max=4)))
    host, port = address.split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            channel = grpc.insecure_channel(
                address, options=[("grpc.use_local_subchannel_pool", 1)]
            )
            stack.enter_context(channel)
            assert channel.unary_unary(CHECK)(b"", timeout=5)
        closed = 0
        for _ in range(8):
            raw = stack.enter_context(socket.create_connection((host, int(port)), 5))
            raw.settimeout(1)
            with contextlib.suppress(TimeoutError):
                # A connection that is taken is greeted with SETTINGS.
                try:
                    closed += raw.recv(1) == b""
                except ConnectionError:
                    closed += 1
        assert closed >= 7


def test_stopping_answers_what_was_taken(serve_grpc, make_core):
    core = make_core()
    core.hold_s = 0.5
    server = GrpcServer(core)
    address = f"127.0.0.1:{server.start('127.0.0.1', 0)}"
    answers = queue.Queue()
    with client_of(address) as client, grpc.insecure_channel(address) as channel:
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("slow", [tensor()], request_id="in the stream")
        call = channel.unary_unary(INFER).future(message("slow"))
        wait_for(lambda: len(core.requests) == 2)
        started = time.monotonic()
        server.stop(5)
        assert 0.2 < time.monotonic() - started < 3
        assert call.code() is grpc.StatusCode.OK
        assert answers.get(timeout=5)[0].get_response().id == "in the stream"
        client.stop_stream()
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(INFER)(message())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    server.stop()


def test_stopping_does_not_wait_for_ever(make_core):
    core = make_core()
    server = GrpcServer(core)
    address = f"127.0.0.1:{server.start('127.0.0.1', 0)}"
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(INFER).future(message("slow"))
        wait_for(lambda: core.requests)
        started = time.monotonic()
        server.stop(0.2)
        assert time.monotonic() - started < 3
        assert call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert core.cancelled == 1


def test_starting_and_stopping_leaves_nothing(make_core):
    before = threading.active_count()
    for _ in range(5):
        server = GrpcServer(make_core())
        address = f"127.0.0.1:{server.start('127.0.0.1', 0)}"
        with grpc.insecure_channel(address) as channel:
            assert channel.unary_unary(CHECK)(b"", timeout=5)
        server.stop()
    wait_for(lambda: threading.active_count() <= before + 2)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost".split()
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return folder / "cert.pem", folder / "key.pem"


def test_tls(serve_grpc, fake_core, certificate):
    address = serve_grpc(fake_core, tls=certificate).replace("127.0.0.1", "localhost")
    with client_of(address, ssl=True, root_certificates=str(certificate[0])) as client:
        assert client.infer("m", [tensor()]).as_numpy("x_sum") == [10]
    with client_of(address) as client, pytest.raises(triton_errors.InferenceServerException):
        client.is_server_live(client_timeout=2)


def test_a_certificate_that_cannot_be_used(fake_core, certificate, tmp_path):
    other = tmp_path / "other.pem"
    for pair in ((tmp_path / "none.pem", certificate[1]), (certificate[0], certificate[0])):
        with pytest.raises(InputError, match="certificate or its key cannot be used"):
            GrpcServer(fake_core).start("127.0.0.1", 0, tls=pair)
    other.write_text("no certificate")
    with pytest.raises(InputError, match="certificate or its key cannot be used"):
        GrpcServer(fake_core).start("127.0.0.1", 0, tls=(other, certificate[1]))


@pytest.mark.parametrize("when", ["before", "during", "stream"])
def test_clients_that_go_away_leave_no_errors(address, fake_core, when, caplog):
    """What a client breaks off is no error of the server's."""
    with caplog.at_level(logging.WARNING):
        channel = grpc.insecure_channel(address)
        hold = threading.Event()

        def slow():
            if when == "stream":
                for _ in range(5):
                    yield message("slow")
            hold.wait(10)
            yield b""

        if when == "during":
            call = channel.unary_unary(INFER).future(message("slow"))
            wait_for(lambda: fake_core.requests)
        elif when == "before":
            call = channel.stream_unary(INFER).future(slow())
        else:
            call = channel.stream_stream(STREAM)(slow())
            wait_for(lambda: len(fake_core.requests) == 5)
        time.sleep(0.2)
        channel.close()
        hold.set()
        assert call.code() is grpc.StatusCode.CANCELLED
        time.sleep(0.3)
        with grpc.insecure_channel(address) as other:
            assert other.unary_unary(INFER)(message())
    assert [it.getMessage() for it in caplog.records if it.levelno >= logging.WARNING] == []
