"""What callers get, and what they pay, while a provider fails in each way that providers have."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.gateway.house import House
from tests.integration.gateway.rack import ANSWER, WRONG_ANSWER, Heard, Trade

CALLERS = 24

SOLID, SHAKY, CUT = "the other serves", "it is served all the same", "it breaks off"

FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "refused": ({"refuse": True}, SOLID, SOLID),
    "reset": ({"reset": True}, SOLID, SOLID),
    "broken": ({"status": 500}, SOLID, SOLID),
    "unavailable": ({"status": 503}, SOLID, SOLID),
    "strange-status": ({"status": 599}, SOLID, SOLID),
    "redirect": ({"status": 307, "body": "elsewhere"}, SOLID, SOLID),
    "busy": ({"status": 429}, SOLID, SOLID),
    "busy-for-long": ({"status": 429, "retry_after_s": 86_400.0}, SOLID, SOLID),
    "locked": ({"status": 403}, SOLID, SOLID),
    "gone": ({"status": 404}, SOLID, SOLID),
    "stalled": ({"stall": True}, SOLID, SOLID),
    "stalled-at-the-head": ({"stall_after_chunks": 0}, SOLID, SOLID),
    "stalled-midway": ({"stall_after_chunks": 4}, SHAKY, CUT),
    "cut": ({"cut_after_bytes": 60}, SOLID, SOLID),
    "cut-midway": ({"cut_after_chunks": 4}, SHAKY, CUT),
    "reset-midway": ({"cut_after_chunks": 0, "cut_by_reset": True}, SOLID, SOLID),
    "no-done": ({"omit_done": True}, SHAKY, SHAKY),
    "no-end": ({"omit_done": True, "omit_finish_reason": True}, SHAKY, CUT),
    "no-finish-reason": ({"omit_finish_reason": True}, SHAKY, SHAKY),
    "bad-chunk": ({"malformed_chunk": True}, SOLID, SOLID),
    "bad-json": ({"malformed_json": True}, SOLID, SOLID),
    "bad-sse": ({"malformed_sse": True}, SHAKY, SOLID),
    "nested-json": ({"nested_json": True}, SOLID, SOLID),
    "wrong-type": ({"wrong_content_type": True}, SOLID, SOLID),
    "empty": ({"empty": True}, SOLID, SOLID),
    "error-in-a-200": ({"error_after_chunks": 0}, SHAKY, SOLID),
    "error-midway": ({"error_after_chunks": 4}, SHAKY, CUT),
    "no-usage": ({"omit_usage": True}, SHAKY, SHAKY),
    "liar": ({"usage_factor": 10.0}, SHAKY, SHAKY),
    "garbage": ({"garbage_mb": 100.0}, SOLID, SOLID),
    "drip": ({"byte_interval_ms": 90.0}, SOLID, SOLID),
    "another-answer": ({"wrong_answer": True}, SHAKY, SHAKY),
    "packed": ({"encoding": "gzip"}, SHAKY, SHAKY),
    "bomb": ({"encoding": "gzip", "garbage_mb": 12.0}, SOLID, SOLID),
    "offsets": ({}, SHAKY, SHAKY),
    "flood": ({}, SHAKY, SHAKY),
}
"""What it does, and what becomes of a whole answer and of a stream."""


@pytest.fixture(scope="module")
async def trade(hasty_house: House) -> Trade:
    """A shaky provider and a solid one."""
    trade = Trade(hasty_house, await hasty_house.consumer("shop"))
    await trade.enrol(list(FAULTS), "shaky", "solid")
    return trade


@pytest.mark.parametrize("family", FAULTS)
async def test_callers_of_a_provider_that_fails_are_served_by_the_other_or_told(
    trade: Trade, family: str
) -> None:
    script, whole, streamed = FAULTS[family]
    trade.behave("shaky", **script)
    trade.behave("solid")
    before = await trade.balance()
    kinds = [False, True] * (CALLERS // 2)
    heard = await asyncio.gather(
        *(trade.ask(family, stream=stream, first="shaky") for stream in kinds)
    )
    for stream, each in zip(kinds, heard, strict=True):
        assert _as_expected(each, streamed if stream else whole, family), (stream, each)
    spent = before - await trade.balance()
    assert spent == sum(each.cost for each in heard), "callers are told what they pay"
    paid = await trade.paid(family)
    assert sum(paid.values()) == spent * 10**9
    if whole is streamed is SOLID:
        assert f"shaky/{family}" not in paid


def _as_expected(heard: Heard, expected: str, family: str) -> bool:
    solid = heard.endpoint == f"solid/{family}"
    if expected is SOLID or (solid and family != "liar"):
        return solid and heard.ended and heard.text == ANSWER and heard.error is None
    if expected is CUT:
        begun = 0 < len(heard.text) <= len(ANSWER) and ANSWER.startswith(heard.text)
        return begun and heard.error == "provider_cut_off" and not heard.ended
    text = WRONG_ANSWER if family == "another-answer" else ANSWER
    return heard.ended and heard.text == text and heard.error is None


async def test_of_more_large_answers_than_there_is_room_for_some_are_told_so(trade: Trade) -> None:
    before = await trade.balance()
    for each in ("shaky", "solid"):
        trade.behave(each, garbage_mb=50.0)
    heard = await asyncio.gather(*(trade.ask("flood") for _ in range(8)))
    errors = {(each.status, each.error) for each in heard}
    assert errors <= {(502, "all_providers_failed"), (503, "no_room")}
    assert (503, "no_room") in errors
    assert await trade.balance() == before
    for each in ("shaky", "solid"):
        trade.behave(each)
    again = [await trade.ask("flood") for _ in range(4)]
    assert {each.text for each in again} == {ANSWER}, "and the room is there again"


@pytest.mark.parametrize("by_reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_connection_that_ends_at_any_byte_is_never_taken_for_an_answer(
    trade: Trade, stream: bool, by_reset: bool
) -> None:
    family = "offsets"
    trade.behave("solid")
    before = await trade.balance()
    costs = []
    for offset in range(0, 900, 45 if stream else 30):
        # Between the cuts it serves, so that it is not ejected.
        trade.behave("shaky")
        await trade.ask(family, first="shaky")
        costs.append((await trade.ask(family, first="shaky")).cost)
        costs.append(costs[-1])
        trade.behave("shaky", cut_wire_after_bytes=offset, cut_by_reset=by_reset)
        heard = await trade.ask(family, stream=stream, first="shaky")
        costs.append(heard.cost)
        if heard.ended:
            assert (heard.text, heard.error) == (ANSWER, None), offset
        else:
            assert heard.error == "provider_cut_off", offset
            assert heard.text, "before its first content another serves"
            assert ANSWER.startswith(heard.text), offset
    assert before - await trade.balance() == sum(costs)
