"""Attempts beside late ones and after cut streams: who makes them, how often, and what they may
cost."""

from __future__ import annotations

from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.call import ROLE_TOKENS
from broker.core.decision import Candidate, Decision
from broker.core.dispatch import Attempt, Dispatch, End
from broker.core.hedging import RESERVE, SEEN_MIN, SHARE, HedgeBudget, Tails
from broker.core.outcome import DELIVERED, Fault, Outcome
from broker.core.retries import RetryBudget
from broker.core.several import BYTES_PER_TOKEN_MOST, CONTINUATIONS_MAX, several
from pricing.book import Rate
from pricing.money import charge_nanos
from tests.fakes import plan

EXTRA_NANOS = 608 * 1_000
"""Six bytes for each of 100 tokens and a role, at a dollar per million tokens."""
PROMPT_TOKENS = 30


def rich() -> HedgeBudget:
    budget = HedgeBudget()
    for _ in range(100):
        budget.deposit()
    return budget


def dispatch(candidates: int, hedges: HedgeBudget | None) -> Dispatch:
    made = Dispatch(
        plan(candidates), RetryBudget(0.0), deadline_s=100.0, attempts_max=4, random=Random(1)
    )
    made.hedges = hedges
    return made


def test_a_late_attempt_gets_one_beside_it_and_no_third() -> None:
    calls = dispatch(3, rich())
    first = calls.next_attempt(0.0)
    second = calls.hedge(1.0)
    assert first is not None
    assert second is not None
    assert (second.candidate.number, second.hedge, second.index) == (1, True, 1)
    assert calls.hedge(2.0) is None
    assert calls.lose(first, 2.0).fault is Fault.CALLER_LEFT
    calls.record(DELIVERED, 2.0, second)
    assert calls.end is End.DELIVERED
    assert calls.hedges is not None
    assert (calls.hedges.made, calls.hedges.won) == (1, 1)


def test_an_attempt_that_lost_says_so_and_when_and_one_beside_it_that_lost_has_won_nothing() -> (
    None
):
    calls = dispatch(3, rich())
    calls.next_attempt(0.0)
    second = calls.hedge(1.0)
    assert second is not None
    calls.lose(second, 2.0)
    assert (second.lost, second.ended_s) == (True, 2.0)
    assert calls.hedges is not None
    assert calls.hedges.won == 0


def test_a_call_has_one_attempt_beside_another_whatever_became_of_it() -> None:
    calls = dispatch(4, rich())
    first = calls.next_attempt(0.0)
    calls.hedge(1.0)
    calls.record(Outcome(Fault.RESET), 1.5)
    calls.record(Outcome(Fault.RESET), 1.5, first)
    calls.next_attempt(2.0)
    assert calls.hedge(3.0) is None
    assert calls.hedges is not None
    assert calls.hedges.made == 1


def test_neither_a_cascade_nor_a_call_that_may_try_no_more_has_one_beside() -> None:
    for told in ({"stages": (0, 1)}, {"attempts_max": 1}):
        given = {"deadline_s": 100.0, "attempts_max": 4, "random": Random(1)} | told
        calls = Dispatch(plan(2), RetryBudget(0.0), **given)  # type: ignore[arg-type]
        calls.hedges = rich()
        calls.next_attempt(0.0)
        assert calls.hedge(1.0) is None


def test_the_first_that_is_admitted_is_asked_beside_a_late_one() -> None:
    calls = dispatch(4, rich())
    calls.next_attempt(0.0)
    second = calls.hedge(1.0, lambda number: number > 1)
    assert second is not None
    assert second.candidate.number == 2


def test_each_call_that_may_be_hedged_adds_to_their_budget_once() -> None:
    hedges = HedgeBudget()
    for _ in range(round(1 / SHARE) + 1):
        calls = dispatch(2, hedges)
        calls.next_attempt(0.0)
        calls.record(Outcome(Fault.RESET), 0.0)
        calls.next_attempt(0.0)
    assert [hedges.withdraw() for _ in range(2)] == [True, False]


