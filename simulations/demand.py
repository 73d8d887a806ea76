"""Who calls, as values: when calls come, what they are worth, how long they are, what they ask.

Every value is frozen and says its own units. What it takes to draw from them is in
`simulations.traffic`.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import TypeAlias

from broker.core.catalog import Task
from broker.core.columns import AUTO
from broker.core.requirements import Weights
from pricing.tiers import Tier


@dataclass(frozen=True, slots=True)
class Poisson:
    """Calls without memory."""

    rate_per_s: float


@dataclass(frozen=True, slots=True)
class GammaBursts:
    """Renewal arrivals with gamma gaps: `cv` above 1 are bursts, 1 is Poisson, below 1 is even."""

    rate_per_s: float
    cv: float = 2.0


@dataclass(frozen=True, slots=True)
class Mmpp:
    """Poisson whose rate changes at random: each state lasts an exponential time, then the next."""

    rates_per_s: tuple[float, ...]
    mean_stay_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DayNight:
    """Poisson whose rate is a cosine of the time of day; `swing` 1 is none at night."""

    rate_per_s: float
    swing: float = 0.6
    period_s: float = 86_400.0
    peak_s: float = 50_400.0
    """When in the period it is highest: 14:00 of a day."""
    cv: float = 1.0
    """Of the gaps, where the rate stands still."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Poisson whose rate changes at given times: the flash crowd. Before the first it is 0."""

    from_s: tuple[float, ...]
    rates_per_s: tuple[float, ...]
    cv: float = 1.0


@dataclass(frozen=True, slots=True)
class Trace:
    """Calls as they came once. Without token counts, lengths are drawn as for the others."""

    arrival_s: tuple[float, ...]
    """Ascending, from 0."""
    tokens_in: tuple[int, ...] = ()
    tokens_out: tuple[int, ...] = ()
    speed: float = 1.0
    """2 plays it twice as fast."""


Arrivals: TypeAlias = Poisson | GammaBursts | Mmpp | DayNight | Steps | Trace


class Shape(enum.StrEnum):
    """How values are spread among the calls of a class."""

    FIXED = "fixed"
    UNIFORM = "uniform"
    """Between 0 and twice the mean: demand that is linear in price."""
    EXPONENTIAL = "exponential"
    LOGNORMAL = "lognormal"
    ISOELASTIC = "isoelastic"
    """Above v with probability (v / least)^-elasticity, up to `most_usd`."""


@dataclass(frozen=True, slots=True)
class Value:
    """What calls are worth to who makes them, in USD for a call of the class's mean length."""

    shape: Shape = Shape.EXPONENTIAL
    mean_usd: float = 0.001
    """Of `isoelastic` it is the least instead."""
    cv: float = 1.0
    """Of `lognormal`."""
    elasticity: float = 1.5
    """Of `isoelastic`: by how many percent fewer calls are worth a price that is 1% higher."""
    most_usd: float = math.inf
    by_length: bool = True
    """A call twice as long is worth twice as much; False: all lengths are worth the same."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of prompts or answers: lognormal, or all alike where `cv` is 0; at least 1."""

    mean: float
    cv: float = 0.0
    most: int = 1_000_000


class Foresight(enum.StrEnum):
    """What a caller knows before it calls."""

    PRICE = "price"
    """What the call costs at most, and it calls whatever the wait."""
    DELAY = "delay"
    """Also how long calls of its class took lately, and counts that wait as a cost."""
    QUEUE = "queue"
    """Also how many are before it at each endpoint: it does not join a line too long."""


@dataclass(frozen=True, slots=True)
class ConsumerClass:
    """Callers who are alike. Each call offers at most what it is worth as `max_cost`."""

    name: str
    arrivals: Arrivals
    value: Value = field(default_factory=Value)
    tokens_in: Lengths = Lengths(500.0)
    tokens_out: Lengths = Lengths(150.0)
    model: str = AUTO
    task: Task = Task.CHAT
    domain: str | None = None
    tier: Tier = Tier.STANDARD
    weights: Weights = field(default_factory=Weights)
    deadline_s: float = 60.0
    """An answer after this is none, and the call is cut."""
    delay_cost_usd_per_s: float = 0.0
    """What each second until the end of the answer takes off its worth."""
    foresight: Foresight = Foresight.PRICE
    memory_s: float = 600.0
    """How long who foresees the delay remembers what calls took."""
    quality_taste: float = 0.0
    """An answer is worth value * quality^taste; 0: any answer is worth the same."""
    quality_min: float | None = None
    longest_part: float = 1.0
    """Of a prompt's tokens, in the longest of its texts: each of several has a context of its own.
    """
    headroom: float = 1.0
    """Bounds on tokens, and so holds, are this multiple of what is used."""
    accounts: int = 1
    budget_usd: float = math.inf
    """Of each account, for each period."""
    budget_period_s: float = math.inf
    patience_calls: int = 0
    """How often a refused call is made again, a while later."""
    patience_s: float = 5.0
    """The mean of that while."""
    stream: bool = True
    hedge: bool = False
    """They ask for a second endpoint beside one that is late; who answers first serves."""
    ttft_goal_s: float = 2.0
    """Goodput counts answers whose first token came within this, and whose further ones within"""
    tpot_goal_s: float = 0.05
    """this each."""

    @property
    def tokens_mean(self) -> float:
        """Of prompt and answer together."""
        return self.tokens_in.mean + self.tokens_out.mean
