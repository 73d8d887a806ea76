"""What takes long is done beside the calls, or with turns of others between."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from broker.core.call import OpenAiBody
from broker.core.outcome import Fault
from broker.errors import NotAllowed
from broker.flows.calls.exchange import read_whole
from broker.flows.calls.overhear import overhear_whole
from broker.gateway.kserve import infer
from broker.upstream.faults import AttemptFailed
from broker.upstream.hoard import FREE_BYTES
from broker.upstream.request import Limits, Timeouts
from broker.upstream.response import Response
from broker.upstream.unpacking import PACKED_BYTES
from tests.fakes import requirements

NOISE = random.Random(3).randbytes(2 * PACKED_BYTES + FREE_BYTES).hex()
"""Packs to half of itself."""


def answer(text: str) -> bytes:
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice]}).encode()


async def turns_beside(doing: Coroutine[Any, Any, object]) -> tuple[int, Any]:
    """How often another task had its turn meanwhile, and what came of it."""
    turns, task = 0, asyncio.create_task(doing)
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    return turns, (task.exception() or task.result())


def whole_tab(body: bytes, *headers: tuple[bytes, bytes], status: int = 200) -> tuple[Any, Any]:
    """As much of a tab and an attempt as a whole answer takes; `kept` are the bytes it counts."""
    kind = (b"content-type", b"application/json")
    told = [kind, *headers]
    response = Response(Timeouts(), Limits(), 0.0, 99.0, None, 10**9, status=status, headers=told)
    response.chunks, response.buffered, response.done = [body], len(body), True
    kept: list[int] = []

    async def send(*_: object) -> Response:
        return response

    limits = SimpleNamespace(connect_s=1.0, first_byte_s=1.0, idle_s=1.0, answer_bytes_max=10**9)
    runtime = SimpleNamespace(
        clock=lambda: None,
        now_s=lambda: 0.0,
        upstream=SimpleNamespace(send=send, keep=kept.append),
        settings=SimpleNamespace(limits=limits),
        targets=SimpleNamespace(of=lambda *_: SimpleNamespace(prefix=b"", origin=None)),
    )
    call = SimpleNamespace(
        body=OpenAiBody(b"", {}, 0, False, False, 1),
        cascade=None,
        deadline_s=9.0,
        id_text="id",
        trace=None,
        wanted=requirements(),
    )
    server = SimpleNamespace(upstream_model="model", tokenizer_json=None)
    tab = SimpleNamespace(
        runtime=runtime,
        call=call,
        asked=call,
        kept=kept,
        market=SimpleNamespace(endpoint=lambda _: server),
    )
    return tab, SimpleNamespace(candidate=SimpleNamespace(number=0, tokens_out_max=8), index=0)


@pytest.mark.parametrize("encoding", [b"gzip", b" GZIP "])
async def test_an_answer_that_packs_much_is_unpacked_beside_the_calls(encoding: bytes) -> None:
    plain = answer(NOISE)
    tab, attempt = whole_tab(gzip.compress(plain), (b"content-encoding", encoding))
    turns, whole = await turns_beside(read_whole(tab, attempt))
    assert turns > 2
    assert whole.body == plain
    assert whole.headers == ((b"content-type", b"application/json"),)
    assert whole.delivered.text == NOISE
    assert tab.kept == [len(plain)]


async def test_what_does_not_unpack_fails_beside_the_calls_as_it_does_among_them() -> None:
    for size in (PACKED_BYTES // 2, 2 * PACKED_BYTES):
        tab, attempt = whole_tab(b"x" * size, (b"content-encoding", b"gzip"))
        _, error = await turns_beside(read_whole(tab, attempt))
        assert isinstance(error, AttemptFailed)
        assert error.outcome.fault is Fault.MALFORMED


async def test_what_is_not_packed_is_read_at_once() -> None:
    for body in (answer("a"), answer(NOISE)):
        tab, attempt = whole_tab(body)
        turns, whole = await turns_beside(read_whole(tab, attempt))
        assert turns == 1
        assert whole.body == body


async def test_a_very_long_answer_is_put_together_beside_the_calls() -> None:
    body = answer("a" * (5 << 20))
    tab, attempt = whole_tab(body)
    response = await tab.runtime.upstream.send()
    response.chunks = [body[:1_000], body[1_000:]]
    turns, whole = await turns_beside(read_whole(tab, attempt))
    assert turns > 2
    assert whole.body == body


async def test_others_have_a_turn_before_a_long_answer_that_was_read_is_taken_apart() -> None:
    for text, most in (("a", 1), ("a" * (1 << 20), 2)):
        tab, attempt = whole_tab(answer(text))
        turns, reply = await turns_beside(overhear_whole(tab, attempt))
        assert turns == most
        assert reply.text == text


@pytest.mark.parametrize("cut", [None, 5_000])
async def test_a_request_that_packs_much_is_looked_into_beside_the_calls(cut: int | None) -> None:
    packed = gzip.compress(json.dumps({"x": NOISE, "shared_memory_region": "r"}).encode())
    rest = () if cut is None else (memoryview(packed)[cut:],)
    headers = [(b"content-encoding", b"gzip")]
    request: Any = SimpleNamespace(
        path="/v2/models/m/infer",
        headers=headers,
        fields=dict(headers),
        body=packed[:cut],
        rest=rest,
        size_bytes=len(packed),
    )
    runtime: Any = SimpleNamespace(keyring=SimpleNamespace(payer=lambda _: None))
    key: Any = None
    turns, error = await turns_beside(infer(request, runtime, key))
    assert turns > 2
    assert isinstance(error, NotAllowed)
