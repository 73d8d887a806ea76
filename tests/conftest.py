"""Real servers for the tests, and for each test an empty database and an empty Valkey."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis.asyncio
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from broker.embedded.postgres import EmbeddedPostgres
from broker.embedded.valkey import EmbeddedValkey
from broker.logs import configure_logging
from broker.store.database import create_engine
from broker.store.migrate import upgrade

_numbers = itertools.count(1)
_MEMORY_BYTES_MIN = 2_000_000_000
_HERE = Path(__file__).parent
_ORDER = ("e2e", "integration", "simulation", "architecture", "unit")
"""Of the folders: what is long begins early, so that no process is left with it at the end."""
_TOGETHER = ("tests/e2e/test_demo", "tests/e2e/", "tests/architecture/")
"""The demos start the same servers, the other floors share one broker, and both many processes, in
each other's way on two cores: as one group they would end last. The others parse all sources."""


def pytest_configure() -> None:
    """Log as a broker's process does: else what one that a test runs in its own process logs would
    stand among what a command says beside it."""
    configure_logging()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the collector of garbage what is collected here: it stays until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what is long."""
    items.sort(key=lambda item: _rank(item.path.relative_to(_HERE).parts[0]))


def _rank(folder: str) -> int:
    return _ORDER.index(folder) if folder in _ORDER else len(_ORDER)


class ByFile(LoadFileScheduling):
    """Keeps the tests of a file in one process, which makes the fixtures of the file once.

    Those of some folders stay together as well. The marks of xdist itself group nothing: they are
    written where pytest since 9.2 does not look.
    """

    def _split_scope(self, nodeid: str) -> str:
        for folder in _TOGETHER:
            if nodeid.startswith(folder):
                return folder
        return str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Distribute the tests among the processes."""
    return ByFile(config, log)


@contextlib.contextmanager
def passable_folder(parent: str | None = None) -> Iterator[Path]:
    """A temporary folder that other accounts may pass through, as the server of a root needs it."""
    with tempfile.TemporaryDirectory(
        prefix="broker-", dir=parent, ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


def memory() -> str | None:
    """A file system in memory, if there is a roomy one: there, databases are copied 20 x faster."""
    with contextlib.suppress(OSError, AttributeError):
        facts = os.statvfs("/dev/shm")
        room = facts.f_bavail * facts.f_frsize
        if room > _MEMORY_BYTES_MIN and not facts.f_flag & os.ST_NOEXEC:
            return "/dev/shm"
    return None


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A fresh folder for servers of the test's own; `tmp_path` is closed to other accounts."""
    with passable_folder(memory()) as folder:
        yield folder


def named(url: str, database: str) -> str:
    """The address of another database of the same server."""
    return urlsplit(url)._replace(path=f"/{database}").geturl()


@pytest.fixture(scope="session")
async def postgres_server() -> AsyncIterator[EmbeddedPostgres]:
    """One PostgreSQL for the session, of each worker's own; it does without fsync."""
    with passable_folder(memory()) as folder:
        async with EmbeddedPostgres(folder, durable=False) as server:
            yield server


@pytest.fixture(scope="session")
async def valkey_server() -> AsyncIterator[EmbeddedValkey]:
    """One Valkey for the session, of each worker's own; it keeps nothing on disk."""
    with passable_folder() as folder:
        async with EmbeddedValkey(folder, durable=False) as server:
            yield server


@pytest.fixture(scope="session")
async def migrated_template(postgres_server: EmbeddedPostgres) -> str:
    """The name of a database that has been through all migrations and is copied for each test."""
    await upgrade(postgres_server.url)
    return urlsplit(postgres_server.url).path.lstrip("/")


@pytest.fixture(scope="session")
async def database_office(
    postgres_server: EmbeddedPostgres, migrated_template: str
) -> AsyncIterator[asyncpg.Connection]:
    """A connection beside the tests' databases, for making and dropping them."""
    connection = await asyncpg.connect(named(postgres_server.url, "postgres"))
    yield connection
    await connection.close()


@pytest.fixture
async def database_url(
    postgres_server: EmbeddedPostgres,
    migrated_template: str,
    database_office: asyncpg.Connection,
) -> AsyncIterator[str]:
    """A fresh migrated database; at the end every invariant view must be empty."""
    async with fresh_database(postgres_server.url, migrated_template, database_office) as url:
        yield url


class Roving:
    """One engine for the databases of all tests, in turn: it has compiled their statements."""

    def __init__(self, server_url: str) -> None:
        self.engine = create_engine(server_url)
        self._database = ""
        event.listen(self.engine.sync_engine, "do_connect", self._aim)

    @contextlib.asynccontextmanager
    async def at(self, url: str) -> AsyncIterator[AsyncEngine]:
        """The engine on the database of this address, to which no connection is left."""
        self._database = urlsplit(url).path.lstrip("/")
        yield self.engine
        await self.engine.dispose()

    def _aim(self, _: object, __: object, ___: object, where: dict[str, str]) -> None:
        where["database"] = self._database


@pytest.fixture(scope="session")
def roving(postgres_server: EmbeddedPostgres) -> Roving:
    """Compiled anew for each test, the statements take a tenth of its time."""
    return Roving(postgres_server.url)


@pytest.fixture
async def engine(database_url: str, roving: Roving) -> AsyncIterator[AsyncEngine]:
    """An engine that is closed before the database is dropped."""
    async with roving.at(database_url) as engine:
        yield engine


@contextlib.asynccontextmanager
async def fresh_database(
    server_url: str, template: str, office: asyncpg.Connection
) -> AsyncIterator[str]:
    """A copy of the template for the block; it fails when the block leaves broken invariants."""
    name = f"test_{next(_numbers)}"
    await office.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    url = named(server_url, name)
    try:
        yield url
        alarms = await broken_invariants(url)
    finally:
        await office.execute(f"DROP DATABASE {name} WITH (FORCE)")
    if alarms:
        pytest.fail("\n".join(["the test left broken invariants:", *alarms]))


async def broken_invariants(url: str) -> list[str]:
    """Every row of every invariant view, as text; there should be none."""
    connection = await asyncpg.connect(url)
    try:
        views = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'v' AND relname LIKE 'invariant\\_%'"
            " AND relnamespace = 'public'::regnamespace ORDER BY relname"
        )
        # All in one question: asked one by one, they take this process four times as long.
        asked = (
            f'SELECT {number} AS number, to_json(alarm)::text FROM "{view}" alarm'
            for number, (view,) in enumerate(views)
        )
        alarms = await connection.fetch(" UNION ALL ".join(asked) + " ORDER BY number")
        return [f"{views[number][0]}: {json.loads(alarm)}" for number, alarm in alarms]
    finally:
        await connection.close()


@pytest.fixture
async def valkey_url(valkey_server: EmbeddedValkey) -> str:
    """The session's Valkey, emptied before the test."""
    client = redis.asyncio.from_url(valkey_server.url)
    await client.flushall()
    await client.aclose()
    return valkey_server.url
