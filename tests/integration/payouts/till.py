"""A market of providers that earn: calls, days that pass, seals, refunds, maturity, payouts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from broker.core.money.maturity import MaturityTerms
from broker.core.money.payout import Bank, Destination, Schedule
from broker.flows.access.authenticate import Caller
from broker.flows.access.open_account import open_account
from broker.flows.books.seal import AGE_MIN, seal
from broker.flows.money import payout_terms
from broker.flows.money.mature import Matured, mature
from broker.flows.money.pay_out import REST, pay_out
from broker.flows.money.payout_terms import Wishes
from broker.flows.money.topup import adjust
from broker.store import ledger
from broker.store.access.accounts import Account, Role
from broker.store.books import transfers
from broker.store.books.transfers import Transfer, TransferKind
from broker.store.money import payouts, purses
from broker.store.money.payouts import Payout
from broker.store.money.purses import Contents
from broker.store.money.recourse import Ground, Taken, claw_back
from broker.store.sealing import Sealer
from tests.integration.ledger.entries import PROCESS, a_capture, a_hold, fund
from tests.integration.ledger.entries import open_account as open_raw

SEALER = Sealer("ab" * 32)
OPERATOR = Caller(UUID(int=0), "office", Role.OPERATOR)
BANK = Bank(holder="Acme Compute Ltd", iban="DE89370400440532013000", bic="COBADEFFXXX")
NO_DELAY = MaturityTerms(days_new=0)

_PASSED = """
SELECT c.relname, array_agg(a.attname::text) FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.atttypid = 'timestamptz'::regtype AND a.attnum > 0
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname NOT LIKE 'audit%'
 GROUP BY c.relname
