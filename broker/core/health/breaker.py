"""Ejects an endpoint that fails: a windowed ratio, a growing ejection, capped probes.

Closed → open when, over two windows, failures reach RATIO of at least SAMPLES_MIN calls, or
CONSECUTIVE fail in a row, or as soon as it is silent with several calls waiting. Open → half-open
after the ejection; then at most one probing call at a time, which is known by when it began. A
probe that succeeds closes, and so does the first content of its answer; one that fails opens for
twice as long, up to a maximum, be it after that. That counts from when the probe began, for it says
how things stood then: one that runs into its time-out holds nobody up. After Envoy's outlier
detection and the circuit breaker of Nygard, "Release It!". That not everything is ejected at once
is the router's care: it sees all candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_S = 5.0
SAMPLES_MIN = 10
RATIO = 0.5
CONSECUTIVE = 3
EJECTION_S = 1.0
EJECTION_S_MAX = 4.0
"""However long it was away, an endpoint is asked again so soon after it has come back."""
PROBE_S_MAX = 4.0
"""A probe that has said nothing for so long does not hold up the next."""


@dataclass(slots=True)
class Breaker:
    """The breaker of one endpoint. Times are seconds of one monotonic clock."""

    window_started_s: float = 0.0
    successes: int = 0
    failures: int = 0
    successes_before: int = 0
    failures_before: int = 0
    in_a_row: int = 0
    open_until_s: float = 0.0
    ejection_s: float = 0.0
    """How long the present or last ejection is; 0 while closed."""
    probing_since_s: float | None = None
    hearsay: bool = False
    """Half-open for what another process has seen, which nobody else needs to be told."""
    proved: tuple[float, float] | None = None
    """When the probe began whose answer has begun but not ended, and how long the ejection was."""

    def admits(self, now_s: float) -> bool:
        """Say whether a call may go there: closed, or half-open with no probe under way."""
        if not self.ejection_s:
            return True
        if now_s < self.open_until_s:
            return False
        return self.probing_since_s is None or now_s - self.probing_since_s > PROBE_S_MAX

    def begin(self, now_s: float) -> None:
        """Be told that a call goes there."""
        if self.ejection_s and self.admits(now_s):
            self.probing_since_s = now_s

    def doubt(self) -> None:
        """Be told that another process had ejected it until now: a probe is due."""
        if not self.ejection_s:
            self.ejection_s, self.open_until_s, self.hearsay = EJECTION_S, 0.0, True
            self.probing_since_s = None

    def forget(self, began_s: float | None = None) -> None:
        """Be told that a call ended without saying anything of the endpoint; `began_s` as it was
        told to `begin`, or None for the probe itself."""
        if began_s is None or began_s == self.probing_since_s:
            self.probing_since_s = None

    def prove(self, now_s: float, began_s: float) -> bool:
        """Be told that the answer to a call has begun; True when that closes it."""
        if began_s != self.probing_since_s:
            return False
        proved = began_s, self.ejection_s
        self.succeed(now_s)
        self.proved = proved
        return True

    def succeed(self, now_s: float) -> None:
        """Be told of a success; one suffices to close."""
        self._turn(now_s)
        self.successes += 1
        self.in_a_row = 0
        if self.ejection_s:
            self.failures = self.failures_before = 0
            self.ejection_s = 0.0
        self.probing_since_s = self.proved = None
        self.hearsay = False

    def fail(self, now_s: float, began_s: float | None = None) -> None:
        """Be told of a failure that counts against the provider; `began_s` as in `forget`."""
        self._turn(now_s)
        self.failures += 1
        self.in_a_row += 1
        if self.ejection_s:
            # Calls that were under way when it opened say nothing new; only a failed probe does.
            if now_s >= self.open_until_s and began_s in (None, self.probing_since_s):
                since_s = now_s if self.probing_since_s is None else self.probing_since_s
                self._open(since_s, min(self.ejection_s * 2, EJECTION_S_MAX))
        elif self.proved is not None and self.proved[0] == began_s:
            self._open(now_s, min(self.proved[1] * 2, EJECTION_S_MAX))
        elif self._is_bad():
            self._open(now_s, EJECTION_S)

    def suspect(self, now_s: float) -> None:
        """Be told that it has gone silent, which opens it if it is closed."""
        if not self.ejection_s:
            self._open(now_s, EJECTION_S)

    def _is_bad(self) -> bool:
        if self.in_a_row >= CONSECUTIVE:
            return True
        failures = self.failures + self.failures_before
        samples = failures + self.successes + self.successes_before
        return samples >= SAMPLES_MIN and failures >= RATIO * samples

    def _open(self, now_s: float, ejection_s: float) -> None:
        self.ejection_s = ejection_s
        self.probing_since_s = self.proved = None
        self.hearsay = False
        self.open_until_s = now_s + ejection_s

    def _turn(self, now_s: float) -> None:
        if now_s - self.window_started_s < WINDOW_S:
            return
        fresh = now_s - self.window_started_s < 2 * WINDOW_S
        self.successes_before = self.successes if fresh else 0
        self.failures_before = self.failures if fresh else 0
        self.successes = self.failures = 0
        self.window_started_s = now_s
