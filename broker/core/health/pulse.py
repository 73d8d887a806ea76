"""What changes by the call: in-flight counts, outcomes, latencies, breakers, told as it happens.

Arrays are indexed by endpoint or deployment number and grow on demand. Own counts are exact and
immediate; those of other processes arrive within a tenth of a second, and the providers' reports
once a tick.
"""

from __future__ import annotations

import numpy as np

from broker.core.columns import Numbers, floats, grown, ints
from broker.core.health.doubts import Doubts
from broker.core.health.grouped import LATENCY_MS_MIN, LATENCY_WEIGHT, Groups
from broker.core.health.journal import Journal
from broker.core.health.measured import Measured, MeasuredMany
from broker.core.health.objections import Objections
from broker.core.health.revisits import Revisits
from broker.core.outcome import Outcome

AVAILABILITY_WEIGHT = 0.1
"""Of the newest outcome in the moving average."""
AVAILABILITY_HALF_LIFE_S = 5.0
"""What was missed counts half as much after so long. Two failures put an endpoint behind its
equals, where no call would ever find out that it has recovered."""
_FORGOTTEN = 0.005
TTFT_MS_PRIOR = 1.0
TPOT_MS_PRIOR = 0.1
"""An endpoint that nobody has tried is taken for fast, so that it gets tried (optimism in the face
of uncertainty); its first call says what it is."""
BYTES_PER_TOKEN_PRIOR = 4.0


