"""The shortlist of one endpoint that is asked for by its name, in plain numbers.

In a large market most calls to an endpoint are the first to it since prices moved. Asking the
arrays of `eligibility` about one costs five times as much; a test holds both to the same shortlist.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from broker.core.catalog import Endpoint, Task
from broker.core.columns import NO_LIMIT_TOKENS, Floats
from broker.core.market import Lone, Market, Shortlist
from broker.core.requirements import Requirements
from pricing.money import PICOS_PER_NANO
from pricing.tiers import STANDARD

_NOBODY: Final = np.zeros(0, dtype=np.int64)


def shortlist_of_named(wanted: Requirements, market: Market) -> Shortlist | None:
    """Return the shortlist; None where no one endpoint is meant, or it may not meet the terms,
    which is for `eligibility` to tell."""
    columns = market.columns
    number = columns.by_name.get(wanted.model)
    if number is None or (wanted.task, wanted.model) in columns.families:
        return None
    one = market.endpoint(number)
    if market.away[number] or not _meets(wanted, one):
        return None
    rates = _rates(wanted.task, market, number)
    return None if rates is None else _listed(wanted, one, rates)


def _meets(wanted: Requirements, one: Endpoint) -> bool:
    """False where it does not, or more is asked for than most callers do."""
    server = one.deployment
    return (
        wanted.task in one.tasks
        and one.visible_to is None
        and wanted.tier is STANDARD
        and wanted.models_only is None
        and wanted.domains_only is None
        and wanted.providers_only is None
        and not wanted.providers_ignore
        and wanted.version is None
        and wanted.regions is None
        and (wanted.allow_retention or not server.retains_data)
        and (wanted.allow_training or not server.trains_on_data)
        and wanted.quality_min is None
        and wanted.max_rate_in_micros is None
        and wanted.max_rate_out_micros is None
    )


def _rates(task: Task, market: Market, number: int) -> tuple[float, float, float] | None:
    """Return what it costs per token in, token out (pico-dollars) and call (nano-dollars); None
    where nothing that the task counts has a price."""
    book = market.book
    if number >= len(book):
        return None
    rate_in = book.rate_in_micros.item(number)
    rate_out = book.rate_out_micros.item(number)
    rate_call = book.rate_call_nanos.item(number)
    paid = rate_call or (rate_in and task is not Task.INFER) or (rate_out and task.generates)
    return (float(rate_in), float(rate_out), float(rate_call)) if paid else None


def _listed(wanted: Requirements, one: Endpoint, rates: tuple[float, float, float]) -> Shortlist:
    rate_in, rate_out, rate_call = rates[0], rates[1], rates[2] * PICOS_PER_NANO
    number, server = one.number, one.deployment
    quality, domain_fit = _in_domain(wanted.domain, one)
    context_tokens = one.context_length_tokens or NO_LIMIT_TOKENS
    output_tokens = one.max_output_tokens or NO_LIMIT_TOKENS
    lone = Lone(
        number=number,
        deployment=server.number,
        rate_in=rate_in,
        rate_out=rate_out,
        rate_call=rate_call,
        capacity=float(server.capacity),
        context_tokens=context_tokens,
        output_tokens=output_tokens,
        quality=quality,
        domain_fit=domain_fit,
    )
    return Shortlist(
        numbers=np.array((number,)),
        deployments=np.array((server.number,)),
        at=slice(number, number + 1),
        deployments_at=slice(server.number, server.number + 1),
        servers=None,
        rate_in=_column(rate_in),
        rate_out=_column(rate_out),
        rate_call=_column(rate_call) if rate_call else None,
        typical=(rate_in, rate_out, rate_call),
        capacity=_column(lone.capacity),
        context_tokens=np.array((context_tokens,)),
        output_tokens=np.array((output_tokens,)),
        context_tokens_min=context_tokens,
        output_tokens_min=output_tokens,
        quality=_column(quality),
        domain_fit=_column(domain_fit),
        rejected=_NOBODY,
        reasons=_NOBODY,
        lone=lone,
        few=None,
    )


def _in_domain(domain: str | None, one: Endpoint) -> tuple[float, float]:
    """Return (quality, domain fit), as `scoring` tells them."""
    if domain is None:
        return one.quality, 0.5 if one.domains else 1.0
    if domain in one.domains:
        return one.domains[domain], 1.0
    return one.quality, 0.0 if one.domains else 0.5


def _column(value: float) -> Floats:
    return np.array((value,))
