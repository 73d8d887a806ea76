"""What is made of a caller's `traceparent`."""

from __future__ import annotations

from random import Random

import pytest

from broker.core.wire.trace_context import begin_trace

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_callers_trace_is_joined_and_each_attempt_has_a_span_of_its_own() -> None:
    trace = begin_trace(f"00-{TRACE}-{SPAN}-00".encode(), Random(1))
    assert (trace.trace_id, trace.parent_id) == (int(TRACE, 16), int(SPAN, 16))
    headers = [trace.traceparent(index).decode().split("-") for index in range(4)]
    assert {(version, its, flags) for version, its, _, flags in headers} == {("00", TRACE, "01")}
    spans = {int(span, 16) for _, _, span, _ in headers}
    assert len(spans | {trace.span_id, trace.parent_id}) == 6
    assert spans == {trace.attempt_id(index) for index in range(4)}


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"nonsense",
        f"00-{TRACE}-{SPAN}".encode(),
        f"00-{TRACE}-{SPAN}-00-more".encode(),
        f"00-{TRACE.upper()}-{SPAN}-00".encode(),
        f"ff-{TRACE}-{SPAN}-00".encode(),
        f"00-{'0' * 32}-{SPAN}-00".encode(),
        f"00-{TRACE}-{'0' * 16}-00".encode(),
        f"00-{TRACE}-{SPAN}-00\r\nx: y".encode(),
    ],
)
def test_where_none_can_be_read_a_trace_begins_here(header: bytes | None) -> None:
    trace = begin_trace(header, Random(1))
    assert trace.parent_id is None
    assert trace.trace_id
    assert trace.span_id
    assert b"\n" not in trace.traceparent(0)
