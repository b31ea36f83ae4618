"""Hostile clients against the real server, in a process of its own."""

from __future__ import annotations

import contextlib
import gzip
import random
import re
import socket
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import grpc
import numpy as np
import pytest

from stnkit.runtime import load
from stnkit.runtime.serving.grpc_v2.messages import INFERENCE_SERVICE, METHODS, message_class
from stnkit.runtime.serving.grpc_v2.wire import varint

Request = message_class("inference.ModelInferRequest")
Response = message_class("inference.ModelInferResponse")
StreamResponse = message_class("inference.ModelStreamInferResponse")

CODES = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"}
CODES |= {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
DATATYPES = ["FP32", "FP16", "FP64", "INT64", "INT8", "BOOL", "BYTES", "", "fp32", "TYPE_FP32"]
SIZES = [0, 1, -1, 28, 29, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63)]
TEXTS = ["", "digits", "image", "x", "../digits", "n" * 300, "\0", "\N{SNOWMAN}" * 40, "%s%n"]
SERVER = """
import sys, time
from pathlib import Path
from stnkit.runtime.serving import BundleSource, Limits, ModelOptions, ServingCore
from stnkit.runtime.serving.grpc_v2 import GrpcServer
core = ServingCore(
    [BundleSource(Path(sys.argv[1]), "digits")],
    ModelOptions(threads=1, instances=1),
    Limits(body_bytes_max=2**20, receive_timeout_s=2.0),
)
core.open()
server = GrpcServer(core)
print(server.start("127.0.0.1", 0), flush=True)
sys.stdin.read()
server.stop(5)
core.close(5)
"""