def test_of_two_that_both_fail_the_next_goes_on_as_ever() -> None:
    calls = dispatch(3, rich())
    first = calls.next_attempt(0.0)
    second = calls.hedge(1.0)
    calls.record(Outcome(Fault.RESET), 1.5, second)
    assert calls.end is None
    calls.record(Outcome(Fault.RESET), 2.0, first)
    third = calls.next_attempt(2.0)
    assert third is not None
    assert third.candidate.number == 2


def test_what_is_the_callers_fault_ends_both() -> None:
    calls = dispatch(3, rich())
    first = calls.next_attempt(0.0)
    calls.hedge(1.0)
    calls.record(Outcome(Fault.CALLER_FAULT), 1.5, first)
    assert calls.end is End.FINAL


@pytest.mark.parametrize("hedges", [None, HedgeBudget()])
def test_without_a_budget_there_is_none(hedges: HedgeBudget | None) -> None:
    calls = dispatch(2, hedges)
    calls.next_attempt(0.0)
    assert calls.hedge(1.0) is None


def test_nobody_is_asked_twice_nor_whoever_is_ejected_nor_out_of_time() -> None:
    alone = dispatch(1, rich())
    alone.next_attempt(0.0)
    assert alone.hedge(1.0) is None
    barred = dispatch(2, rich())
    barred.next_attempt(0.0)
    assert barred.hedge(1.0, lambda _: False) is None
    assert barred.hedge(100.0) is None
    assert barred.hedge(1.0, lambda number: number == 1) is not None


def test_at_most_a_twentieth_of_the_calls_are_hedged() -> None:
    budget = HedgeBudget()
    hedged = 0
    for _ in range(10_000):
        budget.deposit()
        hedged += budget.withdraw()
    assert hedged <= SHARE * 10_000 + 1
    for _ in range(10_000):
        budget.deposit()
    assert sum(budget.withdraw() for _ in range(100)) == RESERVE


@pytest.mark.parametrize("scale", [1.0, 1_000.0])
def test_late_is_later_than_nineteen_of_twenty(scale: float) -> None:
    tails, random = Tails(), Random(3)
    times = [scale * random.lognormvariate(3.0, 0.5) for _ in range(20_000)]
    for each in times[:10_000]:
        tails.tell(4, each, streamed=True)
    late = 0
    for each in times[10_000:]:
        limit = tails.late_ms(4, streamed=True)
        assert limit is not None
        late += each > limit
        tails.tell(4, each, streamed=True)
    assert 0.03 <= late / 10_000 <= 0.07
    assert tails.late_ms(4, streamed=False) is None


def test_most_of_the_tail_is_gone_for_a_twentieth_more_calls() -> None:
    random, calls = np.random.default_rng(3), 4_000
    tails, budget = Tails(), HedgeBudget()

    def took_ms() -> float:
        return float(900.0 if random.random() < 0.02 else random.lognormal(np.log(15.0), 0.3))

    plain, hedged = np.zeros(calls), np.zeros(calls)
    for call in range(calls):
        budget.deposit()
        plain[call] = hedged[call] = first_ms = took_ms()
        late_ms = tails.late_ms(0, streamed=False)
        if late_ms is not None and first_ms > late_ms and budget.withdraw():
            hedged[call] = min(first_ms, late_ms + took_ms())
        if hedged[call] == first_ms:  # who is overtaken is cut, and never heard of
            tails.tell(0, first_ms, streamed=False)
    before_ms, after_ms = (float(np.quantile(each, 0.99)) for each in (plain, hedged))
    assert before_ms == 900.0
    assert after_ms < 60.0
    assert budget.made <= SHARE * calls


def test_before_enough_was_seen_nothing_is_late() -> None:
    tails = Tails()
    for _ in range(SEEN_MIN - 1):
        tails.tell(0, 10.0, streamed=False)
    assert tails.late_ms(0, streamed=False) is None
    tails.tell(0, 10.0, streamed=False)
    assert tails.late_ms(0, streamed=False) is not None


