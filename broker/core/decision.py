"""What a decision is: where a call may go, the most it can cost there, and why."""

from __future__ import annotations

import msgspec
import numpy as np

from broker.core.columns import Floats, Numbers
from broker.core.scoring import PARTS
from pricing.book import Rate


class Candidate(msgspec.Struct, frozen=True):
    """An endpoint that may serve the call, with the most that it can cost there."""

    number: int
    rate: Rate
    tokens_out_max: int
    """Output limit of each choice, sent upstream so that the charge stays under the hold."""
    ceiling_nanos: int


class Decision(msgspec.Struct, frozen=True, eq=False):
    """Where a call goes, and why. The arrays of eligible endpoints are aligned, in no order."""

    plan: tuple[Candidate, ...]
    """The best, in the order in which they are tried; as many as there may be attempts."""
    eligible: Numbers
    """Endpoint numbers."""
    scores: Floats
    parts: Floats
    """Shape (5, eligible), rows as in PARTS."""
    costs_picos: Floats
    """Expected cost, in pico-dollars."""
    rejected: Numbers
    reasons: Numbers
    """A Rejection for each of `rejected`."""
    price_version: int

    @property
    def hold_nanos(self) -> int:
        """The dearest permitted plan: only one attempt is ever paid, so the dearest candidate."""
        return max((each.ceiling_nanos for each in self.plan), default=0)


def undecided(price_version: int) -> Decision:
    """Return the decision about a model that there is not: nobody was considered."""
    none, nothing = np.empty(0, dtype=np.int64), np.empty(0)
    parts = np.empty((len(PARTS), 0))
    return Decision((), none, nothing, parts, nothing, none, none, price_version)
