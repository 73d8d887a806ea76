"""Classes of demand where nobody states a value: inferred from load, prices and elasticity.

A family is what callers take for the same thing, such as one model at several providers. Its demand
is taken to be isoelastic around today's prices,

    work wanted at v times list = work wanted now * (v / mean scarcity now) ^ -elasticity,

and cut into classes of one value each, close together around today's price, where they decide, and
apart far from it. Values are multiples of an endpoint's list price, so that of two endpoints the
one listed dearer is taken to be better. Marginal cost is the floor: below it, by the provider's own
word, nothing is sold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pricing.book import FloatArray, IntArray
from pricing.fluid import FluidMarket
from pricing.snapshot import Bands

VALUES = 81
"""Classes of a family."""
FARTHEST = 64.0
"""Values lie between today's price over this and times this; from there the next step sees on."""
_BEND = 4.0
"""How much closer values are at today's price, where they are 1.5% apart, than far from it."""
ELASTICITY_MIN = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """What works for whom: arrays by endpoint, but `capacity` in slots by resource."""

    family: IntArray
    resource: IntArray
    capacity: FloatArray


def infer_classes(
    fleet: Fleet, bands: Bands, load: FloatArray, scarcity: FloatArray, elasticity: FloatArray
) -> FluidMarket:
    """The fluid market in which today's load is what the inferred classes want at these prices.

    By endpoint: `load` over capacity, `scarcity` as ln of price over list. Endpoints of one
    resource share its load evenly. Money is the sum of a list's rates, work one slot-second.
    """
    present = np.flatnonzero(bands.present)
    family = fleet.family[present]
    listed = bands.listed.sum(axis=0, dtype=np.float64)[present]
    sharing = np.bincount(fleet.resource[present], minlength=fleet.capacity.size)
    slots = (fleet.capacity / np.maximum(sharing, 1))[fleet.resource[present]]
    busy = np.maximum(np.nan_to_num(load[present]), 0.0) * slots
    families = int(family.max(initial=-1)) + 1
    work = np.asarray(np.bincount(family, busy, families), dtype=np.float64)
    weight = np.maximum(np.bincount(family, busy + _TRACE, families), _TRACE)
    level = np.bincount(family, (busy + _TRACE) * scarcity[present], families) / weight
    answer = np.bincount(family, (busy + _TRACE) * elasticity[present], families) / weight
    beyond = _beyond()
    wanted = _steps(work, np.maximum(answer, ELASTICITY_MIN), beyond)
    # Between its own value and the next, so in the middle.
    middle = beyond + np.diff(beyond, append=2.0 * beyond[-1] - beyond[-2]) / 2.0
    values = np.exp(level[:, np.newaxis] + middle)
    # Each endpoint has an arc from each class of its family.
    endpoint = np.repeat(np.arange(present.size), VALUES)
    step = np.tile(np.arange(VALUES), present.size)
    rate_work = np.zeros((3, len(bands)))
    rate_work[:, present] = bands.listed[:, present] / listed
    return FluidMarket(
        wanted=wanted.ravel(),
        capacity=fleet.capacity,
        resource=fleet.resource,
        arc_class=family[endpoint] * VALUES + step,
        arc_endpoint=present[endpoint],
        value=values[family[endpoint], step] * listed[endpoint],
        cost=bands.floor.sum(axis=0, dtype=np.float64)[present][endpoint],
        work=np.ones(endpoint.size),
        rate_work=rate_work,
    )


_TRACE = 1e-9
"""Keeps a family without load from dividing by nothing."""
_FALL_MAX = 50.0
"""Demand at a value far below today's price is much, but finite."""


def _beyond() -> FloatArray:
    """ln of the values of classes over today's price."""
    spread = np.linspace(-1.0, 1.0, VALUES)
    return np.asarray(math.log(FARTHEST) * np.sinh(_BEND * spread) / math.sinh(_BEND))


def _steps(work: FloatArray, elasticity: FloatArray, beyond: FloatArray) -> FloatArray:
    """Work wanted at each value and below the next, of shape (families, values)."""
    fall = -elasticity[:, np.newaxis] * beyond
    above: FloatArray = work[:, np.newaxis] * np.exp(np.minimum(fall, _FALL_MAX))
    steps = above.copy()
    steps[:, :-1] -= above[:, 1:]
    return steps
