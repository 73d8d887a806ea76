"""The supervisor as a process of its own: in order up and down, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from broker.embedded.child import Command
from broker.embedded.failures import AlreadyRunning, EmbeddedServerFailed
from broker.embedded.lock import FolderLock
from broker.embedded.readiness import answering
from broker.embedded.supervise import Service, Supervisor
from broker.embedded.valkey import EmbeddedValkey
from tests.integration.embedded.processes import family, lives, program
from tests.waiting import until

_SERVICE = """
import pathlib, signal, subprocess, sys, time
name, folder, manners = sys.argv[1:]
story = pathlib.Path(folder, "story")
def tell(word):
    with story.open("a") as file:
        file.write(f"{name} {word}\\n")
def end(*_):
    tell("ends")
    if manners != "stubborn":
        sys.exit(0)
signal.signal(signal.SIGTERM, end)
if manners == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    grandchild = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", grandchild, folder])
tell("begins")
pathlib.Path(folder, name).touch()
if manners == "failing":
    sys.exit("the cellar is flooded")
while True:
    time.sleep(600)
"""

_SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from broker.embedded.lock import FolderLock
from broker.embedded.supervise import Supervisor
from broker.embedded.valkey import EmbeddedValkey
from tests.integration.embedded.test_supervise import service

async def main():
    folder = Path(sys.argv[1])
    with FolderLock(folder):
        async with Supervisor() as up:
            await up.host(EmbeddedValkey(folder / "valkey"))
            for name, manners in zip(sys.argv[2::2], sys.argv[3::2]):
                await up.start(service(name, folder, manners))
            print("up", flush=True)
            await up.run()
    print("down by", up.stopped_by.name, flush=True)

asyncio.run(main())
"""


def service(name: str, folder: Path, manners: str) -> Service:
    async def is_there() -> bool:
        return (folder / name).exists()

    command = Command(
        name=name,
        argv=[sys.executable, "-c", _SERVICE, name, str(folder), manners],
        log=folder / f"{name}.log",
    )
    # Who is going to end by itself gets the time to, on a busy machine too.
    return Service(command, ready=is_there, stop_limit_s=1.0 if manners == "stubborn" else 30.0)


