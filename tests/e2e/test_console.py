"""The console in a real browser: it logs in, stays live, draws, and tells the story of a call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from broker.flows.access.login import make_link
from broker.settings import Settings
from broker.store.access.accounts import Role
from broker.store.database import create_engine
from broker.store.ledger import prepare_session
from tests.e2e.browser import MISSING, chromium
from tests.integration.serving import serving
from tests.integration.web.bourse import Bourse, chat, server, wanted
from web.app import create_console
from web.search import SHOWN

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(MISSING), reason=MISSING or "there is a browser"),
]


@pytest.fixture
async def bourse(database_url: str) -> AsyncIterator[Bourse]:
    engine = create_engine(database_url, connections_max=4)
    connection = await asyncpg.connect(database_url)
    await prepare_session(connection)
    settings = Settings(database_url, "redis://unused", secret_key="ab" * 32)
    yield Bourse(settings, engine, connection)
    await connection.close()
    await engine.dispose()


LONG = "germantenancyspecialist"
ROWS_OF_NAMES = """(() => {
  const rows = [], walk = document.createTreeWalker(
    document.querySelector("#call-%s .route"), NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const range = document.createRange();
    range.selectNodeContents(walk.currentNode);
    if (walk.currentNode.textContent.trim()) rows.push(range.getClientRects().length);
  }
  return rows;
})()"""
"""Over how many rows each part of a call's names goes, as it may be broken after a slash."""


async def test_a_browser_shows_the_market_live_and_a_call_with_its_story(bourse: Bourse) -> None:
    clinic = await bourse.account(Role.CONSUMER, "clinic", 10 * 10**9)
    acme = await bourse.account(Role.PROVIDER, "acme")
    await bourse.offer(acme, server("gpu1", chat("general"), chat("other", "llama"), chat(LONG)))
    number, other = (bourse.market.by_name[f"acme/{each}"] for each in ("general", "other"))
    async with serving(create_console(bourse)) as origin, chromium() as tab:
        token = await make_link(bourse.engine, clinic.id, bourse.clock())
        await tab.open(f"{origin}/console/login?token={token}")
        await tab.until("!!document.querySelector('form button')")
        await tab.ask("document.querySelector('form button').click()")
        await tab.until("document.body?.dataset.live === 'on'")
        assert await tab.ask("location.pathname + location.search") == "/console"
        assert await tab.ask("document.cookie") == "", "scripts cannot read the session"
        await tab.until("document.querySelector('#endpoint .chart canvas')?.width > 100")

        price = f"document.querySelector('#row-{number} [data-cell=price]').textContent"
        assert await tab.ask(price) == "0.400"
        await bourse.reprice({number: 2.5}, {}, bourse.clock())
        await tab.until(f"{price} === '1.000'")

        call = await bourse.call(clinic, wanted(clinic, model="acme/general"))
        await tab.until(f"!!document.getElementById('call-{call}')")
        await tab.ask(f"document.querySelector('#call-{call} summary').click()")
        story = f"document.querySelector('#call-{call} .story')?.innerText"
        told = await tab.until(story)
        for part in ("Candidates", "Attempts", "Charge", "acme/general"):
            assert part in told
        await tab.look(width=390, height=800)
        wide = await tab.ask("document.documentElement.scrollWidth <= innerWidth")
        assert wide, "nor does a story stick out of a narrow window"
        route = f"document.querySelector('#call-{call} .route')"
        assert await tab.ask(f"{route}.scrollWidth <= {route}.clientWidth"), "who served is whole"
        call = await bourse.call(clinic, wanted(clinic, model=f"acme/{LONG}"))
        await tab.until(f"!!document.getElementById('call-{call}')")
        assert set(await tab.ask(ROWS_OF_NAMES % call)) == {1}, "no name is broken inside a word"
        whole = "document.querySelector('.story time[data-whole]').textContent"
        assert len(await tab.ask(whole)) > len("00:00:00"), "a story tells the day of its call"
        await tab.look()

        await tab.ask(f"document.querySelector('[data-endpoint=\"{other}\"]').click()")
        await tab.until(f"!!document.querySelector('#endpoint [data-number=\"{other}\"] canvas')")
        await tab.until(f"!!document.querySelector('#row-{other}[aria-current]')")

        await tab.ask("document.querySelector('.top form').submit()")
        await tab.until("location.pathname === '/console/login'")
        assert tab.complaints == [], "the policy blocks nothing, and no script fails"
        bourse.stopping = True


