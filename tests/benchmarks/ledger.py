"""Measures the ledger: hold and capture pairs a second on a durable PostgreSQL, and their cost.

`python -m tests.benchmarks.ledger [--seconds S]`; the last line is one JSON object:

- `pairs_per_s`: 1,000 calls at once, 200 consumers and 100 providers, warm; `_cold`: the first
  second of a process; `_one_account`: one consumer and one provider; `_budgeted`: every key has a
  budget by day, month and in total.
- `cpu_us_per_pair`: Python's share of the first, without the callers' own loop, which is measured
  with a ledger that does nothing; `_with_callers`: with it. The making of holds and captures is in
  neither.
- `commit_p99_ms`: from asking for a hold or a capture until it is durable, while OFFERED_PER_S
  pairs a second arrive, whether the ledger keeps up or not; `cpu_us_per_pair_offered` is the CPU
  of that, callers included.
- `alone_ms`: the median of the same for one call at a time, commit included.
- `accept_s`, `drain_s`: of BURST pairs that are asked for at once, until the last hold is durable,
  and from then until the last capture is.
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
from typing import Final, Protocol
from uuid import UUID

import asyncpg
import uvloop

from broker.core.ledger import Hold, Settlement
from broker.embedded.postgres import EmbeddedPostgres
from broker.flows.books.batch import LedgerBatcher
from broker.flows.books.lane_ahead import HoldTerms
from broker.store import ledger
from broker.store.books.budgets import Budgets, set_budgets
from broker.store.database import create_engine, create_pool
from broker.store.migrate import upgrade
from tests.benchmarks.processes import stop_when_told
from tests.conftest import broken_invariants
from tests.integration.ledger.entries import PROCESS, a_capture, a_hold, open_account, open_key

CALLS_AT_ONCE: Final = 1_000
PAIRS_EACH: Final = 10
OFFERED_PER_S: Final = 2_500
BURST: Final = 10_000
FUNDS_NANOS: Final = 10**16
HOLD_NANOS: Final = 1_000_000
_AS_USUAL: Final = HoldTerms(PROCESS)

Pair = tuple[Hold, Settlement]


class Ledger(Protocol):
    """What a caller needs of the books."""

    async def hold(self, hold: Hold) -> None:
        """Reserve."""

    async def settle(self, settlement: Settlement) -> bool:
        """Capture."""


class NoLedger:
    """Lets each caller go on at its next turn."""

    async def hold(self, hold: Hold) -> None:
        await asyncio.sleep(0)

    async def settle(self, settlement: Settlement) -> bool:
        await asyncio.sleep(0)
        return True


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run came to; waits are of holds and of captures, sorted."""

    pairs_per_s: float
    cpu_us_per_pair: float
    waits_s: Sequence[float]

    def wait_ms(self, share: float) -> float:
        """The wait that `share` of all stay below."""
        return self.waits_s[int(len(self.waits_s) * share)] * 1e3


@dataclass(frozen=True, slots=True)
class Traders:
    """Who pays, with which key, and who is paid, by ledger account."""

    consumers: Sequence[UUID]
    providers: Sequence[UUID]
    keys: Sequence[str] = ("key",)

    def pairs(self, count: int) -> list[Pair]:
        """The holds and captures of as many calls."""
        return [self._pair(number) for number in range(count)]

    def _pair(self, number: int) -> Pair:
        payer = self.consumers[number % len(self.consumers)]
        hold = a_hold(payer, HOLD_NANOS, key_id=self.keys[number % len(self.keys)])
        payee = self.providers[number * 7 % len(self.providers)]
        return hold, a_capture(hold, (payee, 300))


@asynccontextmanager
async def batcher_on(url: str, terms: HoldTerms = _AS_USUAL) -> AsyncIterator[LedgerBatcher]:
    """A batcher, mostly as a broker process has it."""
    pool = await create_pool(url)
    async with pool.acquire() as connection:
        take = await ledger.take_account(connection, PROCESS)
    batcher = LedgerBatcher(pool, take, terms)
    batcher.start()
    yield batcher
    await batcher.drain()
    await pool.close()


async def call(books: Ledger, pair: Pair, waits_s: list[float]) -> None:
    """One call, whose provider answers at once."""
    hold, capture = pair
    asked_s = time.perf_counter()
    await books.hold(hold)
    held_s = time.perf_counter()
    assert await books.settle(capture)
    waits_s += (held_s - asked_s, time.perf_counter() - held_s)


async def at_once(books: Ledger, traders: Traders, seconds: float) -> Figures:
    """Keep CALLS_AT_ONCE calls under way for so long; pairs are made between the rounds."""
    waits_s: list[float] = []
    took_s = cpu_s = 0.0

    async def caller(pairs: Sequence[Pair]) -> None:
        for pair in pairs:
            await call(books, pair, waits_s)

    while took_s < seconds:
        made = traders.pairs(CALLS_AT_ONCE * PAIRS_EACH)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller(made[n::CALLS_AT_ONCE]) for n in range(CALLS_AT_ONCE)))
        took_s += time.perf_counter() - began_s
        cpu_s += time.process_time() - began_cpu_s
    return _figures(waits_s, took_s, cpu_s)


