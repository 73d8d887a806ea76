"""Tells providers and operators that a controller was replaced by the posted price."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.catalog import Endpoint
from broker.store.webhooks import events
from broker.store.webhooks.events import Event
from pricing.ensemble import BENCHED_S, Incident

NAMED_MAX: Final = 100
"""Of a provider's endpoints so many are named, and the others counted."""


async def tell_incidents(
    connection: AsyncConnection,
    incidents: Sequence[Incident],
    endpoints: Iterable[Endpoint],
    now: datetime,
) -> None:
    """Write an event for each incident and each provider whose endpoints are concerned."""
    if not incidents:
        return
    listed = {each.number: each for each in endpoints}
    for incident in incidents:
        concerned = [listed[each] for each in incident.numbers.tolist() if each in listed]
        for provider_id, names in _by_provider(concerned).items():
            told = {
                "controller": incident.controller,
                "reason": incident.reason,
                "replaced_by": "posted",
                "for_s": BENCHED_S,
                "endpoints": names[:NAMED_MAX],
                "count": len(names),
            }
            target = f"accounts/{provider_id}"
            event = Event("pricing.controller_replaced", target, provider_id, told)
            await events.tell(connection, event, now)


def _by_provider(endpoints: Iterable[Endpoint]) -> Mapping[UUID, list[str]]:
    names: dict[UUID, list[str]] = {}
    for each in endpoints:
        names.setdefault(each.deployment.provider_id, []).append(each.name)
    return names
