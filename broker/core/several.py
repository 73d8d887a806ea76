"""A decision of which several attempts may be paid: a hedge's two, or those of a continued stream.

Each goes to another candidate, so the hold is the dearest so many of them, added up. What a
continued stream has delivered comes before the next attempt as its prompt, so its input is longer
by that.
"""

from __future__ import annotations

from itertools import combinations
from typing import Final

from broker.core.call import ROLE_TOKENS
from broker.core.decision import Candidate, Decision
from pricing.money import charge_nanos

CONTINUATIONS_MAX: Final = 2
BYTES_PER_TOKEN_MOST: Final = 6
"""Of delivered text, as far as a hold foresees it; what is longer is not continued."""


class Several(Decision, frozen=True, eq=False):
    """`paid_most` attempts may be paid, each of another candidate, and `continued` of them with a
    longer prompt."""

    paid_most: int = 1
    continued: int = 0

    @property
    def hold_nanos(self) -> int:
        """What the dearest of those who may be paid cost together."""
        return max(map(self._together_nanos, combinations(self.plan, self.paid_most)))

    def _together_nanos(self, paid: tuple[Candidate, ...]) -> int:
        longer = sorted(map(_longer_nanos, paid), reverse=True)
        return sum(each.ceiling_nanos for each in paid) + sum(longer[: self.continued])

    @property
    def answers_most(self) -> int:
        """How many attempts may be paid."""
        return self.paid_most


def several(decision: Decision, *, hedges: bool, continues: bool, most: int | None) -> Decision:
    """Return the decision with what a caller allows beyond one attempt, as far as there is anybody
    to make it, and as the whole costs `most` nano-dollars at most."""
    if len(decision.plan) < 2:
        return decision
    continued = min(CONTINUATIONS_MAX, len(decision.plan) - 1) if continues else 0
    made = Several(
        decision.plan,
        decision.eligible,
        decision.figures,
        decision.rejected,
        decision.reasons,
        decision.price_version,
        decision.value_nanos,
        decision.left_out,
        paid_most=min(1 + hedges + continued, len(decision.plan)),
        continued=continued,
    )
    return made if most is None or made.hold_nanos <= most else decision


def _longer_nanos(candidate: Candidate) -> int:
    """Return what a candidate costs more by what was delivered before it, at most."""
    extra_in = BYTES_PER_TOKEN_MOST * candidate.tokens_out_max + ROLE_TOKENS
    return charge_nanos(candidate.rate.picos(extra_in, 0))
