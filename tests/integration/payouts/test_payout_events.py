"""A payout goes forward only, each step once, and the money goes with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.errors import BrokerError, Conflict, NotFound, RequestMalformed
from broker.flows.money.payout_events import Word, confirm, fail, give_back
from broker.store.access.accounts import Account
from broker.store.money.payouts import Payout, PayoutStatus
from broker.store.money.purses import Contents
from tests.integration.payouts.till import Till

Step = Callable[[AsyncConnection, UUID, Word, datetime], Awaitable[Payout]]
STEPS: dict[str, Step] = {"confirm": confirm, "fail": fail, "return": give_back}
WORD = Word("office", "says the bank", "ref-1")
CENTS = 90_000_000


@pytest.fixture
async def payout(till: Till, acme: Account) -> Payout:
    """Nine cents on their way."""
    await till.adjust(acme, CENTS)
    return await till.pay(acme)


async def take(till: Till, name: str, payout_id: UUID, word: Word = WORD) -> Payout:
    async with till.engine.begin() as connection:
        return await STEPS[name](connection, payout_id, word, datetime.now(UTC))


async def world(till: Till) -> int:
    nanos: int = await till.driver.fetchval(
        "SELECT posted_nanos FROM balances JOIN ledger_accounts ON id = ledger_account_id"
        " WHERE kind = 'world'"
    )
    return nanos


async def test_a_confirmed_payout_is_out_in_the_world(
    till: Till, acme: Account, payout: Payout
) -> None:
    before = await world(till)
    sent = await take(till, "confirm", payout.id)
    assert (sent.status, sent.reference) == (PayoutStatus.SENT, "ref-1")
    assert await till.contents(acme) == Contents(0, 0, 0, 0)
    assert await world(till) == before + CENTS


async def test_a_failed_payout_is_available_again(
    till: Till, acme: Account, payout: Payout
) -> None:
    assert (await take(till, "fail", payout.id)).status is PayoutStatus.FAILED
    assert await till.contents(acme) == Contents(0, CENTS, 0, 0)


async def test_a_returned_payout_is_available_again_and_paid_again(
    till: Till, acme: Account, payout: Payout
) -> None:
    before = await world(till)
    await take(till, "confirm", payout.id)
    await take(till, "return", payout.id)
    assert await world(till) == before
    again = await till.pay(acme)
    assert (again.amount_nanos, again.number) == (CENTS, 2)
    await take(till, "confirm", again.id)
    assert await till.contents(acme) == Contents(0, 0, 0, 0)


@pytest.mark.parametrize("path", [("confirm",), ("fail",), ("confirm", "return")])
async def test_a_step_said_again_changes_nothing(
    till: Till, acme: Account, payout: Payout, path: tuple[str, ...]
) -> None:
    for name in path:
        await take(till, name, payout.id)
    before = await till.contents(acme), await till.payout(payout.id)
    told = await till.events("payout.sent", "payout.failed", "payout.returned")
    again = await take(till, path[-1], payout.id, Word("office", "another reason", "ref-2"))
    assert (await till.contents(acme), again) == before
    assert await till.events("payout.sent", "payout.failed", "payout.returned") == told
    assert len(told) == len(path)


async def test_a_step_out_of_order_is_refused_by_name(till: Till, acme: Account) -> None:
    orders: list[tuple[tuple[str, ...], tuple[str, ...], str]] = [
        ((), ("return",), "payout_open"),
        (("confirm",), ("fail",), "payout_sent"),
        (("fail",), ("confirm", "return"), "payout_failed"),
        (("confirm", "return"), ("confirm", "fail"), "payout_returned"),
    ]
    for path, wrong, code in orders:
        await till.adjust(acme, CENTS)
        made = await till.pay(acme)
        for name in path:
            await take(till, name, made.id)
        for name in wrong:
            with pytest.raises(Conflict) as caught:
                await take(till, name, made.id)
            assert caught.value.code == code


async def test_money_comes_back_for_a_reason_alone(till: Till, payout: Payout) -> None:
    for name in ("fail", "return"):
        for reason, code in ((" ", "reason_missing"), ("x" * 501, "reason_too_long")):
            with pytest.raises(RequestMalformed) as caught:
                await take(till, name, payout.id, Word("office", reason))
            assert caught.value.code == code


async def test_an_unknown_payout_is_not_found(till: Till) -> None:
    for name in STEPS:
        with pytest.raises(NotFound):
            await take(till, name, uuid7())


async def test_of_a_confirmation_and_a_failure_at_once_one_wins(
    till: Till, acme: Account, payout: Payout
) -> None:
    results = await asyncio.gather(
        *(take(till, name, payout.id) for name in ("confirm", "fail") * 3), return_exceptions=True
    )
    refused = [each for each in results if isinstance(each, BrokerError)]
    assert len(refused) == 3
    assert len({each.code for each in refused}) == 1
    contents = await till.contents(acme)
    sent = (await till.payout(payout.id)).status is PayoutStatus.SENT
    assert contents == Contents(0, 0 if sent else CENTS, 0, 0)


async def test_the_next_payout_and_what_became_of_the_last_do_not_wait_for_each_other(
    till: Till, acme: Account
) -> None:
    """Both touch the last payout, which the next one refers to, and the purse in transit."""
    await till.adjust(acme, CENTS + 5)
    last = await till.pay(acme)
    for name in ("confirm", "fail", "confirm", "fail", "confirm", "fail"):
        await till.adjust(acme, CENTS)
        last, _ = await asyncio.gather(till.pay(acme), take(till, name, last.id))
    contents = await till.contents(acme)
    assert contents.transit_nanos == last.amount_nanos
