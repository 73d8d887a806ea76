"""A decision of which several attempts may be paid: a hedge's two, or those of a continued stream.

The hold is the dearest of each, added up. What a continued stream has delivered comes before the
next attempt as its prompt, so its input is longer by that.
"""

from __future__ import annotations

from typing import Final

from broker.core.decision import Candidate, Decision
from pricing.money import charge_nanos

CONTINUATIONS_MAX: Final = 2
BYTES_PER_TOKEN_MOST: Final = 6
"""Of delivered text, as far as a hold foresees it; what is longer is not continued."""


class Several(Decision, frozen=True, eq=False):
    """`paid_most` attempts may be paid, the last `continued` of them with a longer prompt."""

    paid_most: int = 1
    continued: int = 0

    @property
    def hold_nanos(self) -> int:
        """The dearest of each attempt that may be paid, added up."""
        plain = sorted((each.ceiling_nanos for each in self.plan), reverse=True)
        longer = max(map(_longer_nanos, self.plan))
        return sum(plain[: self.paid_most - self.continued]) + self.continued * longer

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
        paid_most=1 + hedges + continued,
        continued=continued,
    )
    return made if most is None or made.hold_nanos <= most else decision


def _longer_nanos(candidate: Candidate) -> int:
    extra_in = BYTES_PER_TOKEN_MOST * candidate.tokens_out_max
    return candidate.ceiling_nanos + charge_nanos(candidate.rate.picos(extra_in, 0))