class Server:
    """The process, and what it answers to a request that is right."""

    def __init__(self, bundle, log):
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, bundle],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        self.port = int(self.process.stdout.readline())
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{self.port}", options=[("grpc.max_send_message_length", -1)]
        )
        self.image = np.random.default_rng(1).random((1, 28, 28, 1)).astype(np.float32)
        with load(bundle, artifact="onnx", threads=1) as session:
            (self.expected,) = session.run({"image": self.image}).values()

    def call(self, method, data, service=INFERENCE_SERVICE, timeout=20.0):
        """Return the code, the text and the answer."""
        try:
            answer = self.channel.unary_unary(f"/{service}/{method}")(data, timeout=timeout)
        except grpc.RpcError as error:
            return error.code().name, error.details(), b""
        return "OK", "", answer

    def stream(self, messages):
        call = self.channel.stream_stream(f"/{INFERENCE_SERVICE}/ModelStreamInfer")
        return [StreamResponse.FromString(it) for it in call(iter(messages), timeout=20)]

    def request(self):
        message = Request(model_name="digits", id="1")
        message.inputs.add(name="image", datatype="FP32", shape=self.image.shape)
        message.raw_input_contents.append(self.image.tobytes())
        return message

    def check(self):
        """Ask for what is right, and compare."""
        assert self.process.poll() is None
        code, text, answer = self.call("ModelInfer", self.request().SerializeToString())
        assert (code, text) == ("OK", "")
        (raw,) = Response.FromString(answer).raw_output_contents
        np.testing.assert_allclose(np.frombuffer(raw, np.float32), self.expected[0], atol=1e-6)

    def rss_mib(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def close(self):
        self.channel.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(20)


@pytest.fixture(scope="module")
def server(digits_served, tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "server.log"
    with path.open("w") as log:
        opened = Server(digits_served, log)
        yield opened
        assert opened.close() == 0
    # Nothing that a client sent was a surprise.
    assert "Traceback" not in path.read_text("utf-8")


def damaged(rng, data):
    """Return bytes that were a message."""
    data = bytearray(data)
    head = min(len(data), 60)
    match rng.randrange(7):
        case 0:
            return bytes(data[: rng.randrange(len(data))])
        case 1:
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(head)] = rng.randrange(256)
        case 2:
            del data[rng.randrange(head) : rng.randrange(len(data))]
        case 3:
            at = rng.randrange(head)
            data[at:at] = rng.randbytes(rng.randint(1, 12))
        case 4:
            # A length that lies.
            at = rng.randrange(head)
            data[at : at + 1] = varint(rng.choice([2**7, 2**14, 2**31, 2**32, 2**63, 2**64 - 1]))
        case 5:
            data += bytes(data[: rng.randrange(len(data))])
        case 6:
            return rng.randbytes(rng.randrange(200))
    return bytes(data)


def twisted(rng, message):
    """Return a message that is whole and wrong, most times."""
    item = message.inputs[0]
    match rng.randrange(13):
        case 0:
            item.datatype = rng.choice(DATATYPES)
        case 1:
            del item.shape[:]
            item.shape.extend(rng.choices(SIZES, k=rng.randrange(12)))
        case 2:
            item.shape[rng.randrange(4)] = rng.choice(SIZES)
        case 3:
            message.raw_input_contents.append(rng.randbytes(rng.randrange(40)))
        case 4:
            message.raw_input_contents[0] = rng.randbytes(rng.choice([0, 1, 3135, 3136, 3137]))
        case 5:
            message.ClearField("raw_input_contents")
            field = rng.choice([found.name for found in item.contents.DESCRIPTOR.fields])
            value = b"1" if field == "bytes_contents" else 1
            getattr(item.contents, field).extend([value] * rng.choice([0, 1, 783, 784, 785]))
        case 6:
            message.inputs.add().CopyFrom(item)
        case 7:
            field = rng.choice(["model_name", "model_version", "id"])
            setattr(message, field, rng.choice(TEXTS))
        case 8:
            item.name = rng.choice(TEXTS)
        case 9:
            for _ in range(rng.choice([1, 2, 70])):
                output = message.outputs.add(name=rng.choice([*TEXTS, "probabilities"]))
                if rng.random() < 0.5:
                    output.parameters["classification"].int64_param = rng.choice(SIZES)
        case 10:
            holder = rng.choice([message, item])
            key = rng.choice(["timeout", "shared_memory_region", "sequence_id", *TEXTS])
            field = rng.choice(["int64_param", "string_param", "bool_param", "double_param"])
            value = {"int64_param": rng.choice(SIZES), "bool_param": True, "double_param": 1e308}
            setattr(holder.parameters[key], field, value.get(field, rng.choice(TEXTS)))
        case 11:
            message.ClearField("inputs")
        case 12:
            count = rng.choice([1, 9, 40])
            item.shape[0] = count
            message.raw_input_contents[0] = message.raw_input_contents[0] * count
    return message.SerializeToString()


def fuzz(server, count, seed):
    rng = random.Random(seed)
    methods = sorted(METHODS[INFERENCE_SERVICE])
    seen = {}
    for index in range(count):
        kind = rng.random()
        method = "ModelInfer"
        if kind < 0.4:
            data = damaged(rng, server.request().SerializeToString())
        elif kind < 0.8:
            data = twisted(rng, server.request())
        elif kind < 0.86:
            pack = rng.choice([gzip.compress, zlib.compress])
            packed = pack(server.request().SerializeToString())
            data = packed if rng.random() < 0.3 else damaged(rng, packed)
        elif kind < 0.89:
            data = bytes(rng.choice([0, 1, 2**16, 2**20, 2**20 + 2**16, 2**21]))
        elif kind < 0.93:
            messages = [
                rng.choice([damaged, lambda rng, data: data])(
                    rng, server.request().SerializeToString()
                )
                for _ in range(rng.randint(1, 20))
            ]
            answers = server.stream(messages)
            assert len(answers) == len(messages)
            texts = [answer.error_message for answer in answers]
            assert "the server failed on this request" not in texts
            continue
        else:
            method = rng.choice(methods)
            data = rng.choice([rng.randbytes(rng.randrange(60)), b"\x0a\x06digits"])
        if method == "ModelStreamInfer":
            continue
        code, text, _ = server.call(method, data)
        assert code in CODES, (code, text, method, data[:300])
        assert code == "OK" or text, (code, method, data[:300])
        seen[code] = seen.get(code, 0) + 1
        if index % 100 == 99:
            server.check()
    server.check()
    return seen


def test_300_requests(server):
    seen = fuzz(server, 300, seed=1)
    assert seen["INVALID_ARGUMENT"] > 100
    assert {"OK", "NOT_FOUND", "RESOURCE_EXHAUSTED"} <= set(seen)


@pytest.mark.slow
def test_10000_requests(server):
    """The contract: no crash, no fault of the server's, and memory does not grow."""
    fuzz(server, 1000, seed=2)
    before = server.rss_mib()
    fuzz(server, 9000, seed=3)
    assert server.rss_mib() < before + 48


def test_connections_that_speak_something_else(server):
    rng = random.Random(4)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    texts = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", preface]
    for index in range(60):
        with socket.create_connection(("127.0.0.1", server.port), 5) as raw:
            raw.settimeout(0.05)
            text = rng.choice(texts) + rng.randbytes(rng.randrange(200))
            if index % 2:
                frame = rng.randrange(2**14).to_bytes(3) + rng.randbytes(6)
                text = preface + settings + frame + rng.randbytes(rng.randrange(100))
            with contextlib.suppress(OSError):
                raw.sendall(text)
                raw.recv(100)
    server.check()


def test_headers_without_end(server):
    """Metadata over the limit is refused, by gRPC itself."""
    call = server.channel.unary_unary(f"/{INFERENCE_SERVICE}/ServerLive")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", metadata=[("x", "y" * 2**16)], timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    server.check()


def test_many_calls_that_send_nothing(server):
    """Others are answered while they are open, and they end by themselves."""

    done = threading.Event()

    def never():
        done.wait(10)
        yield b""

    call = server.channel.stream_unary(f"/{INFERENCE_SERVICE}/ModelInfer")
    waiting = [call.future(never()) for _ in range(20)]
    server.check()
    codes = [found.code() for found in waiting]
    done.set()
    assert set(codes) == {grpc.StatusCode.DEADLINE_EXCEEDED}
    server.check()
