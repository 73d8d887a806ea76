"""The books of a simulation: the broker's own recipes of hold and settlement, kept in memory.

Every amount that leaves one place arrives in another:
deposited = balances + held + earned + taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

import numpy as np

from broker.core.ledger import Hold, Settlement
from pricing.book import IntArray
from pricing.money import NANOS_PER_USD
from simulations.demand import ConsumerClass
from simulations.measured.record import Money

_TOP_UP_NANOS = 1_000 * NANOS_PER_USD
"""What a caller without a budget pays in whenever its balance does not do."""


class Paid(NamedTuple):
    """What many calls come to, and who earns it; arrays of one length."""

    charge_nanos: IntArray
    take_nanos: IntArray
    payee: IntArray


class Books:
    """Balances by account: each class has its accounts in a row, from `first_account` on."""

    def __init__(self, classes: Sequence[ConsumerClass], payees: Mapping[UUID, int]) -> None:
        self.first_account: list[int] = []
        self._budget_nanos: list[int | None] = []
        self._period_s: list[float] = []
        for each in classes:
            self.first_account.append(len(self._budget_nanos))
            budget = None
            if math.isfinite(each.budget_usd):
                budget = round(each.budget_usd * NANOS_PER_USD)
            self._budget_nanos += [budget] * each.accounts
            self._period_s += [each.budget_period_s] * each.accounts
        self._balances = [0] * len(self._budget_nanos)
        self._funded_s = [-math.inf] * len(self._budget_nanos)
        # By plain numbers: Python works out by itself what a UUID's hash is, at every look.
        self._payees = {account.int: place for account, place in payees.items()}
        self._earned = [0] * (max(payees.values(), default=-1) + 1)
        self._deposited = self._held = self._taken = 0

    def hold(self, account: int, amount_nanos: int, now_s: float) -> bool:
        """Set an amount aside; False where the balance is too low."""
        self._fund(account, amount_nanos, now_s)
        if amount_nanos > self._balances[account]:
            return False
        self._balances[account] -= amount_nanos
        self._held += amount_nanos
        return True

    def settle(self, account: int, hold: Hold, settled: Settlement) -> None:
        """Pay what was delivered and free the rest."""
        self._held -= hold.amount_nanos
        self._balances[account] += hold.amount_nanos - settled.charge_nanos
        for line in settled.lines:
            self._taken += line.take_nanos
            self._earned[self._payees[line.payee.int]] += line.earnings_nanos

    def settle_many(self, accounts: IntArray, hold_nanos: IntArray, paid: Paid) -> None:
        """The same for many calls. What was not held is paid in if it is missing, which only
        accounts without a budget may leave to this."""
        due = np.zeros(len(self._balances), dtype=np.int64)
        np.add.at(due, accounts, paid.charge_nanos - hold_nanos)
        self._held -= int(hold_nanos.sum())
        for account in due.nonzero()[0].tolist():
            owed = int(due[account])
            if owed > self._balances[account]:
                self._fund(account, owed, 0.0)
            self._balances[account] -= owed
        earned = np.zeros(len(self._earned), dtype=np.int64)
        np.add.at(earned, paid.payee, paid.charge_nanos - paid.take_nanos)
        self._earned = [x + y for x, y in zip(self._earned, earned.tolist(), strict=True)]
        self._taken += int(paid.take_nanos.sum())

    def money(self) -> Money:
        """How the books stand."""
        return Money(
            self._deposited,
            sum(self._balances),
            self._held,
            np.array(self._earned, dtype=np.int64),
            self._taken,
        )

    def _fund(self, account: int, amount_nanos: int, now_s: float) -> None:
        """Pay in what the account's budget is for this period, or what is needed without one."""
        budget = self._budget_nanos[account]
        if budget is None:
            missing = amount_nanos - self._balances[account]
            if missing > 0:
                self._deposit(account, max(missing, _TOP_UP_NANOS))
            return
        period_s = self._period_s[account]
        begun_s = 0.0 if math.isinf(period_s) else now_s // period_s * period_s
        if begun_s > self._funded_s[account]:
            self._funded_s[account] = begun_s
            # What is left of the last period's budget is not spent on top of this one's.
            self._deposit(account, budget - self._balances[account])

    def _deposit(self, account: int, amount_nanos: int) -> None:
        self._balances[account] += amount_nanos
        self._deposited += amount_nanos
