"""Examines what claims a domain, sends canaries, and forgets the broker's own calls of long ago."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from random import SystemRandom
from typing import Final

from celery.schedules import crontab

from broker.flows.calls.ask_endpoint import Asker
from broker.flows.quality.examine import Examiner, Hall
from broker.flows.quality.mark_answers import Marker
from broker.flows.quality.send_canaries import LOOK_S, Aviary
from broker.jobs.room import SLOW, Job, Room
from broker.store.market.listed import Listed
from broker.store.quality.examinations import forget_test_calls
from broker.store.sealing import Sealer
from broker.upstream.addresses import AddressPolicy
from broker.upstream.client import UpstreamClient

TEST_CALLS_KEPT: Final = timedelta(days=30)
_EXAMINER: Final = "examiner"
_HALL: Final = "hall"
_AVIARY: Final = "aviary"


async def examine(room: Room) -> None:
    """Begin what is due; it goes on after this task, so no job waits for a provider."""
    examiner = room.kept.get(_EXAMINER)
    if examiner is None:
        examiner = room.kept[_EXAMINER] = Examiner(hall_of(room))
    await examiner.look()


def hall_of(room: Room) -> Hall:
    """Return what examining takes, the same for all jobs of a worker process."""
    hall: Hall | None = room.kept.get(_HALL)
    if hall is None:
        settings = room.settings
        upstream = UpstreamClient(AddressPolicy(settings.allowed_networks))
        sealer = Sealer(settings.secret_key, settings.secret_keys_old)
        marker = Marker(Asker(upstream))
        clock = partial(datetime.now, UTC)
        hall = room.kept[_HALL] = Hall(room.engine, marker, clock, Listed(sealer))
    return hall


async def send_canaries(room: Room) -> None:
    """Begin this minute's canaries; they go on after this task."""
    aviary = room.kept.get(_AVIARY)
    if aviary is None:
        per_hour = room.settings.canaries_per_hour
        aviary = room.kept[_AVIARY] = Aviary(hall_of(room), per_hour, SystemRandom())
    await aviary.look()


async def forget(room: Room) -> None:
    """Forget the broker's own calls of long ago."""
    async with room.engine.begin() as connection:
        await forget_test_calls(connection, datetime.now(UTC) - TEST_CALLS_KEPT)


JOBS: Final = (
    Job("broker.examine", examine, timedelta(seconds=5), 5, queue=SLOW),
    Job("broker.send_canaries", send_canaries, timedelta(seconds=LOOK_S), 60, queue=SLOW),
    Job("broker.forget_test_calls", forget, crontab(minute="20", hour="2"), 86_400, queue=SLOW),
)
