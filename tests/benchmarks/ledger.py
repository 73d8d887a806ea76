"""Measures the ledger: hold and capture pairs a second on a durable PostgreSQL, and their cost.

`python -m tests.benchmarks.ledger [--seconds S]`; the last line is one JSON object.
`cpu_us_per_pair` is Python's share, callers included, but not the making of holds and captures;
`commit_p99_ms` is the wait for one hold while many are under way.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg
import uvloop

from broker.core.ledger import Hold, Settlement
from broker.embedded.postgres import EmbeddedPostgres
from broker.flows.batch import LedgerBatcher
from broker.store import ledger
from broker.store.database import create_pool
from broker.store.migrate import upgrade
from tests.conftest import broken_invariants
from tests.integration.ledger.books import PROCESS, a_capture, a_hold, open_account

CALLS_AT_ONCE: Final = 1_000
PAIRS_EACH: Final = 10
FUNDS_NANOS: Final = 10**15
HOLD_NANOS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run came to."""

    pairs_per_s: float
    cpu_us_per_pair: float
    commit_p99_ms: float


@dataclass(frozen=True, slots=True)
class Traders:
    """Who pays and who is paid, by ledger account."""

    consumers: Sequence[UUID]
    providers: Sequence[UUID]

    def pair(self, number: int) -> tuple[Hold, Settlement]:
        """The hold and capture of call `number`."""
        hold = a_hold(self.consumers[number % len(self.consumers)], HOLD_NANOS)
        payee = self.providers[number * 7 % len(self.providers)]
        return hold, a_capture(hold, (payee, 300))


@asynccontextmanager
async def batcher_on(url: str) -> AsyncIterator[LedgerBatcher]:
    """A batcher as a broker process has it."""
    pool = await create_pool(url)
    async with pool.acquire() as connection:
        take = await ledger.take_account(connection, PROCESS)
    batcher = LedgerBatcher(pool, take, PROCESS)
    batcher.start()
    yield batcher
    await batcher.drain()
    await pool.close()


async def run(batcher: LedgerBatcher, traders: Traders, seconds: float) -> Figures:
    """Keep CALLS_AT_ONCE calls under way for so long; pairs are made between the rounds."""
    waits_s: list[float] = []
    took_s = cpu_s = 0.0

    async def caller(pairs: Sequence[tuple[Hold, Settlement]]) -> None:
        for hold, capture in pairs:
            asked_s = time.perf_counter()
            await batcher.hold(hold)
            waits_s.append(time.perf_counter() - asked_s)
            assert await batcher.settle(capture)

    while took_s < seconds:
        made = [traders.pair(number) for number in range(CALLS_AT_ONCE * PAIRS_EACH)]
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller(made[n::CALLS_AT_ONCE]) for n in range(CALLS_AT_ONCE)))
        took_s += time.perf_counter() - began_s
        cpu_s += time.process_time() - began_cpu_s
    pairs = len(waits_s)
    waits_s.sort()
    return Figures(pairs / took_s, cpu_s / pairs * 1e6, waits_s[int(pairs * 0.99)] * 1e3)


async def measure(url: str, seconds: float) -> dict[str, float]:
    """Trade among many, then between one consumer and one provider."""
    await upgrade(url)
    connection = await asyncpg.connect(url)
    consumers = [await open_account(connection, "consumer", FUNDS_NANOS) for _ in range(200)]
    providers = [await open_account(connection, "provider") for _ in range(100)]
    await connection.close()
    async with batcher_on(url) as batcher:
        await run(batcher, Traders(consumers, providers), 1.0)
        many = await run(batcher, Traders(consumers, providers), seconds)
        one = await run(batcher, Traders(consumers[:1], providers[:1]), seconds)
    alarms = await broken_invariants(url)
    assert not alarms, alarms
    return {
        "pairs_per_s": round(many.pairs_per_s),
        "pairs_per_s_one_account": round(one.pairs_per_s),
        "cpu_us_per_pair": round(many.cpu_us_per_pair, 1),
        "commit_p99_ms": round(many.commit_p99_ms, 1),
    }


async def main(seconds: float) -> None:
    """Start a durable PostgreSQL in a temporary folder, measure, print."""
    with tempfile.TemporaryDirectory(prefix="broker-", ignore_cleanup_errors=True) as name:
        os.chmod(name, 0o711)  # noqa: PTH101 - the server's own account passes through
        async with EmbeddedPostgres(Path(name), durable=True) as server:
            print(json.dumps(await measure(server.url, seconds)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the ledger.")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each of the two runs")
    uvloop.run(main(parser.parse_args().seconds))
