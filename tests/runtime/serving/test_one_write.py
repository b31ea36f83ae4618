"""One write for an answer's headers and its body; what must not wait does not."""

from __future__ import annotations

import pytest

from stnkit.runtime.serving.http.one_write import OneWrite

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Inner:
    def __init__(self):
        self.sent = []
        self.closed = False

    def write(self, data):
        assert not self.closed
        self.sent.append(data)

    def writelines(self, parts):
        self.write(b"".join(parts))

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def get_extra_info(self, name):
        return name.upper()


@pytest.fixture
def inner():
    return Inner()


@pytest.fixture
def both(inner):
    return OneWrite(inner)


def test_headers_go_with_the_body(inner, both):
    for _ in range(2):
        both.write(HEAD)
        assert inner.sent[-1:] != [HEAD]
        both.write(b"ok")
    assert inner.sent == [HEAD + b"ok"] * 2


@pytest.mark.parametrize("size", [0, 2, 10**6])
def test_an_answer_that_is_there_in_full(inner, both, size):
    both.write_whole(HEAD, b"x" * size)
    both.flush()
    assert inner.sent == [HEAD + b"x" * size]


def test_an_answer_without_a_body(inner, both):
    both.write(HEAD)
    both.flush()
    both.flush()
    assert inner.sent == [HEAD]


def test_the_client_waits_for_100_continue(inner, both):
    both.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert inner.sent == [b"HTTP/1.1 100 Continue\r\n\r\n"]


def test_nothing_is_lost_at_the_end(inner, both):
    both.write(HEAD)
    both.close()
    assert inner.sent == [HEAD]
    assert inner.closed
    assert both.is_closing()


def test_a_lost_connection_takes_nothing(inner, both):
    both.write(HEAD)
    inner.close()
    both.close()
    assert inner.sent == []


def test_all_else_is_the_transports_own(both):
    assert both.get_extra_info("peername") == "PEERNAME"
