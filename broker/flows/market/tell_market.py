"""Tells what the market is and what was called in it lately, for simulations to play again.

All is plain values. Nothing of what was said is in it, and nobody's name but those of providers:
callers are numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core import story
from broker.core.catalog import Endpoint
from broker.errors import RequestMalformed
from broker.store.calls.recorded_calls import recorded
from broker.store.market import catalog
from broker.store.sealing import Sealer
from pricing.money import PICOS_PER_NANO

CALLS_MAX: Final = 1_000_000
DEMAND: Final = frozenset({"providers_full", "providers_away", "nothing_within_price"})
"""Codes of calls that were turned away and yet were demand."""
TOKENS_OUT: Final = 256
"""Of an answer that did not come, to a caller who set no bound."""
_BAND = ("floor", "list", "ceiling")


async def tell_market(
    engine: AsyncEngine,
    sealer: Sealer,
    since: datetime,
    until: datetime,
    calls_max: int = CALLS_MAX,
) -> dict[str, Any]:
    """Return `endpoints` as they are listed now, and the `calls` of a stretch of time.

    Raises RequestMalformed where these are too many to be played.
    """
    async with engine.connect() as connection:
        _, endpoints = await catalog.load_market(connection, sealer)
    callers: dict[UUID, int] = {}
    calls: list[dict[str, Any]] = []
    names = {each.number: each.name for each in endpoints}
    async for piece in recorded(engine, since, until):
        calls += await asyncio.to_thread(list, _told(piece, names, callers))
        if len(calls) > calls_max:
            raise RequestMalformed(
                f"There are more than {calls_max:,} calls; choose fewer days to play."
            )
    return {
        "since_s": since.timestamp(),
        "until_s": until.timestamp(),
        "endpoints": [_offered(each) for each in endpoints],
        "calls": calls,
    }


def _offered(endpoint: Endpoint) -> dict[str, Any]:
    band, deployment = endpoint.band, endpoint.deployment
    return {
        "provider": deployment.provider,
        "deployment": deployment.number,
        "name": endpoint.name.partition("/")[2],
        "model": endpoint.model,
        "tasks": sorted(each.value for each in endpoint.tasks),
        "domains": dict(endpoint.domains),
        "quality": endpoint.quality,
        "capacity": deployment.capacity,
        "region": deployment.region,
        "context_tokens": endpoint.context_length_tokens,
        "output_tokens_max": endpoint.max_output_tokens,
        "take_bps": endpoint.take_bps,
        "tiers_bps": {tier.value: factor for tier, factor in endpoint.tiers.items()},
        **{
            name: [getattr(band, f"{edge}_{name}") for edge in _BAND]
            for name in ("in_micros", "out_micros", "call_nanos")
        },
    }


def _told(
    piece: list[sa.Row[Any]], names: Mapping[int, str], callers: dict[UUID, int]
) -> Iterator[dict[str, Any]]:
    for row in piece:
        if row.status != 200 and row.code not in DEMAND and row.status < 500:
            continue  # its own fault, or nobody pays for it
        wanted = _demands(row.story)
        yield {
            "at_s": row.created_at.timestamp(),
            "caller": callers.setdefault(row.account_id, len(callers)),
            "task": row.task,
            "model": row.model,
            "domain": row.domain,
            "tier": wanted.get("tier", "standard"),
            "stream": row.stream,
            "endpoint": names.get(row.endpoint_number),
            "served": row.status == 200,
            "tokens_in": row.tokens_in or wanted.get("tokens_in_expected", 0),
            "longest_part": _longest_part(wanted),
            "tokens_out": row.tokens_out,
            "charge_nanos": row.charge_nanos,
            "limit_nanos": _limit_nanos(wanted, row),
            "ttft_s": None if row.ttft_ms is None else row.ttft_ms / 1_000.0,
            "duration_s": row.duration_ms / 1_000.0,
        }


def _demands(packed: bytes) -> Mapping[str, Any]:
    try:
        return story.decode(packed).requirements
    except (msgspec.MsgspecError, ValueError):
        return {}  # a story that another version wrote


def _longest_part(wanted: Mapping[str, Any]) -> float:
    """Of the prompt, in the longest of its texts."""
    longest, whole = wanted.get("tokens_in_longest"), wanted.get("tokens_in_expected")
    return min(longest / whole, 1.0) if longest and whole else 1.0


def _limit_nanos(wanted: Mapping[str, Any], row: sa.Row[Any]) -> float | None:
    """The most that its caller would have paid for it, where it was said."""
    most = wanted.get("max_cost_nanos")
    rates = wanted.get("max_rate_in_micros"), wanted.get("max_rate_out_micros")
    if rates[0] is None and rates[1] is None:
        return None if most is None else float(most)
    # Of a call that was not served nobody knows how long its answer would have been.
    out = row.tokens_out or wanted.get("tokens_out_max") or TOKENS_OUT
    tokens = row.tokens_in or wanted.get("tokens_in_expected", 0), out
    by_rate = sum(rate * count for rate, count in zip(rates, tokens, strict=True) if rate)
    limit: float = by_rate / PICOS_PER_NANO
    return limit if most is None else min(limit, float(most))
