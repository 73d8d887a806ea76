"""What a stream that broke off may still ask for, and why one is not continued."""

from __future__ import annotations

import asyncio
import tracemalloc
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import msgspec
import pytest

from broker.core.call import ROLE_TOKENS, Call, OpenAiBody
from broker.core.catalog import Task
from broker.core.decision import Candidate
from broker.core.dispatch import Attempt
from broker.core.outcome import Fault, Outcome
from broker.core.requirements import Requirements
from broker.flows.calls.continue_stream import (
    IDENTITY_BYTES_MAX,
    Joint,
    NotContinued,
    continue_stream,
    first_event,
    identity_of,
    tokens_together,
    why_whole,
)
from broker.upstream.faults import AttemptFailed
from broker.upstream.streaming import StreamReader
from pricing.book import Rate

TEXT = "Grüße"
MORE_TOKENS = len(TEXT.encode()) + ROLE_TOKENS
RATE = Rate(rate_in_micros=1_000_000, rate_out_micros=2_000_000, rate_call_nanos=0)
"""1,000 nano-dollars a token in, 2,000 a token out."""
LIMIT_TOKENS = 20
_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def call(task: Task = Task.CHAT, **members: Any) -> Call:
    if not members:
        members = {"messages": [{"role": "user", "content": "Hi"}]}
    body = OpenAiBody(b"/v1/x", _raw(msgspec.json.encode(members)), 50, True, False, 1)
    wanted = Requirements(UUID(int=1), task, "auto", 100, 25, None)
    now, payer = datetime(2026, 1, 1, tzinfo=UTC), cast(Any, None)
    return Call(UUID(int=2), "id", payer, wanted, body, now, 0.0, 60.0, continues=True)


class Provider:
    """Takes requests; nobody answers one, for one reason or another."""

    def __init__(self, end: BaseException) -> None:
        self.end = end
        self.asked: list[dict[str, Any]] = []

    async def send(self, _: object, __: bytes, body: bytes, ___: object) -> None:
        self.asked.append(msgspec.json.decode(body))
        raise self.end


class Purse:
    """As much of a tab as a continuation looks at: attempts so far cost and told what they did."""

    def __init__(
        self,
        asked: Call,
        end: BaseException,
        *,
        attempts: int = 1,
        delivered: tuple[int, ...] = (12,),
        charge_nanos: int = 0,
        held_nanos: int = 10**9,
    ) -> None:
        candidate = Candidate(0, RATE, LIMIT_TOKENS, 0)
        self.call = self.asked = asked
        self.left = [Attempt(n + 1, candidate, 0.0, 0.0) for n in range(attempts)]
        gone = [Attempt(0, candidate, 0.0, 0.0, tokens_out=tokens) for tokens in delivered]
        self.dispatch = SimpleNamespace(attempts=gone)
        self.charge_nanos = charge_nanos
        self.hold = SimpleNamespace(amount_nanos=held_nanos)
        self.ended: list[Outcome] = []
        self.provider = Provider(end)
        endpoint = SimpleNamespace(upstream_model="model")
        self.market = SimpleNamespace(endpoint=lambda _: endpoint)
        limits = SimpleNamespace(connect_s=1.0, first_byte_s=1.0, idle_s=1.0)
        self.runtime = SimpleNamespace(
            now_s=lambda: 1.0,
            upstream=self.provider,
            settings=SimpleNamespace(limits=limits),
            targets=SimpleNamespace(of=lambda *_: SimpleNamespace(prefix=b"", origin=None)),
        )

    def go_on_after_cut(self) -> Attempt | None:
        return self.left.pop(0) if self.left else None

    def end(self, outcome: Outcome) -> None:
        self.ended.append(outcome)

    async def continued(self) -> str:
        """Why it was not, in the end."""
        with pytest.raises(NotContinued) as raised:
            await continue_stream(cast(Any, self), {"id": raw("first")}, TEXT)
        return str(raised.value)


RESET = AttemptFailed(Outcome(Fault.RESET))


async def test_a_chat_goes_on_with_what_came_as_the_last_turn_within_what_is_left() -> None:
    purse = Purse(call(), RESET, delivered=(5, 7))
    assert await purse.continued() == "there is no other endpoint, time or retry left"
    [asked] = purse.provider.asked
    assert asked["messages"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": TEXT},
    ]
    assert (asked["add_generation_prompt"], asked["continue_final_message"]) == (False, True)
    assert asked["max_tokens"] == LIMIT_TOKENS - 12
    assert purse.ended == [RESET.outcome]


