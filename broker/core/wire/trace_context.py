"""Where a call stands in somebody's trace: what came in a `traceparent` header, and what goes out.

Of W3C's Trace Context, level 1: `00-<trace id>-<parent span id>-<flags>` in lower-case hexadecimal.
"""

from __future__ import annotations

import re
from random import Random
from typing import Final

import msgspec

_KNOWN: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_SPAN_IDS: Final = 2**64
_SAMPLED: Final = 1


class TraceContext(msgspec.Struct, frozen=True, gc=False):
    """Of one call that is traced."""

    trace_id: int
    span_id: int
    """Of the whole call; those of its attempts follow it."""
    parent_id: int | None
    """Of the caller's span; None: the trace begins here."""

    def attempt_id(self, index: int) -> int:
        """Return the span id of an attempt."""
        return (self.span_id + index) % (_SPAN_IDS - 1) + 1

    def traceparent(self, index: int) -> bytes:
        """Return the header that goes to the provider of an attempt."""
        return b"00-%032x-%016x-%02x" % (self.trace_id, self.attempt_id(index), _SAMPLED)


def begin_trace(traceparent: bytes | None, random: Random) -> TraceContext:
    """Join the caller's trace, or begin one where it sent none, or nothing that can be read."""
    span_id = random.randrange(1, _SPAN_IDS)
    found = None if traceparent is None else _KNOWN.fullmatch(traceparent)
    if found is not None:
        trace_id, parent_id = (int(each, 16) for each in found.groups())
        if trace_id and parent_id:
            return TraceContext(trace_id, span_id, parent_id)
    return TraceContext(random.randrange(1, 2**128), span_id, None)
