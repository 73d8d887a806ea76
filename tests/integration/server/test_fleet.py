"""A fleet whose workers end, or cannot be started at all."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from broker.cli.fleet import Fleet
from tests.waiting import until

SERVES = """
import socket, sys
listening = socket.socket(fileno=int(sys.argv[1]))
listening.setblocking(True)
while True:
    accepted, _ = listening.accept()
    accepted.recv(1000)
    accepted.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n")
    accepted.close()
"""
ENDS = "import sys; sys.exit(1)"
EXHAUSTED = BlockingIOError(errno.EAGAIN, "no process is to be had")

Child = asyncio.subprocess.Process
Script = Callable[[int, int], str | OSError]


@dataclass
class ScriptedFleet(Fleet):
    """What the worker of a number does in each of its lives is for the test to say."""

    script: Script = lambda number, life: SERVES
    lives: dict[int, list[Child | None]] = field(default_factory=dict)

    async def _start(self, number: int, listening: socket.socket) -> Child:
        lives = self.lives.setdefault(number, [])
        does = self.script(number, len(lives))
        if isinstance(does, OSError):
            lives.append(None)
            raise does
        descriptor = listening.fileno()
        command = (sys.executable, "-c", does, str(descriptor))
        child = await asyncio.create_subprocess_exec(
            *command, start_new_session=True, pass_fds=(descriptor,)
        )
        lives.append(child)
        self._children[number] = child
        return child


@asynccontextmanager
async def running(
    count: int, script: Script
) -> AsyncIterator[tuple[ScriptedFleet, asyncio.Task[int]]]:
    """Have a fleet run; whatever comes of the test, it is told to end."""
    fleet = ScriptedFleet("127.0.0.1", 0, count, script=script)
    task = asyncio.create_task(fleet.run())
    try:
        async with asyncio.timeout(60):
            yield fleet, task
    finally:
        if not task.done():
            os.kill(os.getpid(), signal.SIGTERM)
            await task


async def test_a_worker_is_replaced_though_no_process_is_to_be_had_for_a_while() -> None:
    def script(number: int, life: int) -> str | OSError:
        return EXHAUSTED if number == 1 and life in (1, 2) else SERVES

    async with running(2, script) as (fleet, task):
        await until(lambda: 1 in fleet.lives and 1 in fleet._children)
        fleet._children[1].kill()
        await until(lambda: len(fleet.lives[1]) == 4)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await task == 0


async def test_a_first_worker_that_ends_before_it_answers_is_the_end_of_all() -> None:
    async with running(2, lambda number, life: ENDS) as (fleet, task):
        assert await task == 1
        assert {number: len(lives) for number, lives in fleet.lives.items()} == {0: 1}


async def test_a_first_worker_that_cannot_be_started_is_the_end_of_all() -> None:
    async with running(2, lambda number, life: EXHAUSTED) as (_, task):
        assert await task == 1


async def test_a_fleet_told_to_end_while_a_worker_waits_for_its_next_life_ends_well() -> None:
    async with running(2, lambda number, life: ENDS if number else SERVES) as (fleet, task):
        # After so many falls the next life is most of a second away.
        await until(lambda: len(fleet.lives.get(1, ())) == 4 and 1 not in fleet._children)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await task == 0