async def test_what_another_said_that_answered_too_late_is_no_part_of_the_answer() -> None:
    purse = Purse(call(), RESET, delivered=(5, 7))
    purse.dispatch.attempts[1].lost = True
    await purse.continued()
    assert [asked["max_tokens"] for asked in purse.provider.asked] == [LIMIT_TOKENS - 5]


async def test_a_completion_goes_on_behind_its_prompt() -> None:
    purse = Purse(call(Task.COMPLETION, prompt="Once "), RESET)
    await purse.continued()
    assert [asked["prompt"] for asked in purse.provider.asked] == ["Once " + TEXT]


async def test_what_came_so_far_counts_as_prompt_of_who_goes_on() -> None:
    purse = Purse(call(), RESET)
    await purse.continued()
    assert purse.asked.wanted.tokens_in_bound == 100 + MORE_TOKENS
    assert isinstance(purse.asked.body, OpenAiBody)
    assert purse.asked.body.size_bytes == 50 + MORE_TOKENS
    assert purse.call.wanted.tokens_in_bound == 100, "who asked is who it was"


@pytest.mark.parametrize(("delivered", "asks"), [((19,), True), ((20,), False), ((12, 9), False)])
async def test_an_answer_that_had_come_to_its_limit_is_not_continued(
    delivered: tuple[int, ...], asks: bool
) -> None:
    purse = Purse(call(), RESET, delivered=delivered)
    told = await purse.continued()
    assert [asked["max_tokens"] for asked in purse.provider.asked] == [1] * asks
    if not asks:
        assert told == "it had come to its limit"
        assert [each.fault for each in purse.ended] == [Fault.CALLER_LEFT]


@pytest.mark.parametrize(("short_nanos", "asks"), [(0, True), (1, False)])
async def test_nothing_is_asked_that_the_hold_does_not_cover_beside_what_was_charged(
    short_nanos: int, asks: bool
) -> None:
    charged = 70_000
    most = (100 + MORE_TOKENS) * 1_000 + (LIMIT_TOKENS - 12) * 2_000
    held = charged + most - short_nanos
    purse = Purse(call(), RESET, charge_nanos=charged, held_nanos=held)
    told = await purse.continued()
    assert len(purse.provider.asked) == asks
    if not asks:
        assert told == "what is held does not cover it"
        assert len(purse.ended) == 1


async def test_the_ceiling_of_who_goes_on_is_what_it_may_cost() -> None:
    purse = Purse(call(), RESET)
    [attempt] = purse.left
    await purse.continued()
    assert attempt.candidate.ceiling_nanos == (100 + MORE_TOKENS) * 1_000 + 8 * 2_000


async def test_one_after_the_other_is_asked_until_a_failure_ends_the_call() -> None:
    purse = Purse(call(), RESET, attempts=3)
    assert await purse.continued() == "there is no other endpoint, time or retry left"
    assert (len(purse.provider.asked), purse.ended) == (3, [RESET.outcome] * 3)
    fault = AttemptFailed(Outcome(Fault.CALLER_FAULT, status=400))
    purse = Purse(call(), fault, attempts=3)
    assert await purse.continued() == "the call is over"
    assert (len(purse.provider.asked), purse.ended) == (1, [fault.outcome])


async def test_who_leaves_meanwhile_ends_the_attempt() -> None:
    purse = Purse(call(), asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await continue_stream(cast(Any, purse), {}, TEXT)
    assert [each.fault for each in purse.ended] == [Fault.CALLER_LEFT]


@pytest.mark.parametrize("prompt", [["Once ", "Twice "], [1, 2], 7])
async def test_a_prompt_that_is_not_one_text_is_not_continued(prompt: object) -> None:
    purse = Purse(call(Task.COMPLETION, prompt=prompt), RESET)
    assert await purse.continued() == "its prompt is not one text"
    assert (purse.provider.asked, purse.ended) == ([], [])


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({}, None),
        ({"tools": [], "logprobs": False, "echo": None}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"tools": [{}]}, "it may call tools"),
        ({"response_format": {"type": "json_object"}}, "it may be JSON"),
        ({"logprobs": 0, "echo": True}, "it repeats its prompt"),
        ({"suffix": "."}, "its end is given"),
    ],
)
def test_half_of_what_has_a_form_is_not_continued(
    members: dict[str, object], why: str | None
) -> None:
    body = OpenAiBody(b"/v1/x", _raw(msgspec.json.encode(members)), 9, True, False, 1)
    assert why_whole(body) == why
    assert why_whole(msgspec.structs.replace(body, choices=2)) == "it has several choices"


