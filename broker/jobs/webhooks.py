"""Tells webhooks what has happened, and forgets deliveries of long ago or to closed accounts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from random import SystemRandom
from typing import Final

from celery.schedules import crontab

from broker.flows.webhooks.deliver_webhooks import PLACES, Courier, Means
from broker.jobs.room import SLOW, Job, Room
from broker.store.sealing import Sealer
from broker.store.webhooks import deliveries, subscriptions
from broker.upstream.addresses import AddressPolicy

_COURIER: Final = "courier"


async def deliver(room: Room) -> None:
    """Begin to send what is due; it goes on after this task, so no job waits for a target."""
    courier = room.kept.get(_COURIER)
    if courier is None:
        courier = room.kept[_COURIER] = _courier(room)
    await courier.look()


def _courier(room: Room) -> Courier:
    settings = room.settings
    means = Means(
        engine=room.engine,
        sealer=Sealer(settings.secret_key, settings.secret_keys_old),
        addresses=AddressPolicy(settings.allowed_networks),
        clock=lambda: datetime.now(UTC),
        chance=SystemRandom().random,
        threads=ThreadPoolExecutor(PLACES, thread_name_prefix="webhook-names"),
    )
    return Courier(means)


async def purge(room: Room) -> None:
    """Forget deliveries that were made or given up long ago, and webhooks of closed accounts."""
    async with room.engine.begin() as connection:
        await subscriptions.remove_of_closed(connection)
        await deliveries.purge(connection, datetime.now(UTC))


JOBS: Final = (
    Job("broker.deliver_webhooks", deliver, timedelta(seconds=2), 2),
    Job("broker.purge_deliveries", purge, crontab(minute="27"), 3_600, queue=SLOW),
)
