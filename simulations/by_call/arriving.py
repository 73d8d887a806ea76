"""Calls as they come, each with what it demands: made many at a time.

What it takes to make one is then at hand in the processor's caches, as in
`simulations.by_call.closing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from simulations.by_call.closing import TOGETHER
from simulations.traffic.callers import Callers
from simulations.visit import Visit
from simulations.world import World


def arriving(callers: Callers, world: World, horizon_s: float) -> Iterator[Visit]:
    """All calls before the horizon, by arrival."""
    classes, first_account = world.scenario.classes, world.books.first_account
    calls, arrived = callers.each(horizon_s), 0
    while block := tuple(islice(calls, TOGETHER)):
        dearest, visits = world.desk.dearest, []
        for place, arrival_s, tokens_in, tokens_out, offer_nanos in block:
            of_class = classes[place]
            visit = Visit(place, of_class, arrival_s, (tokens_in, tokens_out))
            visit.offer_nanos = offer_nanos
            visit.account = first_account[place] + arrived % of_class.accounts
            visit.ask(dearest)
            visits.append(visit)
            arrived += 1
        yield from visits
