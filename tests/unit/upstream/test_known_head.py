"""A head that is the last one's, but for its length, need not be parsed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.upstream.known_head import KnownHead, cut, with_length

HEAD = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length:  5\r\nAccept: */*\r\n\r\n"


def known() -> KnownHead:
    head = cut(HEAD + b"hello", b"5")
    assert head is not None
    return head


def longer(length: bytes) -> bytes:
    return HEAD.replace(b"  5\r\n", b"  " + length + b"\r\n")


def test_the_same_head_with_another_length_is_known() -> None:
    body = b"x" * 1_234
    assert known().match(longer(b"1234") + body) == (b"1234", body)
    assert known().match(longer(b"0")) == (b"0", b"")


@pytest.mark.parametrize(
    "data",
    [
        longer(b"1234") + b"x" * 1_233,
        longer(b"1234") + b"x" * 1_235,
        longer(b"8") + b"x" * 9,
        longer(b"5") + b"hello" + HEAD + b"hello",
        longer(b"+5") + b"hello",
        longer(b"5 ") + b"hello",
        longer(b"0x5") + b"hello",
        longer("\u0665".encode()) + b"hello",
        longer(b"5, 5") + b"hello",
        longer(b"") + b"hello",
        longer(b"5\r\nContent-Length: 7") + b"hello",
        longer(b"5\r\nTransfer-Encoding: chunked") + b"hello",
        longer(b"00000000005") + b"hello",
        HEAD.replace(b"Host: a", b"Host: b") + b"hello",
        HEAD.replace(b"*/*", b"*") + b"hello",
        HEAD[:30],
        b"",
    ],
)
def test_whatever_else_comes_is_left_to_the_parser(data: bytes) -> None:
    assert known().match(data) is None


@given(st.integers(0, len(HEAD) + 4), st.integers(0, 255))
def test_no_other_byte_of_a_head_may_differ(at: int, byte: int) -> None:
    data = bytearray(HEAD + b"hello")
    was, data[at] = data[at], byte
    found = known().match(bytes(data))
    is_body = at >= len(HEAD)
    assert (found is not None) == (is_body or byte == was)


@pytest.mark.parametrize(
    ("data", "digits"),
    [
        (HEAD + b"hello", None),
        (HEAD + b"hello", b"7"),
        (HEAD + b"hell", b"5"),
        (HEAD + b"hello" + HEAD, b"5"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"hello", b"5"),
        (HEAD.replace(b"Host: a", b"Host: " + b"a" * 5_000) + b"hello", b"5"),
    ],
)
def test_a_message_that_did_not_come_alone_and_whole_is_not_remembered(
    data: bytes, digits: bytes | None
) -> None:
    assert cut(data, digits) is None


def test_only_the_length_among_headers_is_replaced() -> None:
    headers = [(b"host", b"a"), (b"content-length", b"5")]
    assert with_length(headers, b"12") == [(b"host", b"a"), (b"content-length", b"12")]
    assert headers[1] == (b"content-length", b"5")
