"""Faults, drawn from a deck with a seed: each hits the market once and lets it mend itself."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from random import Random

import asyncpg

from tests.e2e.crash.callers import Caller, Note
from tests.e2e.crash.wire import AtByte, AtCommit, Trap, Way
from tests.e2e.crash.yard import PACE, Yard
from tests.waiting import PATIENCE_S

DECK = {
    "kill a broker": 2,
    "kill the worker": 2,
    "crash PostgreSQL": 3,
    "terminate a backend": 3,
    "cut the wire": 5,
    "cut a commit": 3,
    "stop Valkey": 1,
    "lose both stores": 2,
    "hold up the books": 1,
    "freeze PostgreSQL": 1,
    "kill a provider": 2,
    "leave": 3,
}
"""How often each comes in one round."""
TRAPPED_WITHIN_S = 1.0


class Faults:
    """One round of faults. What happens when is the seed's; `hits` tells how many hit."""

    def __init__(self, yard: Yard, callers: Sequence[Caller], chance: Random) -> None:
        self._yard = yard
        self._callers = callers
        self._chance = chance
        self.hits = 0
        self._begun_s = time.monotonic()

    async def run(self) -> None:
        """Go through the deck, with pauses."""
        deck = deque(name for name, count in DECK.items() for _ in range(count))
        self._chance.shuffle(deck)
        while deck:
            name = deck.popleft()
            if name == "kill a broker" and self._yard.mending and set(deck) - {name}:
                deck.append(name)  # until the other is back, something else can be done
                continue
            await asyncio.sleep(self._chance.uniform(0.05, 0.8))
            print(f"{time.monotonic() - self._begun_s:7.3f} {name}")
            async with asyncio.timeout(PATIENCE_S):
                await self._named(name)()
            self.hits += 1

    def _named(self, name: str) -> Callable[[], Awaitable[None]]:
        acts: dict[str, Callable[[], Awaitable[None]]] = {
            "kill a broker": self._kill_a_broker,
            "kill the worker": self._kill_the_worker,
            "crash PostgreSQL": self._yard.crash_postgres,
            "terminate a backend": self._terminate_a_backend,
            "cut the wire": self._cut_the_wire,
            "cut a commit": self._cut_a_commit,
            "stop Valkey": self._stop_valkey,
            "lose both stores": self._lose_both_stores,
            "hold up the books": self._hold_up_the_books,
            "freeze PostgreSQL": self._freeze_postgres,
            "kill a provider": self._kill_a_provider,
            "leave": self._leave,
        }
        return acts[name]

    async def _kill_a_broker(self) -> None:
        """At any moment, or just when so much of a statement or its answer has gone by."""
        await asyncio.gather(*self._yard.mending)
        place = self._chance.randrange(len(self._yard.brokers))
        if self._chance.random() < 0.7:
            await self._yard.wires[place].spring(self._at_some_byte(place), TRAPPED_WITHIN_S)
        await self._yard.kill_broker(place)

    async def _kill_the_worker(self) -> None:
        await self._yard.worker.kill()
        await self._yard.worker.start()

    async def _terminate_a_backend(self) -> None:
        connection = await asyncpg.connect(self._yard.postgres.url)
        try:
            rows = await connection.fetch(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                " AND backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY pid"
            )
            for row in self._chance.sample(rows, min(len(rows), self._chance.randint(1, 3))):
                await connection.execute("SELECT pg_terminate_backend($1)", row["pid"])
        finally:
            await connection.close()

    async def _cut_the_wire(self) -> None:
        await self._spring(self._at_some_byte)

    async def _cut_a_commit(self) -> None:
        await self._spring(self._at_a_commit)

    def _at_some_byte(self, place: int) -> Trap:
        """In what a broker tells the books or hears from them, mostly; else in anything."""
        way: Way = self._chance.choice(("up", "down"))
        byte = self._chance.choice((0, self._chance.randrange(200), self._chance.randrange(4_000)))
        is_broker = place < len(self._yard.brokers)
        return AtByte(way, byte, ledger_only=is_broker and self._chance.random() < 0.8)

    def _at_a_commit(self, place: int) -> Trap:
        return AtCommit(reaches_the_server=self._chance.random() < 0.7)

    async def _spring(self, trap: Callable[[int], Trap]) -> None:
        """Break a wire; if nothing goes by on it, another."""
        while True:
            place = self._chance.randrange(len(self._yard.wires))
            if await self._yard.wires[place].spring(trap(place), TRAPPED_WITHIN_S):
                return
            print(f"        wire {place} was still")

    async def _stop_valkey(self) -> None:
        await self._yard.valkey.stop()
        await asyncio.sleep(self._chance.uniform(0.1, 1.0))
        await self._yard.valkey.start()

    async def _lose_both_stores(self) -> None:
        """At once; they are back one after the other, in either order."""
        stores = [self._yard.postgres, self._yard.valkey]
        self._chance.shuffle(stores)
        os.kill(self._yard.postgres.child.pid, signal.SIGQUIT)
        await asyncio.gather(*(each.stop() for each in stores))
        for each in stores:
            await asyncio.sleep(self._chance.uniform(0.1, 1.0))
            await each.start()

    async def _hold_up_the_books(self) -> None:
        """Nothing can be held or settled for a while, as where a disk hardly writes."""
        connection = await asyncpg.connect(self._yard.postgres.url)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE balances")
                await asyncio.sleep(self._chance.uniform(1.0, 6.0))
        finally:
            await connection.close()

    async def _freeze_postgres(self) -> None:
        """Nobody answers, and no connection breaks."""
        await self._yard.freeze_postgres(self._chance.uniform(1.0, 6.0))

    async def _kill_a_provider(self) -> None:
        stall = self._chance.choice(self._yard.stalls)
        stall.server.kill()
        await asyncio.sleep(self._chance.uniform(0.1, 0.6))
        stall.behave(**PACE)

    async def _leave(self) -> None:
        """A caller hangs up; one that has heard a part of its answer, if there is one."""
        found = [(caller, note) for caller in self._callers for note in caller.under_way]
        midway = [each for each in found if _is_midway(each[1])]
        if found:
            caller, note = self._chance.choice(midway or found)
            caller.leave(note)


def _is_midway(note: Note) -> bool:
    return note.words > 0 and note.outcome == "never asked"
