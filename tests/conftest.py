"""Real servers for the tests, and for each test an empty database and an empty Valkey."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis.asyncio

from broker.embedded.postgres import EmbeddedPostgres
from broker.embedded.valkey import EmbeddedValkey
from broker.store.migrate import upgrade

_numbers = itertools.count(1)
_MEMORY_BYTES_MIN = 2_000_000_000
_HERE = Path(__file__).parent
_ORDER = ("e2e", "integration", "simulation", "architecture", "unit")
"""Of the folders: what is long begins early, so that no process is left with it at the end."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the collector of garbage what is collected here: it stays until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, which makes the file's fixtures once.

    So are all that start processes, which would be in each other's way on two cores.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(_group(item.path)))
    items.sort(key=lambda item: _rank(item.path))


def _folder(path: Path) -> str:
    return path.relative_to(_HERE).parts[0]


def _group(path: Path) -> str:
    folder = _folder(path)
    return folder if folder == "e2e" else str(path.relative_to(_HERE).with_suffix(""))


def _rank(path: Path) -> int:
    folder = _folder(path)
    return _ORDER.index(folder) if folder in _ORDER else len(_ORDER)


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
            "SELECT viewname FROM pg_views"
            " WHERE schemaname = 'public' AND viewname LIKE 'invariant\\_%' ORDER BY viewname"
        )
        return [
            f"{view}: {dict(row)}"
            for (view,) in views
            for row in await connection.fetch(f'SELECT * FROM "{view}"')
        ]
    finally:
        await connection.close()


@pytest.fixture
async def valkey_url(valkey_server: EmbeddedValkey) -> str:
    """The session's Valkey, emptied before the test."""
    client = redis.asyncio.from_url(valkey_server.url)
    await client.flushall()
    await client.aclose()
    return valkey_server.url