def cut(calls: Dispatch) -> None:
    """Have the attempt under way break off after its first content."""
    calls.attempts[-1].first_content_s = 1.0
    calls.record(Outcome(Fault.RESET), 2.0)
    assert calls.end is End.COMMITTED


def test_after_a_cut_the_next_goes_on_and_so_often_only() -> None:
    calls = dispatch(4, None)
    calls.next_attempt(0.0)
    for number in range(1, CONTINUATIONS_MAX + 1):
        cut(calls)
        attempt = calls.go_on_after_cut(2.0)
        assert attempt is not None
        assert (attempt.candidate.number, attempt.continues) == (number, True)
    cut(calls)
    assert calls.go_on_after_cut(3.0) is None


def test_who_fails_before_it_goes_on_is_followed_by_the_next() -> None:
    calls = dispatch(3, None)
    calls.next_attempt(0.0)
    cut(calls)
    calls.go_on_after_cut(2.0)
    calls.record(Outcome(Fault.CONNECT_FAILED), 2.5)
    attempt = calls.go_on_after_cut(2.5)
    assert attempt is not None
    assert attempt.candidate.number == 2


def test_a_continuation_takes_of_the_retry_budget() -> None:
    calls = dispatch(4, None)
    calls.next_attempt(0.0)
    while calls._budget.withdraw(0.0):
        pass
    calls.attempts[-1].first_content_s = 0.0
    calls.record(Outcome(Fault.RESET), 0.0)
    assert calls.go_on_after_cut(0.0) is None


def test_nobody_goes_on_where_nobody_is_left_or_no_time_is() -> None:
    for candidates, now_s in ((1, 2.0), (2, 100.0)):
        calls = dispatch(candidates, None)
        calls.next_attempt(0.0)
        cut(calls)
        assert calls.go_on_after_cut(now_s) is None
        assert calls.end is End.COMMITTED


def test_the_first_that_is_admitted_goes_on_and_the_call_with_it() -> None:
    calls = dispatch(3, None)
    calls.next_attempt(0.0)
    cut(calls)
    attempt = calls.go_on_after_cut(2.0, lambda number: number == 2)
    assert attempt is not None
    assert attempt.candidate.number == 2
    assert calls.end is None


def decided(*ceilings: int) -> Decision:
    rate = Rate(1_000_000, 2_000_000, 0)
    none = np.empty(0, dtype=np.int64)
    candidates = tuple(Candidate(at, rate, 100, each) for at, each in enumerate(ceilings))
    return Decision(candidates, none, np.empty((7, 0)), none, none, 1)


def test_the_hold_covers_the_dearest_of_all_that_may_be_paid() -> None:
    first = decided(5, 9, 7)
    assert several(first, hedges=True, continues=False, most=None).hold_nanos == 16
    continued = several(first, hedges=False, continues=True, most=None)
    assert continued.hold_nanos == 9 + 7 + 5 + 2 * EXTRA_NANOS
    assert continued.answers_most == 3


@pytest.mark.parametrize(
    ("ceilings", "answers", "longer"),
    [((5, 9), 2, 1), ((5, 9, 7), 3, 2), ((5, 9, 7, 6), 4, 2)],
)
def test_who_is_asked_beside_a_late_one_does_not_go_on_after_it_too(
    ceilings: tuple[int, ...], answers: int, longer: int
) -> None:
    made = several(decided(*ceilings), hedges=True, continues=True, most=None)
    assert made.answers_most == answers
    assert made.hold_nanos == sum(ceilings) + longer * EXTRA_NANOS


def test_of_more_than_may_be_paid_the_dearest_together_are_held_for() -> None:
    first = decided(5, 9, 8, 7)
    # Who goes on costs the more for what came before, the dearer its input is.
    dear = msgspec.structs.replace(first.plan[0], rate=Rate(4_000_000, 0, 0))
    first = msgspec.structs.replace(first, plan=(dear, *first.plan[1:]))
    made = several(first, hedges=False, continues=True, most=None)
    assert made.hold_nanos == 5 + 9 + 8 + 4 * EXTRA_NANOS + EXTRA_NANOS


