"""Whatever has happened, and whoever is asked about: what is told is what the breakers say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from broker.core.health.breaker import CONSECUTIVE
from broker.core.health.doubts import Doubts
from broker.core.health.journal import Journal

KNOWN = 6
"""Things happen to so many, the first of MANY."""
MANY = 1_000
"""Of so many all are asked about in arrays; of a few one by one."""
STRANGER = 10 * MANY
"""One that only another process knows yet."""
Event = Callable[[Doubts, float], object]


def _failing(endpoint: int, *, as_probe: bool) -> Event:
    def fail(doubts: Doubts, now_s: float) -> None:
        for _ in range(CONSECUTIVE):
            doubts.fail(endpoint, now_s, None if as_probe else -1.0)

    return fail


def _asked(endpoint: int, *, answers: bool) -> Event:
    def ask(doubts: Doubts, now_s: float) -> None:
        if endpoint in doubts.breakers:
            doubts.breakers[endpoint].begin(now_s)
        if answers:
            doubts.prove(endpoint, now_s, now_s)

    return ask


def _succeeding(endpoint: int) -> Event:
    def succeed(doubts: Doubts, now_s: float) -> None:
        if endpoint in doubts.breakers:
            doubts.succeed(endpoint, now_s)

    return succeed


def _silent(endpoint: int) -> Event:
    return lambda doubts, now_s: doubts.suspect(endpoint, now_s)


def _heard(ejected: frozenset[int]) -> Event:
    return lambda doubts, _: doubts.hear(ejected)


one = st.integers(0, KNOWN - 1)
events = st.one_of(
    st.builds(_failing, one, as_probe=st.booleans()),
    st.builds(_asked, one, answers=st.booleans()),
    st.builds(_succeeding, one),
    st.builds(_silent, one),
    st.builds(_heard, st.frozensets(one | st.just(STRANGER), max_size=3)),
)
pauses = st.sampled_from((0.0, 0.3, 1.0, 5.0))


@given(st.lists(st.tuples(events, pauses), max_size=12), st.lists(one, min_size=1, unique=True))
def test_who_is_out_of_routing_goes_by_the_breakers_of_those_asked_about(
    happening: list[tuple[Event, float]], few: list[int]
) -> None:
    journal, now_s = Journal(), 0.0
    doubts = Doubts(journal)
    for event, pause_s in happening:
        before, read = {*doubts.all()}, len(journal.turned)
        event(doubts, now_s)
        assert doubts.all() - before <= {*journal.turned[read:]}, "whoever follows is told"
        now_s += pause_s
        _require_agreement(doubts, now_s, few)


def _require_agreement(doubts: Doubts, now_s: float, few: list[int]) -> None:
    def is_doubted(number: int) -> bool:
        breaker = doubts.breakers.get(number)
        return number in doubts.elsewhere or (breaker is not None and breaker.ejection_s > 0.0)

    def is_out(number: int) -> bool:
        breaker = doubts.breakers.get(number)
        return number in doubts.elsewhere or (breaker is not None and not breaker.admits(now_s))

    everyone = [*range(MANY), STRANGER]
    doubted = {each for each in everyone if is_doubted(each)}
    assert doubts.all() == doubted
    assert len(doubted) <= doubts.count <= 2 * len(doubted)
    assert [doubts.has(each) for each in few] == [is_doubted(each) for each in few]
    assert doubts.has_any(few) is any(map(is_doubted, few))
    admits = doubts.admitting(now_s)
    for asked in (few, [*range(MANY)], [STRANGER, *few], []):
        out = [is_out(each) for each in asked]
        assert [admits is None or admits(each) for each in asked] == [not each for each in out]
        ejected = doubts.ejected(np.array(asked, dtype=np.int64), now_s)
        assert (None if ejected is None else ejected.tolist()) == (out if any(out) else None)
