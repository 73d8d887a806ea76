"""A server that was halted holds it against no caller: what came meanwhile is read first."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from tests.integration.server.test_wire import LIMIT_S, Wire, post

HALT_S = 2.0
SERVER = """
import asyncio, os, signal, uvloop
from broker.server.limits import ServerLimits
from broker.server.listener import Listener
from tests.integration.server.test_wire import Echo

class Halting(Echo):
    def open(self, request):
        if request.path == "/halt":
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().open(request)

async def serve():
    limits = ServerLimits(head_s=1.5, body_s=1.5, keep_alive_s=1.5)
    listener = Listener(Halting().open, limits)
    print(await listener.start("127.0.0.1", 0), flush=True)
    await asyncio.Event().wait()

uvloop.run(serve())
"""


async def _wire(port: int) -> Wire:
    return Wire(*await asyncio.open_connection("127.0.0.1", port))


async def _halted(pid: int) -> None:
    async with asyncio.timeout(LIMIT_S):
        stat = Path(f"/proc/{pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "T":  # noqa: ASYNC110 - another's
            await asyncio.sleep(0.01)


async def test_what_came_while_the_server_was_halted_is_served() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(LIMIT_S):
            port = int(await child.stdout.readline())
        idle, head, body, silent, last = [await _wire(port) for _ in range(5)]
        whole = post()
        await idle.send(whole)
        assert (await idle.answer())[0] == 200
        await head.send(whole[:20])
        await body.send(whole[:-2])
        await last.send(post("/halt"))  # it halts while it reads, and looks before it reads on
        await _halted(child.pid)
        await idle.send(whole)
        await head.send(whole[20:])
        await body.send(whole[-2:])
        await asyncio.sleep(HALT_S)
        os.kill(child.pid, signal.SIGCONT)
        for each in (idle, head, body):
            assert await each.answer() == (200, b"POST /a hello")
        assert await last.answer() == (200, b"POST /halt hello")
        assert await silent.rest() == b"", "who says nothing is let go all the same"
        for each in (idle, head, body, silent, last):
            each.writer.close()
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()
