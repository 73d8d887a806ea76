"""The event stream over a real socket: what it tells, to whom, and when it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import httpx
import pytest
from litestar.types import ASGIApp
from sqlalchemy import event

from broker.api.streams import STREAMS_OF_ACCOUNT_MAX
from broker.flows.access.login import SESSION_COOKIE, close_session
from broker.store.access.accounts import Account
from tests.integration.serving import serving
from tests.integration.web.bourse import Bourse, chat, server, wanted
from tests.integration.web.conftest import Enter, People
from tests.plain import TRUSTS_NOBODY
from web.events import CALLS_EVERY_BEATS

WITHIN_S = 20.0


class Listener:
    """Reads the events of one stream."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.aiter_lines()

    async def next(self, event: str) -> str:
        """The data of the next event of that name."""
        async with asyncio.timeout(WITHIN_S):
            name, data = "", []
            async for line in self._lines:
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    data.append(value)
                elif not line:
                    if name == event:
                        return "\n".join(data)
                    name, data = "", []
        raise AssertionError(f"the stream ended without {event}")

    async def ends(self) -> bool:
        """True once the stream is at its end."""
        async with asyncio.timeout(WITHIN_S):
            async for _ in self._lines:
                pass
        return True


@pytest.fixture
async def origin(console: ASGIApp, bourse: Bourse) -> AsyncIterator[str]:
    async with serving(console) as origin:
        yield origin
        bourse.stopping = True


async def listen(stack: AsyncExitStack, origin: str, session: str) -> httpx.Response:
    """Open a stream with a session."""
    client = await stack.enter_async_context(
        httpx.AsyncClient(timeout=WITHIN_S, verify=TRUSTS_NOBODY)
    )
    headers = {"cookie": f"{SESSION_COOKIE}={session}"}
    stream = client.stream("GET", f"{origin}/console/events", headers=headers)
    return await stack.enter_async_context(stream)


async def is_let_in(origin: str, session: str) -> bool:
    """True once there is room for one more stream; the server learns of closed ones in a while."""
    for _ in range(200):
        async with AsyncExitStack() as stack:
            if (await listen(stack, origin, session)).status_code == 200:
                return True
        await asyncio.sleep(0.05)
    return False


async def session_of(enter: Enter, account: Account) -> str:
    return (await enter(account)).cookies[SESSION_COOKIE]


async def test_the_stream_tells_the_whole_market_and_then_what_changed(
    bourse: Bourse, people: People, enter: Enter, origin: str
) -> None:
    number = bourse.market.by_name["acme/general"]
    async with AsyncExitStack() as stack:
        answer = await listen(stack, origin, await session_of(enter, people.clinic))
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        listener = Listener(answer)
        whole = json.loads(await listener.next("board"))
        assert {each["n"] for each in whole["rows"]} == set(bourse.market.by_name.values())
        await bourse.reprice({number: 3.0}, {}, bourse.clock())
        while (news := json.loads(await listener.next("board")))["version"] == whole["version"]:
            pass
        changed = {each["n"]: each for each in news["rows"]}
        assert changed[number]["price"] == "1.200"
        assert changed[number]["change"] == "+200.0%"


async def test_the_stream_shows_a_private_endpoint_only_to_whom_it_is_listed_for(
    bourse: Bourse, people: People, enter: Enter, origin: str
) -> None:
    await bourse.offer(people.acme, server("vault", chat("secret", visible_to=["clinic"])))
    number = bourse.market.by_name["acme/secret"]
    for account, shown in ((people.clinic, True), (people.notary, False)):
        async with AsyncExitStack() as stack:
            answer = await listen(stack, origin, await session_of(enter, account))
            board = json.loads(await Listener(answer).next("board"))
            assert (number in {each["n"] for each in board["rows"]}) is shown
            assert (str(number) in board["members"].split(".")) is shown


async def test_a_new_call_arrives_at_its_owner_alone(
    bourse: Bourse, people: People, enter: Enter, origin: str
) -> None:
    async with AsyncExitStack() as stack:
        clinic = Listener(await listen(stack, origin, await session_of(enter, people.clinic)))
        notary = Listener(await listen(stack, origin, await session_of(enter, people.notary)))
        await clinic.next("board")
        await notary.next("board")
        own = await bourse.call(people.clinic, wanted(people.clinic))
        others = await bourse.call(people.notary, wanted(people.notary))
        assert f"call-{own}" in (told := await clinic.next("calls"))
        assert str(others) not in told
        assert f"call-{others}" in (told := await notary.next("calls"))
        assert str(own) not in told


async def test_of_calls_that_were_told_already_nothing_is_read_again(
    bourse: Bourse, people: People, enter: Enter, origin: str
) -> None:
    read: dict[str, list[list[UUID]]] = {"console_charges": [], "labels FROM console_calls": []}

    def note(*asked: Any) -> None:
        for what, together in read.items():
            if what in asked[2]:
                together.extend([each for each in asked[3] if isinstance(each, list)] or [[]])

    event.listen(bourse.engine.sync_engine, "before_cursor_execute", note)
    try:
        first = await bourse.call(people.clinic, wanted(people.clinic, model="acme/general"))
        async with AsyncExitStack() as stack:
            session = await session_of(enter, people.acme)
            listener = Listener(await listen(stack, origin, session))
            assert f"call-{first}" in await listener.next("calls")
            for _ in range(CALLS_EVERY_BEATS + 1):
                await listener.next("board")
            asked = wanted(people.clinic, model="acme/general")
            second = await bourse.call(people.clinic, asked)
            assert f"call-{second}" in await listener.next("calls")
    finally:
        event.remove(bourse.engine.sync_engine, "before_cursor_execute", note)
    assert list(read.values()) == [[[first], [second]]] * 2


async def test_the_stream_ends_with_the_session(
    bourse: Bourse, people: People, enter: Enter, origin: str
) -> None:
    session = await session_of(enter, people.clinic)
    async with AsyncExitStack() as stack:
        listener = Listener(await listen(stack, origin, session))
        await listener.next("board")
        await close_session(bourse.engine, session)
        await listener.next("ended")
        assert await listener.ends()


async def test_the_stream_ends_when_the_broker_stops(
    bourse: Bourse, people: People, enter: Enter, origin: str
) -> None:
    async with AsyncExitStack() as stack:
        listener = Listener(await listen(stack, origin, await session_of(enter, people.clinic)))
        await listener.next("board")
        bourse.stopping = True
        assert await listener.ends()


async def test_an_account_has_so_many_streams_and_no_more(
    people: People, enter: Enter, origin: str
) -> None:
    session = await session_of(enter, people.clinic)
    async with AsyncExitStack() as stack:
        listeners = []  # one that nobody holds closes its stream
        for _ in range(STREAMS_OF_ACCOUNT_MAX):
            listeners.append(Listener(await listen(stack, origin, session)))
            await listeners[-1].next("board")
        refused = await listen(stack, origin, session)
        assert refused.status_code == 429
        other = await listen(stack, origin, await session_of(enter, people.notary))
        assert other.status_code == 200
    assert await is_let_in(origin, session), "closed streams leave their room to others"
