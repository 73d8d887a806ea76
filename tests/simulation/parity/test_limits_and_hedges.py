"""What the simulator's servers did, told to the live broker: it learns the same limits of them, and
makes second attempts beside the same late ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Any

import numpy as np
import pytest

from broker.core.catalog import Band
from broker.core.dispatch import Attempt
from broker.core.hedging import SHARE
from broker.core.metering import Delivered
from broker.core.outcome import Outcome
from broker.core.requirements import Weights
from broker.core.several import several
from broker.flows.calls.decide import choose
from broker.flows.calls.reserve import own_hold
from broker.flows.calls.tab import Tab
from broker.flows.runtime import Runtime
from broker.gateway.admit import Asked, admit
from broker.gateway.openai import parse
from simulations.by_call.engine import Engine
from simulations.clockwork import HEAR_S
from simulations.demand import ConsumerClass, Lengths, Shape, Steps, Value
from simulations.measured.record import Code, Run
from simulations.scenario import Prices, Scenario
from simulations.servers.listing import Listing
from simulations.servers.sites import AT_ONCE_S, QUEUE_FULL
from simulations.supply import LINE_MAX, EndpointSpec, ProviderSpec, SharingServer
from simulations.visit import BYTES_PER_TOKEN
from tests.fakes import market
from tests.simulation.parity.live import PATH, LiveBroker, live_broker

HORIZON_S = 240.0
LAST_S = 200.0
"""Nobody calls after this, so that all calls have ended by the horizon."""


def scenario(**changes: Any) -> Scenario:
    """Two servers, the better of which everybody wants, and more calls in bursts than it manages:
    it lets them wait, and refuses when too many do."""
    given = {"hedge": False, "queue_max": 5, "rate_per_s": 5.0} | changes
    price = 400_000
    band = Band(price, price, price, price, price, price)
    small, large = SharingServer(0.01, 2e-3, 2e-4, 12), SharingServer(0.02, 1e-4, 1e-4, 64)
    better = EndpointSpec("small", small, band, capacity=12, quality=0.9)
    # With room for all: nobody is asked twice, after a while that is left to chance.
    other = EndpointSpec("small", large, band, capacity=200, quality=0.5)
    better = replace(better, queue_max=given["queue_max"])
    providers = (ProviderSpec("better", (better,)), ProviderSpec("other", (other,)))
    callers = ConsumerClass(
        "callers",
        Steps((0.0, LAST_S), (given["rate_per_s"], 0.0), cv=2.5),
        Value(Shape.FIXED, 1.0),
        tokens_in=Lengths(600.0, 0.4),
        tokens_out=Lengths(60.0, 0.6),
        model="small",
        weights=Weights(1.0, 0.0, 0.0, 0.0, 0.0),
        deadline_s=1_000.0,
        stream=given.get("stream", True),
        hedge=given["hedge"],
    )
    return Scenario("limits", HORIZON_S, providers, (callers,), prices=Prices("posted"))


@dataclass
class Simulated:
    """A run, and what its broker had learned at each tick."""

    done: Run
    limits: list[tuple[float, ...]]
    late_ms: list[float | None]
    hedges: tuple[int, int]


def simulated(of: Scenario) -> Simulated:
    engine = Engine(of, 1)
    desk, limits = engine._world.desk, list[tuple[float, ...]]()

    def look(now_s: float, ended: int) -> bool:
        limits.append(tuple(desk.pulse.limit[:2].tolist()))
        return True

    done = engine.run(look)
    streamed = of.classes[0].stream
    late_ms = [desk.tails.late_ms(number, streamed=streamed) for number in range(2)]
    return Simulated(done, limits, late_ms, (desk.hedges.made, desk.hedges.won))


@dataclass(eq=False)
class Told:
    """One call as the simulator had it; times are seconds of the run."""

    arrival_s: float
    first_s: float
    end_s: float
    endpoint: int
    tokens: tuple[int, int]
    attempts: int
    tab: Tab | None = None
    attempt: Attempt | None = None
    hedge: Attempt | None = None


def calls_of(done: Run) -> Iterator[Told]:
    columns = done.calls
    assert set(columns["code"].tolist()) == {Code.SERVED}
    assert columns["attempts"].max() <= 2
    assert done.under_way == 0
    for row in range(columns["code"].size):
        arrival_s = float(columns["arrival_s"][row])
        yield Told(
            arrival_s,
            arrival_s + float(columns["ttft_s"][row]),
            arrival_s + float(columns["e2e_s"][row]),
            int(columns["endpoint"][row]),
            (int(columns["tokens_in"][row]), int(columns["tokens_out"][row])),
            int(columns["attempts"][row]),
        )


class Replay:
    """Tells the live broker what became of each call, at the moment at which it did."""

    def __init__(self, broker: LiveBroker, of: Scenario) -> None:
        self._broker = broker
        self._runtime: Runtime = broker.runtime
        self._class = of.classes[0]
        self._agenda: list[tuple[float, int, str, Any]] = []
        self._order = 0
        self.limits: list[tuple[float, ...]] = []

    def play(self, done: Run) -> None:
        """Play a run to its end."""
        for each in calls_of(done):
            self._add(each.arrival_s, "ask", each)
        for tick in range(1, int(HORIZON_S / HEAR_S) + 1):
            self._add(tick * HEAR_S, "tick", None)
        while self._agenda:
            at_s, _, act, told = heappop(self._agenda)
            self._broker.clock.now_s = at_s
            getattr(self, f"_{act}")(told)

    def _add(self, at_s: float, act: str, told: Told | None) -> None:
        self._order += 1
        heappush(self._agenda, (at_s, self._order, act, told))

    def _tick(self, _: None) -> None:
        runtime, now_s = self._runtime, self._broker.clock.now_s
        runtime.pulse.recover(now_s)
        runtime.throttle.relax(now_s)
        self.limits.append(tuple(runtime.pulse.limit[:2].tolist()))

    def _ask(self, told: Told) -> None:
        call = admit(self._asked(told.tokens), self._broker.payer, self._runtime)
        decision = choose(call.wanted, self._runtime)
        decision = several(decision, hedges=call.hedges, continues=False, most=None)
        hold = own_hold(call, decision, 1.0)
        told.tab = Tab(call, decision, hold, self._runtime.market, self._runtime)
        told.attempt = told.tab.begin()
        if told.attempts > 1 and not self._class.hedge:
            self._add(told.arrival_s + AT_ONCE_S, "refuse", told)
            return
        self._go_on(told)

    def _refuse(self, told: Told) -> None:
        assert told.tab is not None
        told.tab.end(QUEUE_FULL)
        told.attempt = told.tab.begin()
        self._go_on(told)

    def _go_on(self, told: Told) -> None:
        assert told.tab is not None
        assert told.attempt is not None
        late_s = told.tab.late_after_s(told.attempt) if self._class.hedge else None
        come_s = told.first_s if self._class.stream else told.end_s
        if late_s is not None and told.attempt.started_s + late_s < come_s:
            self._add(told.attempt.started_s + late_s, "late", told)
        self._add(come_s, "come", told)

    def _late(self, told: Told) -> None:
        assert told.tab is not None
        told.hedge = told.tab.begin_hedge()

    def _come(self, told: Told) -> None:
        tab, hedge, attempt = told.tab, told.hedge, told.attempt
        assert tab is not None
        assert attempt is not None
        if self._class.hedge:
            assert 1 + (hedge is not None) == told.attempts
        if hedge is not None:
            won = told.endpoint == hedge.candidate.number
            winner, loser = (hedge, attempt) if won else (attempt, hedge)
            if self._class.stream:
                tab.first_content(winner)
            tab.win(winner, loser, None)
            told.attempt = attempt = winner
        elif self._class.stream:
            tab.first_content(attempt)
        assert attempt.candidate.number == told.endpoint
        self._add(told.end_s, "end", told)

    def _end(self, told: Told) -> None:
        assert told.tab is not None
        tokens_in, tokens_out = told.tokens
        whole = Delivered(tokens_in, tokens_out, BYTES_PER_TOKEN * tokens_out)
        told.tab.end(Outcome(status=200), whole)

    def _asked(self, tokens: tuple[int, int]) -> Asked:
        """A request that weighs as much as the simulator takes it to."""

        def of(text: str) -> Asked:
            body = {
                "model": "small",
                "messages": [{"role": "user", "content": text}],
                "max_tokens": max(tokens[1], 1),
                "stream": self._class.stream,
                "broker": {"weights": {"quality": 1}, "hedge": self._class.hedge},
            }
            return parse(PATH, [], json.dumps(body).encode())

        missing = BYTES_PER_TOKEN * tokens[0] - of("").body.size_bytes
        return of("a" * max(missing, 0))


@pytest.fixture
async def broker(database_url: str, valkey_url: str) -> AsyncIterator[LiveBroker]:
    async with live_broker(database_url, valkey_url, [], 1, 0.0) as made:
        yield made


def replayed(broker: LiveBroker, of: Scenario, done: Run) -> Replay:
    listing = Listing(of)
    for number in range(listing.size):
        listing.enter(number)
    broker.runtime.market = market(listing.endpoints)
    broker.runtime.pulse.fit(2, 2)
    replay = Replay(broker, of)
    replay.play(done)
    return replay


@pytest.mark.parametrize("stream", [True, False])
async def test_both_learn_the_same_limits_of_the_same_answers(
    broker: LiveBroker, stream: bool
) -> None:
    of = scenario(stream=stream)
    seen = simulated(of)
    assert min(min(each) for each in seen.limits) < 12.0, "or there was nothing to learn"
    assert len({each[0] for each in seen.limits}) > 10
    assert (seen.done.calls["attempts"] > 1).any(), "or no server has refused any"
    np.testing.assert_allclose(replayed(broker, of, seen.done).limits, seen.limits)


@pytest.mark.parametrize("stream", [True, False])
async def test_both_hedge_the_same_calls(broker: LiveBroker, stream: bool) -> None:
    of = scenario(stream=stream, hedge=True, queue_max=LINE_MAX, rate_per_s=4.0)
    seen = simulated(of)
    made, won = seen.hedges
    assert made > 10
    assert 0 < won < made
    assert made <= SHARE * seen.done.arrived
    replay = replayed(broker, of, seen.done)
    np.testing.assert_allclose(replay.limits, seen.limits)
    runtime = broker.runtime
    assert (runtime.hedges.made, runtime.hedges.won) == seen.hedges
    late_ms = [runtime.tails.late_ms(number, streamed=stream) for number in range(2)]
    assert late_ms == pytest.approx(seen.late_ms)
