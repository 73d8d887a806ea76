"""Random batches of holds, captures, releases and expiries, against a ledger kept in dicts.

The first consumer's key has a budget, the second's is counted without a limit, the third's is not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.ledger import Hold
from broker.store import ledger
from broker.store.books.budgeted_keys import open_periods
from broker.store.books.budgets import Budgets, set_budgets
from tests.integration.ledger.entries import (
    PROCESS,
    Standing,
    a_capture,
    a_hold,
    open_account,
    open_key,
    standing,
)

FUNDS_NANOS = 10_000
"""Ten tokens."""
LIMITS_NANOS = (8_000, None)

holds = st.tuples(
    st.just("hold"), st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6)), max_size=5)
)
captures = st.tuples(
    st.just("capture"), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)), max_size=5)
)
expiries = st.tuples(st.just("expire"), st.lists(st.tuples(st.integers(0, 30), st.just(0))))
steps = st.lists(st.one_of(holds, captures, expiries), max_size=12)


@dataclass
class Oracle:
    """What the books must say, by ledger account."""

    consumers: list[UUID]
    keys: list[str]
    provider: UUID
    take: UUID
    posted: dict[UUID, int] = field(default_factory=dict)
    held: dict[UUID, int] = field(default_factory=dict)
    calls: list[Hold] = field(default_factory=list)
    """Every call that was ever held, settled ones too."""
    open: dict[UUID, Hold] = field(default_factory=dict)
    counted: dict[str, list[int]] = field(default_factory=dict)
    """Spent and held, by the keys with budgets."""

    def hold(self, asked: list[Hold]) -> list[bool]:
        """A running sum for each account and each budget, in which the refused count too."""
        left = {each: self.posted[each] - self.held[each] for each in self.consumers}
        left |= {self.keys[0]: LIMITS_NANOS[0] - sum(self.counted[self.keys[0]])}
        accepted = []
        for hold in asked:
            for purse in {hold.account, hold.key_id} & left.keys():
                left[purse] -= hold.amount_nanos
            accepted.append(left[hold.account] >= 0 and left.get(hold.key_id, 0) >= 0)
            if accepted[-1]:
                self.held[hold.account] += hold.amount_nanos
                self.count(hold, 0, hold.amount_nanos)
                self.open[hold.call_id] = hold
                self.calls.append(hold)
        return accepted

    def capture(self, hold: Hold, tokens: int) -> bool:
        """At a tenth for the broker; False when the hold is gone."""
        if self.open.pop(hold.call_id, None) is None:
            return False
        charge = tokens * 1_000
        self.count(hold, charge, -hold.amount_nanos)
        self.held[hold.account] -= hold.amount_nanos
        self.posted[hold.account] -= charge
        self.posted[self.take] += charge // 10
        self.posted[self.provider] += charge - charge // 10
        return True

    def count(self, hold: Hold, spent_nanos: int, held_nanos: int) -> None:
        if hold.key_id in self.counted:
            spent, held = self.counted[hold.key_id]
            self.counted[hold.key_id] = [spent + spent_nanos, held + held_nanos]


async def play(connection: asyncpg.Connection, oracle: Oracle, step: tuple[str, list]) -> None:
    kind, parts = step
    if kind == "hold":
        asked = [
            a_hold(oracle.consumers[who], tokens * 1_000, key_id=oracle.keys[who])
            for who, tokens in parts
        ]
        results = await ledger.hold_batch(connection, asked, PROCESS)
        assert [result.accepted for result in results] == oracle.hold(asked)
        return
    chosen = {number % len(oracle.calls): tokens for number, tokens in parts if oracle.calls}
    picked = [(oracle.calls[number], tokens) for number, tokens in chosen.items()]
    if kind == "capture":
        fitting = [(hold, min(tokens, hold.amount_nanos // 1_000)) for hold, tokens in picked]
        wanted = [
            a_capture(hold, *([(oracle.provider, tokens)] if tokens else []))
            for hold, tokens in fitting
        ]
        results = await ledger.settle_batch(connection, wanted, oracle.take)
        expected = [oracle.capture(hold, tokens) for hold, tokens in fitting]
        assert [result.settled for result in results] == expected
    else:
        past = datetime.now(UTC) - timedelta(seconds=1)
        for hold, _ in picked:
            await connection.execute(
                "UPDATE open_holds SET expires_at = $2 WHERE call_id = $1", hold.call_id, past
            )
        expired = sum(oracle.capture(hold, 0) for hold, _ in picked)
        assert await ledger.expire_holds(connection, datetime.now(UTC), 100) == expired


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=steps)
async def test_the_books_agree_with_the_oracle_after_every_step(
    connection: asyncpg.Connection, take: UUID, engine: AsyncEngine, steps: list[tuple[str, list]]
) -> None:
    consumers = [await open_account(connection, "consumer", FUNDS_NANOS) for _ in range(3)]
    keys = [await open_key(connection, each) for each in consumers]
    provider = await open_account(connection, "provider")
    oracle = Oracle(consumers, keys, provider, take)
    for key, limit_nanos in zip(keys, LIMITS_NANOS, strict=False):
        async with engine.begin() as setting:
            await set_budgets(setting, key, Budgets(total_nanos=10**18))
            await set_budgets(setting, key, Budgets(total_nanos=limit_nanos))
        oracle.counted[key] = [0, 0]
    now = datetime.now(UTC)
    await open_periods(connection, [a_hold(take, 1, key_id=key, at=now) for key in keys[:2]])
    for account in (*consumers, provider, take):
        before = await standing(connection, account)
        oracle.posted[account], oracle.held[account] = before.posted_nanos, before.held_nanos
    for step in steps:
        await play(connection, oracle, step)
        for account in oracle.posted:
            expected = Standing(oracle.posted[account], oracle.held[account])
            assert await standing(connection, account) == expected
        for key, expected in oracle.counted.items():
            rows = await connection.fetch(
                "SELECT spent_nanos, held_nanos FROM budget_periods WHERE key_id = $1", key
            )
            assert {tuple(row) for row in rows} == {tuple(expected)}, "day, month and in total"
    for hold in list(oracle.open.values()):
        await ledger.settle_batch(connection, [a_capture(hold)], take)
