"""Who serves, as values: providers, their endpoints, what servers can do, what they do wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from broker.core.catalog import Band, Task
from broker.core.outcome import Fault
from pricing.book import Rate
from pricing.tiers import Tier

LINE_MAX = 1_000_000
"""No line gets so long."""


@dataclass(frozen=True, slots=True)
class BatchingServer:
    """Continuous batching; a step takes c0 + c1 sequences + c2 kv_tokens + c3 prefill_tokens.

    The exact form, and the slow one: some microseconds for each change of the batch.
    """

    c0_s: float = 0.012
    c1_s: float = 8e-5
    c2_s: float = 6e-8
    c3_s: float = 8e-5
    kv_tokens_max: int = 120_000
    batch_max: int = 128
    step_tokens_max: int = 2_048
    """Of prompts and answers together, in one step: longer prompts are cut into chunks."""
    steps_ahead: int = 0
    """1: a step is made up while the one before it runs, so a call waits a step longer."""


@dataclass(frozen=True, slots=True)
class SharingServer:
    """The same as a shared processor: all calls in service advance together, a token a step.

    A step takes c0 + c1 sequences; a prompt is worth `prefill_s` a token of the whole server.
    Calls beyond `batch_max` wait in line. The form for large markets.
    """

    c0_s: float = 0.012
    c1_s: float = 3e-4
    prefill_s: float = 8e-5
    batch_max: int = 64


@dataclass(frozen=True, slots=True)
class QueueingServer:
    """M/M/k, or M/G/k where `cv` is not 1: lines before servers that do one call at a time."""

    servers: int = 1
    mean_service_s: float = 1.0
    cv: float = 1.0


@dataclass(frozen=True, slots=True)
class ClassifierServer:
    """Batch inference: up to `batch_max` calls are run at once, in c0 + c1 calls seconds.

    An idle instance waits up to `wait_max_s` for its batch to fill.
    """

    c0_s: float = 0.004
    c1_s: float = 2e-4
    batch_max: int = 32
    instances: int = 1
    wait_max_s: float = 0.0


Server: TypeAlias = BatchingServer | SharingServer | QueueingServer | ClassifierServer


@dataclass(frozen=True, slots=True)
class Outage:
    """From when until when every attempt ends in `fault`, after `after_s`."""

    from_s: float
    to_s: float
    fault: Fault = Fault.SERVER_ERROR
    after_s: float = 0.05
    silent: bool = False
    """True: its agent tells that all is well; False: it sends no heartbeats."""


@dataclass(frozen=True, slots=True)
class Brownout:
    """From when until when everything takes `slowdown` times as long."""

    from_s: float
    to_s: float
    slowdown: float = 3.0


@dataclass(frozen=True, slots=True)
class Honest:
    """The list price stays what it is, and every report is true."""


@dataclass(frozen=True, slots=True)
class Undercut:
    """Now and then lists a share below the cheapest other of its model, never below cost."""

    share: float = 0.05
    every_s: float = 60.0


@dataclass(frozen=True, slots=True)
class CostPlus:
    """Lists its cost and a margin."""

    margin: float = 0.3
    every_s: float = 60.0


@dataclass(frozen=True, slots=True)
class CollusiveFloor:
    """Agrees with others of the same strategy never to sell below a multiple of its list price."""

    multiple: float = 2.0
    from_s: float = 0.0
    to_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Bait:
    """Lists a fraction of its price until it is well in the trade, then a multiple of it."""

    lure: float = 0.5
    catch: float = 1.5
    until_load: float = 0.5
    """The mean load over `every_s` at which the trap closes; it opens again below half of that."""
    every_s: float = 60.0


@dataclass(frozen=True, slots=True)
class LieAboutLoad:
    """Reports a multiple of the calls it has, and `idle` more."""

    multiple: float = 3.0
    idle: int = 0


@dataclass(frozen=True, slots=True)
class LieAboutQuality:
    """Declares `declared`; its answers are of the endpoint's own `quality`."""

    declared: float = 0.99


@dataclass(frozen=True, slots=True)
class LieAboutTokens:
    """Claims a multiple of the tokens that it made."""

    multiple: float = 1.25


Strategy: TypeAlias = (
    Honest
    | Undercut
    | CostPlus
    | CollusiveFloor
    | Bait
    | LieAboutLoad
    | LieAboutQuality
    | LieAboutTokens
)


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One endpoint on a server of its own; its name is unique within its provider."""

    name: str
    server: Server
    band: Band
    model: str = "small"
    tasks: frozenset[Task] = frozenset({Task.CHAT, Task.COMPLETION})
    capacity: int = 64
    """Slots as registered with the broker."""
    queue_max: int = LINE_MAX
    """Calls in line beyond which the server itself answers 429."""
    quality: float = 0.7
    """Of its answers; it is also what is declared, but for who lies about it."""
    domains: Mapping[str, float] = field(default_factory=dict)
    cost: Rate = field(default_factory=lambda: Rate(0, 0, 0))
    """What serving costs the provider, in the units of prices."""
    cost_nanos_per_s: int = 0
    """What the server costs, busy or not."""
    take_bps: int = 1_000
    tiers_bps: Mapping[Tier, int] = field(default_factory=dict)
    """Factors of tiers other than standard; a tier not named is not offered."""
    enters_s: float = 0.0
    exits_s: float = math.inf
    outages: tuple[Outage, ...] = ()
    brownouts: tuple[Brownout, ...] = ()
    failures: float = 0.0
    """The share of attempts that end in a server error at once."""
    context_tokens: int | None = None
    output_tokens_max: int | None = None
    region: str = ""

    def quality_in(self, domain: str | None) -> float:
        """Of its answers about a domain, or in general."""
        return self.domains.get(domain or "", self.quality)


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """A provider and how it behaves; its endpoints share its strategy."""

    name: str
    endpoints: tuple[EndpointSpec, ...]
    strategy: Strategy = field(default_factory=Honest)
