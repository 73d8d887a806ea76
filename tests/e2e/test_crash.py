"""Money under fire: callers call while brokers, servers, wires and providers die at random moments.

One round has two dozen faults, drawn with a seed. `make nightly` goes through many rounds; the
one of a seed runs alone with

    CRASH_SEED=17 .venv/bin/pytest -s tests/e2e/test_crash.py
"""

from __future__ import annotations

import asyncio
import os
import time
from itertools import count
from pathlib import Path
from random import Random

import pytest

from broker.flows.books.check import check
from tests.e2e.crash.callers import Caller, Kind, Note
from tests.e2e.crash.faults import Faults
from tests.e2e.crash.verdict import Books, Verdict, funds_off_by, tell
from tests.e2e.crash.yard import Yard, open_yard

pytestmark = pytest.mark.e2e

FIRST_SEED = int(os.environ.get("CRASH_SEED", "1"))
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("CRASH_ROUNDS", "1")))
NIGHTLY = len(SEEDS) > 1
CALLERS = 10
ALARMING = ("ledger_alarm", "settlement_refused", "settlement_abandoned", "call_record_lost")
"""What no process may ever have said."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
async def test_what_callers_were_told_is_in_the_books_whatever_dies_when(
    seed: int, tmp_path: Path
) -> None:
    print(f"CRASH_SEED={seed}")
    chance = Random(seed)
    async with open_yard(tmp_path) as yard:
        keys = {name: key.text for name, key in yard.floor.keys.items()}
        keys["keeper"] = await yard.issue_keeper()
        urls = [broker.url for broker in yard.brokers]
        callers = [Caller(urls, keys, Random(chance.random())) for _ in range(CALLERS)]
        faults = Faults(yard, callers, chance)
        notes = await _trade(yard, callers, faults)
        assert faults.hits >= 20
        await yard.settle_down()
        print(tell(notes))
        await _judge(yard, notes, sum(len(each.topups) for each in callers))
    for log in tmp_path.glob("*.log"):
        said = [line for line in log.read_text().splitlines() if any(x in line for x in ALARMING)]
        assert not said, said


async def _trade(yard: Yard, callers: list[Caller], faults: Faults) -> list[Note]:
    """Call, while the faults last; return what was noted."""
    notes: list[Note] = []
    numbers = count(1)

    def note(kind: Kind) -> Note:
        notes.append(Note(next(numbers), kind, time.monotonic()))
        return notes[-1]

    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(caller.live(note))
        try:
            await faults.run()
        finally:
            for caller in callers:
                caller.stopping = True
        await yard.healed()
        if not NIGHTLY:
            # Else the keys of calls whose broker died would be waited for.
            await yard.bury_the_dead()
    return notes


async def _judge(yard: Yard, notes: list[Note], topups: int) -> None:
    books = await Books.read(yard.floor)
    sent = sum((stall.sent for stall in yard.stalls), start=type(yard.stalls[0].sent)())
    faults = Verdict(books, sent, yard.deaths).judge(notes)
    assert not faults, "\n".join(faults)
    assert await funds_off_by(yard.floor, books, topups) == (0, 0)
    assert await check(yard.floor.engine, replay=True) == []
