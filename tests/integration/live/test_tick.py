"""The price tick: load moves prices within their bands, one process leads, a late one is fenced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from sqlalchemy import func, select
from structlog.testing import capture_logs
from uuid_utils.compat import uuid7

from broker.core.catalog import Endpoint
from broker.flows.access.authenticate import Caller
from broker.flows.market.choose_pricing import ChoiceWanted, Step, choose_pricing, end_choice
from broker.flows.market.choose_pricing import Clock as Clocked
from broker.flows.market.tick import DT_S_MAX, Ticker
from broker.flows.webhooks.read_webhooks import list_events
from broker.live.loads import Counts
from broker.live.room import Live
from broker.live.sheet import Beat
from broker.store.access.accounts import Role
from broker.store.market import catalog, prices, pricing_choices
from broker.store.market.leadership import Leadership
from broker.store.tables import price_books
from broker.store.webhooks.events import Sought, events
from pricing.book import PriceBook, ProposedRates
from pricing.choice import Scope
from tests.integration.catalog.offers import (
    CALL_BAND,
    SEALER,
    endpoint_offer,
    enlist,
    offer,
    register,
)
from tests.waiting import until

MakeTicker = Callable[..., Ticker]
Clock = Callable[[], datetime]


def now_there() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
async def listed(engine, acme) -> list[Endpoint]:
    """One listed endpoint, number 0, on deployment 0 of capacity 4."""
    registered = await register(engine, acme, offer())
    async with engine.begin() as connection:
        await enlist(connection, registered)
        return (await catalog.load_market(connection, SEALER))[1]


@pytest.fixture
async def make_ticker(engine, database_url, here, listed) -> AsyncIterator[MakeTicker]:
    """Make tickers of processes; they give up their lead in the end."""
    made: list[Ticker] = []

    def make(
        live: Live = here, endpoints: list[Endpoint] = listed, clock: Clock = now_there
    ) -> Ticker:
        ticker = Ticker(engine, Leadership(database_url), live, lambda: endpoints, clock=clock)
        made.append(ticker)
        return ticker

    yield make
    for ticker in made:
        ticker.close()


async def load(live: Live, in_flight: int, refused_per_s: float = 0.0) -> None:
    counts = Counts(np.array([in_flight]), np.array([refused_per_s]), np.array([2.0]))
    await live.loads.exchange(counts)


def rate_in(book: PriceBook | None) -> int:
    assert book is not None
    return book.rate(0).rate_in_micros


async def stored_versions(engine) -> list[int]:
    async with engine.connect() as connection:
        query = select(price_books.c.version).order_by(price_books.c.version)
        return list((await connection.execute(query)).scalars())


async def newest(engine) -> PriceBook:
    async with engine.connect() as connection:
        return await prices.latest_book(connection)


async def test_the_first_book_holds_the_list_prices(make_ticker, engine):
    book = await make_ticker().step(0.0)
    assert book is not None
    assert book.version == 1
    assert rate_in(book) == 200_000
    assert (await newest(engine)).to_bytes() == book.to_bytes()


async def test_prices_rise_under_load_and_fall_after_it_within_the_band(make_ticker, here, engine):
    ticker = make_ticker()
    await ticker.step(0.0)
    await load(here, in_flight=4, refused_per_s=4.0)
    rates = []
    for second in range(4, 120, 4):
        await ticker.step(float(second))
        rates.append(rate_in(await newest(engine)))
    assert rates == sorted(rates)
    assert rates[0] > 200_000
    assert rates[-1] == 2_000_000, "the ceiling"
    await load(here, in_flight=0)
    falling = []
    for second in range(120, 400, 4):
        await ticker.step(float(second))
        falling.append(rate_in(await newest(engine)))
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == 100_000, "the floor"


async def test_nothing_is_stored_when_nothing_changes(make_ticker, engine, here):
    ticker = make_ticker()
    await ticker.step(0.0)
    for second in range(4, 400, 4):
        await ticker.step(float(second))
    at_floor = await stored_versions(engine)
    assert await ticker.step(400.0) is None
    assert await ticker.step(401.0) is None
    assert await stored_versions(engine) == at_floor
    assert at_floor == list(range(1, len(at_floor) + 1))


@pytest.mark.usefixtures("listed")
async def test_a_load_is_kept_to_a_millionth_and_one_that_is_absurd_loses_no_price(engine):
    book = PriceBook.from_matrix(1, np.full((3, 1), 300_000))
    kept = []
    for version, told in enumerate((1.234567891, np.nan, np.inf, -1.0), start=1):
        book = replace(book, version=version)
        async with engine.begin() as connection:
            await prices.insert_book(connection, book, "test", ([0], [told]), datetime.now(UTC))
            [change] = await prices.rates_at(connection, [0], datetime.now(UTC))
        kept.append((change.version, change.load))
    assert kept == [(1, pytest.approx(1.234568, rel=1e-7)), (2, 0.0), (3, 1e9), (4, 0.0)]


async def test_changes_carry_the_load_they_came_from(make_ticker, engine, here):
    ticker = make_ticker()
    await ticker.step(0.0)
    await load(here, in_flight=6)
    await ticker.step(5.0)
    async with engine.connect() as connection:
        changes = await prices.history(connection, [0], datetime(2020, 1, 1, tzinfo=UTC))
        (last,) = await prices.rates_at(connection, [0], datetime.now(UTC))
    assert [each.version for each in changes] == [1, 2]
    assert (changes[0].load, changes[1].load) == (0.0, 1.5)
    assert last == changes[1]


async def test_the_other_processes_calls_count(make_ticker, here, there):
    ticker = make_ticker()
    await ticker.step(0.0)
    await load(there, in_flight=8)
    await load(here, in_flight=0)
    assert rate_in(await ticker.step(5.0)) > 200_000


async def test_a_provider_cannot_talk_its_own_price_up(make_ticker, here, listed):
    ticker = make_ticker()
    await ticker.step(0.0)
    boast = Beat(listed[0].deployment.id, 1, "ready", 60_000, running=1_000, waiting=1_000)
    await here.beats.accept([boast])
    await load(here, in_flight=0)
    assert rate_in(await ticker.step(5.0)) < 200_000


async def test_a_report_adds_what_the_broker_cannot_see(make_ticker, here, listed):
    ticker = make_ticker()
    await ticker.step(0.0)
    await here.beats.accept([Beat(listed[0].deployment.id, 1, "ready", 60_000, running=9)])
    await load(here, in_flight=2)
    assert rate_in(await ticker.step(5.0)) > 200_000, "(2 + 1) / 4 is above the target, 2 / 4 below"


@pytest.mark.parametrize("count", [2**63, 2**64 - 1, -1, -(2**63)])
@pytest.mark.parametrize("said", ["running", "waiting"])
async def test_a_report_beyond_all_bounds_stops_nobodys_prices(
    make_ticker, engine, acme, here, there, listed, said, count
):
    """A process of an earlier version may have let it in."""
    neighbour = offer(name="gpu2", endpoints=[endpoint_offer(name="med")])
    registered = await register(engine, acme, neighbour)
    async with engine.begin() as connection:
        await enlist(connection, registered)
        both = (await catalog.load_market(connection, SEALER))[1]
    nonsense = {"running": 0, "waiting": 0} | {said: count}
    beats = [
        Beat(both[0].deployment.id, 1, "ready", 60_000, **nonsense),
        Beat(both[1].deployment.id, 1, "ready", 60_000, running=9),
    ]
    await there.beats.accept(beats)
    await here.beats.load()
    ticker = make_ticker(here, both)
    await ticker.step(0.0)
    await here.loads.exchange(Counts(np.array([2, 2]), np.zeros(2), np.full(2, 2.0)))
    book = await ticker.step(5.0)
    assert book is not None
    assert book.rate(both[1].number).rate_in_micros > 200_000, "what the neighbour reports counts"
    assert book.rate(both[0].number).rate_in_micros < 200_000, "the nonsense does not"


async def test_one_of_two_leads_and_the_other_takes_over(make_ticker, engine, here, there):
    first, second = make_ticker(here), make_ticker(there)
    await first.step(0.0)
    assert await second.step(0.0) is None
    assert (first.leads, second.leads) == (True, False)
    await load(here, in_flight=8)
    await load(there, in_flight=0)
    raised = rate_in(await first.step(5.0))
    first.close()
    await load(there, in_flight=0)

    async def takes_over() -> bool:
        await second.step(6.0)
        return second.leads

    await until(takes_over)
    assert rate_in(await newest(engine)) == raised, "it goes on where the first one left off"
    assert await first.step(7.0) is None
    book = await second.step(7.0)
    assert book is not None
    assert book.version == 3
    assert raised < rate_in(book) < raised * 1.1


async def test_a_leader_whose_connection_dies_leads_no_more_until_it_has_the_lock_again(
    make_ticker, engine, database_url, database_office, here, there
):
    first, second = make_ticker(here), make_ticker(there)
    await first.step(0.0)
    await database_office.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = $1)",
        database_url.rpartition("/")[2],
    )

    async def takes_over() -> bool:
        await second.step(1.0)
        return second.leads

    await until(takes_over)
    assert await first.step(2.0) is None
    assert not first.leads


async def test_a_late_leader_is_fenced_by_the_version(make_ticker, engine, here):
    ticker = make_ticker()
    first = await ticker.step(0.0)
    assert first is not None
    usurped = PriceBook.from_matrix(2, first.matrix() * 2)
    async with engine.begin() as connection:
        await prices.insert_book(connection, usurped, "another", ([0], [9.0]), datetime.now(UTC))
    await load(here, in_flight=8)
    assert await ticker.step(5.0) is None
    assert not ticker.leads
    assert await stored_versions(engine) == [1, 2]
    assert rate_in(await newest(engine)) == 400_000

    async def leads_again() -> bool:
        await ticker.step(6.0)
        return ticker.leads

    await until(leads_again)
    await load(here, in_flight=8)
    assert rate_in(await ticker.step(7.0)) > 400_000, "it resumed from the other's book"


async def test_a_leader_on_a_restored_database_is_heard_though_its_versions_are_lower(
    make_ticker, engine, here, there
):
    """As many books as were told before are not in the backup."""
    first = make_ticker(here)
    await first.step(0.0)
    for second in range(1, 6):
        await load(here, in_flight=8)
        assert await first.step(10.0 * second) is not None
    async with engine.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM price_changes WHERE version > 2")
        await connection.exec_driver_sql("DELETE FROM price_books WHERE version > 2")
    first.close()
    heard = []
    listening = asyncio.create_task(
        there.books.listen(lambda: heard.append(there.books.newest.version))
    )
    await until(lambda: heard == [6])
    second = make_ticker(there)

    async def leads() -> bool:
        await second.step(100.0)
        return second.leads

    await until(leads)
    await until(lambda: len(heard) > 1)
    assert heard[1] <= 3, "the restored book, or the next one"
    listening.cancel()


async def test_a_tick_that_comes_very_late_counts_as_a_short_one(make_ticker, here):
    ticker = make_ticker()
    await ticker.step(0.0)
    await load(here, in_flight=6)
    late = rate_in(await ticker.step(3_600.0))
    assert late < 200_000 * np.exp((1.5 - 0.7) * DT_S_MAX / 60.0) * 1.01


async def test_a_book_is_published_and_told_again(make_ticker, here, there):
    ticker = make_ticker(here)
    book = await ticker.step(0.0)
    key = here.valkey.key("book")
    assert await here.valkey.ask(lambda client: client.delete(key), 0) == 1
    for second in range(1, 12):
        await ticker.step(float(second))
    stored = await there.valkey.ask(lambda client: client.get(key), None)
    assert stored is not None
    assert PriceBook.from_bytes(stored[40:]).version >= book.version


async def test_prices_move_on_while_valkey_is_away(make_ticker, here, passage):
    ticker = make_ticker()
    await ticker.step(0.0)
    await passage.close()
    await load(here, in_flight=8)
    assert rate_in(await ticker.step(5.0)) > 200_000


async def test_an_endpoint_that_is_retired_loses_its_price_and_a_new_one_starts_at_list(
    make_ticker, engine, acme, here, listed
):
    endpoints = list(listed)
    ticker = make_ticker(here, endpoints)
    await ticker.step(0.0)
    by_call = endpoint_offer(name="by-call", price=CALL_BAND)
    registered = await register(engine, acme, offer(endpoints=[by_call]))
    async with engine.begin() as connection:
        await enlist(connection, registered)
        endpoints[:] = (await catalog.load_market(connection, SEALER))[1]
    book = await ticker.step(1.0)
    assert book is not None
    number = endpoints[0].number
    assert book.rate(number).rate_call_nanos == 200_000
    assert (await newest(engine)).rate(number).rate_call_nanos == 200_000
    assert not book.matrix()[:, 0].any()


async def test_versions_are_drawn_once(engine):
    book = PriceBook.empty(1)
    async with engine.begin() as connection:
        await prices.insert_book(connection, book, "test", ([], []), datetime.now(UTC))
    async with engine.begin() as connection:
        with pytest.raises(prices.VersionTaken):
            await prices.insert_book(connection, book, "test", ([], []), datetime.now(UTC))
        count = select(func.count()).select_from(price_books)
        assert (await connection.execute(count)).scalar_one() == 1


async def test_when_nothing_seems_to_be_listed_the_last_book_stands(
    make_ticker, engine, here, listed
):
    endpoints = list(listed)
    ticker = make_ticker(here, endpoints)
    await ticker.step(0.0)
    endpoints.clear()
    assert await ticker.step(1.0) is None
    assert await stored_versions(engine) == [1]


OPERATOR = Caller(uuid7(), "ops", Role.OPERATOR)


async def choose(engine, controller: str, scope: Scope = Scope.MARKET, subject: str = "", **more):
    wanted = ChoiceWanted(scope, subject, controller, **more)
    async with engine.begin() as connection:
        return await choose_pricing(connection, OPERATOR, wanted, datetime.now(UTC))


async def test_a_choice_moves_the_prices_from_the_next_tick_on(make_ticker, engine, here):
    ticker = make_ticker()
    await ticker.step(0.0)
    await load(here, in_flight=8)
    raised = rate_in(await ticker.step(5.0))
    assert raised > 200_000
    choice = await choose(engine, "posted", Scope.PROVIDER, "acme")
    while await ticker.step(6.0) is not None:
        pass
    assert rate_in(await newest(engine)) == 200_000
    async with engine.begin() as connection:
        await end_choice(connection, OPERATOR, choice.id, datetime.now(UTC))
        names = (await connection.execute(select(price_books.c.controller))).scalars().all()
    assert set(names) == {"excess", "posted"}
    assert rate_in(await ticker.step(12.0)) > 200_000


@pytest.mark.parametrize("controller", ["pi", "shadow", "revenue"])
async def test_every_controller_can_be_chosen_and_stays_in_its_band(
    make_ticker, engine, here, controller
):
    ticker = make_ticker()
    await choose(engine, controller)
    rates = [rate_in(await ticker.step(0.0))]
    await load(here, in_flight=12, refused_per_s=2.0)
    for second in range(1, 20):
        await ticker.step(10.0 * second)
        rates.append(rate_in(await newest(engine)))
    assert rates[0] == 200_000
    assert 200_000 < max(rates) <= 2_000_000


async def test_a_new_leader_goes_by_the_choices_too(make_ticker, engine, here, there):
    await choose(engine, "posted")
    first, second = make_ticker(here), make_ticker(there)
    await first.step(0.0)
    first.close()

    async def takes_over() -> bool:
        await second.step(1.0)
        return second.leads

    await until(takes_over)
    await load(there, in_flight=8)
    assert await second.step(5.0) is None


async def test_a_choice_that_this_version_does_not_understand_is_passed_over(
    make_ticker, engine, here
):
    choice = await choose(engine, "pi")
    ticker = make_ticker()
    async with engine.begin() as connection:
        table = pricing_choices.pricing_choices
        await connection.execute(
            table.update().where(table.c.id == choice.id).values(controller="oracle")
        )
    assert rate_in(await ticker.step(0.0)) == 200_000
    await load(here, in_flight=8)
    assert rate_in(await ticker.step(5.0)) > 200_000


async def test_a_controller_that_fails_is_replaced_and_its_provider_is_told(
    make_ticker, engine, here, acme
):
    ticker = make_ticker()
    await ticker.step(0.0)
    await load(here, in_flight=8)
    raised = rate_in(await ticker.step(5.0))
    spoil(ticker)
    while await ticker.step(6.0) is not None:
        pass
    assert rate_in(await newest(engine)) == 200_000 < raised
    async with engine.connect() as connection:
        query = select(events).where(events.c.kind == "pricing.controller_replaced")
        (told,) = (await connection.execute(query)).all()
    assert told.account_id == acme.id
    assert told.payload["endpoints"] == ["acme/law"]
    assert told.payload["reason"] == "proposed no number"
    assert told.payload["replaced_by"] == "posted"


async def test_a_controller_that_its_parameters_break_is_told_in_the_log_and_to_whom_it_concerns(
    make_ticker, engine, here, acme
):
    ticker = make_ticker()
    await ticker.step(0.0)
    await load(here, in_flight=8)
    assert rate_in(await ticker.step(5.0)) > 200_000
    await choose(engine, "pi", parameters={"ki_per_s": 1e308}, scope=Scope.PROVIDER, subject="acme")
    # Tests make errors of numpy's warnings; a broker logs them and goes on with no number.
    with np.errstate(all="ignore"), capture_logs() as logs:
        for second in range(15, 105, 10):
            await ticker.step(float(second))
    assert rate_in(await newest(engine)) == 200_000
    (line,) = [each for each in logs if each["event"].startswith("a controller was replaced")]
    assert line["log_level"] == "error"
    assert (line["controller"], line["reason"]) == ("pi", "proposed no number")
    sought = Sought(kind="pricing.controller_replaced")
    for reader in (OPERATOR, Caller(acme.id, "acme", Role.PROVIDER)):
        (told,) = await list_events(engine, reader, sought, None, 10)
        assert told.event.payload["endpoints"] == ["acme/law"]
        assert told.event.payload["controller"] == "pi"
    assert await list_events(engine, Caller(uuid7(), "x", Role.PROVIDER), sought, None, 10) == []


async def test_list_prices_by_the_clock_change_at_their_hour_and_back(make_ticker, engine):
    """A night rate of half the price from 22:00 to 06:00 at two hours ahead of UTC."""
    clock = [datetime(2030, 1, 7, 19, 58, tzinfo=UTC)]
    night = Clocked([Step("22:00", 0.5), Step("06:00", 1.0)], utc_offset_minutes=120)
    wanted = ChoiceWanted(Scope.MARKET, "", "posted", schedule=night)
    async with engine.begin() as connection:
        await choose_pricing(connection, OPERATOR, wanted, clock[0])
    ticker, second = make_ticker(clock=lambda: clock[0]), 0.0

    async def rate_at(hour: int, minute: int, day: int = 7) -> int:
        nonlocal second
        clock[0] = datetime(2030, 1, day, hour, minute, tzinfo=UTC)
        moved = True
        while moved:  # by a quarter a tick at most
            second += 1.0
            moved = await ticker.step(second) is not None
        return rate_in(await newest(engine))

    assert await rate_at(19, 59) == 200_000
    assert await rate_at(20, 0) == 100_000
    assert await rate_at(3, 59, day=8) == 100_000
    assert await rate_at(4, 0, day=8) == 200_000


class Broken:
    """A controller with a fault."""

    def resume(self, book, bands):
        return None

    def step(self, state, snapshot):
        return state, ProposedRates(np.full(snapshot.bands.floor.shape, np.nan))


def spoil(ticker: Ticker) -> None:
    """Give the leader a controller with a fault, under the name of the sound one."""
    plan = ticker._plan
    assert plan is not None
    (group,) = plan.ensemble.groups
    broken = replace(plan.ensemble, groups=(replace(group, controller=Broken()),))
    ticker._plan = replace(plan, ensemble=broken)
