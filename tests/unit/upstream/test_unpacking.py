"""Compressed answers: unpacked where they must be read, and never beyond a bound."""

from __future__ import annotations

import gzip
import zlib

import pytest

from broker.core.outcome import Fault
from broker.upstream.faults import AttemptFailed
from broker.upstream.unpacking import Unpacker, unpacked, unpacker_for

TEXT = b"some text, some more text, and some more " * 50


def raw(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


PACKED = [
    (b"gzip", gzip.compress(TEXT, mtime=0)),
    (b"X-GZip", gzip.compress(TEXT, mtime=0)),
    (b"deflate", zlib.compress(TEXT)),
    (b" Deflate ", raw(TEXT)),
]


@pytest.mark.parametrize(("encoding", "packed"), [*PACKED, (b"identity", TEXT), (None, TEXT)])
def test_a_whole_body_is_as_it_was(encoding: bytes | None, packed: bytes) -> None:
    assert unpacked(encoding, packed, len(TEXT)) == TEXT


@pytest.mark.parametrize(("encoding", "packed"), PACKED)
def test_it_may_come_in_single_bytes(encoding: bytes, packed: bytes) -> None:
    unpacker = Unpacker(encoding, len(TEXT))
    plain = b"".join(unpacker.feed(packed[at : at + 1]) for at in range(len(packed)))
    unpacker.finish()
    assert plain == TEXT


@pytest.mark.parametrize(("encoding", "packed"), PACKED)
def test_one_byte_over_the_limit_is_too_large(encoding: bytes, packed: bytes) -> None:
    with pytest.raises(AttemptFailed) as failed:
        unpacked(encoding, packed, len(TEXT) - 1)
    assert failed.value.outcome.fault is Fault.TOO_LARGE


def test_a_bomb_takes_no_more_than_its_limit() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(AttemptFailed) as failed:
        Unpacker(b"gzip", 10**12).feed(bomb)
    assert failed.value.outcome.fault is Fault.TOO_LARGE


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (b"br", TEXT),
        (b"gzip, gzip", gzip.compress(TEXT, mtime=0)),
        (b"gzip", TEXT),
        (b"gzip", gzip.compress(TEXT, mtime=0)[:-3]),
        (b"gzip", gzip.compress(TEXT, mtime=0) + b"more"),
        (b"deflate", b"\xff\xff\xff\xff"),
    ],
)
def test_what_does_not_unpack_is_malformed(encoding: bytes, body: bytes) -> None:
    with pytest.raises(AttemptFailed) as failed:
        unpacked(encoding, body, 10**6)
    assert failed.value.outcome.fault is Fault.MALFORMED


def test_what_is_plain_needs_no_unpacker() -> None:
    assert unpacker_for(None, 1) is None
    assert unpacker_for(b"Identity", 1) is None
