"""Requests that are not what they should be, from a seed: the same seed gives the same requests.

Each layer has its own mutations: the bytes, the request line, headers, framing, JSON, tensors,
compression, images, and what comes behind a request.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

INFER = "/v2/models/toy/infer"
CLASSIFY = "/v2/models/toy/classify"
PIXELS = [i / 32 for i in range(32)]

NUMBERS = (0, 1, -1, 2, 3, 32, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64)
VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "x", "image", "FP32", "1", "NaN", [], {}, [[]], [{}], {"a": 1}),
    *NUMBERS,
    *(
        -(2**31),
        -(2**63),
        0.5,
        -0.0,
        1e308,
        1e-320,
        "\x00",
        "é",
        "\U0001d54f",
        "x" * 300,
        "x" * 70_000,
    ),
    *([0] * 100, [-1, 4, 4, 1], [2, 4, 4], [2, 4, 4, 1, 1], [1] * 9, [0, 4, 4, 1], [2**62] * 8),
    *([0, 2**62, 2**62, 2**62], [2.0, 4, 4, 1], ["2", 4, 4, 1], [[2], 4, 4, 1]),
    *({"binary_data_size": 10**9}, {"shared_memory_region": "x", "shared_memory_byte_size": 8}),
    *({"classification": 10**9}, {"classification": -1}, {"binary_data": "yes"}, {"timeout": 1}),
)
DATATYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BF16", "BYTES", "fp32", "FP32\x00", "", "object", "O", ">f4"),
)
LENGTHS = (
    *("0", "1", "-1", "+5", " 5", "5,5", "0x10", "1e3", "5 5", "", "NaN", "999999999999999999999"),
    *("9223372036854775808", "18446744073709551616", "4294967296", "1_000", "٣", "00000000000005"),
)
CODINGS = (
    *("gzip", "deflate", "identity", "br", "gzip, gzip", "x-gzip", "GZIP", "gzip;q=1", "", "zstd"),
)
TRANSFERS = (
    *("chunked", "Chunked", "identity", "gzip, chunked", "chunked, identity", "xchunked"),
    *(" chunked", "chunked;", "chunked\t", "", "chunked, chunked"),
)
METHODS = (
    *("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "BREW"),
    *("get", "PRI", "", "GET" * 2000, "G\x00T", "M-SEARCH"),
)
PATHS = (
    *("/", "", "*", "/v2", "/v2/", "//v2", "/v2/models", "/v2/models/", "/v2/models//infer"),
    *("/v2/models/toy/versions//infer", "/v2/models/toy/versions/1/infer", "/v2/models/toy/ready"),
    *("/v2/models/toy/versions/-1/infer", "/v2/models/toy/versions/1e9", "/v2/models/%00/infer"),
    *("/v2/models/../../etc/passwd", "/v2/models/%2e%2e%2f%2e%2e%2fetc/infer", "/v2/models/%FF"),
    *(
        "/v2/models/toy/versions/%D9%A1",
        "/v2/models/toy/config?x=%",
        "/v2/models/stats",
        "/metrics",
    ),
    *("/v2/repository/index", "/v2/repository/models/toy/load", "/v2/repository/models/x/unload"),
    *("http://test/v2", "http://[::1/v2", "/v2/models/" + "a" * 5000 + "/infer", "/" * 3000),
    *(
        "/v2?" + "a=1&" * 500,
        "/v2/models/toy/infer#x",
        "/\x80\xff",
        "/v2 /x",
        "v2",
        "/v2/openapi.json",
    ),
    *(
        CLASSIFY + "?top=0",
        CLASSIFY + "?top=-1",
        CLASSIFY + "?id=" + "%00",
        CLASSIFY + "?top=1&top=2",
    ),
    *(CLASSIFY + "?top=" + "9" * 100, CLASSIFY + "?top=%F0%9F", CLASSIFY + "?" + "top=1&" * 20),
)
NAMES = (
    *("Host", "Content-Type", "Connection", "Expect", "Upgrade", "Authorization", "X-Request-Id"),
    *("Inference-Header-Content-Length", "Content-Encoding", "Transfer-Encoding", "Cookie", "TE"),
    *("Content-Length", "traceparent", "Accept-Encoding", "Range", "If-None-Match", "Trailer"),
    *("x" * 2000, "X y", "", "X:", "X\x00", "é", "\tX", "Content-Length "),
)
TEXTS = (
    *("", "x", "close", "keep-alive", "upgrade", "websocket", "h2c", "100-continue", "200-ok"),
    *("application/json", "multipart/form-data; boundary=x", "application/octet-stream", "\x00"),
    *(
        "Bearer x",
        "Basic eDp4",
        "é" * 20,
        "x" * 40_000,
        "a\r\n b",
        "a\rb",
        "a\nb",
        "00-0-0-0",
        "\t",
    ),
    *("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "bytes=0-1", *LENGTHS[:6]),
)


@dataclass
class Case:
    """What is sent on one connection.

    Attributes:
        name: of the mutation.
        parts: sent one after the other.
        then: `"wait"` for answers, with a request behind the case; `"half"` close and wait; or
            `"close"`, `"reset"` or `"hold"` the connection without waiting.
        more: `"most"`, how many answers there may be.
    """

    name: str
    parts: list[bytes]
    then: str = "wait"
    more: dict[str, Any] = field(default_factory=dict)


def head(method: str, path: str, headers: list[tuple[str, str]]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n"


def message(body: bytes, headers: list[tuple[str, str]] | None = None, path: str = INFER) -> bytes:
    return (
        head("POST", path, [("Host", "t"), *(headers or []), ("Content-Length", str(len(body)))])
        + body
    )


def fields() -> dict[str, Any]:
    """Return a valid request as JSON."""
    tensor = {"name": "image", "datatype": "FP32", "shape": [2, 4, 4, 1], "data": list(PIXELS)}
    return {
        "id": "1",
        "parameters": {"timeout": 5_000_000},
        "inputs": [tensor],
        "outputs": [
            {"name": "probabilities", "parameters": {"binary_data": False}},
            {"name": "features", "parameters": {"classification": 2}},
        ],
    }


def binary(changes: dict[str, Any] | None = None) -> tuple[bytes, bytes]:
    """Return JSON and bytes of a valid request with a binary tensor."""
    data = struct.pack("<32f", *PIXELS)
    tensor: dict[str, Any] = {"name": "image", "datatype": "FP32", "shape": [2, 4, 4, 1]}
    tensor["parameters"] = {"binary_data_size": len(data)}
    tensor.update(changes or {})
    return json.dumps({"inputs": [tensor]}).encode(), data


def spoil(rng: random.Random, data: bytes) -> bytes:
    """Flip, insert, delete or repeat bytes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(out) + 1) if out else 0
        kind = rng.randrange(4)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at:at] = rng.randbytes(rng.choice((1, 1, 2, 30)))
        elif kind == 2:
            del out[at : at + rng.choice((1, 1, 4, 60))]
        else:
            out[at:at] = out[at : at + rng.choice((1, 10, 100))]
    return bytes(out)


