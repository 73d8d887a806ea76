"""One call's attempts, asked and told: `next_attempt()` says where to go, `record()` ends it.

The live broker and the simulator drive the same object, so both make the same attempts of the same
failures. It holds no socket and no clock: times are parameters, in seconds of one monotonic clock.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from random import Random
from typing import Final

import msgspec

from broker.core.cascade import Judged
from broker.core.decision import Candidate
from broker.core.hedging import HedgeBudget
from broker.core.outcome import Fault, Outcome
from broker.core.retries import RetryBudget
from broker.core.several import CONTINUATIONS_MAX

BACKOFF_S = 0.1
BACKOFF_S_MAX = 2.0
RETRY_AFTER_S_MAX = 5.0
"""A provider that asks for a longer wait than this gets no more."""

_WORTH_REPEATING = frozenset(
    {
        Fault.CONNECT_FAILED,
        Fault.CONNECT_TIMEOUT,
        Fault.RESET,
        Fault.OVERLOADED,
        Fault.SERVER_ERROR,
    }
)
"""Faults that the same endpoint may not show again a moment later."""


class End(enum.StrEnum):
    """Why there is no further attempt."""

    DELIVERED = "delivered"
    COMMITTED = "committed"
    """It failed after its first content had gone to the caller."""
    FINAL = "final"
    """The outcome is not the provider's fault; another would say the same."""
    EXHAUSTED = "exhausted"
    """No candidate, or no attempt, is left."""
    BUDGET_SPENT = "retry_budget_spent"
    DEADLINE = "deadline"


_DELIVERED: Final = End.DELIVERED
"""Found sooner than a member of its enum, as each call does it."""


class Attempt(msgspec.Struct, eq=False, gc=False):
    """One try at one endpoint. A struct, for one is made for every call."""

    index: int
    candidate: Candidate
    delay_s: float
    """To be waited before it starts; 0 while there is an untried candidate."""
    started_s: float
    ended_s: float | None = None
    first_content_s: float | None = None
    held_back: bool = False
    """Its content is kept from the caller until it has been judged."""
    released_s: float | None = None
    """When content that was held back went to the caller."""
    outcome: Outcome | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    charge_nanos: int = 0
    notes: list[str] = []
    """What metering noticed, such as a claim that was cut."""
    judged: Judged | None = None
    """Of a cascade: what was thought of its answer."""
    hedge: bool = False
    """It was made beside one that was late."""
    lost: bool = False
    """Of two side by side, the other answered first."""
    continues: bool = False
    """It goes on from what another has delivered."""
    beside: bool = False
    """It has no part in the plan: another answer to set beside one that came."""

    @property
    def committed(self) -> bool:
        """True when content of it has gone to the caller."""
        return self.first_content_s is not None and not self.held_back


