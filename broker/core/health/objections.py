"""How often each endpoint holds requests themselves for wrong, beside others that could serve them.

Only the caller's fault ends a call without blame, so a server that answers 400 to what is right
would fail every call that comes to it and lose nothing. But callers' faults fall on all alike: who
refuses far more than its peers is not believed, and another is asked. Where that one delivers, the
refusal counts as a failure. Only calls that could have gone elsewhere are counted, or a rival could
have an endpoint doubted by calls that name it.
"""

from __future__ import annotations

from collections.abc import Iterable

WEIGHT = 0.1
"""Of the newest answer in the moving average."""
ODD_SHARE = 0.3
TIMES_ITS_PEER = 3.0
_FORGOTTEN = 0.01


class Objections:
    """The shares of refused requests in the answers of endpoints, by their numbers."""

    def __init__(self) -> None:
        self.shares: dict[int, float] = {}
        """Of those who have refused any lately."""

    def note(self, endpoint: int, *, objected: bool) -> None:
        """Be told of an answer."""
        before = self.shares.get(endpoint, 0.0)
        share = before + WEIGHT * (float(objected) - before)
        if share > _FORGOTTEN:
            self.shares[endpoint] = share
        else:
            self.shares.pop(endpoint, None)

    def is_odd(self, endpoint: int, others: Iterable[int]) -> bool:
        """True when it refuses much, and one of the `others` hardly any in comparison."""
        share = self.shares.get(endpoint, 0.0)
        if share < ODD_SHARE:
            return False
        return any(TIMES_ITS_PEER * self.shares.get(each, 0.0) < share for each in others)
