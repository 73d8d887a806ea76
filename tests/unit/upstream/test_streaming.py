"""What of a provider's stream is passed on: all that is counted, and nothing after its end."""

from __future__ import annotations

import gzip
import itertools
import json
import random

import msgspec
import pytest

from broker.core.answers.transcript import Transcript
from broker.core.outcome import Fault
from broker.upstream.streaming import STEP_LINES, TEXT_BYTES_MAX, StreamReader
from broker.upstream.unpacking import Unpacker


def chunk(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("end", "fault"),
    [
        (b'data: {"error": "no GPU"}\n\n', Fault.SERVER_ERROR),
        (b"data: {not json\n\n", Fault.MALFORMED),
        (b"no event\n\n", Fault.MALFORMED),
    ],
)
def test_what_came_in_one_piece_with_the_failure_is_passed_on_for_it_is_charged(
    end: bytes, fault: Fault
) -> None:
    reader = StreamReader(usage_asked=False, keep_text=False)
    assert reader.feed(chunk("Hello") + chunk(" you") + end + chunk("!")) == (
        chunk("Hello") + chunk(" you")
    )
    assert reader.text_bytes == len("Hello you")
    assert reader.failure is not None
    assert reader.failure.outcome.fault is fault


def test_what_comes_after_the_end_is_neither_counted_nor_passed_on() -> None:
    reader = StreamReader(usage_asked=False, keep_text=False)
    assert reader.feed(chunk("a") + b"data: [DONE]\n\n" + chunk("b")) == chunk("a")
    assert reader.ended
    assert reader.text_bytes == 1
    assert reader.failure is None


def test_a_usage_that_came_in_several_lines_is_told_in_one() -> None:
    reader = StreamReader(usage_asked=True, keep_text=False)
    usage = b'data: {"choices":[],"usage":\ndata: {"prompt_tokens":3,"completion_tokens":4}}\n\n'
    assert reader.feed(usage) == b""
    told, done, _ = reader.tail(b'{"cost_usd":"0.01"}', (1, 1)).split(b"\n\n")
    assert done == b"data: [DONE]"
    assert json.loads(told.removeprefix(b"data: ")) == {
        "choices": [],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
        "broker": {"cost_usd": "0.01"},
    }


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


class Listener:
    """Hears every event, so that each is taken by itself."""

    def hear(self, payload: bytes) -> bytes:
        return payload


EVENTS = (
    *(chunk("plain"), chunk("zwölf"), chunk(""), chunk("x" * 3_000)),
    *(CONTENT, b": a comment\n\n", b"event: x\ndata: {}\n\n", b"\n", b"data: \n\n"),
    chunk("with CR LF").replace(b"\n", b"\r\n"),
    chunk("with a CR").replace(b"\n\n", b"\r\n\n"),
    chunk("in lines").replace(b", ", b",\ndata: "),
    b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"name":"f"}}]}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"hi","reasoning":"hm"}}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n',
    *(DONE, b"data: {not json\n\n", b'data: {"error":"no GPU"}\n\n'),
)


def test_events_of_text_alone_are_heard_together_as_they_are_one_by_one() -> None:
    lots = random.Random(11)
    for _ in range(400):
        plain = lots.choices(EVENTS[:3], k=lots.randrange(8))
        whole = b"".join(plain + lots.choices(EVENTS, k=lots.randrange(6)) + plain)
        cuts = sorted(lots.choices(range(len(whole) + 1), k=lots.randrange(4)))
        together = StreamReader(usage_asked=True, keep_text=True)
        by_one = StreamReader(usage_asked=True, keep_text=True, scribe=Listener())
        for begin, end in itertools.pairwise([0, *cuts, len(whole)]):
            if together.failure is None:
                assert together.feed(whole[begin:end]) == by_one.feed(whole[begin:end]), whole
            assert str(together.failure) == str(by_one.failure), whole
            assert together.delivered(1, complete=True) == by_one.delivered(1, complete=True)
            assert (together.ended, together.has_content) == (by_one.ended, by_one.has_content)


