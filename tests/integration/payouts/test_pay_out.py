"""A payout is the sum of its items, whole cents, once for each item, and to whom it is due."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from broker.core.money.payout import Schedule
from broker.errors import Conflict, NotFound, RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.flows.money.pay_out import REST, ask
from broker.flows.money.pay_out_due import pay_out_due
from broker.flows.money.payout_events import Word, fail
from broker.flows.money.payout_terms import Wishes
from broker.store.access.accounts import Account, Role
from broker.store.money import payouts
from broker.store.money.payouts import Payout, PayoutStatus
from broker.store.money.purses import Contents
from tests.integration.payouts.till import BANK, OPERATOR, Till

CENT = 10_000_000


async def ripen(till: Till, provider: Account, tokens: int) -> None:
    """Let so many tokens be earned and mature; 1,000 of them earn 900,000 nano-dollars."""
    await till.earn(provider, tokens)
    await till.days_pass(2)
    await till.mature(provider)


async def items(till: Till, payout: Payout) -> list[tuple[str | None, int]]:
    async with till.engine.connect() as connection:
        return [
            (each.kind, each.amount_nanos) for each in await payouts.items_of(connection, payout.id)
        ]


async def run_due(till: Till, now: datetime | None = None) -> list[Payout]:
    return await pay_out_due(till.engine, "schedule", now or datetime.now(UTC))


async def test_what_matured_is_frozen_and_moves_on_its_way(till: Till, acme: Account) -> None:
    await ripen(till, acme, 100_000)
    payout = await till.pay(acme)
    assert (payout.amount_nanos, payout.number) == (9 * CENT, 1)
    assert payout.status is PayoutStatus.OPEN
    assert payout.place.hint == "DE89…3000"
    assert await items(till, payout) == [("maturity", 9 * CENT)]
    assert await till.contents(acme) == Contents(0, 0, 9 * CENT, 0)
    [told] = await till.events("payout.created")
    assert (told["amount_usd"], told["destination"]) == ("0.09", "DE89…3000")


async def test_less_than_a_cent_is_kept_back_and_paid_with_the_next(
    till: Till, acme: Account
) -> None:
    await ripen(till, acme, 15_000)
    first = await till.pay(acme)
    assert await items(till, first) == [("maturity", 13_500_000), (None, -3_500_000)]
    assert (await till.contents(acme)).available_nanos == 3_500_000
    await ripen(till, acme, 10_000)
    second = await till.pay(acme)
    assert await items(till, second) == [
        ("maturity", 9_000_000),
        (None, 3_500_000),
        (None, -2_500_000),
    ]
    assert second.number == 2


async def test_adjustments_count_both_ways(till: Till, acme: Account) -> None:
    await ripen(till, acme, 100_000)
    await till.adjust(acme, 5 * CENT)
    await till.adjust(acme, -2 * CENT)
    payout = await till.pay(acme)
    assert payout.amount_nanos == 12 * CENT
    assert await items(till, payout) == [
        ("maturity", 9 * CENT),
        ("adjustment", 5 * CENT),
        ("adjustment", -2 * CENT),
    ]


async def test_money_of_a_failed_payout_is_an_item_of_the_next(till: Till, acme: Account) -> None:
    await ripen(till, acme, 100_000)
    first = await till.pay(acme)
    async with till.engine.begin() as connection:
        await fail(connection, first.id, Word("office", "account closed"), datetime.now(UTC))
    second = await till.pay(acme)
    assert await items(till, second) == [("payout_failed", 9 * CENT)]
    assert await items(till, first) == [("maturity", 9 * CENT)]


async def test_nothing_is_paid_of_what_is_owed(till: Till, acme: Account) -> None:
    sale = await till.earn(acme, 100_000)
    await till.days_pass(2)
    await till.mature(acme)
    await till.pay(acme)
    await till.refund(acme, sale, 4 * CENT)
    await till.adjust(acme, 6 * CENT)
    payout = await till.pay(acme)
    assert payout.amount_nanos == 2 * CENT
    assert (await till.contents(acme)).owed_nanos == 0


async def test_nothing_is_paid_of_what_is_disputed(till: Till, acme: Account) -> None:
    sale = await till.earn(acme, 100_000)
    await till.earn(acme, 50_000)
    await till.days_pass(2)
    dispute = await till.dispute(acme, sale)
    await till.mature(acme)
    first = await till.pay(acme)
    assert first.amount_nanos == 4 * CENT
    with pytest.raises(Conflict) as caught:
        await till.pay(acme)
    assert caught.value.code == "payout_nothing_due"
    await till.close_dispute(dispute, "rejected")
    second = await till.pay(acme)
    assert second.amount_nanos == 9 * CENT
    assert await items(till, second) == [(None, 95_000_000), (None, -5_000_000)]


async def test_a_disputed_call_that_is_still_pending_holds_nothing_else_back(
    till: Till, acme: Account
) -> None:
    await ripen(till, acme, 100_000)
    await till.dispute(acme, await till.earn(acme, 90_000))
    assert (await till.pay(acme)).amount_nanos == 9 * CENT


async def test_who_has_no_destination_or_a_new_one_waits(till: Till) -> None:
    acme = await till.provider("acme", destination=None)
    await ripen(till, acme, 100_000)
    with pytest.raises(Conflict) as missing:
        await till.pay(acme)
    assert missing.value.code == "payout_destination_missing"
    now = datetime.now(UTC)
    await till.wish(acme, Wishes(Schedule.DAILY, 0, BANK), now)
    with pytest.raises(Conflict) as resting:
        await till.pay(acme)
    assert resting.value.code == "payout_destination_resting"
    assert f"from {now + REST:%Y-%m-%d %H:%M:%S} UTC." in resting.value.detail
    assert await run_due(till, now + timedelta(hours=23)) == []
    assert len(await run_due(till, now + REST + timedelta(days=1))) == 1


async def test_a_threshold_out_of_bounds_is_refused_by_name(till: Till, acme: Account) -> None:
    for nanos in (-1, 10**18 + 1):
        with pytest.raises(RequestMalformed) as caught:
            await till.wish(acme, Wishes(threshold_nanos=nanos), datetime.now(UTC))
        assert caught.value.code == "amount_out_of_bounds"


async def test_a_schedule_pays_when_due_and_from_the_threshold_on(
    till: Till, acme: Account, globex: Account
) -> None:
    now = datetime.now(UTC)
    await till.wish(acme, Wishes(Schedule.DAILY, 9 * CENT), now)
    await till.wish(globex, Wishes(Schedule.DAILY, 9 * CENT + 1), now)
    for each in (acme, globex):
        await ripen(till, each, 100_000)
    later = datetime.now(UTC) + timedelta(days=1)
    [payout] = await run_due(till, later)
    assert payout.provider == "acme"
    assert await run_due(till, later) == []
    await till.adjust(globex, 1)
    assert await run_due(till, later) == []
    [other] = await run_due(till, later + timedelta(days=1))
    assert (other.provider, other.amount_nanos) == ("globex", 9 * CENT)


async def test_payouts_made_together_are_one_batch(
    till: Till, acme: Account, globex: Account
) -> None:
    for each in (acme, globex):
        await till.wish(each, Wishes(Schedule.DAILY, 0), datetime.now(UTC))
        await ripen(till, each, 100_000)
    made = await run_due(till, datetime.now(UTC) + timedelta(days=1))
    assert len(made) == 2
    assert len({each.batch_id for each in made}) == 1
    deeds = await till.driver.fetch("SELECT author, object FROM audit_log WHERE action = 'pay_out'")
    assert {tuple(each) for each in deeds} == {("schedule", f"payouts/{x.id}") for x in made}


async def test_one_that_cannot_be_paid_stays_due_and_spoils_no_other(
    till: Till, acme: Account, globex: Account
) -> None:
    for each in (acme, globex):
        await till.wish(each, Wishes(Schedule.DAILY, 0), datetime.now(UTC))
        await ripen(till, each, 100_000)
    await till.driver.execute(
        f"ALTER TABLE payouts ADD CONSTRAINT not_acme CHECK (provider_id <> '{acme.id}') NOT VALID"
    )
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert [each.provider for each in await run_due(till, tomorrow)] == ["globex"]
    assert (await till.contents(acme)).available_nanos == 9 * CENT
    assert await run_due(till, tomorrow) == []
    await till.driver.execute("ALTER TABLE payouts DROP CONSTRAINT not_acme")
    assert [each.provider for each in await run_due(till, tomorrow)] == ["acme"]


async def test_a_batch_that_was_exported_takes_no_more(
    till: Till, acme: Account, globex: Account
) -> None:
    for each in (acme, globex):
        await till.wish(each, Wishes(Schedule.DAILY, 0), datetime.now(UTC))
        await ripen(till, each, 100_000)
    await till.driver.execute(
        "CREATE FUNCTION exported() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE payout_batches SET exported_at = now(); RETURN NULL; END $$;"
        " CREATE TRIGGER exported AFTER INSERT ON payouts EXECUTE FUNCTION exported()"
    )
    made = await run_due(till, datetime.now(UTC) + timedelta(days=1))
    assert len({each.batch_id for each in made}) == 2


async def test_of_many_runs_at_once_each_item_is_paid_once(
    till: Till, acme: Account, globex: Account
) -> None:
    for each in (acme, globex):
        await till.wish(each, Wishes(Schedule.DAILY, 0), datetime.now(UTC))
        await ripen(till, each, 100_000)
    later = datetime.now(UTC) + timedelta(days=1)
    runs = await asyncio.gather(
        *(run_due(till, later) for _ in range(4)),
        till.pay(acme),
        till.pay(globex),
        till.mature(acme),
        return_exceptions=True,
    )
    assert {type(each) for each in runs if isinstance(each, Exception)} <= {Conflict}
    async with till.engine.connect() as connection:
        made = await payouts.list_payouts(connection, payouts.Wanted())
    assert sorted(each.provider for each in made) == ["acme", "globex"]
    assert {each.amount_nanos for each in made} == {9 * CENT}


async def test_a_provider_asks_for_its_own_payout_alone(
    till: Till, acme: Account, globex: Account
) -> None:
    await ripen(till, acme, 100_000)
    caller = Caller(acme.id, "acme", Role.PROVIDER)
    async with till.engine.begin() as connection:
        with pytest.raises(NotFound):
            await ask(connection, caller, "globex", datetime.now(UTC))
        made = await ask(connection, caller, None, datetime.now(UTC))
    assert made.provider == "acme"
    async with till.engine.begin() as connection:
        with pytest.raises(Conflict):
            await ask(connection, OPERATOR, "globex", datetime.now(UTC))


async def test_a_frozen_payout_refuses_changes(till: Till, acme: Account) -> None:
    await ripen(till, acme, 100_000)
    await till.pay(acme)
    for tampering in (
        "UPDATE payouts SET amount_nanos = amount_nanos + 10000000",
        "UPDATE payouts SET status = 'returned'",
        "DELETE FROM payouts",
        "UPDATE payout_items SET amount_nanos = 1",
        "DELETE FROM payout_items",
        "INSERT INTO payout_items SELECT payout_id, transfer_id, NULL, 1 FROM payout_items",
    ):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await till.driver.execute(tampering)
