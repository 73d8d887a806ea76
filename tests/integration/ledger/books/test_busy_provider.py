"""What a provider asks about itself costs the same however much it has sold."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.money.maturity import MaturityTerms
from broker.store.access import accounts
from broker.store.books.statements import EntryKind, Span, read_entries
from broker.store.money import maturity, purses
from tests.integration.reading import go_by_indexes, rows_read

CALLS = 5_000
MANY_CALLS = Path(__file__).with_name("many_calls.sql").read_text().replace("30000", str(CALLS))
PAGE = 50


@pytest.fixture
async def busy(connection: asyncpg.Connection) -> None:
    await connection.execute(MANY_CALLS)
    await connection.execute("VACUUM ANALYZE")  # as autovacuum does


async def test_a_page_of_a_providers_statement_reads_no_more_than_the_page(
    busy: None, engine: AsyncEngine
) -> None:
    async with engine.connect() as asking:
        await go_by_indexes(asking)
        seller = await accounts.by_name(asking, "seller")
        owned = (await purses.purse_of(asking, seller.id)).all()
        before = await rows_read(asking)
        newest = await read_entries(asking, owned, Span(limit=PAGE))
        place = (newest[-1].at, newest[-1].source)
        older = await read_entries(asking, owned, Span(limit=PAGE, place=place))
        read = await rows_read(asking) - before
    told = [*newest, *older]
    assert len({each.source for each in told}) == 2 * PAGE
    assert [each.at for each in told] == sorted((each.at for each in told), reverse=True)
    assert {(each.kind, each.amount_nanos) for each in told} == {(EntryKind.EARNING, 90)}
    assert read < CALLS / 2


async def test_how_well_a_provider_is_known_is_counted_in_an_index_and_no_further_than_asked(
    busy: None, engine: AsyncEngine
) -> None:
    now, few, many = datetime.now(UTC), CALLS // 10, 2 * CALLS
    async with engine.connect() as asking:
        await go_by_indexes(asking)
        seller = await accounts.by_name(asking, "seller")
        before = await rows_read(asking)
        found = [
            (await maturity.read_track(asking, seller.id, terms, now)).calls
            for terms in (
                MaturityTerms(trusted_after_calls=few),
                MaturityTerms(trusted_after_calls=many),
            )
        ]
        read = await rows_read(asking) - before
    assert found == [few, CALLS]
    assert read < few