def test_short_pieces_of_a_long_text_are_kept_joined_and_in_order() -> None:
    """Kept one by one, each took fifty bytes more than it has."""
    reader = StreamReader(usage_asked=False, keep_text=True)
    pieces = [str(number % 10) for number in range(5_000)]
    for piece in pieces:
        reader.feed(chunk(piece))
        assert len(reader.texts) <= len(pieces) // 64 + 300
    assert reader.delivered(1, complete=False).text == "".join(pieces)


def test_a_text_without_end_is_cut_and_what_was_passed_on_was_counted() -> None:
    reader = StreamReader(usage_asked=False, keep_text=True)
    piece = chunk("x" * 500_000)
    passed = 0
    for _ in range(TEXT_BYTES_MAX // 500_000 + 3):
        passed += len(reader.feed(piece)) // len(piece)
        if reader.failure is not None:
            break
    assert reader.failure is not None
    assert reader.failure.outcome.fault is Fault.TOO_LARGE
    assert reader.text_bytes == passed * 500_000
    assert reader.text_bytes <= TEXT_BYTES_MAX + 2 * 500_000


DENSE = (b":\n\n" * 40_000, b"\r" * 60_000, b"\n" * 60_000, b"data: {}\n\n" * 20_000)


async def in_steps(reader: StreamReader, data: bytes) -> list[bytes]:
    steps = [reader.feed(data)]
    while reader.behind and reader.failure is None:
        steps.append(reader.feed(await reader.catch_up()))
    return steps


@pytest.mark.parametrize("dense", DENSE, ids=["comments", "cr", "lf", "nothing"])
@pytest.mark.parametrize("packed", [False, True])
async def test_what_comes_at_once_with_very_many_lines_is_read_in_steps(
    dense: bytes, packed: bool
) -> None:
    unpacker = Unpacker(b"gzip", 10**9) if packed else None
    reader = StreamReader(usage_asked=False, keep_text=True, unpacker=unpacker)
    whole = chunk("first") + dense + chunk("last") + b"a: comment"
    steps = await in_steps(reader, gzip.compress(whole) if packed else whole)
    assert reader.failure is None
    assert len(steps) >= whole.count(b"\n") // STEP_LINES
    assert all(each.count(b"\n") + each.count(b"\r") < 2 * STEP_LINES for each in steps)
    assert b"".join(steps) == whole.removesuffix(b"a: comment")
    assert reader.delivered(1, complete=True).text == "firstlast"


@pytest.mark.parametrize("going", [EVENTS[:8] + EVENTS[9:-3], EVENTS[:3]])
@pytest.mark.parametrize("end", EVENTS[-3:])
async def test_what_is_read_in_steps_is_heard_as_what_comes_in_pieces(
    going: tuple[bytes, ...], end: bytes
) -> None:
    lots = random.Random(5)
    whole = b"".join(lots.choices(going, k=1_000)) + b":\n\n" * 5_000
    whole += b"".join(lots.choices(going, k=100)) + end
    at_once = StreamReader(usage_asked=True, keep_text=True)
    by_one = StreamReader(usage_asked=True, keep_text=True, scribe=Listener())
    steps = await in_steps(at_once, whole)
    assert len(steps) > STEP_LINES // 1_000
    pieces = [by_one.feed(whole[begin : begin + 997]) for begin in range(0, len(whole), 997)]
    assert b"".join(steps) == b"".join(pieces)
    assert str(at_once.failure) == str(by_one.failure)
    assert at_once.ended == by_one.ended
    assert at_once.delivered(1, complete=True) == by_one.delivered(1, complete=True)


async def test_what_came_at_once_with_few_lines_is_read_whole() -> None:
    reader = StreamReader(usage_asked=False, keep_text=False)
    whole = chunk("x" * 1_000) * 200
    assert reader.feed(whole) == whole
    assert not reader.behind


def test_what_came_in_several_lines_and_is_told_without_a_part_is_told_in_one() -> None:
    """A line without a name is none of an event: of such an answer half was lost."""
    scribe = Transcript(hides_logprobs=True)
    reader = StreamReader(usage_asked=False, keep_text=False, scribe=scribe)
    event = b'data: {"choices":[{"logprobs":{},"delta":\ndata: {"content":\ndata: "hi"}}]}\n\n'
    told = reader.feed(event)
    assert told.count(b"\n") == 2
    assert json.loads(told.removeprefix(b"data: ")) == {"choices": [{"delta": {"content": "hi"}}]}
