"""How near each controller's loop of price and demand is to where it would begin to swing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pricing.choice import build_controller
from pricing.controllers.excess import ExcessLoad
from pricing.controllers.pi import ProportionalIntegral
from pricing.controllers.shadow import ShadowPrice
from pricing.guardrails import answer_ticks, gain_limit
from simulations.fluid.kinds import Kinds
from simulations.measured.turns import SWING
from simulations.report.scales import number
from simulations.scenario import Scenario
from simulations.studies.plan import BEST_STATIC
from simulations.studies.results import Point, Results

_NONE = "does not apply"


@dataclass(frozen=True, slots=True)
class Loops:
    """For the table of stability; `target` is the load that all controllers share, if they do."""

    tau: int
    limit: str
    turns_per_h: str
    """Reversals an hour of a price that swings at the limit."""
    swing: str
    """The turn from which on it is one."""
    rows: Sequence[Sequence[str]]
    target: float | None


def loops_of(results: Results, point: Point) -> Loops:
    """Work out gains and limits of the policies that move prices."""
    policy = results.policies[0]
    cell = results.plan.cell(point, policy, results.plan.seeds[0])
    scenario = cell.text.build(cell.settings)
    tau, rows, targets = delay_ticks(scenario), [], set()
    for each in results.policies:
        if each not in ("posted", BEST_STATIC):
            row, target = _row(results, each, point, tau)
            rows.append(row)
            targets.add(target)
    shared = targets.pop() if len(targets) == 1 else None
    # A loop at its limit swings with a period of 2 (2 tau + 1) ticks, and turns twice in each.
    turns_per_h = 3_600.0 / ((2 * tau + 1) * scenario.prices.tick_s)
    return Loops(tau, number(gain_limit(tau)), number(turns_per_h), f"{SWING:.0%}", rows, shared)


def _row(
    results: Results, policy: str, point: Point, tau: int
) -> tuple[Sequence[str], float | None]:
    cell = results.plan.cell(point, policy, results.plan.seeds[0])
    gain, target = _gain(cell.text.build(cell.settings), tau)
    swings = gain_limit(tau) / gain if gain > 0.0 else math.inf
    measures = ("price_sigma", "reversals_per_h", "swings_per_h", "settling_s", "excess_load")
    found = (results.interval(each, policy, point).mean for each in measures)
    sigma, turns, swings_per_h, settling, load = found
    row = (
        policy,
        number(gain) if gain else _NONE,
        number(swings) if math.isfinite(swings) else _NONE,
        number(sigma, "%"),
        number(turns),
        number(swings_per_h),
        number(settling, "s"),
        number(load, "%"),
        number(target, "%") if target is not None else _NONE,
        number(load / target - 1.0, "%") if target is not None else _NONE,
    )
    return row, target


def delay_ticks(scenario: Scenario) -> int:
    """Ticks from a price to the load that answers it, as controllers are told them, of the usual
    call on a server that is full."""
    kinds = Kinds.of(scenario)
    slots = np.array([members[0].capacity for members in kinds.members])
    usual_s = np.mean(kinds.usual.work_s * slots, keepdims=True)
    (ticks,) = answer_ticks(usual_s, scenario.prices.tick_s, scenario.signals.delay_s)
    return math.ceil(float(ticks))


def _gain(scenario: Scenario, tau: int) -> tuple[float, float | None]:
    """By how much ln price moves in a tick for each unit of ln load near the target, where the gain
    guard leaves it alone; and the target."""
    prices = scenario.prices
    controller = build_controller(prices.controller, prices.parameters)
    match controller:
        case ExcessLoad():
            return controller.target * prices.tick_s / controller.k_s, controller.target
        case ProportionalIntegral():
            # What it does at once counts for so much as it takes of what is safe.
            speed = controller.ki_per_s * prices.tick_s + controller.kp * gain_limit(tau)
            return controller.target * speed, controller.target
        case ShadowPrice():
            return controller.speed / controller.elasticity, controller.target
        case _:
            return 0.0, None
