"""Random lives of two providers, against purses kept in plain Python."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

import pytest

from broker.core.money.maturity import MaturityTerms
from broker.errors import Conflict
from broker.flows.money import payout_events
from broker.flows.money.payout_events import Word
from broker.store.access.accounts import Account
from broker.store.money.payouts import Payout
from broker.store.money.purses import Contents
from tests.integration.payouts.till import Sale, Till

CENT = 10_000_000
DELAY_DAYS = 2
TERMS = MaturityTerms(days_new=DELAY_DAYS)

KINDS = {
    "earn": 5,
    "nights": 4,
    "pay": 4,
    "refund": 4,
    "adjust": 1,
    "confirm": 3,
    "fail": 1,
    "return": 1,
}
STEPS = 80


def life(seed: int) -> Iterator[tuple[str, int, int]]:
    """What happens, to whom or which, and how much."""
    chance = Random(seed)
    for kind in chance.choices(list(KINDS), list(KINDS.values()), k=STEPS):
        yield kind, chance.randrange(20), chance.randint(1, 60_000)


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
    elif kind == "refund" and books.lines:
        line = books.lines[place % len(books.lines)]
        nanos = line.left_nanos // (1 + size % 3)
        if nanos:
            await till.refund(account, line.sale, nanos)
            books.refund(line, nanos)
    elif kind == "adjust" and (nanos := max(1_000 * (size - 30_000), -books.available)):
        await till.adjust(account, nanos)
        books.available += nanos
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


@pytest.mark.parametrize("seed", [0, 2])
async def test_the_purses_agree_with_plain_python_after_every_step(till: Till, seed: int) -> None:
    market = [(await till.provider(name), Books()) for name in ("acme", "globex")]
    owed, seen = False, Counter[str]()
    for step in life(seed):
        kind, place, _ = step
        if kind == "nights":
            days = 1 + place % 4
            await till.days_pass(days)
            for account, books in market:
                books.day += days
                await till.mature(account, TERMS)
                books.mature()
        else:
            await play(till, market[place % 2], step)
        for account, books in market:
            assert await till.contents(account) == books.contents(), step
        seen.update(status for _, books in market for _, status in books.payouts)
        owed = owed or any(books.owed for _, books in market)
    assert owed, "a life without debts proves little"
    assert set(seen) == {"open", "sent", "failed", "returned"}
