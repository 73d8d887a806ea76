"""Refunds are shared without loss, within each line, and never by half against one side."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.money.refund import ChargedLine, left_of, share_out
from pricing.money import split

ENDPOINT, PROVIDER, TAKE = UUID(int=1), UUID(int=2), UUID(int=3)


def a_line(attempt: int, charge_nanos: int, take_bps: int) -> ChargedLine:
    take, _ = split(charge_nanos, take_bps)
    return ChargedLine(attempt, ENDPOINT, PROVIDER, TAKE, charge_nanos, take)


lines_of_a_call = st.lists(
    st.tuples(st.integers(1, 10**15), st.integers(0, 10_000)), min_size=1, max_size=5
).map(lambda shares: [a_line(at, charge, bps) for at, (charge, bps) in enumerate(shares)])


def test_a_whole_refund_gives_back_each_share_exactly() -> None:
    lines = [a_line(0, 1_000_001, 1_000), a_line(1, 7, 1_000)]
    given_back = share_out(left_of(lines), lines)
    assert [(each.take_nanos, each.earnings_nanos) for each in given_back] == [
        (100_000, 900_001),
        (0, 7),
    ]


def test_a_part_is_shared_in_the_proportion_of_the_lines() -> None:
    lines = [a_line(0, 300, 1_000), a_line(1, 100, 2_000)]
    assert [(each.amount_nanos, each.take_nanos) for each in share_out(40, lines)] == [
        (30, 3),
        (10, 2),
    ]


def test_the_smallest_refund_comes_from_one_line() -> None:
    [given_back] = share_out(1, [a_line(0, 300, 1_000), a_line(1, 300, 1_000)])
    assert (given_back.line.attempt, given_back.amount_nanos) == (0, 1)


@settings(derandomize=True, max_examples=200)
@given(lines=lines_of_a_call, data=st.data())
def test_any_steps_give_back_all_and_nothing_more(
    lines: list[ChargedLine], data: st.DataObject
) -> None:
    charge = left_of(lines)
    returned = take_returned = 0
    while left := left_of(lines):
        amount = data.draw(st.integers(1, left)) if data.draw(st.integers(0, 3)) else left
        given_back = share_out(amount, lines)
        assert sum(each.amount_nanos for each in given_back) == amount
        for each in given_back:
            assert 0 <= each.take_nanos <= each.amount_nanos <= each.line.left_nanos
            at = lines.index(each.line)
            lines[at] = replace(
                each.line,
                given_nanos=each.line.given_nanos + each.amount_nanos,
                given_take_nanos=each.line.given_take_nanos + each.take_nanos,
            )
            after = lines[at]
            assert (
                after.given_take_nanos == after.given_nanos * after.take_nanos // after.charge_nanos
            )
        returned += amount
        take_returned += sum(each.take_nanos for each in given_back)
    assert returned == charge
    assert take_returned == sum(each.take_nanos for each in lines)
