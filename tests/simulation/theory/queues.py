"""Queues that callers join by choice, in closed form: what tolls are for, and goldens of theory.

Naor, "The regulation of queue size by levying tolls", Econometrica 37, 1969: callers who see the
queue join while their reward covers the wait, which is longer than is good for all; a toll mends
that, and whoever keeps the toll sets it too high. Mendelson, "Pricing computer services: queueing
effects", Communications of the ACM 28, 1985: callers who do not see the queue are charged the delay
that one more of them causes to the others. Erlang 1917 for the waiting in M/M/k.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How many may be in the system, by whose interest decides."""

    selfish: int
    social: int
    revenue: int


@dataclass(frozen=True, slots=True)
class Regime:
    """Calls per second, toll per call, welfare per second."""

    arrival_per_s: float
    toll: float
    welfare: float


def naor_thresholds(
    reward: float, arrival_per_s: float, service_per_s: float, waiting_cost_per_s: float
) -> Thresholds:
    """Naor's three thresholds for an observable M/M/1; ValueError when nobody would ever join."""
    selfish = math.floor(reward * service_per_s / waiting_cost_per_s + 1e-12)
    if selfish < 1:
        raise ValueError("the reward does not even cover the caller's own service")
    load = arrival_per_s / service_per_s

    def welfare(most: int) -> float:
        served, waiting = _limited(load, most)
        return arrival_per_s * served * reward - waiting_cost_per_s * waiting

    def revenue(most: int) -> float:
        # The highest toll at which the last of them, in place `most`, still joins.
        toll = reward - waiting_cost_per_s * most / service_per_s
        return arrival_per_s * _limited(load, most)[0] * toll

    every = range(1, selfish + 1)
    return Thresholds(selfish, max(every, key=welfare), max(every, key=revenue))


def _limited(load: float, most: int) -> tuple[float, float]:
    """(share of arrivals that join, mean number in the system) of M/M/1/most."""
    weights = [load**each for each in range(most + 1)]
    total = math.fsum(weights)
    return 1.0 - weights[-1] / total, math.fsum(n * w for n, w in enumerate(weights)) / total


def mendelson_optimum(
    marginal_value: Callable[[float], float],
    value: Callable[[float], float],
    service_per_s: float,
    delay_cost_per_s: float,
) -> Regime:
    """The arrival rate best for all, and the toll that brings it about, in an unseen M/M/1.

    `value(rate)` per second is concave, `marginal_value` its derivative. The toll is what one more
    call costs the others by delay: delay cost * rate * dW/d(rate).
    """

    def gap(rate: float) -> float:
        return marginal_value(rate) - delay_cost_per_s * service_per_s / (service_per_s - rate) ** 2

    rate = _crossing(gap, service_per_s)
    toll = delay_cost_per_s * rate / (service_per_s - rate) ** 2
    return Regime(rate, toll, value(rate) - delay_cost_per_s * rate / (service_per_s - rate))


def mendelson_free(
    marginal_value: Callable[[float], float],
    value: Callable[[float], float],
    service_per_s: float,
    delay_cost_per_s: float,
) -> Regime:
    """What becomes of the same queue without a toll: all join who gain by it themselves."""

    def gap(rate: float) -> float:
        return marginal_value(rate) - delay_cost_per_s / (service_per_s - rate)

    rate = _crossing(gap, service_per_s)
    return Regime(rate, 0.0, value(rate) - delay_cost_per_s * rate / (service_per_s - rate))


def _crossing(gap: Callable[[float], float], service_per_s: float) -> float:
    if gap(0.0) <= 0.0:
        return 0.0
    from scipy.optimize import brentq  # takes longer to import than all the rest of a command

    crossing: float = brentq(gap, 0.0, service_per_s * (1.0 - 1e-12), xtol=1e-14)
    return crossing


def waiting_s(arrival_per_s: float, service_per_s: float, servers: int) -> float:
    """Mean time in the queue of M/M/k, infinite where more comes than can be served."""
    offered = arrival_per_s / service_per_s
    if offered >= servers:
        return math.inf
    blocked = 1.0  # Erlang's B by its recursion, then C from B
    for each in range(1, servers + 1):
        blocked = offered * blocked / (each + offered * blocked)
    delayed = blocked / (1.0 - (offered / servers) * (1.0 - blocked))
    return delayed / (servers * service_per_s - arrival_per_s)