class Dispatch:
    """The attempts of one call, over a plan of candidates in rank order."""

    __slots__ = (
        "_attempts_max",
        "_budget",
        "_deadline_s",
        "_next",
        "_plan",
        "_random",
        "_stages",
        "attempts",
        "end",
        "hedges",
    )

    def __init__(
        self,
        plan: tuple[Candidate, ...],
        budget: RetryBudget,
        *,
        deadline_s: float,
        attempts_max: int,
        random: Random,
        stages: tuple[int, ...] = (),
    ) -> None:
        """`stages` are those of a cascade, by place in the plan, rising; empty: there is one."""
        assert plan, "a call without candidates is refused before it is dispatched"
        self.attempts: list[Attempt] = []
        self.end: End | None = None
        self._plan = list(plan)
        self._stages = stages
        self._next = 0
        """The place in the plan of who is asked next."""
        self._budget = budget
        self.hedges: HedgeBudget | None = None
        """What pays for an attempt beside a late one; None: there is to be none."""
        self._deadline_s = deadline_s
        self._attempts_max = attempts_max
        self._random = random

    @property
    def untried(self) -> list[Candidate]:
        """Who is left in the plan."""
        return self._plan[self._next :]

    def next_attempt(
        self, now_s: float, admits: Callable[[int], bool] | None = None
    ) -> Attempt | None:
        """Return the attempt to make now, or None once `end` says why there is none.

        `admits` tells of an endpoint whether calls may go there by now; None: to any. Since it was
        decided on, one may have been ejected, or have got the one probe that it is to have: then
        the next in the plan that is admitted comes first. Where none is, the order stands.
        """
        made = self.attempts
        assert not made or all(each.outcome for each in made), "record what is under way first"
        if self.end is None:
            self.end = self._reason_to_stop(now_s)
        if self.end is not None:
            return None
        index = len(made)
        if self._next < len(self._plan):
            if admits is not None:
                self._bring_forward(admits)
            candidate, delay_s = self._plan[self._next], 0.0
            self._next += 1
        else:
            candidate, delay_s = self._repeat(index, now_s)
        if now_s + delay_s >= self._deadline_s:
            self.end = End.DEADLINE
            return None
        attempt = Attempt(index, candidate, delay_s, now_s + delay_s)
        made.append(attempt)
        return attempt

    def hedge(self, now_s: float, admits: Callable[[int], bool] | None = None) -> Attempt | None:
        """Return an attempt to make beside the one under way, which is late; None: there is to be
        none. Of two side by side `record` is told which, and `lose` of the later one."""
        made = self.attempts
        assert made[-1].outcome is None, "nothing is under way"
        barred = self.hedges is None or self._stages or any(each.hedge for each in made)
        none_left = self._next == len(self._plan) or len(made) >= self._attempts_max
        if barred or none_left or now_s >= self._deadline_s:
            return None
        if admits is not None:
            self._bring_forward(admits)
            if not admits(self._plan[self._next].number):
                return None
        assert self.hedges is not None
        if not self.hedges.withdraw():
            return None
        candidate = self._plan[self._next]
        self._next += 1
        attempt = Attempt(len(made), candidate, 0.0, now_s, hedge=True)
        made.append(attempt)
        return attempt

    def lose(self, attempt: Attempt, now_s: float) -> Outcome:
        """Be told that of two side by side the other has answered; return what this one's end is
        to be taken for."""
        assert attempt.outcome is None, "an attempt ends once"
        attempt.lost, attempt.ended_s = True, now_s
        attempt.outcome = Outcome(Fault.CALLER_LEFT, detail="another answered first")
        if self.hedges is not None and not attempt.hedge:
            self.hedges.won += 1
        return attempt.outcome

    def go_on_after_cut(
        self, now_s: float, admits: Callable[[int], bool] | None = None
    ) -> Attempt | None:
        """Return the attempt that goes on from what was delivered before a stream broke off; None:
        there is nobody, no time or no budget left for it."""
        assert self.end in (End.COMMITTED, None), "no stream has broken off"
        continued = sum(each.continues for each in self.attempts)
        if continued >= CONTINUATIONS_MAX or self._next == len(self._plan):
            return None
        if now_s >= self._deadline_s or not self._budget.withdraw(now_s):
            return None
        if admits is not None:
            self._bring_forward(admits)
        self.end = None
        candidate = self._plan[self._next]
        self._next += 1
        attempt = Attempt(len(self.attempts), candidate, 0.0, now_s, continues=True)
        self.attempts.append(attempt)
        return attempt

    def record(self, outcome: Outcome, now_s: float, attempt: Attempt | None = None) -> Outcome:
        """Be told how the attempt under way ended, or `attempt` of two that are; return what the
        pulse is to be told of it."""
        attempt = attempt or self.attempts[-1]
        assert attempt.outcome is None, "an attempt ends once"
        attempt.ended_s = now_s
        if outcome.fault is None or attempt.beside:
            attempt.outcome = outcome
            self.end = _DELIVERED  # of one beside others, which stand whatever became of it
            return outcome
        if outcome.counts_against_provider and self._blamed(attempt.candidate):
            outcome = msgspec.structs.replace(outcome, again=True)
        attempt.outcome = outcome
        if attempt.committed:
            self.end = End.COMMITTED
        elif outcome.fault is Fault.DEADLINE:
            self.end = End.DEADLINE
        elif not outcome.fails_over:
            self.end = End.FINAL
        return outcome

    def go_on(self) -> bool:
        """Go on with the next stage, for the answer that was delivered is not good enough; False
        where there is none. That is no retry, so it takes nothing from their budget."""
        assert self.end is End.DELIVERED, "there is no answer yet"
        if not self._stages:
            return False
        latest = self._stages[self._next - 1]
        while self._next < len(self._plan) and self._stages[self._next] == latest:
            self._next += 1
        if self._next == len(self._plan):
            return False
        self.end = None
        return True

    def _bring_forward(self, admits: Callable[[int], bool]) -> None:
        """Let the next one of this stage that is admitted go first."""
        plan, stages = self._plan, self._stages
        for place in range(self._next, len(plan)):
            if stages and stages[place] != stages[self._next]:
                return
            if admits(plan[place].number):
                plan.insert(self._next, plan.pop(place))
                return

    def begin_beside(self, candidate: Candidate, now_s: float) -> Attempt | None:
        """Begin an attempt beside one that was delivered, outside the plan; None out of time."""
        assert self.end is End.DELIVERED, "there is no answer yet"
        if now_s >= self._deadline_s:
            return None
        attempt = Attempt(len(self.attempts), candidate, 0.0, now_s, beside=True)
        self.attempts.append(attempt)
        return attempt

    def _blamed(self, candidate: Candidate) -> bool:
        """True when an attempt of this call has already counted against the candidate."""
        return any(
            each.candidate is candidate
            and each.outcome is not None
            and each.outcome.counts_against_provider
            for each in self.attempts
        )

    def _reason_to_stop(self, now_s: float) -> End | None:
        if not self.attempts:
            self._budget.deposit(now_s)
            if self.hedges is not None:
                self.hedges.deposit()
            return End.DEADLINE if now_s >= self._deadline_s else None
        if now_s >= self._deadline_s:
            return End.DEADLINE
        failed = self._failed()
        if len(failed) >= self._attempts_max or not self._has_candidate():
            return End.EXHAUSTED
        if not self._is_retry():
            return None
        return None if self._budget.withdraw(now_s) else End.BUDGET_SPENT

    def _failed(self) -> list[Attempt]:
        """Return the attempts that the plan asked for and that brought nothing."""
        return [
            each
            for each in self.attempts
            if not (each.beside or each.lost or each.outcome is None or each.outcome.delivered)
        ]

    def _is_retry(self) -> bool:
        """True after a failure; False where the plan goes on from an answer."""
        planned = [each for each in self.attempts if not (each.beside or each.lost)]
        last = planned[-1].outcome
        return last is None or not last.delivered

    def _has_candidate(self) -> bool:
        return self._next < len(self._plan) or self._repeatable() is not None

    def _repeatable(self) -> Attempt | None:
        """Return the last attempt at the best candidate worth another, once all had a first."""
        answered = [each.index for each in self.attempts if each.outcome and each.outcome.delivered]
        lately = [each for each in self._failed() if not answered or each.index > answered[-1]]
        for candidate in self._plan:
            tried = [each for each in lately if each.candidate is candidate]
            if not tried:
                continue
            last = tried[-1]
            if last.outcome is not None and last.outcome.fault in _WORTH_REPEATING:
                return last
        return None

    def _repeat(self, index: int, now_s: float) -> tuple[Candidate, float]:
        last = self._repeatable()
        assert last is not None
        assert last.outcome is not None
        assert last.ended_s is not None
        backoff_s = min(BACKOFF_S * 2 ** max(index - len(self._plan), 0), BACKOFF_S_MAX)
        backoff_s *= 0.5 + self._random.random()
        asked_s = min(last.outcome.retry_after_s or 0.0, RETRY_AFTER_S_MAX)
        return last.candidate, max(backoff_s, last.ended_s + asked_s - now_s)
