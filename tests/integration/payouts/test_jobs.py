"""What workers do by the clock: mature, make payouts, send them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from broker.core.money.payout import Schedule, Stripe
from broker.flows.money.payout_terms import Wishes
from broker.jobs.payouts import JOBS, make_payouts, mature_earnings, send_payouts
from broker.jobs.room import Room
from broker.settings import Settings
from broker.store.database import create_pool
from broker.store.money import payouts
from broker.store.money.payouts import PayoutStatus
from broker.worker import JOBS as ALL_JOBS
from tests.integration.payouts.till import BANK, Till


@pytest.fixture
async def room(till: Till, database_url: str, valkey_url: str) -> AsyncIterator[Room]:
    settings = Settings(database_url, valkey_url, secret_key="ab" * 32)
    pool = await create_pool(database_url)
    yield Room(settings, till.engine, pool)
    await pool.close()


async def test_earnings_mature_and_are_paid_out_by_the_clock(till: Till, room: Room) -> None:
    acme = await till.provider("acme", destination=None)
    await till.wish(acme, Wishes(Schedule.DAILY, 0, BANK), datetime.now(UTC))
    await till.earn(acme, 100_000)
    await till.days_pass(16)
    for _ in range(2):
        await mature_earnings(room)
        await make_payouts(room)
    async with till.engine.connect() as connection:
        [payout] = await payouts.list_payouts(connection, payouts.Wanted())
    assert (payout.amount_nanos, payout.status) == (90_000_000, PayoutStatus.OPEN)
    assert await till.driver.fetchval("SELECT author FROM payout_batches") == "payout-schedule"


async def test_jobs_that_are_ordered_twice_do_their_work_once(till: Till, room: Room) -> None:
    """A queue that breaks tells again later what was not begun, beside what is due by then."""
    acme = await till.provider("acme", destination=None)
    await till.wish(acme, Wishes(Schedule.DAILY, 0, BANK), datetime.now(UTC))
    await till.earn(acme, 100_000)
    await till.days_pass(16)
    for job in ALL_JOBS:
        async with asyncio.timeout(20):
            await asyncio.gather(job.work(room), job.work(room))
    assert room.alarms == 0
    async with till.engine.connect() as connection:
        [payout] = await payouts.list_payouts(connection, payouts.Wanted())
    assert payout.amount_nanos == 90_000_000


async def test_payouts_through_stripe_wait_for_a_key_and_are_told(till: Till, room: Room) -> None:
    acme = await till.provider("acme", Stripe("acct_1a2b3c4d5e6f7g8h"))
    with capture_logs() as logs:
        await send_payouts(room)
    assert logs == []
    await till.adjust(acme, 90_000_000)
    await till.pay(acme)
    with capture_logs() as logs:
        await send_payouts(room)
    assert [each["event"] for each in logs] == ["payouts_wait_for_a_stripe_key"]


def test_each_job_runs_by_the_clock() -> None:
    assert [job.name for job in JOBS if job.schedule is not None] == [
        "broker.mature_earnings",
        "broker.make_payouts",
        "broker.send_payouts",
    ]
