"""How near each controller's loop of price and demand is to where it would begin to swing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pricing.choice import build_controller
from pricing.controllers.excess import ExcessLoad
from pricing.controllers.pi import ProportionalIntegral
from pricing.controllers.shadow import ShadowPrice
from pricing.guardrails import gain_limit
from simulations.report.scales import number
from simulations.scenario import Scenario
from simulations.studies.plan import BEST_STATIC
from simulations.studies.results import Point, Results


@dataclass(frozen=True, slots=True)
class Loops:
    """For the table of stability; `target` is the load that all controllers share, if they do."""

    tau: int
    limit: str
    rows: Sequence[Sequence[str]]
    target: float | None


def loops_of(results: Results, point: Point) -> Loops:
    """Work out gains and limits of the policies that move prices."""
    rows, tau, targets = [], 0, set()
    for policy in results.policies:
        if policy in ("posted", BEST_STATIC):
            continue
        cell = results.plan.cell(point, policy, results.plan.seeds[0])
        scenario = cell.text.build(cell.settings)
        tau = delay_ticks(scenario)
        gain, target = _gain(scenario)
        targets.add(target)
        swings = gain_limit(tau) / gain if gain > 0.0 else math.inf
        found = [
            results.interval(each, policy, point).mean
            for each in ("price_sigma", "reversals_per_h", "settling_s")
        ]
        rows.append(
            (
                policy,
                number(gain) if gain else "does not apply",
                number(swings) if math.isfinite(swings) else "does not apply",
                number(found[0], "%"),
                number(found[1]),
                number(found[2], "s"),
            )
        )
    shared = targets.pop() if len(targets) == 1 else None
    return Loops(tau, number(gain_limit(tau)), rows, shared)


def delay_ticks(scenario: Scenario) -> int:
    """Ticks from a price to the load that answers it: both ways of the signals, and a heartbeat."""
    signals = scenario.signals
    return math.ceil((2.0 * signals.delay_s + signals.heartbeat_s) / scenario.prices.tick_s)


def _gain(scenario: Scenario) -> tuple[float, float | None]:
    """By how much ln price moves in a tick for each unit of ln load near the target; the target."""
    prices = scenario.prices
    controller = build_controller(prices.controller, prices.parameters)
    match controller:
        case ExcessLoad():
            return controller.target * prices.tick_s / controller.k_s, controller.target
        case ProportionalIntegral():
            # What it does at once counts for so much as it takes of what is safe.
            speed = controller.ki_per_s * prices.tick_s
            speed += controller.kp * gain_limit(delay_ticks(scenario))
            return controller.target * speed, controller.target
        case ShadowPrice():
            return controller.speed / controller.elasticity, controller.target
        case _:
            return 0.0, None
