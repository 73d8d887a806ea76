"""What calls came to, told of one after the other."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from broker.core.ledger import CallRecord, Hold, line, settlement
from broker.core.money.turnover import UNRECORDED, Turnover, outcome_of
from tests.fakes import RATE

NOW = datetime(2025, 1, 1, tzinfo=UTC)
CALL, ACCOUNT, ENDPOINT = UUID(int=9), UUID(int=3), UUID(int=1)
HOLD = Hold(CALL, ACCOUNT, "key", 10**9, NOW, NOW)


def record(status: int = 200, code: str = "served", ttft_ms: float | None = None) -> CallRecord:
    return CallRecord(
        id=CALL,
        created_at=NOW,
        account_id=ACCOUNT,
        key_id="key",
        task="chat",
        model="auto",
        domain=None,
        stream=ttft_ms is not None,
        status=status,
        code=code,
        endpoint_number=None,
        price_version=7,
        hold_nanos=HOLD.amount_nanos,
        charge_nanos=0,
        tokens_in=100,
        tokens_out=50,
        ttft_ms=ttft_ms,
        duration_ms=300.0,
        task_label=None,
        session_id=None,
        labels_json=None,
        story=b"",
    )


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (200, "served", "served"),
        (200, "provider_cut_off", "failed"),
        (200, "deadline_passed", "failed"),
        (499, "caller_left", "left"),
        (402, "insufficient_balance", "refused"),
        (429, "overloaded", "refused"),
        (502, "all_providers_failed", "failed"),
        (503, "hold_expired", "failed"),
    ],
)
def test_a_call_ends_in_one_of_four_ways(status: int, code: str, outcome: str) -> None:
    assert outcome_of(status, code) == outcome


def test_each_line_of_a_settlement_adds_to_both_parts_of_the_charge() -> None:
    turnover = Turnover()
    lines = tuple(
        line(attempt, ENDPOINT, ACCOUNT, (100, 50), (RATE, 7, take_bps))
        for attempt, take_bps in enumerate((1_000, 500))
    )
    turnover.settled(settlement(HOLD, lines, NOW, record()), 0.5)
    sums = turnover.sums["chat"]
    assert sums.charged_nanos == 2 * lines[0].charge_nanos
    assert sums.take_nanos == lines[0].take_nanos + lines[1].take_nanos
    assert sums.earnings_nanos == sums.charged_nanos - sums.take_nanos
    assert (sums.tokens_in, sums.tokens_out) == (100, 50)
    assert turnover.lasted["chat", "served"].sum_s == pytest.approx(0.8), "its end in the books too"


def test_a_hold_that_nobody_called_on_is_no_call_and_no_money() -> None:
    turnover = Turnover()
    turnover.settled(settlement(HOLD, (), NOW, None), 0.0)
    assert (turnover.sums, turnover.lasted) == ({}, {})


def test_money_without_a_record_counts_under_a_task_of_its_own() -> None:
    turnover = Turnover()
    charged = line(0, ENDPOINT, ACCOUNT, (100, 50), (RATE, 7, 1_000))
    turnover.settled(settlement(HOLD, (charged,), NOW, None), 0.0)
    assert turnover.sums[UNRECORDED].charged_nanos == charged.charge_nanos
    assert not turnover.lasted


def test_an_answer_that_takes_a_minute_is_told_from_one_that_takes_five() -> None:
    turnover = Turnover()
    for ttft_ms in (40_000.0, 200_000.0):
        turnover.ended(record(ttft_ms=ttft_ms))
    told = dict(turnover.first_content["chat"].buckets())
    assert (told["30.0"], told["60.0"], told["120.0"], told["300.0"]) == (0, 1, 1, 2)
