"""Lets earnings mature, makes the payouts that are due, and sends those that a service pays."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import structlog
from celery.schedules import crontab

from broker.core.money.payout import Method
from broker.flows.money.mature import mature_all
from broker.flows.money.pay_out_due import pay_out_due
from broker.flows.money.send_payouts import Sending, send_all
from broker.jobs.room import SLOW, Job, Room
from broker.outbound.stripe_extra import open_stripe
from broker.store.money import payouts
from broker.store.sealing import Sealer
from broker.upstream import checked_httpx
from broker.upstream.addresses import AddressPolicy

AUTHOR: Final = "payout-schedule"

_log = structlog.get_logger()


async def mature_earnings(room: Room) -> None:
    """Make available what has waited long enough."""
    count = await mature_all(room.engine, room.settings.maturity, datetime.now(UTC))
    if count:
        _log.info("earnings_matured", providers=count)


async def make_payouts(room: Room) -> None:
    """Make the payouts that are due."""
    made = await pay_out_due(room.engine, AUTHOR, datetime.now(UTC))
    if made:
        _log.info("payouts_made", count=len(made))


async def send_payouts(room: Room) -> None:
    """Have Stripe pay what is open; without a key that is only told."""
    settings = room.settings
    if not settings.payouts.stripe_key:
        async with room.engine.connect() as connection:
            waiting = await payouts.to_send(connection, Method.STRIPE)
        if waiting:
            _log.warning("payouts_wait_for_a_stripe_key", count=len(waiting))
        return
    transport = checked_httpx.transport(AddressPolicy(settings.allowed_networks))
    sealer = Sealer(settings.secret_key, settings.secret_keys_old)
    async with open_stripe(settings.payouts.stripe_key, transport) as adapter:
        await send_all(Sending(room.engine, sealer, adapter, lambda: datetime.now(UTC)))


JOBS: Final = (
    Job("broker.mature_earnings", mature_earnings, crontab(minute="40"), 3_600, queue=SLOW),
    Job("broker.make_payouts", make_payouts, crontab(minute="50"), 3_600, queue=SLOW),
    Job("broker.send_payouts", send_payouts, crontab(minute="*/5"), 300, queue=SLOW),
)