def places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Return every place in a JSON value, as container and key."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list) and len(value[key]) < 30:
            places(value[key], found)
    return found


def of_bytes(rng: random.Random) -> Case:
    whole = message(json.dumps(fields()).encode())
    return Case("bytes", [spoil(rng, whole)])


def of_length(rng: random.Random) -> Case:
    """Cut a request off."""
    text, data = binary()
    whole = rng.choice(
        (
            message(json.dumps(fields()).encode()),
            message(text + data, [("Inference-Header-Content-Length", str(len(text)))]),
        )
    )
    cut = whole[: rng.randrange(len(whole))]
    return Case("cut", [cut], rng.choice(("half", "close", "reset", "hold", "hold")))


def of_line(rng: random.Random) -> Case:
    method = rng.choice(METHODS) if rng.random() < 0.5 else rng.choice(("GET", "POST"))
    path = rng.choice(PATHS)
    version = rng.choice(("HTTP/1.1",) * 6 + ("HTTP/1.0", "HTTP/2.0", "HTTP/9.9", "http/1.1", ""))
    end = rng.choice(("\r\n",) * 8 + ("\n", "\r", "\r\n "))
    line = f"{method} {path} {version}{end}Host: t\r\nContent-Length: 2\r\n\r\n{{}}"
    return Case("line", [line.encode("latin-1", "replace")])


