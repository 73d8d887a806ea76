"""A stream is closed however it ends, for closing is what cancels the call and pays for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from datetime import UTC, datetime
from random import Random
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from broker.core.call import Call, OpenAiBody, Payer
from broker.core.candidates.view import RoutingLimits
from broker.core.cascade import Cascade
from broker.core.health.throttle import Throttle
from broker.core.hedging import Tails
from broker.core.ledger import CallRecord
from broker.core.outcome import Fault, Outcome
from broker.core.retries import RetryBudget
from broker.flows.calls.exchange import StreamedAnswer, open_stream
from broker.flows.calls.overhear import Reply, _hold_back
from broker.flows.calls.reserve import own_hold
from broker.flows.calls.stream import Stream
from broker.flows.calls.tab import Tab
from broker.gateway.openai import _send_stream
from broker.upstream.faults import AttemptFailed
from broker.upstream.request import Limits, Timeouts
from broker.upstream.response import Response
from broker.upstream.streaming import StreamReader
from pricing.book import Rate
from tests.fakes import ACCOUNT, decide, endpoint, market, pulse, requirements

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROMPT_TOKENS = 1_234
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%d "}}]}\n\n'
STEPS_MIN = 25
TAB: Any = SimpleNamespace(
    call=SimpleNamespace(id_text=str(UUID(int=1)), wanted=requirements()),
    endpoint=SimpleNamespace(name="acme/small"),
    decision=SimpleNamespace(price_version=7),
    rate=Rate(500_000, 1_500_000, 0),
)


class Pieces:
    """A stream of three pieces that notes how it ended."""

    def __init__(self, *, ends_with_provider: bool = False) -> None:
        self.end = "never began"
        self.verdict = None
        self.is_over = False
        self._ends_with_provider = ends_with_provider

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        self.end = "was left open"
        try:
            for piece in (b"a", b"b", b"c"):
                self.is_over = self._ends_with_provider and piece == b"c"
                yield piece
            self.end = "ended"
        except GeneratorExit:
            self.end = "was closed"
            raise


class Wire:
    """Takes so many writes, then the caller has gone."""

    connection = SimpleNamespace(writable=None)

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent: list[bytes] = []

    def begin(self, status: int, head: bytes, piece: bytes) -> None:
        assert status == 200
        self.write(head + piece)

    def write(self, piece: bytes) -> None:
        if len(self.sent) == self.room:
            raise ConnectionResetError
        self.sent.append(piece)

    def end(self, piece: bytes) -> None:
        self.write(piece + b"end")


async def test_a_stream_is_sent_whole() -> None:
    stream: Any = Pieces()
    wire: Any = Wire(99)
    await _send_stream(wire, TAB, stream)
    first, *pieces = wire.sent
    assert b"x-broker-endpoint: acme/small\r\n" in first
    assert first.endswith(b"a"), "the head goes with the first content"
    assert pieces == [b"b", b"c", b"end"]
    assert stream.end == "ended"


async def test_the_tail_goes_with_the_end_where_the_provider_has_ended_too() -> None:
    stream: Any = Pieces(ends_with_provider=True)
    wire: Any = Wire(99)
    await _send_stream(wire, TAB, stream)
    assert wire.sent[1:] == [b"b", b"cend"]
    assert stream.end == "ended"


async def test_chunks_that_arrive_together_leave_together() -> None:
    loop = asyncio.get_running_loop()
    response = Response(Timeouts(), Limits(), 0.0, 99.0, None, 10**6, status=200)
    response.chunks = [EVENT % number for number in range(64)]
    reader = StreamReader(usage_asked=False, keep_text=False)
    tab, attempt = leaving_tab()
    pieces = Stream(tab, StreamedAnswer(response, reader, attempt, b"opening")).pieces()
    assert await anext(pieces) == b"opening"
    assert await anext(pieces) == b"".join(EVENT % number for number in range(64))
    response.chunks = [EVENT % 64]
    loop.call_soon(response.chunks.append, EVENT % 65)  # this one came too late to go along
    assert await anext(pieces) == EVENT % 64
    await pieces.aclose()


DENSE = b":\n\n" * 30_000 + EVENT % 1
"""What says next to nothing in very many lines, and something at its end."""


def come_at_once(*chunks: bytes) -> Response:
    headers = [(b"content-type", b"text/event-stream")]
    response = Response(Timeouts(), Limits(), 0.0, 99.0, None, 10**6, status=200, headers=headers)
    response.chunks = list(chunks)
    return response


async def turns_beside(doing: Coroutine[Any, Any, None]) -> int:
    """How often another task had its turn meanwhile."""
    turns, task = 0, asyncio.create_task(doing)
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    await task
    return turns


async def test_others_go_on_while_a_stream_that_came_at_once_is_passed_on() -> None:
    reader = StreamReader(usage_asked=False, keep_text=False)
    tab, attempt = leaving_tab()
    answer = StreamedAnswer(come_at_once(DENSE), reader, attempt, b"opening")
    passed: list[bytes] = []

    async def pass_on() -> None:
        async with aclosing(Stream(tab, answer).pieces()) as pieces:
            async for piece in pieces:
                passed.append(piece)
                if piece.endswith(EVENT % 1):
                    return

    assert await turns_beside(pass_on()) > len(passed) // 2 > STEPS_MIN // 2
    assert b"".join(passed) == b"opening" + DENSE


async def test_others_go_on_while_a_stream_is_looked_through_for_its_first_content() -> None:
    opened: list[StreamedAnswer] = []
    tab, attempt = opening_tab(come_at_once(DENSE))

    async def begin() -> None:
        opened.append(await open_stream(tab, attempt))

    assert await turns_beside(begin()) > STEPS_MIN
    assert opened[0].opening == DENSE


async def test_others_go_on_while_a_stream_is_held_back() -> None:
    reader = StreamReader(usage_asked=False, keep_text=False)
    attempt: Any = None
    answer = StreamedAnswer(come_at_once(DENSE, b"data: [DONE]\n\n"), reader, attempt, b"opening")
    reply = Reply(attempt, answer, None, ended=False)
    cascade = Cascade(buffer_bytes=10**6)
    assert await turns_beside(_hold_back(reply, answer, cascade)) > STEPS_MIN
    assert answer.opening == b"opening" + DENSE
    assert reply.ended


def leaving_tab() -> tuple[Any, Any]:
    """As much of a tab and an attempt as a stream looks at that nobody reads to its end."""
    return SimpleNamespace(
        turn=None,
        call=SimpleNamespace(body=OpenAiBody(b"", {}, 0, True, False, 1)),
        end_when_settled=lambda *_: None,
        is_settled=True,
    ), None


def opening_tab(response: Response) -> tuple[Any, Any]:
    """As much of a tab and an attempt as the beginning of a stream looks at."""

    async def send(*_: object) -> Response:
        return response

    limits = SimpleNamespace(
        connect_s=1.0, first_byte_s=1.0, idle_s=1.0, answer_bytes_max=10**9, body_bytes=1
    )
    runtime = SimpleNamespace(
        now_s=lambda: 0.0,
        upstream=SimpleNamespace(send=send),
        settings=SimpleNamespace(limits=limits),
        targets=SimpleNamespace(of=lambda *_: SimpleNamespace(prefix=b"", origin=None)),
    )
    body = OpenAiBody(b"", {}, 0, True, False, 1)
    wanted = requirements()
    call = SimpleNamespace(
        body=body,
        cascade=None,
        deadline_s=9.0,
        wanted=wanted,
        trace=None,
        id_text="id",
        continues=False,
    )
    server = SimpleNamespace(upstream_model="model", tokenizer_json=None)
    tab = SimpleNamespace(
        runtime=runtime,
        call=call,
        asked=call,
        market=SimpleNamespace(endpoint=lambda _: server),
        first_content=lambda _: None,
    )
    candidate = SimpleNamespace(number=0, tokens_out_max=8)
    return tab, SimpleNamespace(candidate=candidate, index=0, started_s=0.0)


async def test_who_leaves_while_what_broke_off_is_counted_has_it_settled_all_the_same() -> None:
    loop = asyncio.get_running_loop()
    counting, settled = loop.create_future(), list[CallRecord]()
    tab = counted_tab(counting, settled)
    attempt = tab.begin()
    assert attempt is not None
    tab.first_content(attempt)
    broken: Any = SimpleNamespace(next_chunk=broken_off, abort=lambda: None)
    reader = StreamReader(usage_asked=False, keep_text=True)
    pieces = Stream(tab, StreamedAnswer(broken, reader, attempt, b"opening")).pieces()
    assert await anext(pieces) == b"opening"
    waiting = loop.create_task(cast(Coroutine[Any, Any, bytes], anext(pieces)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert attempt.outcome is None, "its prompt is being counted"
    counting.set_result(PROMPT_TOKENS)
    await asyncio.gather(*tab.runtime.running)
    assert attempt.outcome is not None
    assert attempt.outcome.fault is Fault.RESET
    assert [(each.status, each.code) for each in settled] == [(200, "provider_cut_off")]


async def test_a_stream_that_cannot_be_settled_lets_go_of_its_provider() -> None:
    counting, settled, aborted = asyncio.Future[int | None](), list[CallRecord](), list[bool]()
    counting.set_result(PROMPT_TOKENS)
    tab = counted_tab(counting, settled)

    async def is_gone(*_: object) -> bool:
        return False

    tab.runtime.ledger = cast(Any, SimpleNamespace(settle=is_gone, record=settled.append))
    attempt = tab.begin()
    assert attempt is not None
    tab.first_content(attempt)
    lingering: Any = SimpleNamespace(done=False, abort=lambda: aborted.append(True))
    reader = StreamReader(usage_asked=False, keep_text=False)
    reader.ended = True
    opened = StreamedAnswer(lingering, reader, attempt, b"opening")
    *_, last = [each async for each in Stream(tab, opened).pieces()]
    assert b"hold_expired" in last
    assert [(each.code, each.charge_nanos) for each in settled] == [("hold_expired", 0)]
    assert aborted, "or its connection would be held until the call's time is over"


def counted_tab(counting: asyncio.Future[int | None], settled: list[CallRecord]) -> Tab:
    """A tab of a call whose long prompt is counted by `counting`; it settles in memory."""
    where = market([endpoint(tokenizer_json="{}")])
    live = pulse(where)

    async def settle(_: object, draft: Callable[[], CallRecord]) -> bool:
        settled.append(draft())
        return True

    runtime: Any = SimpleNamespace(
        now_s=lambda: 1.0,
        clock=lambda: NOW,
        random=Random(1),
        retries=RetryBudget(0.0),
        routing=RoutingLimits(),
        pulse=live,
        throttle=Throttle(live, 1.0),
        tails=Tails(),
        tokens=SimpleNamespace(begin=lambda *_: counting, count=lambda *_: None),
        running=set(),
        ledger=SimpleNamespace(settle=settle),
        traces=None,
    )
    body = OpenAiBody(b"", {}, 9_999, True, False, 1)
    payer = Payer(ACCOUNT, "key", ACCOUNT)
    call = Call(UUID(int=1), "id", payer, requirements(stream=True), body, NOW, 0.0, 60.0)
    decision = decide(where)
    return Tab(call, decision, own_hold(call, decision, 1.0), where, runtime)


async def broken_off() -> None:
    raise AttemptFailed(Outcome(Fault.RESET))


@pytest.mark.parametrize("room", [0, 1, 2])
async def test_a_stream_whose_caller_leaves_is_closed_even_before_its_head_was_sent(
    room: int,
) -> None:
    stream: Any = Pieces()
    wire: Any = Wire(room)
    with pytest.raises(ConnectionResetError):
        await _send_stream(wire, TAB, stream)
    assert stream.end == "was closed"
