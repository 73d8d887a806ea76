"""Where conversations have their context: told to all processes, and known without Valkey."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from broker.live import homes
from broker.live.room import Live
from tests.integration.live.passage import Passage
from tests.waiting import until

A, B = UUID(int=1), UUID(int=2)


async def test_another_process_hears_where_a_conversation_was_answered(
    here: Live, there: Live
) -> None:
    assert await there.homes.of(A, "talk") is None
    here.homes.keep(A, "talk", 7)

    async def heard() -> bool:
        return await there.homes.of(A, "talk") == 7

    await until(heard)
    there.homes.keep(A, "talk", 8)

    async def moved() -> bool:
        return await here.homes.of(A, "talk") == 8

    await until(moved)


async def test_two_accounts_may_use_one_name(here: Live) -> None:
    here.homes.keep(A, "talk", 7)
    here.homes.keep(B, "talk", 9)

    async def apart() -> bool:
        return (await here.homes.of(A, "talk"), await here.homes.of(B, "talk")) == (7, 9)

    await until(apart)


async def test_what_many_ask_and_tell_at_once_goes_together(
    here: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = 0
    ask = here.valkey.ask

    def counted(*question: Any) -> Any:
        nonlocal questions
        questions += 1
        return ask(*question)

    monkeypatch.setattr(here.valkey, "ask", counted)
    for number in range(40):
        here.homes.keep(A, str(number), number)
    found = await asyncio.gather(*(here.homes.of(A, str(number)) for number in range(50)))
    assert found == [*range(40), *[None] * 10]
    assert questions <= 2
    assert await asyncio.gather(here.homes.of(A, "7"), here.homes.of(A, "7")) == [7, 7]
    assert questions <= 3


async def test_nobody_waits_for_ever_where_an_exchange_fails_for_no_reason_that_is_known(
    here: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, failures = here.valkey.ask, 0

    async def failing(*question: Any) -> Any:
        nonlocal failures
        failures += 1
        if failures == 1:
            await asyncio.sleep(0.05)
            raise ValueError("a home that is no number")
        return await ask(*question)

    monkeypatch.setattr(here.valkey, "ask", failing)
    first = asyncio.create_task(here.homes.of(A, "one"))
    await asyncio.sleep(0.01)
    async with asyncio.timeout(10.0):
        assert await here.homes.of(A, "two") is None
        assert await first is None
    assert failures == 2


async def test_a_caller_who_leaves_takes_nobody_elses_answer_away(here: Live) -> None:
    here.homes.keep(A, "talk", 7)
    leaver, other = (asyncio.create_task(here.homes.of(A, "talk")) for _ in range(2))
    await asyncio.sleep(0)
    leaver.cancel()
    assert await other == 7
    assert await here.homes.of(A, "talk") == 7


async def test_what_a_process_saw_itself_it_knows_without_valkey(
    here: Live, passage: Passage
) -> None:
    await passage.close()
    here.homes.keep(A, "talk", 7)
    assert await here.homes.of(A, "talk") == 7
    assert await here.homes.of(A, "other") is None


async def test_without_valkey_too_a_context_is_taken_to_be_gone_after_half_an_hour(
    here: Live, passage: Passage
) -> None:
    await passage.close()
    now_s = 0.0
    kept = homes.Homes(here.valkey, lambda: now_s)
    kept.keep(A, "talk", 7)
    now_s = homes.HOME_S - 1.0
    assert await kept.of(A, "talk") == 7
    now_s = homes.HOME_S + 1.0
    assert await kept.of(A, "talk") is None


async def test_it_forgets_the_oldest_of_very_many(here: Live, passage: Passage) -> None:
    await passage.close()
    for number in range(homes.HOMES_MAX + 1):
        here.homes.keep(A, str(number), number)
    assert await here.homes.of(A, "0") is None
    assert await here.homes.of(A, "1") == 1