def of_headers(rng: random.Random) -> Case:
    body = json.dumps(fields()).encode()
    headers = [("Host", "t"), ("Content-Length", str(len(body)))]
    for _ in range(rng.choice((1, 1, 2, 3))):
        name, value = rng.choice(NAMES), rng.choice(TEXTS)
        headers.insert(rng.randrange(len(headers) + 1), (name, value))
    if rng.random() < 0.1:
        headers += [(f"X-{i}", "y" * 10) for i in range(rng.choice((100, 2000)))]
    return Case("headers", [head("POST", INFER, headers) + body])


def of_lies(rng: random.Random) -> Case:
    """Lie about lengths, and say them twice or in two ways."""
    text, data = binary()
    headers = [("Host", "t")]
    for name, right, wrong in (
        ("Content-Length", str(len(text + data)), LENGTHS),
        ("Inference-Header-Content-Length", str(len(text)), LENGTHS),
        ("Transfer-Encoding", None, TRANSFERS),
        ("Content-Encoding", None, CODINGS),
    ):
        choice = rng.random()
        if right is not None and choice < 0.6:
            headers.append((name, right))
        if choice > (0.5 if right is not None else 0.8):
            off = str(int(right) + rng.choice((-7, -1, 1, 9, 10**6))) if right else ""
            headers.append((name, off if off and rng.random() < 0.5 else rng.choice(wrong)))
    rng.shuffle(headers)
    return Case("lies", [head("POST", INFER, headers) + text + data], rng.choice(("wait", "half")))


def of_json(rng: random.Random) -> Case:
    found = fields()
    for _ in range(rng.choice((1, 1, 2, 3))):
        container, key = rng.choice(places(found, []))
        kind = rng.random()
        if kind < 0.75:
            container[key] = deepcopy(rng.choice(VALUES))
        elif kind < 0.85:
            del container[key]
        elif isinstance(container, list):
            container += [deepcopy(container[key])] * rng.choice((1, 1, 100))
        else:
            key = rng.choice(("", "x", "data", "inputs", "parameters"))
            container[key] = deepcopy(rng.choice(VALUES))
    return Case("json", [message(json.dumps(found, allow_nan=True).encode())])


