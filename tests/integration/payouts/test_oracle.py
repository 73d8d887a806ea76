"""Random lives of two providers, against purses kept in plain Python."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.core.maturity import MaturityTerms
from broker.errors import Conflict
from broker.flows import payout_events
from broker.flows.check import check
from broker.flows.payout_events import Word
from broker.store.accounts import Account
from broker.store.payouts import Payout
from broker.store.purses import Contents
from tests.integration.payouts.till import Sale, Till

CENT = 10_000_000
DELAY_DAYS = 3
TERMS = MaturityTerms(days_new=DELAY_DAYS)

number = st.integers(0, 20)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("earn"), number, st.integers(1, 60_000)),
        st.tuples(st.just("wait"), st.integers(1, 3), st.just(0)),
        st.tuples(st.just("mature"), st.just(0), st.just(0)),
        st.tuples(st.just("refund"), number, st.integers(1, 4)),
        st.tuples(st.just("adjust"), number, st.integers(-5 * CENT, 5 * CENT).filter(bool)),
        st.tuples(st.just("pay"), number, st.just(0)),
        st.tuples(st.sampled_from(["confirm", "fail", "return"]), number, st.just(0)),
    ),
    min_size=5,
    max_size=25,
)


@dataclass
class Line:
    """What is left of a call, on which day it was earned, and whether it has matured."""

    sale: Sale
    left_nanos: int
    day: int
    matured: bool = False


@dataclass
class Books:
    """One provider, as it must be. Days count from the beginning; a night's seal ends each."""

    lines: list[Line] = field(default_factory=list)
    available: int = 0
    owed: int = 0
    payouts: list[tuple[Payout, str]] = field(default_factory=list)
    day: int = 0

    def contents(self) -> Contents:
        pending = sum(line.left_nanos for line in self.lines if not line.matured)
        transit = sum(each.amount_nanos for each, status in self.payouts if status == "open")
        return Contents(pending, self.available, transit, self.owed)

    def mature(self) -> None:
        for line in self.lines:
            if not line.matured and line.day + DELAY_DAYS < self.day:
                line.matured = True
                self.available += line.left_nanos
        self.recover()

    def recover(self) -> None:
        paid = min(self.available, self.owed)
        self.available -= paid
        self.owed -= paid

    def refund(self, line: Line, nanos: int) -> None:
        line.left_nanos -= nanos
        if line.matured:
            paid = min(self.available, nanos)
            self.available -= paid
            self.owed += nanos - paid

    def pay(self) -> int:
        """What a payout is now; one of nothing is refused, and then nothing is paid back either."""
        amount = (self.available - min(self.available, self.owed)) // CENT * CENT
        if amount:
            self.recover()
            self.available -= amount
        return amount

    def step(self, place: int, name: str) -> bool:
        """Take a payout a step on; False where that is out of order."""
        payout, status = self.payouts[place]
        before, after = {
            "confirm": ("open", "sent"),
            "fail": ("open", "failed"),
            "return": ("sent", "returned"),
        }[name]
        if status == after:
            return True
        if status != before:
            return False
        self.payouts[place] = (payout, after)
        self.available += 0 if after == "sent" else payout.amount_nanos
        return True


async def play(till: Till, who: tuple[Account, Books], step: tuple[str, int, int]) -> None:
    account, books = who
    kind, place, size = step
    if kind == "earn":
        sale = await till.earn(account, size)
        books.lines.append(Line(sale, sale.earned_nanos, books.day))
    elif kind == "mature":
        await till.mature(account, TERMS)
        books.mature()
    elif kind == "refund" and books.lines:
        line = books.lines[place % len(books.lines)]
        nanos = line.left_nanos // size
        if nanos:
            await till.refund(account, line.sale, nanos)
            books.refund(line, nanos)
    elif kind == "adjust" and books.available + size >= 0:
        await till.adjust(account, size)
        books.available += size
    elif kind == "pay":
        await pay(till, account, books)
    elif kind in ("confirm", "fail", "return") and books.payouts:
        await go(till, books, place % len(books.payouts), kind)


async def pay(till: Till, account: Account, books: Books) -> None:
    expected = books.pay()
    if not expected:
        with pytest.raises(Conflict, match="Less than a cent"):
            await till.pay(account)
        return
    payout = await till.pay(account)
    assert payout.amount_nanos == expected
    books.payouts.append((payout, "open"))


async def go(till: Till, books: Books, place: int, kind: str) -> None:
    step = {
        "confirm": payout_events.confirm,
        "fail": payout_events.fail,
        "return": payout_events.give_back,
    }[kind]
    payout, _ = books.payouts[place]
    refused = contextlib.nullcontext() if books.step(place, kind) else pytest.raises(Conflict)
    with refused:
        async with till.engine.begin() as connection:
            await step(connection, payout.id, Word("office", "so it was"), datetime.now(UTC))


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=steps)
async def test_the_purses_agree_with_plain_python_after_every_step(
    till: Till, steps: list[tuple[str, int, int]]
) -> None:
    size = len(till.providers)
    market = [(await till.provider(f"p{size + place}"), Books()) for place in range(2)]
    for step in steps:
        kind, place, _ = step
        if kind == "wait":
            await till.days_pass(place)
            for _, books in market:
                books.day += place
            continue
        who = market if kind == "mature" else [market[place % 2]]
        for each in who:
            await play(till, each, step)
        for account, books in market:
            assert await till.contents(account) == books.contents(), step
    assert await check(till.engine, replay=True) == []
