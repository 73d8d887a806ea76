"""Reads how much better endpoints answer canaries than traffic, for whom that is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.answers.gap import ENOUGH, Gap, Heard, gaps_of
from broker.core.catalog import Endpoint
from broker.flows.access.authenticate import Caller
from broker.store.access.accounts import Role
from broker.store.quality import canaries
from broker.store.quality.canaries import Beside

KEPT_BESIDE: Final = timedelta(days=30)
_GAPS_MAX: Final = 1_000


async def read_gaps(engine: AsyncEngine, now: datetime) -> list[tuple[Beside, Gap]]:
    """Return canaries beside traffic over the last while, with the gap between them."""
    async with engine.connect() as connection:
        found = await canaries.beside_traffic(connection, (now - KEPT_BESIDE, now), _GAPS_MAX)
    return _with_gaps(found)


async def read_gaps_of(
    connection: AsyncConnection, caller: Caller, endpoint: Endpoint, now: datetime
) -> list[tuple[Beside, Gap]]:
    """Return one endpoint's, by domain: for operators, and for its provider until midnight UTC.

    For others there are none. A provider who saw a canary counted at once would know which call
    it was, and so the prompts of canaries.
    """
    if caller.role is Role.OPERATOR:
        until = now
    elif caller.account_id == endpoint.deployment.provider_id:
        until = now.replace(hour=0, minute=0, second=0, microsecond=0)
    else:
        return []
    span = until - KEPT_BESIDE, until
    own = await canaries.beside_traffic(connection, span, _GAPS_MAX, endpoint_id=endpoint.id)
    unclear = [
        each.domain for each in own if each.traffic.count < ENOUGH and each.scaled.count >= ENOUGH
    ]
    if not unclear:
        return _with_gaps(own)
    beside = await canaries.beside_traffic(connection, span, _GAPS_MAX, domains=unclear)
    others = [each for each in beside if each.endpoint != endpoint.name]
    return _with_gaps([*own, *others])[: len(own)]


def _with_gaps(found: Sequence[Beside]) -> list[tuple[Beside, Gap]]:
    heard = [Heard(each.domain, each.canaries, each.traffic, each.scaled) for each in found]
    return list(zip(found, gaps_of(heard), strict=True))
