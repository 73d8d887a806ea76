"""The recipes of the books: what an attempt costs, and how a hold ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.ledger import ChargeLine, Hold, SettlementKind, line, settlement
from pricing.book import Rate
from tests.fakes import RATE

NOW = datetime(2025, 1, 1, tzinfo=UTC)
ENDPOINT, PAYEE, ACCOUNT = UUID(int=1), UUID(int=2), UUID(int=3)


def charged(tokens: tuple[int, int], rate: Rate = RATE, take_bps: int = 1_000) -> ChargeLine:
    return line(0, ENDPOINT, PAYEE, tokens, (rate, 7, take_bps))


def hold(amount_nanos: int) -> Hold:
    return Hold(UUID(int=9), ACCOUNT, "key", amount_nanos, NOW, NOW + timedelta(seconds=60))


def test_tokens_times_rates_rounded_up_once_is_the_charge() -> None:
    made = charged((3, 1), Rate(1, 1, 0))
    assert made.charge_nanos == 1
    assert charged((100, 50)).charge_nanos == 50_000 + 75_000
    assert charged((0, 0), Rate(0, 0, 5_000)).charge_nanos == 5_000


def test_the_take_is_floored_and_the_rest_goes_to_the_provider() -> None:
    made = charged((0, 0), Rate(0, 0, 19))
    assert (made.take_nanos, made.earnings_nanos) == (1, 18)


@settings(derandomize=True)
@given(
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.integers(0, 10**12),
    st.integers(0, 10**12),
    st.integers(0, 10_000),
)
def test_take_and_earnings_make_up_the_charge(
    tokens_in: int, tokens_out: int, rate_in: int, rate_out: int, take_bps: int
) -> None:
    made = charged((tokens_in, tokens_out), Rate(rate_in, rate_out, 0), take_bps)
    assert made.take_nanos + made.earnings_nanos == made.charge_nanos
    assert min(made.take_nanos, made.earnings_nanos) >= 0
    picos = tokens_in * rate_in + tokens_out * rate_out
    assert 0 <= made.charge_nanos * 1_000 - picos < 1_000


def test_a_hold_whose_work_was_delivered_is_captured() -> None:
    lines = (charged((100, 50)),)
    closing = settlement(hold(200_000), lines, NOW, None)
    assert closing.kind is SettlementKind.CAPTURED
    assert closing.charge_nanos == 125_000
    assert closing.lines == lines


def test_a_hold_for_which_nothing_was_delivered_is_released_whole() -> None:
    closing = settlement(hold(200_000), (), NOW, None)
    assert (closing.kind, closing.charge_nanos) == (SettlementKind.RELEASED, 0)


def test_a_line_that_costs_nothing_is_left_out() -> None:
    paid, free = charged((100, 50)), charged((0, 0))
    assert settlement(hold(200_000), (free, paid), NOW, None).lines == (paid,)


def test_a_charge_is_never_above_its_hold() -> None:
    with pytest.raises(AssertionError):
        settlement(hold(124_999), (charged((100, 50)),), NOW, None)
