"""The end of a stream, as the caller gets it once the call has been settled."""

from __future__ import annotations

import msgspec

from broker.upstream.streaming import StreamReader

CONTENT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
COST = b'{"cost_usd":"0.001"}'


def tail(*, usage_asked: bool) -> bytes:
    reader = StreamReader(usage_asked=usage_asked, keep_text=False)
    reader.feed(CONTENT + DONE)
    return reader.tail(COST, (7, 2))


def test_usage_that_was_asked_for_and_never_came_is_what_was_paid_for() -> None:
    event, done, rest = tail(usage_asked=True).split(b"\n\n")
    chunk = msgspec.json.decode(event.removeprefix(b"data: "))
    assert chunk["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    assert chunk["choices"] == []
    assert chunk["broker"] == {"cost_usd": "0.001"}
    assert (done, rest) == (b"data: [DONE]", b"")


def test_the_cost_is_a_comment_where_no_usage_was_asked_for() -> None:
    assert tail(usage_asked=False) == b": broker " + COST + b"\n\n" + DONE
