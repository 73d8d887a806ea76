"""Earnings wait, mature, and pay back what is owed, whatever is refunded when."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from broker.core.money.maturity import MaturityTerms, Trust
from broker.flows.books.seal import seal
from broker.flows.money.mature import mature_all
from broker.flows.money.payout_terms import set_delay
from broker.flows.money.read_earnings import read_earnings
from broker.store.access.accounts import Account
from broker.store.money.purses import Contents
from tests.integration.payouts.till import NO_DELAY, OPERATOR, Till, grow_older

TERMS = MaturityTerms()
CALL_NANOS = 900_000
"""What 1,000 tokens earn."""


async def test_earnings_are_pending_until_their_delay_has_passed(till: Till, acme: Account) -> None:
    await till.earn(acme, 1_000)
    await till.days_pass(13)
    assert (await till.mature(acme, TERMS)).matured_nanos == 0
    await till.earn(acme, 1_000)
    await till.days_pass(2)
    assert (await till.mature(acme, TERMS)).matured_nanos == CALL_NANOS
    assert await till.contents(acme) == Contents(CALL_NANOS, CALL_NANOS, 0, 0)
    assert (await till.mature(acme, TERMS)).matured_nanos == 0
    [told] = await till.events("earnings.matured")
    assert told["amount_usd"] == "0.0009"


async def test_earnings_mature_by_the_seals_of_days_alone(till: Till, acme: Account) -> None:
    await till.earn(acme, 1_000)
    await grow_older(till.driver, timedelta(days=15))
    now = datetime.now(UTC)
    assert await seal(till.engine, now - timedelta(days=14, hours=3), now, for_checks=True)
    assert (await till.mature(acme, TERMS)).matured_nanos == 0
    assert await seal(till.engine, now - timedelta(days=14, hours=2), now)
    assert (await till.mature(acme, TERMS)).matured_nanos == CALL_NANOS


async def test_a_run_matures_for_everybody(till: Till, acme: Account, globex: Account) -> None:
    await till.earn(acme, 1_000)
    await till.earn(globex, 2_000)
    await till.days_pass(15)
    assert await mature_all(till.engine, TERMS, datetime.now(UTC)) == 2
    assert await mature_all(till.engine, TERMS, datetime.now(UTC)) == 0
    assert (await till.contents(globex)).available_nanos == 2 * CALL_NANOS


async def test_an_operator_sets_how_long_one_provider_waits(
    till: Till, acme: Account, globex: Account
) -> None:
    async with till.engine.begin() as connection:
        await set_delay(connection, OPERATOR, "acme", 1, datetime.now(UTC))
    await till.earn(acme, 1_000)
    await till.earn(globex, 1_000)
    await till.days_pass(2)
    await mature_all(till.engine, TERMS, datetime.now(UTC))
    assert (await till.contents(acme)).available_nanos == CALL_NANOS
    assert (await till.contents(globex)).available_nanos == 0


async def test_a_known_provider_waits_less_and_a_lost_dispute_takes_that_back(
    till: Till, acme: Account
) -> None:
    terms = MaturityTerms(known_after_calls=2)
    await till.earn(acme, 1_000)
    await till.days_pass(31)
    now = datetime.now(UTC)
    assert (await read_earnings(till.engine, acme.id, terms, now)).trust is Trust.NEW
    await till.earn(acme, 1_000)
    assert (await read_earnings(till.engine, acme.id, terms, now)).trust is Trust.KNOWN
    await till.lose_dispute(acme, await till.earn(acme, 1_000))
    assert (await read_earnings(till.engine, acme.id, terms, now)).trust is Trust.NEW


async def test_what_is_refunded_before_never_matures(till: Till, acme: Account) -> None:
    sale = await till.earn(acme, 1_000)
    await till.earn(acme, 1_000)
    taken = await till.refund(acme, sale, CALL_NANOS)
    assert taken.earnings_nanos == CALL_NANOS
    await till.days_pass(15)
    assert (await till.mature(acme, TERMS)).matured_nanos == CALL_NANOS


async def test_a_refund_of_a_younger_call_takes_nothing_from_older_ones(
    till: Till, acme: Account
) -> None:
    await till.earn(acme, 1_000)
    await till.days_pass(10)
    young = await till.earn(acme, 2_000)
    await till.days_pass(5)
    await till.refund(acme, young, 2 * CALL_NANOS)
    assert (await till.mature(acme, TERMS)).matured_nanos == CALL_NANOS
    assert (await till.contents(acme)).pending_nanos == 0


async def test_a_refund_after_maturity_comes_from_what_is_available(
    till: Till, acme: Account
) -> None:
    sale = await till.earn(acme, 1_000)
    await till.days_pass(2)
    await till.mature(acme)
    await till.earn(acme, 5_000)
    taken = await till.refund(acme, sale, CALL_NANOS)
    assert taken.available_nanos == CALL_NANOS
    assert await till.contents(acme) == Contents(5 * CALL_NANOS, 0, 0, 0)


async def test_a_refund_after_a_payout_is_owed_and_paid_back_first(
    till: Till, acme: Account
) -> None:
    sale = await till.earn(acme, 100_000)
    await till.days_pass(2)
    await till.mature(acme)
    await till.pay(acme)
    taken = await till.refund(acme, sale, sale.earned_nanos)
    assert taken.receivable_nanos == sale.earned_nanos
    assert (await till.contents(acme)).owed_nanos == sale.earned_nanos
    await till.earn(acme, 60_000)
    await till.days_pass(2)
    assert (await till.mature(acme)).recovered_nanos == 54_000_000
    assert (await till.contents(acme)).owed_nanos == 36_000_000
    await till.earn(acme, 60_000)
    await till.days_pass(2)
    await till.mature(acme)
    contents = await till.contents(acme)
    assert (contents.available_nanos, contents.owed_nanos) == (18_000_000, 0)
    told = await till.events("earnings.recovered")
    assert [each["still_owed_usd"] for each in told] == ["0.036", "0.00"]


async def test_nothing_matures_that_no_seal_has_summed(till: Till, acme: Account) -> None:
    await till.earn(acme, 1_000)
    assert await mature_all(till.engine, NO_DELAY, datetime.now(UTC)) == 0
    assert (await till.contents(acme)).pending_nanos == CALL_NANOS


async def test_what_left_earnings_without_a_call_is_made_up_by_later_ones(
    till: Till, acme: Account
) -> None:
    """As adjustments of former versions did."""
    await till.earn(acme, 1_000)
    await till.days_pass(2)
    await till.take_from_earnings(acme, 500_000)
    assert (await till.mature(acme)).matured_nanos == 0
    await till.earn(acme, 1_000)
    assert (await till.mature(acme)).matured_nanos == CALL_NANOS
    await till.days_pass(2)
    assert (await till.mature(acme)).matured_nanos == CALL_NANOS - 500_000


async def test_it_is_told_when_what_is_pending_matures(till: Till, acme: Account) -> None:
    await till.earn(acme, 1_000)
    await till.days_pass(1)
    await till.earn(acme, 2_000)
    await till.days_pass(3)
    await till.earn(acme, 4_000)
    now = datetime.now(UTC)
    earnings = await read_earnings(till.engine, acme.id, TERMS, now)
    assert [each.amount_nanos // CALL_NANOS for each in earnings.maturing] == [1, 2, 4]
    days = [(each.at - now).total_seconds() / 86_400 for each in earnings.maturing]
    assert days == pytest.approx([10.96, 11.96, 14.5], abs=0.6)
    assert sum(each.amount_nanos for each in earnings.maturing) == earnings.contents.pending_nanos


async def test_maturing_and_refunding_at_once_lose_nothing(till: Till, acme: Account) -> None:
    for _ in range(8):
        sale = await till.earn(acme, 1_000)
        await till.days_pass(1)
        before = await till.contents(acme)
        refund, matured = await asyncio.gather(
            till.refund(acme, sale, CALL_NANOS), till.mature(acme)
        )
        after = await till.contents(acme)
        assert after.pending_nanos == 0
        gained = after.available_nanos - before.available_nanos
        assert gained == matured.matured_nanos - refund.available_nanos == 0