def story(folder: Path) -> list[str]:
    return (folder / "story").read_text().splitlines()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_all_in_reverse_order_and_ends_normally(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with program(_SUPERVISOR, str(tmp_path), "one", "mild", "two", "mild") as process:
        assert await line(process) == "up"
        process.send_signal(number)
        assert await line(process) == f"down by {number.name}"
        assert await process.wait() == 0
    assert story(tmp_path) == ["one begins", "two begins", "two ends", "one ends"]
    assert family(tmp_path) == set()


async def test_ctrl_c_given_twice_at_once_is_one_wish_and_stops_in_order(tmp_path: Path) -> None:
    async with program(_SUPERVISOR, str(tmp_path), "one", "mild", "two", "mild") as process:
        assert await line(process) == "up"
        os.killpg(process.pid, signal.SIGINT)
        os.killpg(process.pid, signal.SIGINT)
        assert await line(process) == "down by SIGINT"
    assert story(tmp_path)[2:] == ["two ends", "one ends"]
    assert family(tmp_path) == set()


async def test_a_signal_while_starting_stops_what_has_been_started(tmp_path: Path) -> None:
    words = ["one", "mild", "absent/two", "mild"]  # the second can never show that it is ready
    async with program(_SUPERVISOR, str(tmp_path), *words) as process:
        await until((tmp_path / "one").exists)
        process.send_signal(signal.SIGTERM)
        assert await line(process) == "down by SIGTERM"
        assert await process.wait() == 0
    assert family(tmp_path) == set()


async def test_the_stubborn_are_killed_with_their_children(tmp_path: Path) -> None:
    async with program(_SUPERVISOR, str(tmp_path), "one", "mild", "two", "stubborn") as process:
        assert await line(process) == "up"
        assert len(family(tmp_path)) >= 5
        process.send_signal(signal.SIGTERM)
        assert await line(process) == "down by SIGTERM"
    assert story(tmp_path)[2:] == ["two ends", "one ends"]
    await until(lambda: family(tmp_path) == set())


async def test_a_killed_supervisor_leaves_no_process_behind(tmp_path: Path) -> None:
    async with program(_SUPERVISOR, str(tmp_path), "one", "mild", "two", "stubborn") as process:
        assert await line(process) == "up"
        process.kill()
        await process.wait()
        await until(lambda: family(tmp_path) == set())
    with FolderLock(tmp_path):
        pass  # the lock died with its holder


async def test_a_second_supervisor_in_the_same_folder_is_told_who_was_first(tmp_path: Path) -> None:
    async with program(_SUPERVISOR, str(tmp_path), "one", "mild") as process:
        assert await line(process) == "up"
        with pytest.raises(AlreadyRunning, match=f"already running as pid {process.pid} "):
            FolderLock(tmp_path).acquire()


async def together(*services: Service) -> NoReturn:
    async with Supervisor() as up:
        for one in services:
            await up.start(one)
        await up.run()


async def test_an_unexpected_end_stops_the_others_and_says_who_and_why(tmp_path: Path) -> None:
    services = [service("one", tmp_path, "mild"), service("two", tmp_path, "failing")]
    with pytest.raises(EmbeddedServerFailed, match=r"(?s)two ended .*code 1.*cellar is flooded"):
        await together(*services)
    assert story(tmp_path) == ["one begins", "two begins", "one ends"]
    assert family(tmp_path) == set()


async def test_a_hosted_server_that_is_killed_stops_the_others(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path / "valkey", durable=False)

    async def block() -> None:
        async with Supervisor() as up:
            await up.host(server)
            await up.start(service("one", tmp_path, "mild"))
            os.kill(server.child.pid, signal.SIGKILL)
            await up.run()

    with pytest.raises(EmbeddedServerFailed, match="valkey ended unexpectedly with code -9"):
        await block()
    assert story(tmp_path) == ["one begins", "one ends"]
    assert family(tmp_path) == set()


async def test_a_block_that_ends_by_itself_stops_everything(tmp_path: Path) -> None:
    async with Supervisor() as up:
        one = await up.start(service("one", tmp_path, "mild"))
    assert one.returncode == 0
    assert up.stopped_by is None


async def test_an_error_of_the_block_comes_through_after_everything_has_stopped(
    tmp_path: Path,
) -> None:
    async def block() -> None:
        async with Supervisor() as up:
            await up.start(service("one", tmp_path, "mild"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await block()
    assert story(tmp_path) == ["one begins", "one ends"]


async def test_a_cancellation_from_outside_stays_a_cancellation(tmp_path: Path) -> None:
    async def block() -> None:
        async with Supervisor() as up:
            await up.start(service("one", tmp_path, "mild"))
            await up.run()

    running = asyncio.create_task(block())
    await until((tmp_path / "one").exists)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert family(tmp_path) == set()


async def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    command = Command("ghost", ["/no/such/program"], tmp_path / "ghost.log")
    with pytest.raises(EmbeddedServerFailed, match=r"(?s)ghost .*cannot run /no/such/program"):
        await together(Service(command))


@pytest.mark.parametrize(
    ("status", "ready"), [("200 OK", True), ("204 No", True), ("503 No", False)]
)
async def test_an_http_server_is_ready_when_it_answers_well(status: str, ready: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        assert asked.startswith(b"GET /ready?now=1 HTTP/1.0\r\nHost: 127.0.0.1:")
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await answering(f"http://127.0.0.1:{port}/ready?now=1")() is ready
    assert await answering(f"http://127.0.0.1:{port}/ready?now=1")() is False


def test_a_process_that_ended_is_not_alive() -> None:
    assert lives(os.getpid())
    pid = os.spawnl(os.P_NOWAIT, sys.executable, sys.executable, "-c", "")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert not lives(pid)
    os.waitpid(pid, 0)
