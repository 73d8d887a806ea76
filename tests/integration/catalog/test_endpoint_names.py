"""Names of endpoints, looked up for whatever speaks of their numbers."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.store.access.accounts import Account
from broker.store.calls import lost_calls
from broker.store.calls.log import Filter, Page, list_calls
from broker.store.market import endpoint_names
from tests.integration.catalog.offers import NOW, endpoint_offer, offer, register

MORE_THAN_ARGUMENTS = range(40_000)


async def test_a_name_is_found_without_the_tokenizer_of_its_endpoint(
    engine: AsyncEngine, acme: Account
) -> None:
    long = '{"model": {}}'
    await register(engine, acme, offer(endpoints=[endpoint_offer(name="law", tokenizer_json=long)]))
    asked: list[str] = []

    def note(*told: object) -> None:
        asked.append(str(told[2]))

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    async with engine.connect() as connection:
        [named] = await endpoint_names.by_name(connection, "acme/law")
        found = await endpoint_names.by_numbers(connection, [named.number])
    event.remove(engine.sync_engine, "before_cursor_execute", note)
    assert found == {named.number: named}
    assert (named.name, named.provider_id) == ("acme/law", acme.id)
    assert len(asked) == 2
    assert not [each for each in asked if "tokenizer_json" in each]


async def test_of_more_numbers_than_a_statement_takes_arguments_all_are_looked_up(
    engine: AsyncEngine, acme: Account
) -> None:
    await register(engine, acme, offer(endpoints=[endpoint_offer(name="law")]))
    async with engine.connect() as connection:
        [number] = await endpoint_names.numbers_of_provider(connection, acme.id)
        assert [*await endpoint_names.by_numbers(connection, MORE_THAN_ARGUMENTS)] == [number]
        counted = (MORE_THAN_ARGUMENTS, NOW - timedelta(days=1), NOW)
        assert await lost_calls.read_counts(connection, *counted) == []
    page = await list_calls(engine, Filter(endpoint_numbers=MORE_THAN_ARGUMENTS))
    assert page == Page([], None)