async def test_an_empty_market_fills_before_the_viewers_eyes(bourse: Bourse) -> None:
    desk = await bourse.account(Role.OPERATOR, "desk")
    async with serving(create_console(bourse)) as origin, chromium() as tab:
        await tab.look(width=390, height=800, scheme="dark")
        token = await make_link(bourse.engine, desk.id, bourse.clock())
        await tab.open(f"{origin}/console/login?token={token}")
        await tab.until("!!document.querySelector('form button')")
        await tab.ask("document.querySelector('form button').click()")
        await tab.until("document.body?.dataset.live === 'on'")
        assert "No endpoints yet" in await tab.ask("document.querySelector('#board').innerText")
        acme = await bourse.account(Role.PROVIDER, "acme")
        await bourse.offer(acme, server("gpu1", chat("general")))
        number = bourse.market.by_name["acme/general"]
        await tab.until(f"!!document.getElementById('row-{number}')")
        await tab.until("!!document.querySelector('#endpoint .chart canvas')")
        wide = await tab.ask("document.documentElement.scrollWidth <= innerWidth")
        assert wide, "nothing sticks out of a narrow window"
        for page in ("simulations", "domains"):
            link = f"document.querySelector('.top a[href=\"/console/{page}\"]')"
            assert await tab.ask(f"{link}.offsetWidth > 0"), "the other pages are found there too"
        assert tab.complaints == []
        bourse.stopping = True


async def test_a_browser_finds_calls_by_a_form_and_its_address_tells_which(bourse: Bourse) -> None:
    clinic = await bourse.account(Role.CONSUMER, "clinic", 10 * 10**9)
    acme = await bourse.account(Role.PROVIDER, "acme")
    await bourse.offer(acme, server("gpu1", chat("general"), chat("other", "llama")))
    now = bourse.clock()
    for number in range(SHOWN + 2):
        at = now - timedelta(minutes=number)
        await bourse.call(clinic, wanted(clinic, model="llama"), at=at)
    other = await bourse.call(clinic, wanted(clinic, model="acme/general"))
    count = "document.querySelectorAll('.call').length"
    async with serving(create_console(bourse)) as origin, chromium() as tab:
        await tab.look(width=390, height=800)
        await tab.send("Emulation.setTimezoneOverride", timezoneId="Asia/Kolkata")
        token = await make_link(bourse.engine, clinic.id, bourse.clock())
        await tab.open(f"{origin}/console/login?token={token}")
        await tab.until("!!document.querySelector('form button')")
        await tab.ask("document.querySelector('form button').click()")
        await tab.until("document.body?.dataset.live === 'on'")
        await tab.ask("document.querySelector('.top a[href=\"/console/calls\"]').click()")
        ready = "document.querySelector('#search') && !document.querySelector('[data-zone]')"
        await tab.until(f"{ready} && {count} === {SHOWN}")
        wide = await tab.ask("document.documentElement.scrollWidth <= innerWidth")
        assert wide, "nothing sticks out of a narrow window"

        await tab.ask("document.querySelector('#search [name=model]').value = 'llama'")
        await tab.ask("document.querySelector('#search [name=from]').value = '2026-01-01T05:30'")
        await tab.ask("document.querySelector('#search .go').click()")
        asked = "?model=llama&from=2026-01-01T00%3A00%3A00.000Z"
        await tab.until(f"location.search === '{asked}' && document.readyState === 'complete'")
        start = "document.querySelector('#search [name=from]').value"
        powered = "document.querySelector('#older a').hasAttribute('data-htmx-powered')"
        await tab.until(f"{powered} && {start} === '2026-01-01T05:30'")
        assert await tab.ask(f"document.getElementById('call-{other}')") is None
        await tab.ask("document.querySelector('#older a').click()")
        await tab.until(f"{count} === {SHOWN + 2}")
        await tab.until("![...document.querySelectorAll('time')].some(t => t.title.includes('+'))")
        assert tab.complaints == []
        bourse.stopping = True
