"""A small market with its console, and people who look at it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import asyncpg
import httpx
import pytest
from litestar.types import ASGIApp
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.flows.access.login import make_link
from broker.settings import Settings
from broker.store.access.accounts import Account, Role
from broker.store.ledger import prepare_session
from tests.integration.web.bourse import Bourse, chat, server
from web.app import create_console

ORIGIN = "http://console.example.com"
_FORM_TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')


@pytest.fixture
async def bourse(database_url: str, engine: AsyncEngine) -> AsyncIterator[Bourse]:
    """A market without anything in it."""
    connection = await asyncpg.connect(database_url)
    await prepare_session(connection)
    settings = Settings(database_url, "redis://unused", secret_key="ab" * 32, public_url=ORIGIN)
    yield Bourse(settings, engine, connection)
    await connection.close()


@pytest.fixture
def console(bourse: Bourse) -> ASGIApp:
    """The console of the market."""
    return create_console(bourse)


@pytest.fixture
async def stranger(console: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that is not logged in."""
    async with browser(console) as client:
        yield client


Enter = Callable[[Account], Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def enter(console: ASGIApp, bourse: Bourse) -> AsyncIterator[Enter]:
    """Log an account in and return its browser."""
    browsers: list[httpx.AsyncClient] = []

    async def log_in(account: Account) -> httpx.AsyncClient:
        client = browser(console)
        browsers.append(client)
        token = await make_link(bourse.engine, account.id, bourse.clock())
        answer = await follow(client, token)
        assert answer.status_code == 303
        return client

    yield log_in
    for client in browsers:
        await client.aclose()


@dataclass(frozen=True)
class People:
    """Who takes part in the small market."""

    operator: Account
    clinic: Account
    notary: Account
    acme: Account
    borealis: Account


@pytest.fixture
async def people(bourse: Bourse) -> People:
    """Two consumers, two providers with an endpoint each, and an operator."""
    people = People(
        operator=await bourse.account(Role.OPERATOR, "desk"),
        clinic=await bourse.account(Role.CONSUMER, "clinic", 10 * 10**9),
        notary=await bourse.account(Role.CONSUMER, "notary", 10 * 10**9),
        acme=await bourse.account(Role.PROVIDER, "acme"),
        borealis=await bourse.account(Role.PROVIDER, "borealis"),
    )
    await bourse.offer(people.acme, server("gpu1", chat("general")))
    await bourse.offer(
        people.borealis, server("north", chat("law", "tiny-law", domains={"law": 0.9}))
    )
    return people


async def follow(client: httpx.AsyncClient, token: str) -> httpx.Response:
    """Open a login link and press its one button."""
    page = await client.get("/console/login", params={"token": token})
    data = {"csrf_token": token_in(page), "token": token}
    return await client.post("/console/login", data=data)


def token_in(page: httpx.Response) -> str:
    """The CSRF token that a form on the page carries."""
    found = _FORM_TOKEN.search(page.text)
    assert found is not None, page.text
    return found[1]


def browser(console: ASGIApp) -> httpx.AsyncClient:
    """A client that talks to the console as a browser does."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(console),  # type: ignore[arg-type]
        base_url=ORIGIN,
        headers={"accept": "text/html"},
    )
