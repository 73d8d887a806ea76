"""The real side of a random life: accounts, two broker processes, and what they have come to."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from broker.core.key_terms import KeyTerms
from broker.core.ledger import Hold
from broker.core.money.payout import Bank, Schedule
from broker.flows.access.authenticate import Caller
from broker.flows.access.once import Memory
from broker.flows.access.open_account import open_account
from broker.flows.books.batch import LedgerBatcher
from broker.flows.books.lane_ahead import HoldTerms
from broker.flows.money import payout_terms
from broker.flows.money.pay_out import REST
from broker.flows.money.payout_terms import Wishes
from broker.store import leases, ledger, maintenance
from broker.store.access import keys
from broker.store.access.accounts import Account, Role
from broker.store.database import create_engine, create_pool
from broker.store.sealing import Sealer
from tests.waiting import until

CONSUMERS = ("c0", "c1", "c2")
PROVIDERS = ("p0", "p1", "p2")
PAYERS = tuple(f"{each} {key}" for each in CONSUMERS for key in ("free", "tight"))
"""Keys by consumer; the tight ones may get budgets."""
OFFICE = Caller(UUID(int=0), "office", Role.OPERATOR)
SEALER = Sealer("ab" * 32)
BANK = Bank(holder="Provider Ltd", iban="DE89370400440532013000", bic="COBADEFFXXX")

_BALANCES = """
SELECT a.id, a.kind, o.name, b.posted_nanos, b.held_nanos
  FROM balances b JOIN ledger_accounts a ON a.id = b.ledger_account_id
  LEFT JOIN accounts o ON o.id = a.owner_id
 WHERE b.posted_nanos <> 0 OR b.held_nanos <> 0
"""
_BUDGETS = """
SELECT key_id, kind, begins_at, spent_nanos, held_nanos FROM budget_periods
 WHERE spent_nanos <> 0 OR held_nanos <> 0
"""
_GONE_BACK = """
SELECT n.call_id, l.attempt, sum(l.amount_nanos)::bigint, sum(l.take_nanos)::bigint
  FROM credit_notes n JOIN credit_note_lines l ON l.credit_note_id = n.id GROUP BY 1, 2
"""
_NOTES = """
SELECT a.name, n.number, n.amount_nanos FROM credit_notes n JOIN accounts a ON a.id = n.account_id
 ORDER BY a.name, n.number
