"""What a webhook is told, and when it is tried again, spared, or given up.

A delivery that failed is tried again after a time that doubles, with jitter, for days. A webhook
that fails time after time is spared: nothing at all is sent to it for a while, then one event to
see how it is. One that has failed for days is disabled.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

EVERY_KIND: Final = "*"
SETTLED: Final = "call.settled"
"""One event for each call that cost something; `*` leaves it out, for there may be very many."""
PING: Final = "webhook.ping"
DISABLED: Final = "webhook.disabled"

NOUNS: Final = (
    *("adjustment", "call", "dispute", "earnings", "invoice", "key", "payout", "plan"),
    *("pricing", "receipt_case", "refund", "sla_credit", "topup", "webhook"),
)
"""What events are of; the first word of each kind."""
KINDS_MAX: Final = 50
_KIND: Final = re.compile(r"[a-z][a-z_]{0,39}\.(\*|[a-z][a-z_]{0,39})")
_DOUBLINGS_MAX: Final = 30
GONE: Final = 410
"""With this status a target says for good that it wants no more."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how often a target is tried; times in seconds."""

    first_s: float = 10.0
    most_s: float = 4 * 3_600.0
    jitter: float = 0.2
    """A wait is up to this share longer or shorter."""
    lasts_s: float = 3 * 86_400.0
    """An event is given up when it fails this long after it was queued."""
    spared_from: int = 5
    """So many failures in a row, and the webhook is spared."""
    spared_most_s: float = 900.0
    disabled_after_s: float = 3 * 86_400.0
    """A webhook of which nothing came through for so long is disabled."""

    def retry_at(self, attempts: int, now: datetime, chance: float) -> datetime:
        """Return when to try again after `attempts`; `chance` is 0 to 1, drawn evenly."""
        wait_s = min(self.first_s * 2 ** min(attempts - 1, _DOUBLINGS_MAX), self.most_s)
        return now + timedelta(seconds=wait_s * (1 + self.jitter * (2 * chance - 1)))

    def given_up(self, queued_at: datetime, now: datetime) -> bool:
        """True when a failure at `now` is the last one."""
        return now >= queued_at + timedelta(seconds=self.lasts_s)

    def resume_at(self, failures: int, now: datetime) -> datetime:
        """Return until when a webhook is spared after so many failures in a row."""
        beyond = failures - self.spared_from
        if beyond < 0:
            return now
        wait_s = min(self.first_s * 2 ** min(beyond, _DOUBLINGS_MAX), self.spared_most_s)
        return now + timedelta(seconds=wait_s)

    def disabled(self, failing_since: datetime, now: datetime) -> bool:
        """True when a webhook has failed for too long."""
        return now >= failing_since + timedelta(seconds=self.disabled_after_s)


def fault_in(kinds: Sequence[str]) -> str | None:
    """Return what is wrong with a list of kinds, in a sentence; None when it is sound."""
    if not 0 < len(kinds) <= KINDS_MAX:
        return f"There are 1 to {KINDS_MAX} kinds."
    for kind in kinds:
        if kind == EVERY_KIND:
            continue
        if not _KIND.fullmatch(kind):
            return f"'{kind}' is not a kind such as refund.posted, refund.* or *."
        if kind.partition(".")[0] not in NOUNS:
            return f"'{kind}': there are no such events, only of {', '.join(NOUNS)}."
    return None
