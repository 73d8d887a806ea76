"""One immutable picture of the market: endpoints, prices, who may be called; swapped whole.

Columns are arrays indexed by endpoint number. What changes by the call (in-flight counts, breakers,
latencies) is not here but in `broker.core.pulse`, which stands beside it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from broker.core.catalog import Endpoint, Task
from pricing.book import PriceBook

NO_LIMIT_TOKENS = 1 << 40
"""Stands for an endpoint that names no context length or output limit."""

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Presence(enum.IntEnum):
    """Whether a deployment's agent says that it can be called."""

    READY = 0
    DRAINING = 1
    DOWN = 2
    """Its agent says so, or three heartbeats were missed."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The endpoints that a model name can mean for a task, their columns cut out, in one order."""

    numbers: Numbers
    deployments: Numbers
    rate_in: Floats
    """Pico-dollars per token in."""
    rate_out: Floats
    rate_call: Floats
    """Pico-dollars per call."""
    capacity: Floats
    context_tokens: Numbers
    output_tokens: Numbers
    quality: Floats
    specialist: Bools
    """It claims at least one domain."""
    retains_data: Bools
    trains_on_data: Bools
    private: Bools
    present: Bools
    priced: Bools
    has_private: bool
    all_callable: bool
    """Every endpoint is present and priced: the common case skips two filters."""


@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """What there is to choose from. Build it with `build_market`."""

    endpoints: tuple[Endpoint | None, ...]
    """By number; None where a number is not in use."""
    presence: Mapping[int, Presence]
    """By deployment number; a deployment that is not named is ready."""
    book: PriceBook
    by_name: Mapping[str, int]
    groups: dict[tuple[Task, str], Group] = field(default_factory=dict)
    """By task and model; under `auto` all of the task, under `provider/endpoint` just the one."""
    domains: dict[tuple[Task, str, str], tuple[Bools, Floats]] = field(default_factory=dict)
    """Claims and declared quality per domain, aligned with the group; filled on first use."""

    def group(self, task: Task, model: str) -> Group | None:
        """Return the endpoints that `model` can mean for `task`, or None."""
        return self.groups.get((task, model))

    def domain_columns(self, task: Task, model: str, domain: str) -> tuple[Bools, Floats]:
        """Return (claims the domain, quality there) for each endpoint of a group."""
        key = (task, model, domain)
        columns = self.domains.get(key)
        if columns is None:
            columns = self._cut_domain(self.groups[task, model], domain)
            if len(self.domains) < _DOMAINS_CACHED_MAX:
                self.domains[key] = columns
        return columns

    def _cut_domain(self, group: Group, domain: str) -> tuple[Bools, Floats]:
        members = [self.endpoint(int(number)) for number in group.numbers]
        claimed = np.array([domain in each.domains for each in members], dtype=bool)
        quality = np.array([each.domains.get(domain, each.quality) for each in members])
        return claimed, quality

    def endpoint(self, number: int) -> Endpoint:
        """Return the endpoint of a number in use."""
        endpoint = self.endpoints[number]
        assert endpoint is not None, f"endpoint number {number} is not in use"
        return endpoint

    def visible(self, account_id: UUID) -> list[Endpoint]:
        """Return the endpoints that an account may see, by name."""
        return [
            each
            for each in map(self.endpoint, self.by_name.values())
            if each.visible_to is None or account_id in each.visible_to
        ]


_DOMAINS_CACHED_MAX = 10_000
"""A caller may name any domain, so what is remembered of them has an end."""


def build_market(
    endpoints: Iterable[Endpoint], book: PriceBook, presence: Mapping[int, Presence]
) -> Market:
    """Build the picture of those listed; what `book` lacks is not routed to."""
    listed = sorted(endpoints, key=lambda each: each.number)
    by_number: list[Endpoint | None] = [None] * (listed[-1].number + 1 if listed else 0)
    members: dict[tuple[Task, str], list[Endpoint]] = {}
    for endpoint in listed:
        by_number[endpoint.number] = endpoint
        for task in endpoint.tasks:
            for model in {"auto", endpoint.model, endpoint.name}:
                members.setdefault((task, model), []).append(endpoint)
    rates = book.matrix(len(by_number))
    groups = {key: _group(each, rates, presence) for key, each in members.items()}
    names = {each.name: each.number for each in sorted(listed, key=lambda each: each.name)}
    return Market(tuple(by_number), dict(presence), book, names, groups)


def _group(members: list[Endpoint], rates: Numbers, presence: Mapping[int, Presence]) -> Group:
    numbers = np.array([each.number for each in members], dtype=np.int64)
    cut = rates[:, numbers].astype(np.float64)
    private = np.array([each.visible_to is not None for each in members], dtype=bool)
    present = np.array(
        [
            presence.get(each.deployment.number, Presence.READY) is Presence.READY
            for each in members
        ],
        dtype=bool,
    )
    priced = np.asarray(cut.any(axis=0), dtype=bool)
    return Group(
        numbers=numbers,
        deployments=np.array([each.deployment.number for each in members], dtype=np.int64),
        rate_in=cut[0],
        rate_out=cut[1],
        rate_call=cut[2] * 1_000,
        capacity=np.array([each.deployment.capacity for each in members], dtype=np.float64),
        context_tokens=_limits(each.context_length_tokens for each in members),
        output_tokens=_limits(each.max_output_tokens for each in members),
        quality=np.array([each.quality for each in members], dtype=np.float64),
        specialist=np.array([bool(each.domains) for each in members], dtype=bool),
        retains_data=np.array([each.deployment.retains_data for each in members], dtype=bool),
        trains_on_data=np.array([each.deployment.trains_on_data for each in members], dtype=bool),
        private=private,
        present=present,
        priced=priced,
        has_private=bool(private.any()),
        all_callable=bool(present.all() and priced.all()),
    )


def _limits(values: Iterable[int | None]) -> Numbers:
    return np.array([value or NO_LIMIT_TOKENS for value in values], dtype=np.int64)