rates = st.builds(Rate, st.integers(0, 10**7), st.sampled_from((0, 1, 10**7)), st.integers(0, 9))
plans = st.lists(st.tuples(rates, st.integers(1, 50)), min_size=2, max_size=4)


@given(plans, st.booleans(), st.booleans(), st.randoms(use_true_random=False))
def test_whatever_happens_to_a_call_its_hold_covers_what_was_delivered(
    limits: list[tuple[Rate, int]], hedges: bool, continues: bool, chance: Random
) -> None:
    candidates = tuple(
        Candidate(at, rate, most, charge_nanos(rate.picos(PROMPT_TOKENS, most)))
        for at, (rate, most) in enumerate(limits)
    )
    first = msgspec.structs.replace(decided(1), plan=candidates)
    made = several(first, hedges=hedges, continues=continues, most=None)
    calls = Dispatch(
        candidates, RetryBudget(0.0), deadline_s=100.0, attempts_max=4, random=Random(1)
    )
    calls.hedges = rich() if hedges else None
    assert lived(calls, chance, continues=continues) <= made.hold_nanos


def lived(calls: Dispatch, chance: Random, *, continues: bool) -> int:
    """Let by chance happen to a call what can: return what it costs when all is charged."""
    cost = 0
    while (attempt := calls.next_attempt(0.0)) is not None:
        beside = calls.hedge(0.0) if chance.random() < 0.8 else None
        pair = [each for each in (attempt, beside) if each is not None]
        chance.shuffle(pair)
        if beside is not None and chance.random() < 0.8:
            loser = pair.pop()
            calls.lose(loser, 0.0)
            cost += charged(loser, chance.randint(0, loser.candidate.tokens_out_max))
        for each in pair[1:] if chance.random() < 0.7 else pair:
            calls.record(Outcome(Fault.RESET), 0.0, each)
        answers = next((each for each in pair if each.outcome is None), None)
        if answers is not None:
            return cost + told(calls, answers, chance, continues=continues)
    return cost


def told(calls: Dispatch, answers: Attempt, chance: Random, *, continues: bool) -> int:
    """Let an answer come, and others go on where it breaks off."""
    cost = came = 0
    going: Attempt | None = answers
    while going is not None:
        left = going.candidate.tokens_out_max - came
        if left < 1:
            break
        tokens = chance.choice((0, 1, left - 1, left))
        before = BYTES_PER_TOKEN_MOST * came + ROLE_TOKENS if going.continues else 0
        cost += charged(going, tokens, before)
        came += tokens
        going.first_content_s = 0.0
        calls.record(Outcome(Fault.RESET), 0.0, going)
        going = calls.go_on_after_cut(0.0) if continues else None
    return cost


def charged(attempt: Attempt, tokens: int, before: int = 0) -> int:
    return charge_nanos(attempt.candidate.rate.picos(PROMPT_TOKENS + before, tokens))


@pytest.mark.parametrize(("candidates", "continued"), [(2, 1), (3, 2), (4, 2)])
def test_no_more_go_on_than_there_are_others_and_two_at_most(
    candidates: int, continued: int
) -> None:
    made = several(decided(*[5] * candidates), hedges=False, continues=True, most=None)
    assert made.answers_most == 1 + continued
    assert made.hold_nanos == 5 + continued * (5 + EXTRA_NANOS)


def test_a_dearest_cost_or_a_lone_endpoint_leaves_one_attempt_to_be_paid() -> None:
    first = decided(5, 9)
    assert several(first, hedges=True, continues=False, most=13) is first
    assert several(first, hedges=True, continues=False, most=14).hold_nanos == 14
    lone = decided(5)
    assert several(lone, hedges=True, continues=True, most=None) is lone
