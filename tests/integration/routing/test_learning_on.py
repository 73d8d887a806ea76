"""A school reads and writes evidence on and on: nothing is lost or doubled, nothing blocks it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from structlog.testing import capture_logs

from broker.core.quality.domains import learn
from broker.core.quality.evidence import Grade, Piece, Source
from broker.flows.quality.learn_quality import FADES_EVERY_S, QualitySchool, Scene
from broker.flows.quality.write_evidence import Diary
from broker.store.access.accounts import Role
from broker.store.market import catalog
from broker.store.quality.evidence import START, record, since
from tests.integration.catalog.offers import SEALER, offer, open_account, register

NOBODY = Scene((), None, None)
LENGTH = 8


@pytest.fixture
async def scene(engine: AsyncEngine) -> Scene:
    await register(engine, await open_account(engine, Role.PROVIDER, "acme"), offer())
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE deployments SET status = 'listed'"))
        _, endpoints = await catalog.load_market(connection, SEALER)
    random, labels = np.random.default_rng(1), np.repeat((0, 1), 40)
    vectors = random.normal(0.0, 0.3, (80, LENGTH)) + 4.0 * labels[:, None]
    strangers = random.normal(0.0, 3.0, (40, LENGTH))
    recogniser = learn(("food", "law"), labels, vectors, strangers)
    return Scene(tuple(endpoints), recogniser, None)


def check(scene: Scene, domain: str = "law", **changes: Any) -> Piece:
    told = {"endpoint_id": scene.endpoints[0].id, "source": Source.CHECK, "score": 1.0} | changes
    return Piece(at=datetime.now(UTC), grade=Grade.BINARY, domain=domain, **told)


async def written(engine: AsyncEngine) -> list[str | None]:
    async with engine.connect() as connection:
        return [each.piece.domain for each in await since(connection, START, 1_000)]


def named(count: int, start: int = 0) -> list[str]:
    return [f"d{at}" for at in range(start, start + count)]


@contextlib.asynccontextmanager
async def locked(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Nobody else writes evidence within."""
    async with engine.begin() as connection:
        await connection.execute(text("LOCK TABLE evidence IN EXCLUSIVE MODE"))
        yield connection


async def waits(connection: AsyncConnection) -> None:
    query = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    async with asyncio.timeout(10.0):
        while not (await connection.execute(query)).scalar():  # noqa: ASYNC110 - nothing tells it
            await asyncio.sleep(0.01)


async def test_what_is_heard_while_others_are_written_is_written_too(
    engine: AsyncEngine, scene: Scene
) -> None:
    heard = deque((check(scene, name) for name in named(3)), maxlen=3)
    school = QualitySchool(engine, lambda: datetime.now(UTC), heard)
    async with locked(engine) as connection:
        learning = asyncio.create_task(school.learn(NOBODY))
        await waits(connection)
        heard.extend(check(scene, name) for name in named(3, start=3))
    await learning
    await school.learn(NOBODY)
    assert await written(engine) == named(6)


async def test_what_is_refused_is_dropped_and_blocks_nothing(
    engine: AsyncEngine, scene: Scene
) -> None:
    heard = deque([check(scene, endpoint_id=uuid4())])
    school = QualitySchool(engine, lambda: datetime.now(UTC), heard)
    await school.learn(NOBODY)
    heard.append(check(scene, "food"))
    await school.learn(NOBODY)
    assert await written(engine) == ["food"]


async def test_others_are_read_while_nothing_can_be_written(
    engine: AsyncEngine, scene: Scene
) -> None:
    heard = deque([check(scene, "food")])
    school = QualitySchool(engine, lambda: datetime.now(UTC), heard)
    async with engine.begin() as connection:
        await record(connection, [check(scene, score=0.0)] * 20)
    async with locked(engine):
        learned = await school.learn(scene)
    assert learned is not None
    law, food = (learned.table[learned.places[name], 0] for name in ("law", "food"))
    assert law < food
    await school.close()
    assert (await written(engine))[20:] == ["food"]


async def test_what_was_written_without_word_of_it_is_not_written_again(
    engine: AsyncEngine, scene: Scene
) -> None:
    heard = deque(check(scene, name) for name in named(2))

    @contextlib.asynccontextmanager
    async def mute() -> AsyncIterator[AsyncConnection]:
        async with engine.begin() as connection:
            yield connection
        broken.begin = engine.begin
        raise TimeoutError

    broken = SimpleNamespace(begin=mute)
    diary = Diary(cast(AsyncEngine, broken), heard)
    with pytest.raises(TimeoutError):
        await diary.write()
    heard.append(check(scene, "d2"))
    await diary.write()
    assert await written(engine) == named(3)


async def test_after_learning_comes_a_rest_and_nothing_is_learned_of_nothing_new(
    engine: AsyncEngine, scene: Scene
) -> None:
    now = datetime.now(UTC)
    school = QualitySchool(engine, lambda: now, deque())
    assert await school.learn(scene) is not None
    async with engine.begin() as connection:
        await record(connection, [check(scene, score=0.0)] * 20)
    assert await school.learn(scene) is None
    assert len(school._known) == 20, "they are read again, for some seconds"
    now += timedelta(seconds=60.0)
    learned = await school.learn(scene)
    assert not school._known
    assert learned is not None
    assert learned.table[learned.places["law"], 0] < learned.table[learned.places["food"], 0]
    now += timedelta(seconds=60.0)
    assert await school.learn(scene) is None
    now += timedelta(seconds=FADES_EVERY_S)
    assert await school.learn(scene) is not None


class Away:
    """An engine of a database that is away."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[None] = asyncio.Queue()

    def connect(self) -> AsyncConnection:
        self.asked.put_nowait(None)
        raise ConnectionRefusedError


async def test_an_outage_is_not_over_because_there_was_nothing_to_write() -> None:
    away: Any = Away()
    school = QualitySchool(away, lambda: datetime.now(UTC), deque())
    with capture_logs() as logs:
        learning = asyncio.create_task(school.run(lambda: NOBODY, lambda *_: None))
        for _ in range(3):
            await away.asked.get()
            school.wake()
        learning.cancel()
    assert [each["event"] for each in logs] == ["evidence_away"]
