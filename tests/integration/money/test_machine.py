"""Random lives of a market, deed by deed and several at once, against books in plain Python.

In the nightly profile (`make nightly`) there are hundreds of lives, drawn anew each time.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from broker.embedded.postgres import EmbeddedPostgres
from broker.errors import BrokerError
from broker.flows.books.check import check
from broker.store.database import create_engine
from tests.conftest import fresh_database, named
from tests.integration.money import clock, drawn
from tests.integration.money.deeds import Deed, Outcome
from tests.integration.money.deeds_of_payouts import Move
from tests.integration.money.market import (
    CONSUMERS,
    PAYERS,
    PROVIDERS,
    Market,
    Roster,
    open_market,
)
from tests.integration.money.oracle import Oracle, Terms
from tests.integration.money.oracle_books import Key, Process, Refused

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
LIVES = settings(
    max_examples=500 if NIGHTLY else 10,
    stateful_step_count=110 if NIGHTLY else 60,
    derandomize=not NIGHTLY,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
FUNDS_NANOS = 1_500_000_000
BEGINNING = datetime(2031, 3, 24, 12, 0, tzinfo=UTC)
"""Some days before the end of a month."""
TICK = timedelta(microseconds=100)
"""Less than any deed takes, so that the oracle's clock is never before the database's."""

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Ground:
    """What all lives of a test stand on, and what they have been through together."""

    def __init__(self, run: Run, server_url: str, office: asyncpg.Connection) -> None:
        self.run = run
        self.server_url = server_url
        self.office = office
        self.roster: Roster
        self.template = f"lives_{os.getpid()}"
        self.lives = 0
        self.steps = 0
        self.seen = Counter[tuple[str, str]]()
        """Which kinds of deeds came to what."""

    async def prepare(self, migrated: str) -> None:
        """Make the database that each life begins with: accounts, and no money."""
        await self.office.execute(f"CREATE DATABASE {self.template} TEMPLATE {migrated}")
        url = named(self.server_url, self.template)
        connection = await asyncpg.connect(url)
        await clock.install(connection)
        await connection.close()
        engine = create_engine(url, connections_max=1)
        self.roster = await Roster.enter(engine, BEGINNING)
        await engine.dispose()

    async def clear(self) -> None:
        await self.office.execute(f"DROP DATABASE IF EXISTS {self.template} WITH (FORCE)")
        await self.office.close()


class Life(RuleBasedStateMachine):
    """One market from its opening on; each step is done, expected, and the balances compared."""

    def __init__(self, ground: Ground) -> None:
        super().__init__()
        self.ground = ground
        self.stack = AsyncExitStack()
        self.numbers = itertools.count(1)
        self.broken = False
        ids = {each: ground.roster.accounts[each].id for each in PROVIDERS}
        self.oracle = Oracle(
            began=BEGINNING,
            now=BEGINNING,
            providers=sorted(PROVIDERS, key=ids.__getitem__),
            keys={payer: Key(payer.split()[0]) for payer in PAYERS},
            processes={place: Process() for place in range(2)},
            terms={each: Terms() for each in PROVIDERS},
        )
        self.market = ground.run(self._open())
        ground.lives += 1
        self.live([Move(account=each, amount=FUNDS_NANOS) for each in CONSUMERS])

    async def _open(self) -> Market:
        ground = self.ground
        fresh = fresh_database(ground.server_url, ground.template, ground.office)
        url = await self.stack.enter_async_context(fresh)
        await clock.follow(ground.office, urlsplit(url).path.lstrip("/"))
        connection = await asyncpg.connect(url)
        await clock.set_to(connection, BEGINNING)
        await connection.close()
        return await self.stack.enter_async_context(open_market(url, ground.roster))

    @rule(waves=drawn.trade)
    def trade(self, waves: list[drawn.Wave]) -> None:
        self.live_on(waves)

    @rule(waves=drawn.aftermath)
    def look_back(self, waves: list[drawn.Wave]) -> None:
        self.live_on(waves)

    @rule(waves=drawn.rush)
    def rush(self, waves: list[drawn.Wave]) -> None:
        self.live_on(waves)

    def live_on(self, waves: list[drawn.Wave]) -> None:
        self.ground.steps += 1
        for wave in waves:
            self.live(wave)

    def live(self, drawn_deeds: Sequence[Deed]) -> None:
        """Do deeds at once; they came out as if done one after the other, in some order."""
        self.oracle.now += TICK
        deeds = self._aimed(drawn_deeds)
        if not deeds:
            return
        try:
            outcomes, standing = self.ground.run(self._act(deeds))
            self._expect(deeds, outcomes, standing)
        except BaseException:
            self.broken = True
            raise
        for deed, outcome in zip(deeds, outcomes, strict=True):
            refused = isinstance(outcome, str) and outcome.startswith("refused")
            self.ground.seen[type(deed).__name__, outcome if refused else "done"] += 1

    def _aimed(self, drawn_deeds: Sequence[Deed]) -> list[Deed]:
        deeds: list[Deed] = []
        for each in drawn_deeds:
            deed = each.numbered(next(self.numbers)).aim(self.oracle)
            if deed is not None and not any(_apart(deed, other) for other in deeds):
                deeds.append(deed)
        return deeds

    async def _act(self, deeds: Sequence[Deed]) -> tuple[list[Outcome], object]:
        acts = [_told(deed.act(self.market, self.oracle.now)) for deed in deeds]
        outcomes = await asyncio.gather(*acts)
        return outcomes, await self._look()

    async def _look(self) -> object:
        market = self.market
        notes = (await market.credit_notes(), await market.gone_back())
        return await market.balances(), await market.budgets(), *notes

    def _expect(self, deeds: Sequence[Deed], outcomes: list[Outcome], standing: object) -> None:
        if len(deeds) == 1:
            assert outcomes == _foreseen(self.oracle, deeds, outcomes, [0])
            assert standing == _standing(self.oracle)
            return
        orders = []
        for order in itertools.permutations(range(len(deeds))):
            oracle = copy.deepcopy(self.oracle)
            orders.append((_foreseen(oracle, deeds, outcomes, order), _standing(oracle)))
            if orders[-1] == (outcomes, standing):
                self.oracle = oracle
                return
        assert (outcomes, standing) in orders, deeds

    def teardown(self) -> None:
        self.ground.run(self._close())

    async def _close(self) -> None:
        async with self.stack:
            if not self.broken:
                assert await check(self.market.engine, replay=True) == []


def _apart(deed: Deed, other: Deed) -> bool:
    kinds = type(deed).__name__, type(other).__name__
    return kinds[0] in other.apart_from or kinds[1] in deed.apart_from


async def _told(act: Awaitable[Outcome]) -> Outcome:
    try:
        return await act
    except BrokerError as error:
        return f"refused: {error.code}"


def _foreseen(
    oracle: Oracle, deeds: Sequence[Deed], outcomes: Sequence[Outcome], order: Sequence[int]
) -> list[Outcome]:
    """What the deeds come to in this order, by the oracle."""
    foreseen: list[Outcome] = [None] * len(deeds)
    for place in order:
        deed = deeds[place]
        others = [each for each in deeds if each is not deed]
        if outcomes[place] in [f"refused: {code}" for code in deed.yields_to(others, oracle)]:
            foreseen[place] = outcomes[place]
            continue
        try:
            foreseen[place] = deed.expect(oracle)
        except Refused as refusal:
            foreseen[place] = f"refused: {refusal.code}"
    return foreseen


def _standing(oracle: Oracle) -> object:
    notes = {who: list(each) for who, each in oracle.notes.items() if each}
    return oracle.balances(), oracle.budgets(), notes, oracle.gone_back()


@pytest.mark.timeout(7_200 if NIGHTLY else 600)
def test_any_life_leaves_the_books_as_plain_python_has_them(
    postgres_server: EmbeddedPostgres, migrated_template: str
) -> None:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        office = runner.run(asyncpg.connect(named(postgres_server.url, "postgres")))
        ground = Ground(runner.run, postgres_server.url, office)
        try:
            runner.run(ground.prepare(migrated_template))
            run_state_machine_as_test(lambda: Life(ground), settings=LIVES)
        finally:
            runner.run(ground.clear())
    print(f"{ground.lives} lives of {ground.steps / ground.lives:.0f} steps")
    for (kind, outcome), count in sorted(ground.seen.items()):
        print(f"{count:7} {kind} {outcome}")
    done = {kind for kind, outcome in ground.seen if outcome == "done"}
    undone = {kind for kind, _ in ground.seen} - done
    assert undone <= ({"AdmitAgain"} if NIGHTLY else {"AdmitAgain", "Withdraw", "Decide"})
