"""How long answers are is learned of single and whole answers, however many a call has."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from broker.core.quality.lengths import Batch, length_of
from broker.store.calls.answer_lengths import read_lengths
from provider_sdk.testing.script import Script
from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

MESSAGES = [{"role": "user", "content": "How long is the notice period?"}]


def test_a_length_is_of_one_answer_and_of_none_that_its_limit_cut() -> None:
    assert length_of(16, 1, 100) == 16
    assert length_of(48, 3, 100) == 16
    assert length_of(1, 3, 100) == 1
    assert length_of(0, 1, 100) is None
    assert length_of(100, 1, 100) is None
    assert length_of(301, 3, 100) is None


async def test_expected_lengths_are_of_one_whole_answer_of_a_call(
    house: House, shop: Consumer
) -> None:
    await house.enrol(
        Stall(name="acme/jurist", model="jurist", script=Script(output_tokens=16)),
        Stall(name="hooli/cut", model="cut", script=Script(cut_after_chunks=5)),
    )
    asked: list[dict[str, Any]] = [
        {"model": "acme/jurist", "max_tokens": 100},
        {"model": "acme/jurist", "max_tokens": 100, "n": 3},
        {"model": "acme/jurist", "max_tokens": 8},
        {"model": "hooli/cut", "max_tokens": 100, "stream": True},
    ]
    for each in asked:
        answer = await shop.http.post("/v1/chat/completions", json={"messages": MESSAGES} | each)
        assert answer.status_code == 200, answer.text
    count = "SELECT count(*) FROM calls WHERE status = 200 AND tokens_out > 0"

    async def recorded() -> bool:
        return bool(await house.database.fetchval(count) == len(asked))

    await until(recorded)
    async with house.engine.connect() as connection:
        batches, _ = await read_lengths(connection, UUID(int=0))
    number = await house.database.fetchval("SELECT number FROM endpoints WHERE name = 'jurist'")
    assert batches == [Batch(None, number, 2, 32)]
