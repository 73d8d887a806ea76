"""Long reads of one account keep nobody else from the database."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from broker.api.long_reads import ASKED_MAX
from tests.integration.api.conftest import Person, SmallBroker

ASKED = 12
"""More than a process has connections."""


@pytest.mark.parametrize(
    "path", ["/api/statement/totals?by=day", "/api/statement?format=csv", "/api/invoices/{month}"]
)
async def test_who_asks_for_many_long_reads_at_once_keeps_the_broker_ready(
    broker: SmallBroker, consumer: Person, database_url: str, path: str
) -> None:
    asked = path.format(month=f"{broker.clock():%Y-%m}")
    blocker = await asyncpg.connect(database_url)
    try:
        async with blocker.transaction():  # as millions of rows would take long
            await blocker.execute("LOCK TABLE transfers IN ACCESS EXCLUSIVE MODE")
            reads = [asyncio.create_task(consumer.http.get(asked)) for _ in range(ASKED)]
            done = 0
            async with asyncio.timeout(20):
                while done < ASKED - ASKED_MAX:
                    await asyncio.wait(reads, timeout=0.05)
                    done = sum(each.done() for each in reads)
            refused = [each.result() for each in reads if each.done()]
            assert {each.status_code for each in refused} == {429}
            assert all("retry-after" in each.headers for each in refused)
            assert (await consumer.http.get("/health/ready")).json()["database"] == "ok"
            assert (await consumer.http.get("/api/balance")).status_code == 200
    finally:
        await blocker.close()
    answered = [each.status_code for each in await asyncio.gather(*reads)]
    assert sorted(answered) == [200] * ASKED_MAX + [429] * (ASKED - ASKED_MAX)


async def test_a_long_read_that_finds_nothing_says_so(consumer: Person) -> None:
    assert (await consumer.http.get("/api/invoices/1999-01")).status_code == 404
