"""Both embedded servers as processes: locks, passwords, and what a kill leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio

from broker.embedded.failures import AlreadyRunning, EmbeddedServerFailed
from broker.embedded.postgres import EmbeddedPostgres
from broker.embedded.server import EmbeddedServer
from broker.embedded.valkey import EmbeddedValkey
from tests.integration.embedded.processes import command_line, family, lives, mode, program
from tests.waiting import until

BOTH = pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedValkey])

_PARENT = """
import asyncio, sys
from pathlib import Path
from broker.embedded.postgres import EmbeddedPostgres
from broker.embedded.valkey import EmbeddedValkey

async def main():
    kind = {"EmbeddedPostgres": EmbeddedPostgres, "EmbeddedValkey": EmbeddedValkey}[sys.argv[1]]
    async with kind(Path(sys.argv[2])) as server:
        print(server.child.pid, server.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def write(server: EmbeddedServer | str, word: str) -> None:
    url = server if isinstance(server, str) else server.url
    if url.startswith("redis"):
        client = redis.asyncio.from_url(url)
        await client.rpush("words", word)
        await client.aclose()
        return
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE IF NOT EXISTS words (word text)")
    await connection.execute("INSERT INTO words VALUES ($1)", word)
    await connection.close()


async def read(server: EmbeddedServer) -> list[str]:
    if server.url.startswith("redis"):
        client = redis.asyncio.from_url(server.url, decode_responses=True)
        words = await client.lrange("words", 0, -1)
        await client.aclose()
        return words
    connection = await asyncpg.connect(server.url)
    words = [row["word"] for row in await connection.fetch("SELECT word FROM words")]
    await connection.close()
    return words


@BOTH
async def test_what_was_written_is_there_at_the_next_start(
    open_folder: Path, kind: type[EmbeddedServer]
) -> None:
    async with kind(open_folder) as server:
        await write(server, "first")
    async with kind(open_folder) as server:
        await write(server, "second")
    async with kind(open_folder) as server:
        assert await read(server) == ["first", "second"]
    assert family(open_folder) == set()


@BOTH
async def test_a_server_killed_with_all_its_processes_starts_again_with_its_data(
    used_folder: Path, kind: type[EmbeddedServer]
) -> None:
    async with kind(used_folder) as server:
        await write(server, "kept")
        for pid in family(used_folder):
            with contextlib.suppress(ProcessLookupError):  # gone with its parent
                os.kill(pid, signal.SIGKILL)
        await server.child.wait()
    async with kind(used_folder) as server:
        assert await read(server) == ["kept"]


@BOTH
async def test_a_server_dies_with_a_parent_that_is_killed_and_starts_again_with_its_data(
    used_folder: Path, kind: type[EmbeddedServer]
) -> None:
    async with program(_PARENT, kind.__name__, str(used_folder)) as parent:
        assert parent.stdout is not None
        pid, url = (await parent.stdout.readline()).decode().split()
        await write(url, "kept")
        parent.kill()
        await parent.wait()
        await until(lambda: not lives(int(pid)))
    await until(lambda: family(used_folder) == set())
    async with kind(used_folder) as server:
        assert await read(server) == ["kept"]


@BOTH
async def test_an_orphan_is_ended_before_its_folder_is_used_again(
    used_folder: Path, kind: type[EmbeddedServer]
) -> None:
    first = kind(used_folder)
    await first.start()
    await write(first, "kept")
    orphan = first.child
    first._lock.release()  # as if its owner had died where the kernel knows no leash
    async with kind(used_folder) as second:
        assert orphan.returncode is not None or not lives(orphan.pid)
        assert await read(second) == ["kept"]
    await first.stop()


@BOTH
async def test_a_folder_in_use_is_refused_with_the_process_id_of_its_user(
    used_folder: Path, kind: type[EmbeddedServer]
) -> None:
    async with kind(used_folder) as server:
        with pytest.raises(AlreadyRunning, match=f"already running as pid {os.getpid()} "):
            await kind(used_folder).start()
        await write(server, "still serving")


@BOTH
async def test_a_taken_port_is_told_with_the_words_of_the_log(
    used_folder: Path, kind: type[EmbeddedServer]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = kind(used_folder, port=taken.getsockname()[1])
        with pytest.raises(EmbeddedServerFailed, match=r"(?s)ended with code 1.*in use"):
            await server.start()
    async with server:  # the port is free now, and the failure has let go of the folder
        await write(server, "here")
        assert server.port == int(server.url.rpartition(":")[2].partition("/")[0])


@BOTH
async def test_a_start_that_is_cancelled_leaves_no_process_and_no_lock(
    open_folder: Path, kind: type[EmbeddedServer]
) -> None:
    starting = asyncio.create_task(kind(open_folder).start())
    await until((open_folder / "log").exists)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await until(lambda: family(open_folder) == set())
    async with kind(open_folder) as server:
        await write(server, "here")


@BOTH
async def test_secrets_and_logs_are_for_their_owner_only(
    open_folder: Path, kind: type[EmbeddedServer]
) -> None:
    async with kind(open_folder) as server:
        assert server.password in server.url
        for name in ("password", "log", "lock"):
            assert mode(open_folder / name) == 0o600
        assert server.password not in command_line(server.child.pid)


async def test_what_valkey_writes_is_closed_to_other_accounts(open_folder: Path) -> None:
    async with EmbeddedValkey(open_folder):
        assert {"appendonlydir", "settings"} <= set(os.listdir(open_folder))  # noqa: PTH208
        assert mode(open_folder) == 0o700


async def test_without_the_password_nobody_gets_in(used_folder: Path) -> None:
    async with EmbeddedPostgres(used_folder, durable=False) as server:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.url.replace(server.password, "guess"))
    async with EmbeddedValkey(used_folder / "valkey", durable=False) as server:
        client = redis.asyncio.from_url(server.url.replace(server.password, "guess"))
        with pytest.raises(redis.AuthenticationError):
            await client.ping()
        await client.aclose()
