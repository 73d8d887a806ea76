"""Where a provider serves: its server, whether it works, and what its agent tells."""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from broker.core.outcome import Fault, Outcome
from simulations.chance import source
from simulations.scenario import Scenario
from simulations.servers.batching import Batcher
from simulations.servers.classifying import Classifier
from simulations.servers.job import Job, Server
from simulations.servers.queueing import Queue
from simulations.servers.sharing import Sharer
from simulations.servers.strategies import claimed, reported
from simulations.supply import (
    LINE_MAX,
    BatchingServer,
    ClassifierServer,
    EndpointSpec,
    Outage,
    QueueingServer,
    SharingServer,
    Strategy,
)
from simulations.supply import Server as ServerSpec

AT_ONCE_S = 0.05
"""How long it takes to be told of a failure at once."""

ERROR = Outcome(Fault.SERVER_ERROR, status=500)
QUEUE_FULL = Outcome(Fault.OVERLOADED, status=429)


class Refused(NamedTuple):
    """An attempt that a site does not even begin: how it ends, and after how long."""

    outcome: Outcome
    after_s: float


def server_of(spec: ServerSpec, random: Random) -> Server:
    """Build a server of any form."""
    match spec:
        case BatchingServer():
            return Batcher(spec)
        case SharingServer():
            return Sharer(spec)
        case QueueingServer():
            return Queue(spec, random)
        case ClassifierServer():
            return Classifier(spec)


class Site:
    """One endpoint's server, and its luck."""

    def __init__(self, number: int, spec: EndpointSpec, strategy: Strategy, seed: int) -> None:
        self.number = number
        self.spec = spec
        self.strategy = strategy
        self._outage: Outage | None = None
        self.wake_s = math.inf
        """For when the engine has noted to ask the server again."""
        self.jobs: dict[Job, None] = {}
        """Those under way, in the order in which they came."""
        name = f"{number} {spec.name}"
        self.server = server_of(spec.server, source(seed, "service", name))
        self._failures = source(seed, "failures", name)
        self._is_sound = not spec.failures and not isinstance(self.server, Batcher)
        self._is_sound &= spec.queue_max >= LINE_MAX
        self.may_refuse = not self._is_sound
        """False: no attempt can fail before it gets to the server, so nobody need ask."""

    @property
    def outage(self) -> Outage | None:
        """The one that it is in."""
        return self._outage

    @outage.setter
    def outage(self, outage: Outage | None) -> None:
        self._outage = outage
        self.may_refuse = outage is not None or not self._is_sound

    def refuses(self, job: Job) -> Refused | None:
        """Say whether an attempt fails before it gets to the server, and how."""
        refused = self.turns_away(self.server.waiting)
        if refused is not None:
            return refused
        if isinstance(self.server, Batcher) and not self.server.fits(job):
            return Refused(Outcome(Fault.CALLER_FAULT), AT_ONCE_S)
        return None

    def turns_away(self, waiting: int) -> Refused | None:
        """Say whether any attempt would fail now, with so many in line, and how."""
        if self.outage is not None:
            return Refused(Outcome(self.outage.fault), self.outage.after_s)
        spec = self.spec
        if spec.failures and self._failures.random() < spec.failures:
            return Refused(ERROR, AT_ONCE_S)
        return Refused(QUEUE_FULL, AT_ONCE_S) if waiting >= spec.queue_max else None

    @property
    def tells(self) -> bool:
        """True while its agent sends heartbeats."""
        return self.outage is None or self.outage.silent

    def report(self) -> tuple[float, float]:
        """Calls running and waiting, as its agent says."""
        return reported(self.strategy, self.server.running, self.server.waiting)

    def claim(self, tokens: int) -> int:
        """Tokens of an answer, as it says."""
        return claimed(self.strategy, tokens)

    def cost_nanos(self, tokens_in: int, tokens_out: int) -> float:
        """What that work costs the provider."""
        return self.spec.cost.picos(tokens_in, tokens_out) / 1_000


def sites_of(scenario: Scenario, seed: int) -> tuple[Site, ...]:
    """The sites of a scenario, by endpoint number."""
    return tuple(
        Site(number, spec, provider.strategy, seed)
        for number, (provider, spec) in enumerate(scenario.endpoints)
    )


class Change(NamedTuple):
    """Something that happens to an endpoint."""

    at_s: float
    number: int
    kind: str
    """`enter`, `leave`, `fail`, `mend` or `slow`."""
    outage: Outage | None = None
    slowdown: float = 1.0


def changes_of(scenario: Scenario) -> list[Change]:
    """All that happens to endpoints within the horizon, in order of time."""
    changes = [
        change
        for number, (_, spec) in enumerate(scenario.endpoints)
        for change in _changes(number, spec)
    ]
    return sorted(
        (each for each in changes if each.at_s < scenario.horizon_s), key=lambda each: each.at_s
    )


def _changes(number: int, spec: EndpointSpec) -> Iterator[Change]:
    yield Change(max(spec.enters_s, 0.0), number, "enter")
    yield Change(spec.exits_s, number, "leave")
    for outage in spec.outages:
        yield Change(outage.from_s, number, "fail", outage)
        yield Change(outage.to_s, number, "mend", outage)
    for brownout in spec.brownouts:
        yield Change(brownout.from_s, number, "slow", slowdown=brownout.slowdown)
        yield Change(brownout.to_s, number, "slow")
