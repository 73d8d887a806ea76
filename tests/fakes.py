"""Builders of what the tests of routing and dispatch need: endpoints, a market, demands, a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np

from broker.core.candidates.view import RoutingLimits
from broker.core.catalog import Band, Deployment, Endpoint, Kind, ListingStatus, Task
from broker.core.decision import Candidate, Decision
from broker.core.health.pulse import Pulse
from broker.core.market import Market, Presence, build_market
from broker.core.requirements import Requirements
from broker.core.routing import route
from pricing.book import PriceBook, Rate

ACCOUNT = uuid5(NAMESPACE_URL, "account")
OTHER_ACCOUNT = uuid5(NAMESPACE_URL, "another account")
RATE = Rate(rate_in_micros=500_000, rate_out_micros=1_500_000, rate_call_nanos=0)
"""Half a dollar per million tokens in, one and a half out."""


def endpoint(
    number: int = 0,
    name: str = "acme/small",
    *,
    rate: Rate = RATE,
    tasks: Iterable[Task] = (Task.CHAT,),
    domains: Mapping[str, float] | None = None,
    visible_to: Iterable[UUID] | None = None,
    deployment: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Endpoint:
    """An endpoint on a deployment of its own, of the same number; its band holds just `rate`."""
    provider, _, own_name = name.partition("/")
    server = {
        "id": uuid5(NAMESPACE_URL, f"deployment {number}"),
        "number": number,
        "provider_id": uuid5(NAMESPACE_URL, provider),
        "provider": provider,
        "name": own_name,
        "url": f"http://{provider}.invalid:{8_000 + number}",
        "kind": Kind.OPENAI,
        "capacity": 10,
        "region": "eu",
        "retains_data": False,
        "trains_on_data": False,
        "retention_days": 0,
        "credential": None,
        "status": ListingStatus.LISTED,
    }
    made = {
        "id": uuid5(NAMESPACE_URL, f"endpoint {number}"),
        "number": number,
        "name": name,
        "model": "small",
        "version": "1",
        "upstream_model": "small-upstream",
        "quality": 0.5,
        "context_length_tokens": 8_192,
        "max_output_tokens": 2_048,
        "tokenizer_json": None,
        "ledger_account": uuid5(NAMESPACE_URL, f"earnings of {provider}"),
        "take_bps": 1_000,
    }
    return Endpoint(
        deployment=Deployment(**(server | dict(deployment or {}))),
        tasks=frozenset(tasks),
        domains=dict(domains or {}),
        visible_to=None if visible_to is None else frozenset(visible_to),
        band=_band(rate),
        **(made | changes),
    )


def _band(rate: Rate) -> Band:
    price_in, price_out, price_call = (
        rate.rate_in_micros,
        rate.rate_out_micros,
        rate.rate_call_nanos,
    )
    return Band(*([price_in] * 3), *([price_out] * 3), *([price_call] * 3))


def market(
    endpoints: Iterable[Endpoint],
    presence: Mapping[int, Presence] | None = None,
    version: int = 7,
) -> Market:
    """A market in which each endpoint costs its list price."""
    listed = list(endpoints)
    rates = np.zeros((3, 1 + max(each.number for each in listed)), dtype=np.int64)
    for each in listed:
        band = each.band
        rates[:, each.number] = band.list_in_micros, band.list_out_micros, band.list_call_nanos
    return build_market(listed, PriceBook.from_matrix(version, rates), presence or {})


def pulse(of: Market) -> Pulse:
    """A pulse with room for all of a market, of which nothing is known yet."""
    made = Pulse()
    made.fit(
        len(of.endpoints),
        1 + max(each.deployment.number for each in of.endpoints if each is not None),
    )
    return made


def requirements(**changes: Any) -> Requirements:
    """A chat with the family `small`: 400 bytes of prompt, 100 tokens of answer."""
    asked: dict[str, Any] = {
        "account_id": ACCOUNT,
        "task": Task.CHAT,
        "model": "small",
        "tokens_in_bound": 464,
        "tokens_in_expected": 100,
        "tokens_out_max": 100,
    }
    return Requirements(**(asked | changes))


def decide(
    where: Market,
    live: Pulse | None = None,
    *,
    seed: int = 1,
    now_s: float = 0.0,
    limits: RoutingLimits | None = None,
    **demands: Any,
) -> Decision:
    """Route `requirements(**demands)`; there must be such a model."""
    wanted = requirements(**demands)
    chance = (Random(seed), now_s)
    decision = route(wanted, where, live or pulse(where), limits or RoutingLimits(), chance)
    assert decision is not None, f"there is no {wanted.model}"
    return decision


def planned(decision: Decision) -> list[int]:
    """The endpoint numbers of the plan, in order."""
    return [each.number for each in decision.plan]


def plan(length: int, rate: Rate = RATE) -> tuple[Candidate, ...]:
    """Candidates 0, 1, 2 … in rank order."""
    return tuple(Candidate(number, rate, 100, 1_000_000) for number in range(length))
