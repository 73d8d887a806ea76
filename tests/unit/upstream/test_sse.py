"""Server-sent events, however they are cut."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.outcome import Fault
from broker.upstream.faults import AttemptFailed
from broker.upstream.sse import SseSplitter, data_of

EVENTS = [b'data: {"a":1}', b": comment", b"event: x\ndata: one\ndata: two", b"data: [DONE]"]


def joined(line_end: bytes) -> tuple[bytes, list[bytes]]:
    """Return a stream with these line ends, and its events."""
    events = [event.replace(b"\n", line_end) + line_end * 2 for event in EVENTS]
    return b"".join(events), events


def fed(splitter: SseSplitter, pieces: list[bytes]) -> list[bytes]:
    """Return the events that come of pieces."""
    return [event for piece in pieces for event in splitter.feed(piece)]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_events_split_at_every_byte_are_the_same_events(line_end: bytes) -> None:
    stream, events = joined(line_end)
    for cut in range(len(stream) + 1):
        splitter = SseSplitter()
        assert splitter.feed(stream[:cut]) + splitter.feed(stream[cut:]) == events
        assert splitter.rest() == b""


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_events_that_come_byte_by_byte_are_the_same_events(line_end: bytes) -> None:
    stream, events = joined(line_end)
    assert fed(SseSplitter(), [bytes([byte]) for byte in stream]) == events


def test_bare_carriage_returns_end_lines_too() -> None:
    stream, events = joined(b"\r")
    splitter = SseSplitter()
    assert splitter.feed(stream) == events[:-1]  # the last CR may be half of a CR LF
    assert splitter.feed(b"data: x") == events[-1:]


@given(
    pieces=st.lists(
        st.sampled_from([b"data: x", b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b":", b"\r"])
    ),
    cuts=st.lists(st.integers(min_value=1, max_value=5)),
)
def test_no_byte_is_lost_and_cutting_changes_nothing(pieces: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(pieces) + b"."  # the dot settles a CR at the end
    whole = SseSplitter()
    events = whole.feed(stream)
    assert b"".join(events) + whole.rest() == stream
    cut_up, seen, begin = SseSplitter(), [], 0
    for cut in cuts:
        seen += cut_up.feed(stream[begin : begin + cut])
        begin += cut
    seen += cut_up.feed(stream[begin:])
    assert seen == events


def test_events_whose_lines_end_in_several_ways_are_told_apart() -> None:
    events = [b"data: x\r\n\r\n", b"data: y\n\n", b"data: z\r\r\n"]
    assert SseSplitter().feed(b"".join(events)) == events


def test_an_event_over_the_limit_is_malformed_whole_or_not() -> None:
    for pieces in (
        [b"data: " + b"x" * 100 + b"\n\n"],
        [b"data: " + b"x" * 100],
        [b"x"] * 100,
        [b"data: y\r\n\r\ndata: " + b"x" * 100 + b"\r\n\r\n"],
        [b"data: y\n\ndata: " + b"x" * 100 + b"\n\n"],
        [b"data: " + b"x" * 100 + b"\r\n\r\ndata: y\r\n\r\n"],
    ):
        with pytest.raises(AttemptFailed) as failed:
            fed(SseSplitter(limit_bytes=64), pieces)
        assert failed.value.outcome.fault is Fault.MALFORMED


def test_many_small_events_may_be_more_than_the_limit_together() -> None:
    splitter = SseSplitter(limit_bytes=64)
    for event in (b"data: x\n\n", b"data: x\r\n\r\n"):
        assert splitter.feed(event * 1000) == [event] * 1000


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: x\n\n", b"x"),
        (b"data:x\n\n", b"x"),
        (b"data:  x\r\n\r\n", b" x"),
        (b"data: x\r\r", b"x"),
        (b"event: e\ndata: x\nid: 1\n\n", b"x"),
        (b"data: x\ndata: y\n\n", b"x\ny"),
        (b"data: x\rdata: y\n\n", b"x\ny"),
        (b"data\n\n", b""),
        (b"data: \n\n", b""),
        (b"\ndata: x\n\n", b"x"),
        (b": keep-alive\n\n", None),
        (b"database: x\n\n", None),
        (b"\n\n", None),
    ],
)
def test_the_data_of_an_event_is_read_by_the_book(event: bytes, data: bytes | None) -> None:
    assert data_of(event) == data


def test_an_event_of_comments_alone_is_not_taken_apart() -> None:
    """A megabyte of them held all other calls up for 20 ms."""
    event = b":\n" * 400_000 + b"\n"
    tracemalloc.start()
    try:
        assert data_of(event) is None
        taken_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken_bytes < len(event)
