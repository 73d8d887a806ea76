"""The recipes of the books, without any database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from broker.core.ledger import Hold, SettlementKind, line, settlement
from broker.store.ledger import is_away
from pricing.book import Rate

NOW = datetime(2030, 1, 1, tzinfo=UTC)
tokens = st.integers(0, 10**7)
rates = st.builds(Rate, st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))


def hold_of(amount_nanos: int) -> Hold:
    return Hold(uuid7(), uuid7(), "key", amount_nanos, NOW, NOW + timedelta(minutes=5))


@given(tokens, tokens, rates, st.integers(0, 10_000))
def test_a_line_splits_its_charge_without_remainder(
    tokens_in: int, tokens_out: int, rate: Rate, take_bps: int
) -> None:
    made = line(1, uuid7(), uuid7(), (tokens_in, tokens_out), (rate, 7, take_bps))
    assert made.charge_nanos == made.take_nanos + made.earnings_nanos
    assert min(made.take_nanos, made.earnings_nanos) >= 0
    assert (made.charge_nanos == 0) == (rate.picos(tokens_in, tokens_out) == 0)


def test_a_settlement_captures_what_costs_and_drops_lines_that_do_not() -> None:
    rate = Rate(1_000_000, 0, 0)
    lines = tuple(
        line(attempt, uuid7(), uuid7(), (count, 0), (rate, 7, 1_000))
        for attempt, count in enumerate((0, 10), 1)
    )
    made = settlement(hold_of(20_000), lines, NOW, None)
    assert (made.kind, made.charge_nanos) == (SettlementKind.CAPTURED, 10_000)
    assert [each.attempt for each in made.lines] == [2]


def test_a_settlement_of_nothing_is_a_release() -> None:
    assert settlement(hold_of(1), (), NOW, None).kind is SettlementKind.RELEASED


def test_a_charge_above_the_hold_is_a_programmers_error() -> None:
    dear = line(1, uuid7(), uuid7(), (10, 0), (Rate(1_000_000, 0, 0), 7, 0))
    with pytest.raises(AssertionError):
        settlement(hold_of(9_999), (dear,), NOW, None)


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (asyncpg.InterfaceError("closed"), True),
        (asyncpg.ConnectionDoesNotExistError(), True),
        (asyncpg.AdminShutdownError(), True),
        (asyncpg.DeadlockDetectedError(), True),
        (asyncpg.DiskFullError(), True),
        (asyncpg.UniqueViolationError(), False),
        (asyncpg.CheckViolationError(), False),
        (asyncpg.NumericValueOutOfRangeError(), False),
        (asyncpg.DataError(), False),
        (OverflowError(), False),
        (AttributeError(), False),
    ],
)
def test_a_row_is_blamed_only_for_what_it_says(error: Exception, away: bool) -> None:
    assert is_away(error) is away
