"""What a decision is: where a call may go, the most it can cost there, and why."""

from __future__ import annotations

import msgspec
import numpy as np

from broker.core.candidates.scoring import PARTS
from broker.core.columns import Floats, Numbers
from broker.core.handful import Workings
from pricing.book import Rate

COST_ROW = len(PARTS) + 1


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """An endpoint that may serve the call, with the most that it can cost there."""

    number: int
    rate: Rate
    tokens_out_max: int
    """Output limit of each choice, sent upstream so that the charge stays under the hold."""
    ceiling_nanos: int


class Decision(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Where a call goes, and why. The arrays of eligible endpoints are aligned."""

    plan: tuple[Candidate, ...]
    """The best, in the order in which they are tried; as many as there may be attempts."""
    eligible: Numbers
    """Endpoint numbers, ascending; in no order where something is left out."""
    figures: Floats | tuple[float, ...] | Workings
    """Shape (8, eligible): score, parts as in PARTS, expected cost in pico-dollars, and the chance
    to be first, 0 for all where none was left to chance. Plain numbers, without the last, where one
    endpoint was on the shortlist; where a few were, what they follow from: see `rows`."""
    rejected: Numbers
    reasons: Numbers
    """A Rejection for each of `rejected`."""
    price_version: int
    value_nanos: float | None = None
    """What a good answer was taken to be worth; None where weights decided."""
    left_out: int = 0
    """So many more were eligible, of which nothing is told here."""

    @property
    def stages(self) -> tuple[int, ...]:
        """The stage of each place in the plan; empty where there is but one."""
        return ()

    @property
    def scores(self) -> Floats:
        """The score of each eligible endpoint."""
        scores: Floats = self.rows[0]
        return scores

    @property
    def parts(self) -> Floats:
        """Shape (5, eligible), rows as in PARTS."""
        return self.rows[1:COST_ROW]

    @property
    def costs_picos(self) -> Floats:
        """The expected cost at each eligible endpoint, in pico-dollars."""
        costs: Floats = self.rows[COST_ROW]
        return costs

    @property
    def rows(self) -> Floats:
        """The figures as one array, whatever they are kept as."""
        figures = self.figures
        if isinstance(figures, Workings):
            return figures.figures()
        if isinstance(figures, tuple):
            return np.array(figures, dtype=np.float64).reshape(len(figures), -1)
        return figures

    @property
    def answers_most(self) -> int:
        """How many attempts may be paid."""
        return 1

    @property
    def hold_nanos(self) -> int:
        """The dearest permitted plan: only one attempt is ever paid, so the dearest candidate."""
        plan = self.plan
        if len(plan) == 1:
            return plan[0].ceiling_nanos
        return max([each.ceiling_nanos for each in plan], default=0)  # sooner than a generator


def nobody(rejected: Numbers, reasons: Numbers, price_version: int) -> Decision:
    """Return the decision that nobody is eligible."""
    return Decision((), _NONE, _NO_FIGURES, rejected, reasons, price_version)


def undecided(price_version: int) -> Decision:
    """Return the decision about a model that there is not: nobody was considered."""
    return nobody(_NONE, _NONE, price_version)


_NONE: Numbers = np.empty(0, dtype=np.int64)
_NO_FIGURES: Floats = np.empty((len(PARTS) + 2, 0))