"""


@dataclass(frozen=True)
class Sale:
    """A call that a provider was paid for."""

    call_id: UUID
    earned_nanos: int


@dataclass
class Till:
    """One consumer with plenty of money, and providers that serve it."""

    engine: AsyncEngine
    driver: asyncpg.Connection
    funds: UUID
    take: UUID
    providers: list[Account] = field(default_factory=list)

    @classmethod
    async def open(cls, engine: AsyncEngine, driver: asyncpg.Connection) -> Till:
        funds = await open_raw(driver, "consumer", 10**15)
        return cls(engine, driver, funds, await ledger.take_account(driver, PROCESS))

    async def provider(self, name: str, destination: Destination | None = BANK) -> Account:
        """Open a provider that is paid by hand, to a destination that is not new any more."""
        now = datetime.now(UTC)
        account = await open_account(
            self.engine, name, Role.PROVIDER, author=OPERATOR.name, now=now
        )
        self.providers.append(account)
        if destination is not None:
            wishes = Wishes(Schedule.MANUAL, 0, destination)
            await self.wish(account, wishes, now - 2 * REST)
        return account

    async def wish(self, provider: Account, wishes: Wishes, now: datetime) -> None:
        caller = Caller(provider.id, provider.name, Role.PROVIDER)
        async with self.engine.begin() as connection:
            await payout_terms.wish(connection, caller, wishes, SEALER, now)

    async def earn(self, provider: Account, tokens: int) -> Sale:
        """A call of so many tokens at 1,000 nano-dollars each, a tenth of it for the broker."""
        assert provider.ledger_account is not None
        hold = a_hold(self.funds, tokens * 1_000)
        await ledger.hold_batch(self.driver, [hold], PROCESS)
        capture = a_capture(hold, (provider.ledger_account, tokens), recorded=False)
        [result] = await ledger.settle_batch(self.driver, [capture], self.take)
        assert result.settled
        return Sale(hold.call_id, capture.lines[0].earnings_nanos)

    async def refund(self, provider: Account, sale: Sale, amount_nanos: int) -> Taken:
        """Take back from the provider, as a refund does for its share."""
        settled_at = await self.driver.fetchval(
            "SELECT settled_at FROM settlements WHERE call_id = $1", sale.call_id
        )
        ground = Ground(
            call_id=sale.call_id,
            settled_at=settled_at,
            funds=self.funds,
            kind=TransferKind.REFUND,
            about_id=uuid7(),
            reason="refund",
            author="test",
            at=datetime.now(UTC),
        )
        async with self.engine.begin() as connection:
            return await claw_back(connection, provider.id, amount_nanos, ground)

    async def dispute(self, provider: Account, sale: Sale) -> UUID:
        """A dispute over all of a call, open."""
        owner = await self.driver.fetchval(
            "SELECT owner_id FROM ledger_accounts WHERE id = $1", self.funds
        )
        dispute_id, now = uuid7(), datetime.now(UTC)
        await self.driver.execute(
            "INSERT INTO disputes (id, call_id, account_id, asked_nanos, reason, status, opened_at,"
            " answer_by) VALUES ($1, $2, $3, $4, 'wrong', 'open', $5, $5)",
            *(dispute_id, sale.call_id, owner, sale.earned_nanos, now),
        )
        await self.driver.execute(
            "INSERT INTO dispute_parts (dispute_id, provider_id, asked_nanos, answer)"
            " VALUES ($1, $2, $3, 'waiting')",
            *(dispute_id, provider.id, sale.earned_nanos),
        )
        return dispute_id

    async def close_dispute(self, dispute_id: UUID, verdict: str) -> None:
        await self.driver.execute(
            "UPDATE disputes SET status = 'decided', verdict = $2, closed_at = now() WHERE id = $1",
            *(dispute_id, verdict),
        )

    async def lose_dispute(self, provider: Account, sale: Sale) -> None:
        dispute_id = await self.dispute(provider, sale)
        await self.driver.execute(
            "UPDATE dispute_parts SET answer = 'contested', answered_at = now()"
            " WHERE dispute_id = $1",
            dispute_id,
        )
        await self.close_dispute(dispute_id, "upheld")

    async def adjust(self, provider: Account, amount_nanos: int) -> None:
        await adjust(
            self.engine, OPERATOR, provider.name, amount_nanos, "a correction", datetime.now(UTC)
        )

    async def take_from_earnings(self, provider: Account, amount_nanos: int) -> None:
        """Move money from what is pending to the world, for no call."""
        assert provider.ledger_account is not None
        async with self.engine.begin() as connection:
            world = await transfers.world(connection)
            ends = (provider.ledger_account, world, amount_nanos)
            kind, now = TransferKind.ADJUSTMENT, datetime.now(UTC)
            await transfers.post(connection, Transfer(uuid7(), *ends, kind, "so", "test", now))

    async def days_pass(self, days: int) -> None:
        """Make every record so much older, and seal the books as each night would have done."""
        await grow_older(self.driver, timedelta(days=days))
        now = datetime.now(UTC)
        for nights_ago in reversed(range(days)):
            await seal(self.engine, now - AGE_MIN - timedelta(days=nights_ago), now)

    async def mature(self, provider: Account, terms: MaturityTerms = NO_DELAY) -> Matured:
        return await mature(self.engine, provider.id, terms, datetime.now(UTC))

    async def pay(self, provider: Account) -> Payout:
        async with self.engine.begin() as connection:
            return await pay_out(connection, OPERATOR.name, provider.id, datetime.now(UTC))

    async def contents(self, provider: Account) -> Contents:
        async with self.engine.connect() as connection:
            held = await purses.purse_of(connection, provider.id)
            return await purses.look_into(connection, held)

    async def payout(self, payout_id: UUID) -> Payout:
        async with self.engine.connect() as connection:
            return await payouts.find(connection, payout_id)

    async def top_up(self, amount_nanos: int) -> None:
        await fund(self.driver, self.funds, amount_nanos)

    async def events(self, *kinds: str) -> list[dict[str, object]]:
        """The payloads of these events, in order."""
        rows = await self.driver.fetch(
            "SELECT payload FROM events WHERE kind = ANY($1) ORDER BY number", kinds
        )
        return [json.loads(row["payload"]) for row in rows]


async def grow_older(driver: asyncpg.Connection, age: timedelta) -> None:
    """Shift every moment in every record into the past, as time does.

    The audit log stays as it is: it is chained so that nobody can do this to it.
    """
    far = timedelta(days=365_000)
    async with driver.transaction():
        await driver.execute("SET LOCAL session_replication_role = replica")
        for name, columns in await driver.fetch(_PASSED):
            # By a detour where moments are unique, for they may stand just `age` apart.
            for step in (-far, far - age) if "sealed_before" in columns else (-age,):
                changes = ", ".join(f"{column} = {column} + $1::interval" for column in columns)
                await driver.execute(f'UPDATE "{name}" SET {changes}', step)