def of_text(rng: random.Random) -> Case:
    """Write what a JSON writer would not."""
    deep = rng.choice((10, 100, 1000, 1020, 1030, 100_000))
    opened = rng.choice(("[", '{"a":'))
    closed = "]" if opened == "[" else "}"
    nested = opened * deep + ("1" if rng.random() < 0.5 else "") + closed * deep
    tensor = '"name":"image","datatype":"FP32","shape":[2,4,4,1]'
    text = rng.choice(
        (
            nested,
            f'{{"inputs":[{{{tensor},"data":{nested}}}]}}',
            f'{{"inputs":[{{"name":"image","datatype":"FP32","shape":{nested}}}]}}',
            f'{{"inputs":[{{"name":"image","datatype":{nested},"shape":[1],"data":[1]}}]}}',
            f'{{"inputs":[{{{tensor},"parameters":{{"binary_data_size":{nested}}}}}]}}',
            f'{{"parameters":{{"timeout":{nested}}},"inputs":[{{{tensor},"data":[1]}}]}}',
            f'{{"inputs":[{{{tensor},"data":["{"x" * 200_000}"{",0" * 31}]}}]}}',
            f'{{"inputs":[{{{tensor},"data":[{"1," * 31}1e999]}}]}}',
            f'{{"inputs":[{{{tensor},"data":[{"NaN," * 31}Infinity]}}]}}',
            f'{{"inputs":[{{{tensor},"data":[{"9" * 5000}]}}]}}',
            f'{{"inputs":[{{{tensor},"data":[{"1," * 300_000}1]}}]}}',
            '{"inputs":[],"inputs":[{}]}',
            '{"id":"\\ud800","inputs":[]}',
            "\ufeff{}",
            '"x"',
            "[]",
            "null",
            "",
            "{" * 50_000,
            '{"inputs":[' + "{}," * 100_000 + "{}]}",
            '{"a' + "\\u0061" * 10_000,
        )
    )
    data = text.encode()
    if rng.random() < 0.2:
        data = data.replace(b'"', b"\xff", 1)
    return Case("text", [message(data)])


def of_tensors(rng: random.Random) -> Case:
    changes: dict[str, Any] = {}
    if rng.random() < 0.5:
        sizes = [rng.choice((0, 1, 2, 4, -1, -4, 2**31, 2**62, 2**63 - 1)) for _ in range(4)]
        changes["shape"] = sizes[: rng.choice((0, 1, 3, 4, 4, 4))]
    if rng.random() < 0.5:
        changes["datatype"] = rng.choice(DATATYPES)
    if rng.random() < 0.5:
        changes["parameters"] = {"binary_data_size": rng.choice((*NUMBERS, 127, 129, -128, "128"))}
    text, data = binary(changes)
    if rng.random() < 0.3:
        data = rng.randbytes(rng.choice((0, 1, 127, 128, 129, 256)))
    length = len(text) + rng.choice((0, 0, 0, 0, 1, -1, 128, 129, 10**6))
    return Case(
        "tensors", [message(text + data, [("Inference-Header-Content-Length", str(length))])]
    )


def of_compression(rng: random.Random) -> Case:
    plain = json.dumps(fields()).encode()
    coding = rng.choice(("gzip", "deflate"))
    # Without the time that gzip writes: the same seed gives the same bytes.
    timeless = functools.partial(gzip.compress, mtime=0)
    squeeze: Callable[[bytes], bytes] = timeless if coding == "gzip" else zlib.compress
    body = squeeze(plain)
    kind = rng.randrange(7)
    if kind == 0:
        body = body[: rng.randrange(len(body))]
    elif kind == 1:
        body = spoil(rng, body)
    elif kind == 2:
        body += rng.choice((b"x", body, b"\x00" * 100))
    elif kind == 3:
        body = squeeze(rng.choice((b"\x00", b"[", b'{"a":', b" ")) * rng.choice((10**6, 3 * 10**7)))
    elif kind == 4:
        body = squeeze(squeeze(squeeze(b"\x00" * 10**7)))
    elif kind == 5:
        coding = rng.choice(CODINGS)
    return Case("compression", [message(body, [("Content-Encoding", coding)])])


