"""Evidence is kept as it was given, and only ever added to."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy import delete, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from broker.core.quality.evidence import Grade, Piece, Source, pack, unpack
from broker.store.access.accounts import Role
from broker.store.quality.evidence import (
    START,
    Recorded,
    Said,
    among,
    evidence,
    find,
    ids_since,
    newest_id,
    newest_of_each,
    record,
    said_by,
    since,
    write,
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


async def test_what_an_account_said_is_its_own_feedback_and_no_other(engine: AsyncEngine) -> None:
    examined, check, said, judged = await pieces(engine)
    club = await open_account(engine, Role.CONSUMER, "club")
    one, two = uuid4(), uuid4()
    given = [
        replace(said, call_id=one, weight=0.5),
        replace(said, call_id=one, weight=0.25),
        replace(said, call_id=two),
        replace(said, call_id=two, weight=0.125, account_id=club.id),
        replace(check, call_id=one, account_id=said.account_id, weight=0.0625),
        examined,
        judged,
    ]
    async with engine.begin() as connection:
        await record(connection, given)
    before = NOW - timedelta(days=1)
    assert said.account_id is not None
    async with engine.connect() as connection:
        assert await said_by(connection, said.account_id, one, before) == Said(3, 1, 0.25)
        assert await said_by(connection, said.account_id, uuid4(), before) == Said(3, 2, None)
        assert await said_by(connection, club.id, two, before) == Said(1, 0, 0.125)


async def test_of_ids_those_that_are_written_are_told_and_read_in_their_order(
    engine: AsyncEngine,
) -> None:
    given = [Recorded(uuid7(), each) for each in await pieces(engine)]
    async with engine.begin() as connection:
        await write(connection, given[::-1])
    ids = [each.id for each in given]
    async with engine.connect() as connection:
        assert await among(connection, [uuid7(), *ids[1:3]]) == set(ids[1:3])
        assert await ids_since(connection, START, 10) == ids
        assert await find(connection, ids[:0:-1]) == given[1:]


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
