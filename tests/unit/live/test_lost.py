"""What is written to a connection to Valkey that has just been lost means that Valkey is away."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from redis.asyncio import Redis

from broker.live.connection import Valkey


def test_writing_to_a_connection_that_was_just_lost_is_answered_with_what_was_last_known() -> None:
    async def ask() -> tuple[int, bool]:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.transport.abort()
            await asyncio.sleep(0.01)

            async def question(_: Redis) -> int:
                writer.writelines([b"PING"])
                return 1

            valkey = Valkey("redis://127.0.0.1:1")
            return await valkey.ask(question, 7), valkey.reachable

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(ask()) == (7, False)


async def test_what_is_no_loss_is_told() -> None:
    async def question(_: Redis) -> int:
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        await Valkey("redis://127.0.0.1:1").ask(question, 0)