def of_chunks(rng: random.Random) -> Case:
    body = json.dumps(fields()).encode()
    parts, at = [head("POST", INFER, [("Host", "t"), ("Transfer-Encoding", "chunked")])], 0
    wrong = rng.random() < 0.8
    while at < len(body):
        part = body[at : at + rng.choice((1, 7, 100, 1000))]
        size = f"{len(part):x}"
        if wrong and rng.random() < 0.15:
            size = rng.choice(
                (
                    "-1",
                    "0x5",
                    "g",
                    "",
                    "FFFFFFFFFFFFFFFF",
                    "1" * 40,
                    " 5",
                    "0",
                    "7;a=" + "b" * 40_000,
                )
            )
        parts.append(size.encode() + b"\r\n" + part + rng.choice((b"\r\n",) * 9 + (b"\n", b"")))
        at += len(part)
    end = rng.choice(
        (b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\n", b"", b"0\r\n" + b"X: y\r\n" * 9000 + b"\r\n")
    )
    whole = [*parts, end] if rng.random() < 0.3 else [b"".join([*parts, end])]
    return Case("chunks", whole, rng.choice(("wait", "half", "close")))


def of_pipelines(rng: random.Random) -> Case:
    good = message(json.dumps(fields()).encode())
    tiny = head("GET", rng.choice(("/v2", "/v2/health/live", "/nothing")), [("Host", "t")])
    parts = []
    for _ in range(rng.choice((2, 5, 20, 200))):
        parts.append(rng.choice((good, tiny, tiny)))
    if rng.random() < 0.5:
        other = rng.choice((of_bytes, of_lies, of_chunks, of_length))(rng)
        parts.insert(rng.randrange(len(parts) + 1), b"".join(other.parts))
    return Case("pipeline", [b"".join(parts)], rng.choice(("wait", "half", "reset", "close")))


def of_smuggling(rng: random.Random) -> Case:
    inner = head("GET", "/v2/models/smuggled", [("Host", "t")])
    body = b"0\r\n\r\n" + inner
    length, transfer = (
        ("Content-Length", rng.choice(("5", str(len(body)), "0"))),
        rng.choice(TRANSFERS),
    )
    headers = [length, ("Transfer-Encoding", transfer)]
    if rng.random() < 0.3:
        headers.append(rng.choice((length, ("Transfer-Encoding", rng.choice(TRANSFERS)))))
    rng.shuffle(headers)
    names = {
        "Transfer-Encoding": rng.choice(
            ("Transfer-Encoding", "Transfer-Encoding ", "transfer_encoding")
        )
    }
    headers = [(names.get(name, name), value) for name, value in headers]
    return Case(
        "smuggling", [head("POST", INFER, [("Host", "t"), *headers]) + body], more={"most": 2}
    )


def of_images(rng: random.Random) -> Case:
    kind = rng.choice(("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"))
    buffer = io.BytesIO()
    size = rng.choice(((4, 4), (1, 1), (5, 9), (300, 200)))
    Image.frombytes("L", size, rng.randbytes(size[0] * size[1])).save(buffer, kind)
    data = buffer.getvalue()
    choice = rng.randrange(5)
    if choice == 0:
        data = data[: rng.randrange(len(data))]
    elif choice < 3:
        data = spoil(rng, data)
    elif choice == 3 and kind == "PNG":  # declares 60,000 x 60,000 pixels
        data = data[:16] + struct.pack(">II", 60_000, 60_000) + data[24:]
        data = data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]
    query = rng.choice(("", "", "?top=2", "?id=a", "?top=x", "?nothing=1"))
    return Case("images", [message(data, [("Content-Type", "image/png")], CLASSIFY + query)])


def of_management(rng: random.Random) -> Case:
    path = rng.choice(("/v2/repository/index", "/v2/repository/models/toy/unload"))
    token = rng.choice(("", "Bearer ", "Bearer x", "Bearer " + "é" * 10, "bearer", "Bearer\t"))
    return Case("management", [message(b"{}", [("Authorization", token)], path)])


KINDS: tuple[Callable[[random.Random], Case], ...] = (
    *(of_bytes, of_length, of_line, of_headers, of_lies, of_json, of_json, of_text, of_tensors),
    *(of_tensors, of_compression, of_chunks, of_pipelines, of_smuggling, of_images, of_management),
)


def cases(seed: int, count: int) -> Iterator[Case]:
    """Return cases, each kind in its turn.

    Args:
        seed: of all of them.
        count: how many.
    """
    for number in range(count):
        rng = random.Random(seed * 1_000_003 + number)
        yield KINDS[number % len(KINDS)](rng)
