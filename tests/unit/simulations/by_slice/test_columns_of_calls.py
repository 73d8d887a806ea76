"""What is done to many calls in columns is what is done to one: bills, slots, who asks next."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from broker.core import ledger
from broker.core.metering import Delivered, Expected, meter
from pricing.book import Rate
from simulations.by_slice.bills import Work, bill
from simulations.by_slice.slots import Slots
from simulations.demand import ConsumerClass, Poisson
from simulations.traffic.askers import Queue
from simulations.traffic.callers import Callers
from simulations.visit import BYTES_PER_TOKEN, NO_ONE

ONE = np.ones(1, dtype=np.int64)


@given(
    tokens_in=st.integers(1, 10_000),
    bound=st.integers(1, 20_000),
    made=st.integers(0, 3_000),
    limit=st.integers(0, 3_000),
    lie=st.floats(0.5, 3.0),
    generates=st.booleans(),
    rates=st.tuples(*[st.integers(0, 10**8)] * 3),
    take_bps=st.integers(0, 10_000),
)
def test_a_bill_is_what_the_recipes_say(
    tokens_in: int,
    bound: int,
    made: int,
    limit: int,
    lie: float,
    generates: bool,
    rates: tuple[int, int, int],
    take_bps: int,
) -> None:
    claimed = round(lie * made)
    seen = Delivered(tokens_in, claimed, BYTES_PER_TOKEN * made, generates=generates)
    used = meter(seen, Expected(bound, BYTES_PER_TOKEN * tokens_in, limit, 4.0, 4.0))
    tokens = (used.tokens_in, used.tokens_out)
    paid = ledger.line(0, NO_ONE, NO_ONE, tokens, (Rate(*rates), 1, take_bps))
    work = Work(
        *(tokens_in * ONE, made * ONE, claimed * ONE, bound * ONE, limit * ONE),
        np.array([generates]),
        np.array(rates)[:, np.newaxis],
        take_bps * ONE,
    )
    found = bill(work)
    assert (found.tokens_in[0], found.tokens_out[0]) == tokens
    if tokens != (0, 0):
        assert (found.charge_nanos[0], found.take_nanos[0]) == (paid.charge_nanos, paid.take_nanos)
    else:
        assert found.charge_nanos[0] == found.take_nanos[0] == 0


def test_slots_keep_rows_apart_however_many_there_are() -> None:
    slots, rng = Slots(2), np.random.default_rng(1)
    inside: dict[int, float] = {}
    for step in range(60):
        values = rng.random(int(rng.integers(0, 200)))
        fresh = slots.put(np.stack([values, -values], axis=1))
        assert not inside.keys() & set(fresh.tolist())
        inside |= dict(zip(fresh.tolist(), values.tolist(), strict=True))
        leaving = np.array([x for x in inside if rng.random() < (0.2 if step < 40 else 0.8)])
        rows = slots.take(leaving.astype(np.int64))
        assert rows[:, 0].tolist() == [inside.pop(int(each)) for each in leaving]
        assert slots.size == len(inside)


def test_those_who_come_back_ask_among_the_others() -> None:
    crowd = ConsumerClass("crowd", Poisson(50.0), accounts=3)
    classes = (crowd, replace(crowd, name="others"))
    queue = Queue(Callers(classes, 1), classes, [0, 3])
    queue.open(2.0)
    first, nobody = queue.until(1.0)
    assert nobody.size == 0
    assert queue.arrived == first.size
    assert set(first.account[first.place == 1].tolist()) == {3, 4, 5}
    again = first.only(slice(0, 2))
    again.at_s = np.array([1.9, 1.2])
    queue.come_back(again)
    fresh, back = queue.until(1.5)
    assert back.at_s.tolist() == [1.2]
    assert (fresh.at_s >= 1.0).all()
    assert (fresh.at_s < 1.5).all()
    rest, last = queue.until(9.0)
    assert last.at_s.tolist() == [1.9]
    assert queue.arrived == first.size + fresh.size + rest.size
    np.testing.assert_array_equal(
        np.concatenate([each.arrival_s for each in (first, fresh, rest)]),
        np.sort(Callers(classes, 1).until(2.0).arrival_s),
    )
