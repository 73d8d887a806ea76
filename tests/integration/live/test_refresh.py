"""A process's facts: they follow the database at once, and stay when it is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import numpy as np
import pytest

from broker.core.market import Presence, build_market
from broker.errors import Unavailable
from broker.flows.market.facts import Facts
from broker.flows.market.refresh import SETTLES_S, Refresher
from broker.flows.process import listen
from broker.flows.process.listen import ChangeListener
from broker.live.room import Live
from broker.live.sheet import Beat
from broker.store.access import keys
from broker.store.access.accounts import Role
from broker.store.access.keys import KeyTerms
from broker.store.database import create_engine
from broker.store.market import catalog, prices
from broker.store.market.listed import Listed
from pricing.book import PriceBook
from tests.integration.catalog.offers import (
    LATER,
    NOW,
    SEALER,
    TOKEN_BAND,
    endpoint_offer,
    enlist,
    offer,
    open_account,
    register,
)
from tests.integration.live.passage import Passage
from tests.integration.live.test_sharing import make_old, stored
from tests.waiting import until


def clock() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def refresher(engine, here) -> Refresher:
    """A process that hears of no changes, and so looks each time."""
    return Refresher(engine, SEALER, here, clock=clock)


@contextlib.asynccontextmanager
async def running(engine, live: Live, database_url: str) -> AsyncIterator[Refresher]:
    """A process that listens, with a tick so long that only what it hears can wake it."""

    def heard(what: str) -> None:
        refresher.mark(what)

    listener = ChangeListener(database_url, heard)
    refresher = Refresher(engine, SEALER, live, clock=clock, hears=lambda: listener.listening)
    tasks = [
        asyncio.create_task(listener.run()),
        asyncio.create_task(live.books.listen(refresher.wake)),
        asyncio.create_task(refresher.run(300.0, lambda _facts: None)),
    ]
    try:
        await until(lambda: refresher.facts.loaded and live.books.listening)
        yield refresher
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def enlisted(engine, acme, **changes):
    registered = await register(engine, acme, offer(**changes))
    async with engine.begin() as connection:
        await enlist(connection, registered)
    return registered


def names(facts: Facts) -> list[str]:
    return [each.name for each in facts.endpoints]


async def test_before_the_first_look_nothing_is_known_and_it_says_so(refresher, engine, acme):
    assert not refresher.facts.loaded
    await enlisted(engine, acme)
    facts = await refresher.refresh()
    assert facts.loaded
    assert facts.changed
    assert names(facts) == ["acme/law"]
    assert not (await refresher.refresh()).changed


async def test_before_the_first_book_the_list_prices_hold(refresher, engine, acme):
    await enlisted(engine, acme)
    facts = await refresher.refresh()
    number = facts.endpoints[0].number
    assert facts.book.version == 0
    assert facts.book.rate(number).rate_in_micros == 200_000
    market = build_market(facts.endpoints, facts.book, facts.presence)
    assert list(market.by_name) == ["acme/law"]


async def test_what_is_newer_than_the_newest_book_has_its_list_price_in_it(
    refresher, engine, acme, here
):
    await enlisted(engine, acme)
    moved = PriceBook.from_matrix(3, np.full((3, 1), 250_000, dtype=np.int64))
    async with engine.begin() as connection:
        await prices.insert_book(connection, moved, "test", ([0], [0.5]), clock())
    assert (await refresher.refresh()).book.version == 3
    await enlisted(engine, acme, name="second", endpoints=[endpoint_offer(name="news")])
    facts = await refresher.refresh()
    assert facts.changed
    assert (facts.book.version, names(facts)) == (3, ["acme/law", "acme/news"])
    assert [facts.book.rate(each).rate_in_micros for each in (0, 1)] == [250_000, 200_000]
    assert (await refresher.refresh()).book is facts.book
    market = build_market(facts.endpoints, facts.book, facts.presence)
    assert sorted(market.by_name) == ["acme/law", "acme/news"]
    both = PriceBook.from_matrix(4, np.full((3, 2), 300_000, dtype=np.int64))
    async with engine.begin() as connection:
        await prices.insert_book(connection, both, "test", ([0, 1], [0.5, 0.5]), clock())
    facts = await refresher.refresh()
    assert (facts.book.version, facts.book.rate(1).rate_in_micros) == (4, 300_000)


async def test_a_newcomer_goes_by_its_newest_terms_whoever_is_listed_beside_it(
    refresher, engine, acme, here
):
    moved = PriceBook.from_matrix(3, np.full((3, 0), 1, dtype=np.int64))
    async with engine.begin() as connection:
        await prices.insert_book(connection, moved, "test", ([], []), clock())
    await enlisted(engine, acme)
    assert (await refresher.refresh()).book.rate(0).rate_in_micros == 200_000
    await enlisted(engine, acme, name="second", endpoints=[endpoint_offer(name="news")])
    assert (await refresher.refresh()).book.rate(1).rate_in_micros == 200_000
    dearer = endpoint_offer(price=msgspec.structs.replace(TOKEN_BAND, list_in="0.25"))
    await register(engine, acme, offer(endpoints=[dearer]), LATER)
    facts = await refresher.refresh()
    assert [facts.book.rate(each).rate_in_micros for each in (0, 1)] == [250_000, 200_000]


async def test_what_did_not_change_stays_the_same_object(refresher, engine, acme):
    await enlisted(engine, acme)
    first = await refresher.refresh()
    again = await refresher.refresh()
    assert again.endpoints is first.endpoints
    assert again.book is first.book
    await register(engine, acme, offer(capacity=9), LATER)
    third = await refresher.refresh()
    assert third.changed
    assert third.endpoints[0].deployment.capacity == 9


async def test_a_revoked_key_and_a_new_endpoint_are_heard_of_at_once(
    engine, acme, here, database_url
):
    firm = await open_account(engine, Role.CONSUMER, "firm")
    async with running(engine, here, database_url) as refresher:
        async with engine.begin() as connection:
            issued = await keys.issue(connection, firm.id, KeyTerms(), clock())
        await until(lambda: issued.id in refresher.facts.keys)
        async with engine.begin() as connection:
            await keys.revoke(connection, issued.id, clock())
        await until(lambda: issued.id not in refresher.facts.keys)
        await enlisted(engine, acme)
        await until(lambda: names(refresher.facts) == ["acme/law"])


async def test_a_revoked_key_is_heard_of_though_the_listener_hangs(engine, here, database_url):
    firm = await open_account(engine, Role.CONSUMER, "firm")
    async with Passage(database_url) as way, running(engine, here, way.url) as refresher:
        async with engine.begin() as connection:
            issued = await keys.issue(connection, firm.id, KeyTerms(), clock())
        await until(lambda: issued.id in refresher.facts.keys)
        way.freeze()
        async with engine.begin() as connection:
            await keys.revoke(connection, issued.id, clock())
        await until(lambda: issued.id not in refresher.facts.keys)


def test_no_revoked_key_outlives_a_second():
    """A look is due when the last check that was answered no longer proves anything, and the
    clock that says so ticks as often as the checks."""
    assert listen.CERTAIN_S + listen.CHECKED_EVERY_S + SETTLES_S < 0.8
    assert listen.CHECKED_EVERY_S < listen.CERTAIN_S, "else each check would come too late"


async def test_a_listener_that_is_cut_off_comes_back_and_missed_nothing(
    engine, acme, here, database_url, database_office
):
    async with running(engine, here, database_url) as refresher:
        name = database_url.rpartition("/")[2]
        await database_office.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
        )
        await until(lambda: _enlisted_quietly(engine, acme))
        await until(lambda: names(refresher.facts) == ["acme/law"])


async def _enlisted_quietly(engine, acme) -> bool:
    try:
        await enlisted(engine, acme)
    except Exception:  # the pool's connections were cut too, each says so once
        return False
    return True


async def test_a_published_book_arrives_at_once(engine, acme, here, there, database_url):
    await enlisted(engine, acme)
    rates = np.array([[300_000], [600_000], [0]], dtype=np.int64)
    async with running(engine, here, database_url) as refresher:
        await _store(engine, PriceBook.from_matrix(1, rates))
        await there.books.publish(PriceBook.from_matrix(1, rates))
        await until(lambda: refresher.facts.book.version == 1)
        assert refresher.facts.book.rate(0).rate_in_micros == 300_000


async def _store(engine, book: PriceBook) -> None:
    async with engine.begin() as connection:
        await prices.insert_book(connection, book, "test", ([0], [0.5]), LATER)


async def test_a_book_of_a_later_epoch_takes_the_place_of_a_higher_version(
    engine, acme, here, there, database_url
):
    await enlisted(engine, acme)
    rates = np.array([[300_000], [600_000], [0]], dtype=np.int64)
    async with running(engine, here, database_url) as refresher:
        await there.books.publish(PriceBook.from_matrix(9, rates), 1)
        await until(lambda: refresher.facts.book.version == 9)
        await there.books.publish(PriceBook.from_matrix(4, rates * 2), 2)
        await until(lambda: refresher.facts.book.version == 4)
        assert refresher.facts.book.rate(0).rate_in_micros == 600_000


async def test_a_book_that_the_database_has_lost_is_given_up_without_a_feed_too(
    engine, acme, here, there, database_url, passage
):
    await enlisted(engine, acme)
    rates = np.array([[300_000], [600_000], [0]], dtype=np.int64)
    for version in (1, 2):
        await _store(engine, PriceBook.from_matrix(version, rates * version))
    await there.books.publish(PriceBook.from_matrix(9, rates * 9), 1)
    async with running(engine, here, database_url) as refresher:
        await until(lambda: here.books.newest is not None)
        await passage.close()
        await until(lambda: not here.books.listening)
        assert (await refresher.refresh()).book.version == 2
        assert (await refresher.refresh()).book.rate(0).rate_in_micros == 600_000
        await passage.open()
        await there.books.publish(PriceBook.from_matrix(3, rates), 20)
        await until(lambda: here.books.listening)
        assert (await refresher.refresh()).book.version == 3


async def test_without_a_feed_the_newest_book_comes_from_the_database(
    refresher, engine, acme, passage
):
    await enlisted(engine, acme)
    await passage.close()
    first = await refresher.refresh()
    rates = np.array([[300_000], [600_000], [0]], dtype=np.int64)
    for version in (1, 2):
        await _store(engine, PriceBook.from_matrix(version, rates * version))
    facts = await refresher.refresh()
    assert (first.book.version, facts.book.version) == (0, 2)
    assert facts.changed
    assert facts.book.rate(0).rate_out_micros == 1_200_000


async def test_facts_stay_while_the_database_is_away(refresher, engine, acme):
    await enlisted(engine, acme)
    before = await refresher.refresh()
    refresher._engine = create_engine("postgresql://nobody@127.0.0.1:1/none")
    facts = await refresher.refresh()
    assert facts.loaded
    assert facts.endpoints is before.endpoints
    assert not facts.changed
    await refresher._engine.dispose()
    refresher._engine = engine
    await register(engine, acme, offer(capacity=9), LATER)
    assert (await refresher.refresh()).endpoints[0].deployment.capacity == 9


async def test_a_process_waits_for_its_first_facts_until_the_database_is_there(
    engine, here, acme, database_url
):
    await enlisted(engine, acme)
    async with Passage(database_url) as way:
        await way.close()
        distant = create_engine(way.url)
        refresher = Refresher(distant, SEALER, here, clock=clock)
        first = asyncio.create_task(refresher.first())
        assert not (await refresher.refresh(ticks=True)).loaded
        await way.open()
        assert names(await first) == ["acme/law"]
        await distant.dispose()


async def test_a_process_without_a_database_does_not_begin(here):
    engine = create_engine("postgresql://nobody@127.0.0.1:1/none")
    times_s = iter((0.0, 0.0, 1.0, 100.0))
    refresher = Refresher(engine, SEALER, here, clock=clock, now_s=lambda: next(times_s, 200.0))
    with pytest.raises(Unavailable):
        await refresher.first()


async def test_a_draining_deployment_changes_the_market(refresher, engine, acme, there):
    registered = await enlisted(engine, acme, endpoints=[endpoint_offer()])
    await refresher.refresh(ticks=True)
    await there.beats.accept([Beat(registered.deployment_id, 1, "draining", 60_000)])
    facts = await refresher.refresh(ticks=True)
    assert facts.changed
    assert facts.presence == {facts.deployments[0].number: Presence.DRAINING}
    assert not (await refresher.refresh(ticks=True)).changed


async def test_of_the_long_dead_only_the_listed_are_remembered(engine, acme, here, there):
    listed = (await enlisted(engine, acme)).deployment_id
    elsewhere = UUID(int=9)
    await there.beats.accept([Beat(each, 1, "ready", 60_000) for each in (listed, elsewhere)])
    await make_old(there, listed, elsewhere)
    away = create_engine("postgresql://nobody@127.0.0.1:1/none")
    refresher = Refresher(away, SEALER, here, clock=clock)
    await refresher.refresh(ticks=True)
    assert here.beats.sheet().ids == {listed, elsewhere}, "who is listed is not known yet"
    refresher._engine = engine
    await refresher.refresh(ticks=True)
    assert here.beats.sheet().ids == {listed}
    assert await stored(there) == ({listed}, {listed})
    await away.dispose()


async def test_an_expired_key_is_not_loaded(refresher, engine):
    firm = await open_account(engine, Role.CONSUMER, "firm")
    async with engine.begin() as connection:
        await keys.issue(connection, firm.id, KeyTerms(expires_at=NOW), NOW)
    assert (await refresher.refresh()).keys == {}


async def test_of_a_catalog_only_what_changed_is_read_again(refresher, engine, acme):
    await enlisted(engine, acme)
    await enlisted(engine, acme, name="gpu-2", endpoints=[endpoint_offer(name="tax")])
    first = await refresher.refresh()
    await register(engine, acme, offer(capacity=9), LATER)
    law, tax = (await refresher.refresh()).endpoints
    assert law.deployment.capacity == 9
    assert tax is first.endpoints[1]
    assert tax.deployment is first.deployments[1]
    assert tax.band is first.endpoints[0].band, "what is equal is kept once"
    async with engine.begin() as connection:
        await catalog.withdraw(connection, acme.id, law.deployment.id, LATER)
    assert names(await refresher.refresh()) == ["acme/tax"]


async def test_a_reading_that_was_broken_off_is_gone_on_with(engine, acme):
    await enlisted(engine, acme)
    listed = Listed(SEALER)
    async with engine.connect() as connection:
        await listed.read(connection)
    before = listed.endpoints
    await enlisted(engine, acme, name="gpu-2", endpoints=[endpoint_offer(name="tax")])
    for moment in range(100):
        async with engine.connect() as connection:
            reading = asyncio.ensure_future(listed.read(connection))
            await asyncio.wait([reading], timeout=moment / 1_000)
            if reading.done():
                break
            reading.cancel()
            await asyncio.wait([reading])
            assert listed.endpoints is before
            await connection.invalidate()
    async with engine.connect() as connection:
        await listed.read(connection)
    assert [each.name for each in listed.endpoints] == ["acme/law", "acme/tax"]
    assert listed.endpoints[0] is before[0]
