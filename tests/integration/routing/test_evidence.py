"""Evidence is kept as it was given, and only ever added to."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy import delete, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.quality.evidence import Grade, Piece, Source, pack, unpack
from broker.store.access.accounts import Role
from broker.store.quality.evidence import (
    START,
    evidence,
    newest_id,
    newest_of_each,
    record,
    said_by,
    since,
)
from tests.integration.catalog.offers import NOW, offer, open_account, register
from tests.integration.reading import go_by_indexes, rows_read

ENDPOINT_ID = "SELECT id FROM endpoints ORDER BY number LIMIT 1"


async def pieces(engine: AsyncEngine) -> list[Piece]:
    """One of each kind, of one endpoint."""
    acme = await open_account(engine, Role.PROVIDER, "acme")
    shop = await open_account(engine, Role.CONSUMER, "shop")
    await register(engine, acme, offer())
    async with engine.connect() as connection:
        endpoint_id = (await connection.execute(text(ENDPOINT_ID))).scalar_one()
    return [
        Piece(NOW, endpoint_id, Source.EVAL, Grade.BINARY, 1.0, "law", vector=b"ab", encoder="x"),
        Piece(NOW, endpoint_id, Source.CHECK, Grade.BINARY, 0.0, weight=0.2, call_id=uuid4()),
        Piece(NOW, endpoint_id, Source.FEEDBACK, Grade.GRADED, 0.7, account_id=shop.id),
        Piece(NOW, endpoint_id, Source.JUDGE, Grade.GRADED, 0.25, "law"),
    ]


async def test_evidence_is_read_back_as_it_was_given_and_from_where_one_left_off(
    engine: AsyncEngine,
) -> None:
    given = await pieces(engine)
    async with engine.begin() as connection:
        await record(connection, given)
        await record(connection, [])
    async with engine.connect() as connection:
        first = await since(connection, START, 3)
        rest = await since(connection, first[-1].id, 3)
        assert [each.piece for each in first + rest] == given
        assert await since(connection, rest[-1].id, 3) == []
        shop_id = given[2].account_id
        assert shop_id is not None
        call_id = uuid4()
        lately = await said_by(connection, shop_id, call_id, NOW - timedelta(days=1))
        assert (lately.words, lately.weight) == (1, None)
        assert (await said_by(connection, shop_id, call_id, NOW)).words == 0


async def test_who_starts_reads_as_many_of_each_source_however_many_there_are_of_another(
    engine: AsyncEngine,
) -> None:
    examined, check, said, judged = await pieces(engine)
    async with engine.connect() as connection:
        assert await newest_id(connection) == START
        assert [page async for page in newest_of_each(connection, 8)] == []
    async with engine.begin() as connection:
        await record(connection, [examined, said, judged, *[check] * 20])
    async with engine.connect() as connection:
        found = [each async for page in newest_of_each(connection, 8) for each in page]
        assert [each.piece for each in found] == [examined, said, judged, *[check] * 5]
        assert found[-1].id == await newest_id(connection)


async def test_who_starts_counts_no_further_than_it_may_read(engine: AsyncEngine) -> None:
    examined, check, said, judged = await pieces(engine)
    async with engine.begin() as connection:
        await record(connection, [examined, said, judged, *[check] * 300])
    async with engine.connect() as connection:
        await go_by_indexes(connection)
        before = await rows_read(connection)
        found = [each async for page in newest_of_each(connection, 6) for each in page]
        read = await rows_read(connection) - before
        assert [each.piece for each in found] == [examined, said, judged, *[check] * 3]
        assert read < 100


async def test_evidence_is_neither_changed_nor_deleted(engine: AsyncEngine) -> None:
    given = await pieces(engine)
    async with engine.begin() as connection:
        await record(connection, given)
    for statement in (delete(evidence), update(evidence).values(score=1.0)):
        with pytest.raises(DBAPIError):
            async with engine.begin() as connection:
                await connection.execute(statement)


@pytest.mark.parametrize(
    "wrong",
    [
        {"score": 1.5},
        {"grade": "binary", "score": 0.5},
        {"weight": -0.1},
        {"source": "rumour"},
        {"source": "feedback", "vector": b"ab", "encoder": "x"},
        {"source": "check", "vector": b"ab", "encoder": "x"},
    ],
    ids=str,
)
async def test_the_schema_refuses_what_is_no_evidence(
    engine: AsyncEngine, wrong: dict[str, object]
) -> None:
    endpoint_id = (await pieces(engine))[0].endpoint_id
    values = {"id": uuid4(), "at": NOW, "endpoint_id": endpoint_id, "source": "eval"}
    values |= {"grade": "graded", "score": 0.5, "weight": 1.0} | wrong
    with pytest.raises(IntegrityError):
        async with engine.begin() as connection:
            await connection.execute(evidence.insert().values(**values))


def test_a_vector_in_half_precision_is_nearly_the_vector() -> None:
    vector = np.random.default_rng(1).normal(size=300).astype(np.float32)
    packed = pack(vector)
    assert len(packed) == 600
    assert np.allclose(unpack(packed), vector, atol=2e-3)