class Pulse:
    """The live state of this process. All times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.in_flight = np.zeros(0, dtype=np.int64)
        """This process's own calls, by deployment."""
        self.under_way = np.zeros(0, dtype=np.int64)
        """The same by endpoint; not those of `begin_many`."""
        self.asked = np.zeros(0, dtype=np.int64)
        """Calls so far, by endpoint; those of `begin_many` from their end on."""
        self.others_in_flight = np.zeros(0, dtype=np.int64)
        """The other processes' calls, by deployment, as last heard of."""
        self.refused = np.zeros(0, dtype=np.int64)
        """Calls turned away because a deployment was full, by deployment; only ever rises."""
        self.service_s = np.zeros(0, dtype=np.float64)
        """Mean duration of a call, by deployment."""
        self.availability = np.zeros(0, dtype=np.float64)
        self.ttft_ms = np.zeros(0, dtype=np.float64)
        self.tpot_ms = np.zeros(0, dtype=np.float64)
        self.bytes_in_per_token = np.zeros(0, dtype=np.float64)
        self.bytes_out_per_token = np.zeros(0, dtype=np.float64)
        self.limit = np.zeros(0, dtype=np.float64)
        """By endpoint: with so many calls at its deployment it is full; infinite where that is for
        its declared capacity to say."""
        self._limited: set[int] = set()
        self.journal = Journal()
        self.objections = Objections()
        self.doubts = Doubts(self.journal)
        self._missed_since: dict[int, float] = {}
        self.revisits = Revisits((TTFT_MS_PRIOR, TPOT_MS_PRIOR))
        self._view()

    def fit(self, endpoints: int, deployments: int) -> None:
        """Make room for so many numbers; never shrinks, so that running calls keep their place."""
        self.in_flight = grown(self.in_flight, deployments, 0)
        self.under_way = grown(self.under_way, endpoints, 0)
        self.asked = grown(self.asked, endpoints, 0)
        self.others_in_flight = grown(self.others_in_flight, deployments, 0)
        self.refused = grown(self.refused, deployments, 0)
        self.service_s = grown(self.service_s, deployments, 1.0)
        self.availability = grown(self.availability, endpoints, 1.0)
        self.ttft_ms = grown(self.ttft_ms, endpoints, TTFT_MS_PRIOR)
        self.tpot_ms = grown(self.tpot_ms, endpoints, TPOT_MS_PRIOR)
        self.bytes_in_per_token = grown(self.bytes_in_per_token, endpoints, BYTES_PER_TOKEN_PRIOR)
        self.bytes_out_per_token = grown(self.bytes_out_per_token, endpoints, BYTES_PER_TOKEN_PRIOR)
        self.limit = grown(self.limit, endpoints, np.inf)
        self._view()

    def _view(self) -> None:
        # The same memory, one number at a time: numpy takes four times as long for that.
        self.in_flight_at = ints(self.in_flight)
        self.under_way_at = ints(self.under_way)
        self._asked_at = ints(self.asked)
        self.availability_at = floats(self.availability)
        self.bytes_in_per_token_at = floats(self.bytes_in_per_token)
        self.bytes_out_per_token_at = floats(self.bytes_out_per_token)
        self.others_in_flight_at = ints(self.others_in_flight)
        self._service_s_at = floats(self.service_s)
        self.limit_at = floats(self.limit)
        self.ttft_ms_at = floats(self.ttft_ms)
        self.tpot_ms_at = floats(self.tpot_ms)

    def take_others(self, in_flight: Numbers, ejected: frozenset[int]) -> None:
        """Be told, again and again, what the other processes have under way and have ejected."""
        before = self.others_in_flight.copy()
        self.others_in_flight[:] = 0
        self.others_in_flight[: in_flight.size] = in_flight
        self.journal.moved += np.flatnonzero(before != self.others_in_flight).tolist()
        self.doubts.hear(ejected)

    def recover(self, now_s: float) -> None:
        """Be told, once a tick, that time passes."""
        self.journal.turned += self._missed_since
        self.journal.turn_page()
        for endpoint, since_s in tuple(self._missed_since.items()):
            missed = 1 - self.availability_at[endpoint]
            missed *= 0.5 ** ((now_s - since_s) / AVAILABILITY_HALF_LIFE_S)
            if missed > _FORGOTTEN:
                self._missed_since[endpoint] = now_s
            else:
                missed = 0.0
                del self._missed_since[endpoint]
            self.availability_at[endpoint] = 1 - missed
        if now_s >= self.revisits.due_s:
            self._revisit(now_s)

    def _revisit(self, now_s: float) -> None:
        latency_ms = np.stack((self.ttft_ms, self.tpot_ms))
        out = self.doubts.ejected_here(now_s) | self.doubts.elsewhere
        self.journal.turned += self.revisits.look(latency_ms, self.asked, out, now_s)
        self.ttft_ms[:], self.tpot_ms[:] = latency_ms

    def _count_as(self, endpoint: int, latency_ms: tuple[float, float] | None) -> None:
        if latency_ms is not None:
            self.ttft_ms_at[endpoint], self.tpot_ms_at[endpoint] = latency_ms
            self.journal.turned.append(endpoint)

    def expect(self, deployment: int, more: int) -> None:
        """Be told that an attempt will start once it has been paid for: 1, and -1 then."""
        self.journal.moved.append(deployment)
        self.in_flight_at[deployment] += more

    def begin(self, endpoint: int, deployment: int, now_s: float) -> None:
        """Be told that an attempt starts."""
        self.journal.moved.append(deployment)
        self.in_flight_at[deployment] += 1
        self.under_way_at[endpoint] += 1
        self._asked_at[endpoint] += 1
        if self.revisits.offers:
            self._count_as(endpoint, self.revisits.take(endpoint, now_s))
        if endpoint in self.doubts.here:
            self.doubts.breakers[endpoint].begin(now_s)

    def end(
        self,
        endpoint: int,
        deployment: int,
        outcome: Outcome,
        now_s: float,
        measured: Measured | None,
        began_s: float | None = None,
    ) -> None:
        """Be told how an attempt ended; `measured` when it delivered. `began_s` is what `begin` was
        told; None takes it for the probe, if there is one."""
        left = self.in_flight_at[deployment] - 1
        assert left >= 0, "every end has its begin"
        self.journal.moved.append(deployment)
        self.in_flight_at[deployment] = left
        self.under_way_at[endpoint] -= 1
        if self.revisits.offers:
            if self.revisits.is_late(endpoint, began_s):
                measured = None  # of when it was slow
            else:
                fresh = self.revisits.end(endpoint)
                self._count_as(endpoint, None if measured is None else fresh)
        if measured is not None:
            self._measure(endpoint, deployment, measured)
        if outcome.fault is None:
            availability = self.availability_at
            before = availability[endpoint]
            availability[endpoint] = before + AVAILABILITY_WEIGHT * (1 - before)
            if endpoint in self.doubts.breakers:
                self.doubts.succeed(endpoint, now_s)
        elif outcome.counts_against_provider:
            self._blame(endpoint, now_s, began_s)
        elif endpoint in self.doubts.here:
            self.doubts.breakers[endpoint].forget(began_s)

    def prove(self, endpoint: int, now_s: float, began_s: float) -> None:
        """Be told that the answer to an attempt has begun: a long one proves itself at once."""
        self.doubts.prove(endpoint, now_s, began_s)
        if self.revisits.offers:
            self._count_as(endpoint, self.revisits.prove(endpoint, now_s, began_s))

    def contradict(self, endpoint: int, now_s: float) -> None:
        """Be told that another has served what this endpoint held for wrong."""
        self._blame(endpoint, now_s)

    def suspect(self, endpoint: int, now_s: float) -> None:
        """Be told that calls wait there as they never do: it is ejected before they time out."""
        self.doubts.suspect(endpoint, now_s)

    def begin_many(self, deployments: Numbers) -> None:
        """Be told of many attempts that start, at endpoints that no breaker doubts; of those that
        are offered for once, `take_offers` is told too."""
        self.journal.begin_era()
        np.add.at(self.in_flight, deployments, 1)

    def take_offers(self, endpoints: Numbers, now_s: float) -> None:
        """Be told where calls have started of which `begin_many` was told."""
        for endpoint in self.revisits.offers.keys() & {*endpoints.tolist()}:
            self._count_as(endpoint, self.revisits.take(endpoint, now_s))

    def end_many(
        self, endpoints: Numbers, deployments: Numbers, seen: MeasuredMany, now_s: float
    ) -> None:
        """Be told of many attempts that delivered, in the order in which they ended: as `end` of
        one after the other."""
        self.journal.begin_era()
        np.subtract.at(self.in_flight, deployments, 1)
        assert self.in_flight.min(initial=0) >= 0, "every end has its begin"
        of = Groups(endpoints)
        self.asked[of.numbers] += of.counts
        for endpoint in self.revisits.taken() & {*of.numbers.tolist()}:
            self._count_as(endpoint, self.revisits.end(endpoint))
        servers = of if deployments is endpoints else Groups(deployments)
        servers.blend(self.service_s, seen.duration_ms / 1_000)
        of.blend(self.ttft_ms, seen.ttft_ms, TTFT_MS_PRIOR)
        long = seen.tokens_out > 1
        decoding_ms = np.maximum(seen.duration_ms - seen.ttft_ms, 0.0)[long]
        speakers = of if long.all() else Groups(endpoints[long])
        speakers.blend(self.tpot_ms, decoding_ms / (seen.tokens_out[long] - 1), TPOT_MS_PRIOR)
        missed = 1 - self.availability[of.numbers]
        self.availability[of.numbers] = 1 - missed * (1 - AVAILABILITY_WEIGHT) ** of.counts
        counts = zip(of.numbers.tolist(), of.counts.tolist(), strict=True)
        for endpoint, count in counts if self.doubts.breakers else ():
            if endpoint in self.doubts.breakers:
                self.doubts.succeed(endpoint, now_s, count)

    def refuse(self, deployments: Numbers) -> None:
        """Be told that these deployments were full when a call wanted them."""
        np.add.at(self.refused, deployments, 1)

    def load(self, deployments: slice | Numbers) -> Numbers:
        """Return the calls in flight at each deployment, all processes together."""
        loads: Numbers = self.in_flight[deployments] + self.others_in_flight[deployments]
        return loads

    def load_of(self, deployment: int) -> int:
        """Return the calls in flight at one deployment, all processes together."""
        return self.in_flight_at[deployment] + self.others_in_flight_at[deployment]

    def set_limit(self, endpoint: int, limit: float) -> None:
        """Be told with how many calls at its deployment an endpoint is full; infinite: no limit."""
        self.journal.turned.append(endpoint)
        self.limit_at[endpoint] = limit
        if limit < np.inf:
            self._limited.add(endpoint)
        else:
            self._limited.discard(endpoint)

    @property
    def has_limits(self) -> bool:
        """True when any endpoint has a limit."""
        return bool(self._limited)

    @property
    def is_wary(self) -> bool:
        """True when a breaker, here or elsewhere, or a limit stands against any endpoint."""
        return bool(self.doubts.count or self._limited)

    def is_wary_of(self, endpoints: tuple[int, ...]) -> bool:
        """True when one stands against any of these."""
        return self.doubts.has_any(endpoints) or not self._limited.isdisjoint(endpoints)

    def _blame(self, endpoint: int, now_s: float, began_s: float | None = None) -> None:
        self.journal.turned.append(endpoint)
        self.availability_at[endpoint] *= 1 - AVAILABILITY_WEIGHT
        self._missed_since.setdefault(endpoint, now_s)
        if self.doubts.fail(endpoint, now_s, began_s):
            # Nobody goes there until it is due for a probe. Then it must look as it did before, or
            # among equals no call would ever go there to find out.
            self.availability_at[endpoint] = 1.0

    def _measure(self, endpoint: int, deployment: int, measured: Measured) -> None:
        # In one frame, and no number looked up twice: that halves what every call does here.
        weight, ttft_ms = LATENCY_WEIGHT, measured.ttft_ms
        averages = self._service_s_at
        before = averages[deployment]
        averages[deployment] = before + weight * (measured.duration_ms / 1_000 - before)
        averages = self.ttft_ms_at
        before = averages[endpoint]
        fresh = before == TTFT_MS_PRIOR
        averages[endpoint] = (
            max(ttft_ms, LATENCY_MS_MIN) if fresh else before + weight * (ttft_ms - before)
        )
        if measured.tokens_out > 1:
            tpot_ms = max(measured.duration_ms - ttft_ms, 0.0) / (measured.tokens_out - 1)
            averages = self.tpot_ms_at
            before = averages[endpoint]
            fresh = before == TPOT_MS_PRIOR
            averages[endpoint] = (
                max(tpot_ms, LATENCY_MS_MIN) if fresh else before + weight * (tpot_ms - before)
            )
        if measured.bytes_in_per_token:
            averages = self.bytes_in_per_token_at
            before = averages[endpoint]
            averages[endpoint] = before + weight * (measured.bytes_in_per_token - before)
        if measured.bytes_out_per_token:
            averages = self.bytes_out_per_token_at
            before = averages[endpoint]
            averages[endpoint] = before + weight * (measured.bytes_out_per_token - before)