@pytest.mark.parametrize(
    "payload",
    [b"no JSON", b"[1]", b"[" * 100_000, b'{"choices":[7,{"delta":1},{}],"id":"x"}', b"{}"],
)
def test_whatever_a_later_stream_says_it_is_passed_on_as_one(payload: bytes) -> None:
    heard = Joint({"id": raw("first"), "model": raw("m"), "usage": raw(1)}).hear(payload)
    try:
        said = msgspec.json.decode(payload, type=dict)
    except (msgspec.DecodeError, RecursionError):
        assert heard == payload
    else:
        assert msgspec.json.decode(heard) == said | {"id": "first", "model": "m"}


def test_a_later_stream_tells_no_second_role() -> None:
    chunk = {"choices": [{"delta": {"role": "assistant", "content": "a"}}], "usage": None}
    heard = Joint({}).hear(msgspec.json.encode(chunk))
    assert msgspec.json.decode(heard) == {
        "choices": [{"delta": {"content": "a"}}],
        "usage": None,
    }


@pytest.mark.parametrize(
    "opening", [b"", b": comment\n\n", b"data: [DONE]\n\n", b'data: [1]\n\ndata: {"id":"x"}\n\n']
)
def test_a_stream_that_begins_with_no_event_has_no_identity(opening: bytes) -> None:
    assert first_event(opening) == {}
    found = first_event(b': data: none\n\nevent: x\ndata: {"id":"x"}\n\n')
    assert {name: bytes(each) for name, each in found.items()} == {"id": b'"x"'}


def test_what_a_stream_says_of_itself_at_length_is_not_said_again_in_each_event() -> None:
    told = {"id": raw("x" * IDENTITY_BYTES_MAX), "model": raw("x" * (IDENTITY_BYTES_MAX - 2))}
    assert identity_of(told).keys() == {"model"}


@pytest.mark.parametrize("first", [b'{"id":"x","y":[%b]}', b'{"choices":[{"delta":[%b]}],"id":1}'])
def test_nothing_is_made_of_what_is_not_read_of_a_stream_that_is_continued(first: bytes) -> None:
    """A megabyte of empty lists, each made an object, held all other calls up for 0.25 s."""
    event = first % b",".join([b"[]"] * 100_000)
    opening = b"data: " + event + b"\n\n" + b":\n\n" * 1_000
    joint = Joint({})
    for read in (lambda: joint.hear(event), lambda: first_event(opening)):
        tracemalloc.start()
        try:
            read()
            taken_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert taken_bytes < 6 * len(event)


def test_what_a_later_stream_says_in_several_lines_is_told_in_one() -> None:
    reader = StreamReader(usage_asked=False, keep_text=True, scribe=Joint({"id": raw("first")}))
    event = b'data: {"choices":\ndata: [{"delta":\ndata: {"content":"hi"}}]}\n\n'
    assert msgspec.json.decode(reader.feed(event).removeprefix(b"data: ")) == {
        "choices": [{"delta": {"content": "hi"}}],
        "id": "first",
    }
    assert reader.feed(event).count(b"\n") == 2


def test_the_usage_of_an_answer_in_parts_is_of_those_who_made_it() -> None:
    candidate = Candidate(0, RATE, LIMIT_TOKENS, 0)

    def attempt(tokens_in: int, tokens_out: int, *, lost: bool = False) -> Attempt:
        return Attempt(
            0, candidate, 0.0, 0.0, tokens_in=tokens_in, tokens_out=tokens_out, lost=lost
        )

    made = [attempt(900, 2, lost=True), attempt(0, 0), attempt(10, 5), attempt(31, 4)]
    assert tokens_together(made) == (10, 9)
    assert tokens_together([attempt(900, 2, lost=True), attempt(0, 0)]) == (0, 0)