"""


class Broker:
    """A broker process as the books see it: a batcher, and a lease that it can lose."""

    def __init__(self, url: str, pool: asyncpg.Pool) -> None:
        self._url = url
        self._lease: asyncpg.Connection | None = None
        self.pool = pool
        self.number = 0
        self.take: UUID
        self.batcher: LedgerBatcher

    @classmethod
    async def start(cls, url: str, take_from: asyncpg.Connection) -> Broker:
        broker = cls(url, await create_pool(url, connections_max=4))
        broker.number = await leases.register(take_from)
        await broker.take_lease()
        broker.take = await ledger.take_account(take_from, broker.number)
        broker.batcher = LedgerBatcher(broker.pool, broker.take, HoldTerms(broker.number))
        broker.batcher.start()
        return broker

    async def take_lease(self) -> None:
        """Show again that it lives."""
        if self._lease is None:
            self._lease = await asyncpg.connect(self._url)
            await leases.take(self._lease, self.number)

    async def lose_lease(self, watcher: asyncpg.Connection) -> None:
        """Be taken for dead, and go on: for the books there is no difference to a death."""
        if self._lease is None:
            return
        lease, self._lease = self._lease, None
        pid = lease.get_server_pid()
        await lease.close()

        async def gone() -> bool:
            found = await watcher.fetchval("SELECT 1 FROM pg_stat_activity WHERE pid = $1", pid)
            return found is None

        await until(gone)

    async def stop(self) -> None:
        await self.batcher.drain()
        if self._lease is not None:
            await self._lease.close()
        await self.pool.close()


@dataclass(frozen=True)
class Roster:
    """Who is in the market: accounts and keys by name, and what each provider sells."""

    accounts: dict[str, Account]
    keys: dict[str, str]
    endpoints: dict[str, UUID]

    def caller(self, name: str) -> Caller:
        account = self.accounts[name]
        return Caller(account.id, account.name, account.role)

    @classmethod
    async def enter(cls, engine: AsyncEngine, now: datetime) -> Roster:
        """Open the accounts, and two keys for each consumer; providers can be paid at once."""
        roster = cls({}, {}, {each: uuid7() for each in PROVIDERS})
        await maintenance.ensure_partitions(engine, now.date(), 3)
        for name in (*CONSUMERS, *PROVIDERS):
            role = Role.CONSUMER if name in CONSUMERS else Role.PROVIDER
            opened = await open_account(engine, name, role, author=OFFICE.name, now=now)
            roster.accounts[name] = opened
        async with engine.begin() as connection:
            for name in PAYERS:
                owner = roster.accounts[name.split()[0]].id
                roster.keys[name] = (await keys.issue(connection, owner, KeyTerms(), now)).id
            for name in PROVIDERS:
                wishes, caller = Wishes(Schedule.MANUAL, 0, BANK), roster.caller(name)
                await payout_terms.wish(connection, caller, wishes, SEALER, now - 2 * REST)
        return roster


@dataclass
class Market:
    """What the deeds need; what they made is found by the numbers that the oracle knows too."""

    engine: AsyncEngine
    driver: asyncpg.Connection
    brokers: Sequence[Broker]
    roster: Roster
    calls: dict[int, Hold] = field(default_factory=dict)
    quotes: dict[int, UUID] = field(default_factory=dict)
    disputes: dict[int, UUID] = field(default_factory=dict)
    payouts: dict[tuple[str, int], UUID] = field(default_factory=dict)

    @property
    def memory(self) -> Memory:
        """Where first answers are kept for replays."""
        return Memory(self.engine, SEALER, timedelta(days=1).total_seconds())

    async def balances(self) -> dict[str, tuple[int, int]]:
        """What is posted and held in every purse that is not empty, by the oracle's names."""
        takes = {broker.take: f"take {place}" for place, broker in enumerate(self.brokers)}
        return {
            takes.get(id_) or (f"{kind} {name}" if name else kind): (posted, held)
            for id_, kind, name, posted, held in await self.driver.fetch(_BALANCES)
        }

    async def budgets(self) -> dict[tuple[str, str, str], tuple[int, int]]:
        """What each key has spent and holds in each of its periods, but for nothing at all."""
        names = {key_id: name for name, key_id in self.roster.keys.items()}
        found = {}
        for key_id, kind, begins_at, spent, held in await self.driver.fetch(_BUDGETS):
            day = {"day": "%Y-%m-%d", "month": "%Y-%m", "total": ""}[kind]
            label = begins_at.strftime(day) if day else ""
            found[names[key_id], kind, label] = (spent, held)
        return found

    async def gone_back(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Of each call and attempt, what has gone back, and how much of that was the broker's."""
        rows = await self.driver.fetch(_GONE_BACK)
        numbers = {hold.call_id: number for number, hold in self.calls.items()} if rows else {}
        return {(numbers[call], attempt): (given, take) for call, attempt, given, take in rows}

    async def credit_notes(self) -> dict[str, list[int]]:
        """The amounts of each consumer's credit notes in the order of their numbers."""
        notes: dict[str, list[int]] = {}
        for name, number, amount in await self.driver.fetch(_NOTES):
            notes.setdefault(name, []).append(amount)
            assert number == len(notes[name]), "numbers leave no gap"
        return notes


@contextlib.asynccontextmanager
async def open_market(url: str, roster: Roster) -> AsyncIterator[Market]:
    """Two brokers on a database with these accounts, and no money yet."""
    async with contextlib.AsyncExitStack() as stack:
        engine = create_engine(url, connections_max=6)
        stack.push_async_callback(engine.dispose)
        driver = await asyncpg.connect(url)
        stack.push_async_callback(driver.close)
        brokers = []
        for _ in range(2):
            brokers.append(await Broker.start(url, driver))
            stack.push_async_callback(brokers[-1].stop)
        yield Market(engine, driver, brokers, roster)
