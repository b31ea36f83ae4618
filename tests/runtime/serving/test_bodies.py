"""Reading bodies: counted, decompressed in steps, and given back."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib

import pytest

from stnkit.runtime.serving.errors import (
    InvalidRequestError,
    NotReadyError,
    TooLargeError,
    UnsupportedError,
)
from stnkit.runtime.serving.http.bodies import Bodies, ClientGoneError, header
from stnkit.runtime.serving.limits import Limits

LIMITS = Limits(body_bytes_max=1000, bodies_bytes_max=2500)


def read(bodies, *parts, length=None, encoding=None, gone=False):
    """Read a body that comes in parts; return it and what it holds."""
    messages = [
        {"type": "http.request", "body": part, "more_body": gone or i + 1 < len(parts)}
        for i, part in enumerate(parts)
    ]
    if gone:
        messages.append({"type": "http.disconnect"})

    async def receive():
        return messages.pop(0)

    return asyncio.run(bodies.read(receive, length, encoding))


@pytest.mark.parametrize("parts", [[b""], [b"abc"], [b"a", b"", b"bc"], [b"x" * 1000]])
@pytest.mark.parametrize("told", [True, False])
def test_bodies_are_whole_and_counted(parts, told):
    bodies = Bodies(LIMITS)
    size = sum(map(len, parts))
    body, held = read(bodies, *parts, length=str(size).encode() if told else None)
    assert body == b"".join(parts)
    assert held == bodies.held_bytes == size
    bodies.release(held)
    assert bodies.held_bytes == 0


@pytest.mark.parametrize(
    ("parts", "length"),
    [
        ([], b"1001"),  # not even asked for
        ([], b"9" * 19),
        ([b"x" * 1001], None),
        ([b"x" * 600, b"x" * 401, b"never read"], None),
        ([b"x" * 1001], b"10"),
    ],
)
def test_bodies_that_are_too_long(parts, length):
    bodies = Bodies(LIMITS)
    with pytest.raises(TooLargeError, match="expected at most 1000"):
        read(bodies, *parts, length=length)
    assert bodies.held_bytes == 0


@pytest.mark.parametrize("length", [b"-1", b"+1", b"1.0", b"", b"0x1", b"1 ", b"9" * 20])
def test_lengths_that_are_no_numbers(length):
    with pytest.raises(InvalidRequestError, match="not a number"):
        read(Bodies(LIMITS), b"x", length=length)


def test_all_bodies_together():
    bodies = Bodies(LIMITS)
    _, first = read(bodies, b"x" * 1000)
    _, second = read(bodies, b"x" * 1000)
    for parts, length in (([], b"501"), ([b"x" * 501], None), ([b"x", b"x" * 500], None)):
        with pytest.raises(NotReadyError, match="try again later") as caught:
            read(bodies, *parts, length=length)
        assert caught.value.retry_after_s == 1
    assert bodies.held_bytes == 2000
    read(bodies, b"x" * 500)
    bodies.release(first + second)
    assert bodies.held_bytes == 500


def test_clients_that_go_away():
    bodies = Bodies(LIMITS)
    for parts in ([], [b"x"], [b"x", b"y"]):
        with pytest.raises(ClientGoneError):
            read(bodies, *parts, length=b"900", gone=True)
    assert bodies.held_bytes == 0


@pytest.mark.parametrize(
    ("encoding", "squeeze"),
    [
        (b"gzip", gzip.compress),
        (b" GZip ", gzip.compress),
        (b"deflate", zlib.compress),
        (b"identity", bytes),
        (b"Identity", bytes),
    ],
)
def test_compressed_bodies(encoding, squeeze):
    bodies = Bodies(LIMITS)
    plain = b"0123456789" * 90
    packed = squeeze(plain)
    body, held = read(bodies, packed[:5], packed[5:], encoding=encoding)
    assert body == plain
    bodies.release(held)
    assert bodies.held_bytes == 0


def test_a_compressed_body_of_many_steps():
    limits = Limits(body_bytes_max=2**25)
    plain = bytes(range(256)) * (20 * 2**12) + b"the end"
    body, held = read(Bodies(limits), gzip.compress(plain, 1), encoding=b"gzip")
    assert body == plain
    assert held >= len(plain)


def damaged():
    whole = gzip.compress(b"0123456789" * 90)
    yield "empty", b"", "cut off"
    yield "cut off", whole[:-1], "cut off"
    yield "cut in the middle", whole[: len(whole) // 2], "cut off"
    yield "longer", whole + b"xyz", "3 bytes follow"
    yield "two of them", whole + whole, f"{len(whole)} bytes follow"
    yield "none at all", b"0123456789", "not what its Content-Encoding says"
    yield "wrong checksum", whole[:-8] + bytes(8), "not what its Content-Encoding says"


@pytest.mark.parametrize(
    ("body", "says"), [it[1:] for it in damaged()], ids=[it[0] for it in damaged()]
)
def test_damaged_compressed_bodies(body, says):
    bodies = Bodies(LIMITS)
    with pytest.raises(InvalidRequestError, match=says):
        read(bodies, body, encoding=b"gzip")
    assert bodies.held_bytes == 0


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"gzip, gzip", b"x-gzip", b"", b"\xff"])
def test_other_compressions(encoding):
    bodies = Bodies(LIMITS)
    with pytest.raises(UnsupportedError, match="expected gzip, deflate or none"):
        read(bodies, b"x", encoding=encoding)
    assert bodies.held_bytes == 0


def test_a_bomb_is_stopped_before_it_is_large():
    bodies = Bodies(Limits(body_bytes_max=2**20))
    bomb = gzip.compress(bytes(200 * 2**20))
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError, match="when decompressed"):
            read(bodies, bomb, encoding=b"gzip")
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()
    assert bodies.held_bytes == 0


def test_what_is_decompressed_counts_with_the_others():
    limits = Limits(body_bytes_max=2**24, bodies_bytes_max=2**23)
    bodies = Bodies(limits)
    with pytest.raises(NotReadyError):
        read(bodies, gzip.compress(bytes(2**23)), encoding=b"gzip")
    assert bodies.held_bytes == 0


def test_the_first_header_of_a_name():
    headers = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]
    assert header(headers, b"a") == b"1"
    assert header(headers, b"c") is None