async def offered(books: Ledger, traders: Traders, seconds: float) -> Figures:
    """Let OFFERED_PER_S calls a second begin, however many are under way."""
    waits_s: list[float] = []
    made = traders.pairs(int(OFFERED_PER_S * seconds))
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    tasks: list[asyncio.Task[None]] = []
    while len(tasks) < len(made):
        due = min(int((time.perf_counter() - began_s) * OFFERED_PER_S) + 1, len(made))
        tasks += (
            asyncio.create_task(call(books, pair, waits_s)) for pair in made[len(tasks) : due]
        )
        await asyncio.sleep(0.001)
    await asyncio.gather(*tasks)
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    return _figures(waits_s, took_s, cpu_s)


def _figures(waits_s: list[float], took_s: float, cpu_s: float) -> Figures:
    pairs = len(waits_s) // 2
    waits_s.sort()
    return Figures(pairs / took_s, cpu_s / pairs * 1e6, waits_s)


async def alone(books: Ledger, traders: Traders) -> Figures:
    """One call after the other."""
    waits_s: list[float] = []
    for pair in traders.pairs(200):
        await call(books, pair, waits_s)
    return _figures(waits_s, 1.0, 0.0)


async def burst(books: Ledger, traders: Traders) -> tuple[float, float]:
    """Ask for BURST pairs at once; return the seconds to accept them, and then to settle them."""
    held_s: list[float] = []

    async def caller(pair: Pair) -> None:
        await books.hold(pair[0])
        held_s.append(time.perf_counter())
        assert await books.settle(pair[1])

    made = traders.pairs(BURST)
    began_s = time.perf_counter()
    await asyncio.gather(*map(caller, made))
    return held_s[-1] - began_s, time.perf_counter() - held_s[-1]


async def open_traders(url: str) -> tuple[Traders, Traders]:
    """200 consumers and 100 providers; the same again, of whom each key has budgets."""
    connection = await asyncpg.connect(url)
    consumers = [await open_account(connection, "consumer", FUNDS_NANOS) for _ in range(200)]
    providers = [await open_account(connection, "provider") for _ in range(100)]
    keys = [await open_key(connection, each) for each in consumers]
    await connection.close()
    return Traders(consumers, providers), Traders(consumers, providers, keys)


async def give_budgets(url: str, keys: Sequence[str]) -> None:
    """Limit each key by more than a run spends."""
    engine = create_engine(url, connections_max=1)
    async with engine.begin() as connection:
        for key in keys:
            await set_budgets(connection, key, Budgets(FUNDS_NANOS, FUNDS_NANOS, FUNDS_NANOS))
    await engine.dispose()


async def measure(url: str, seconds: float) -> dict[str, float]:
    """Run all of it, and check the books at the end."""
    await upgrade(url)
    traders, limited = await open_traders(url)
    one = Traders(traders.consumers[:1], traders.providers[:1])
    callers = await at_once(NoLedger(), traders, 0.5)
    async with batcher_on(url) as batcher:
        cold = await at_once(batcher, traders, 1.0)
        many = await at_once(batcher, traders, seconds)
        single = await at_once(batcher, one, seconds)
        half = await offered(batcher, traders, seconds)
        lone = await alone(batcher, traders)
    # A broker would refuse most of so many at once.
    async with batcher_on(url, HoldTerms(PROCESS, queue_max=BURST)) as batcher:
        accept_s, drain_s = await burst(batcher, traders)
        await give_budgets(url, limited.keys)
        budgeted = await at_once(batcher, limited, seconds / 2)
    alarms = await broken_invariants(url)
    assert not alarms, alarms
    return {
        "pairs_per_s": round(many.pairs_per_s),
        "pairs_per_s_one_account": round(single.pairs_per_s),
        "cpu_us_per_pair": round(many.cpu_us_per_pair - callers.cpu_us_per_pair, 1),
        "commit_p99_ms": round(half.wait_ms(0.99), 1),
        "pairs_per_s_cold": round(cold.pairs_per_s),
        "pairs_per_s_budgeted": round(budgeted.pairs_per_s),
        "pairs_per_s_offered": round(half.pairs_per_s),
        "cpu_us_per_pair_with_callers": round(many.cpu_us_per_pair, 1),
        "cpu_us_per_pair_offered": round(half.cpu_us_per_pair, 1),
        "alone_ms": round(lone.wait_ms(0.5), 2),
        "accept_s": round(accept_s, 2),
        "drain_s": round(drain_s, 2),
    }


async def main(seconds: float) -> None:
    """Start a durable PostgreSQL in a temporary folder, measure, print."""
    with tempfile.TemporaryDirectory(prefix="broker-", ignore_cleanup_errors=True) as name:
        os.chmod(name, 0o711)  # noqa: PTH101 - the server's own account passes through
        async with EmbeddedPostgres(Path(name), durable=True) as server:
            print(json.dumps(await measure(server.url, seconds)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the ledger.")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each of the longer runs")
    stop_when_told()
    uvloop.run(main(parser.parse_args().seconds))
