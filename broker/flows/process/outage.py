"""Tells the log of what fails again and again: at once, each half minute how often, and its end.

While the database is away, hundreds of calls a second may meet that: a line for each would bury
what the first one says, and fill the disk.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

import structlog

from broker.store.away import told

AGAIN_S: Final = 30.0
"""Between two lines of one outage, and of two that follow each other."""
_OVER_S: Final = 60.0
"""What has not been met for so long is over, though nobody said so."""

_log = structlog.get_logger()


class Outage:
    """Of one thing that is needed; `advice` tells operators what follows and what to do."""

    def __init__(
        self,
        event: str,
        back: str,
        advice: str,
        now_s: Callable[[], float] = time.monotonic,
        **facts: object,
    ) -> None:
        """`back` is the event that says that it is over; `facts` go into each line."""
        self._facts = facts
        self._event, self._back, self._advice = event, back, advice
        self._now_s = now_s
        self._times = 0
        self._is_told = False
        self._since_s = self._met_s = self._told_s = -math.inf

    def met(self, error: BaseException | str, **facts: object) -> None:
        """Be told that it was met, once more or for the first time; `facts` go into the log."""
        now_s = self._now_s()
        if not self._times or now_s - self._met_s >= _OVER_S:
            self._times, self._since_s = 0, now_s
        self._times += 1
        self._met_s = now_s
        if now_s - self._told_s >= AGAIN_S:
            self._told_s, self._is_told = now_s, True
            times = {"times": self._times} if self._times > 1 else {}
            facts = self._facts | facts | times
            words = error if isinstance(error, str) else told(error)
            _log.warning(self._event, error=words, **facts, advice=self._advice)

    def over(self) -> None:
        """Be told that it works."""
        if self._times:
            if self._is_told:
                lasted_s = round(self._now_s() - self._since_s, 1)
                _log.info(self._back, after_s=lasted_s, times=self._times, **self._facts)
            self._times, self._is_told = 0, False


def ledger_outage(lane: str) -> Outage:
    """Return what tells of a database that one kind of what calls write cannot be written to."""
    return Outage(
        "ledger_away",
        "ledger_back",
        "new calls get 503, finished ones are settled once PostgreSQL takes them: see to it and to"
        " its disk, and restart no broker",
        lane=lane,
    )
