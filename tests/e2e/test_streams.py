"""What a caller sees of a stream when the provider dies, and what becomes of it when he leaves."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from uuid import UUID

import httpx
import openai
import pytest

from pricing.money import format_usd
from provider_sdk.testing.scripted import Script, answer_text, chat_prompt
from tests.e2e.harness import Floor
from tests.e2e.stall import Stall
from tests.e2e.trade import Told, chat, listen, try_to
from tests.waiting import until

pytestmark = pytest.mark.e2e

FIRST_SHAKY = {"providers": {"order": ["shaky", "solid"]}}
WORDS = 24
PROMPT = chat_prompt(chat("")["messages"])
LONG = {"tokens_per_s": 20.0, "output_tokens": 2_000}
"""A stream that outlasts every test."""


@pytest.fixture(scope="module")
async def stalls(common_floor: Floor) -> dict[str, Stall]:
    """For each family a stall that will fail and one that serves."""
    families = ("early", "late", "silent", "spoilt", "left", "left-waiting")
    both = [
        Stall(provider, f"stream-{family}", script=Script(output_tokens=WORDS))
        for family in families
        for provider in ("shaky", "solid")
    ]
    await common_floor.list_stalls(*both)
    return {stall.name: stall for stall in both}


@pytest.mark.parametrize(
    "script", [{"cut_after_chunks": 1}, {"error_after_chunks": 1}, {"malformed_sse": True}]
)
async def test_a_stream_that_dies_before_its_first_content_comes_clean_from_another(
    common_floor: Floor, stalls: dict[str, Stall], script: dict[str, Any]
) -> None:
    stalls["shaky/stream-early"].behave(**script)  # its role chunk has come by then
    told = await listen(common_floor.client(), Told(), **chat("stream-early", FIRST_SHAKY))
    assert told.text == answer_text(PROMPT, WORDS)
    assert (told.endpoint, told.tokens_out) == ("solid/stream-early", WORDS)
    assert told.call_id is not None
    [line] = await common_floor.lines(told.call_id)
    assert (line["endpoint"], line["charge_nanos"]) == (told.endpoint, told.cost_nanos)
    attempts = (await common_floor.story(told.call_id))["attempts"]
    assert [each["endpoint"] for each in attempts] == ["shaky/stream-early", "solid/stream-early"]


@pytest.mark.parametrize(
    "script",
    [
        {"cut_after_chunks": 6},
        {"cut_after_chunks": 6, "cut_by_reset": True},
        {"error_after_chunks": 6},
    ],
)
async def test_a_stream_that_dies_after_content_ends_in_an_error_and_costs_what_came(
    common_floor: Floor, stalls: dict[str, Stall], script: dict[str, Any]
) -> None:
    # Paced, so that what was sent before a reset has arrived when the reset does.
    stalls["shaky/stream-late"].behave(tokens_per_s=100.0, **script)
    solid_before = stalls["solid/stream-late"].server.calls
    client = common_floor.client()
    told = await try_to(listen, client, Told(), **chat("stream-late", FIRST_SHAKY))
    assert isinstance(told.failure, openai.APIError)
    assert told.failure.code == "provider_cut_off"
    assert not told.whole
    assert answer_text(PROMPT, WORDS).startswith(told.text)
    assert told.text
    assert stalls["solid/stream-late"].server.calls == solid_before, "no failover"
    assert told.call_id is not None
    [line] = await common_floor.lines(told.call_id)
    assert line["endpoint"] == told.endpoint == "shaky/stream-late"
    assert 0 < line["tokens_out"] <= len(told.text.encode())
    story = await common_floor.story(told.call_id)
    assert (story["code"], len(story["attempts"])) == ("provider_cut_off", 1)
    assert story["attempts"][0]["outcome"] in ("reset", "server_error")
    body = told.failure.body
    assert isinstance(body, dict)
    assert body["broker"]["cost_usd"] == format_usd(line["charge_nanos"])
    whole = (line["tokens_in"] + WORDS) * line["rate_out_micros"] // 1_000
    assert line["charge_nanos"] < whole


async def test_a_stream_without_asked_usage_says_its_cost_where_no_client_looks(
    common_floor: Floor, stalls: dict[str, Stall]
) -> None:
    body = {"model": "solid/stream-silent", "messages": chat("")["messages"], "stream": True}
    http = common_floor.http(key="shop")
    answer = await http.post("/v1/chat/completions", json=body)
    events = answer.text.strip().split("\n\n")
    call_id = UUID(answer.headers["x-broker-call-id"])
    [line] = await common_floor.lines(call_id)
    assert events[-1] == "data: [DONE]"
    assert events[-2].startswith(": broker {")
    assert f'"cost_usd":"{format_usd(line["charge_nanos"])}"' in events[-2]
    assert sum(event.startswith(":") for event in events) == 1
    async with await common_floor.client().chat.completions.create(**body) as chunks:
        texts = [c.choices[0].delta.content or "" async for c in chunks]
    assert "".join(texts) == answer_text(PROMPT, WORDS)


@contextlib.asynccontextmanager
async def calling(floor: Floor, model: str, **more: Any) -> Any:
    """A caller's open request, with its head if it has come; the block's end is his leaving."""
    body = {"model": model, "messages": chat("")["messages"], **more}
    http = floor.http(key="shop")
    async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        yield answer


async def test_a_caller_who_leaves_a_stream_pays_for_what_came_and_the_work_stops(
    common_floor: Floor, stalls: dict[str, Stall]
) -> None:
    stall = stalls["shaky/stream-left"]
    stall.behave(**LONG)
    heard = b""
    async with calling(common_floor, stall.name, stream=True) as answer:
        call_id = UUID(answer.headers["x-broker-call-id"])
        async for data in answer.aiter_bytes():
            heard += data
            if heard.count(b"data:") > 5:
                break

    async def cancelled() -> bool:
        return stall.server.cancelled == 1 and stall.server.in_flight == 0

    await until(cancelled)
    settlement = await common_floor.settlement(call_id)
    [line] = await common_floor.lines(call_id)
    assert settlement["kind"] == "captured"
    assert 0 < settlement["charge_nanos"] == line["charge_nanos"] < settlement["hold_nanos"]
    assert line["tokens_out"] < 1_000
    story = await common_floor.story(call_id)
    assert story["code"] == "caller_left"
    assert (await common_floor.market())[stall.name]["health"] == "ready"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_who_leaves_before_anything_came_pays_nothing_and_the_work_stops(
    common_floor: Floor, stalls: dict[str, Stall], stream: bool
) -> None:
    stall = stalls["shaky/stream-left-waiting"]
    stall.behave(ttft_ms=60_000)  # after the head of the answer
    calls, cancelled_before = stall.server.calls, stall.server.cancelled

    async def leave_soon() -> None:
        async with calling(common_floor, stall.name, stream=stream):
            raise AssertionError("there is no answer yet")

    task = asyncio.create_task(leave_soon())

    async def reached() -> bool:
        return stall.server.calls == calls + 1 and stall.server.in_flight == 1

    await until(reached)
    task.cancel()
    with pytest.raises((asyncio.CancelledError, httpx.HTTPError)):
        await task

    async def cancelled() -> bool:
        return stall.server.cancelled == cancelled_before + 1 and await common_floor.held() == 0

    await until(cancelled)
    rows = await common_floor.rows(
        "SELECT s.kind, c.code FROM calls c JOIN settlements s ON s.call_id = c.id"
        " WHERE c.model = $1 AND c.stream = $2",
        stall.name,
        stream,
    )
    assert [(row["kind"], row["code"]) for row in rows] == [("released", "caller_left")]
