"""Looks at some of the answers to `auto` for flaws of form, which are evidence of who gave them.

One in so many is looked at, beside the calls; a flaw counts as if all had been, and so does none.
Callers write what answers are held against, so each gets a few looks at an endpoint a day.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from broker.core.answers.answer_checks import Flaw, find_flaw
from broker.core.answers.tensor_checks import find_tensor_flaw
from broker.core.call import TensorBody
from broker.core.columns import AUTO
from broker.core.quality.evidence import Grade, Piece, Source
from broker.core.wire.signature import Signature
from broker.flows.calls.tab import Tab
from broker.upstream.kserve import HEADER_LENGTH

INSPECTED: Final = 0.25
"""The share of answers that is looked at."""
PASSED_KEPT: Final = 0.2
"""The share of those without a flaw that is written down; a flaw weighs that much of them."""
CODED: Final = b"content-encoding"
Find = Callable[[], Flaw | None]
Headers = Sequence[tuple[bytes, bytes]]
_ANSWER_BYTES_MAX: Final = 262_144
"""Of more text, or more JSON before tensors or around them, nothing is looked at."""
_SHORT_BYTES: Final = 2_048
"""Of a call in which nothing is asked that takes long to check. The loop looks at so much in 20 to
500 us; a thread takes 50 to 100 for nothing but to be asked, and in a large market there are always
endpoints that have looks of the day left."""
_LONG_WORK: Final = ("response_format", "tools")


def is_drawn(tab: Tab) -> bool:
    """True where the lot falls on a call to `auto` for its answer to be looked at."""
    return tab.call.wanted.model == AUTO and tab.runtime.random.random() < INSPECTED


def inspect(tab: Tab, answer: bytes, headers: Headers = ()) -> None:
    """Look at a whole answer that was drawn, without anybody's waiting for it; of tensors its
    headers tell where these begin."""
    runtime, body = tab.runtime, tab.call.body
    if isinstance(body, TensorBody):
        find = _of_tensors(body, answer, headers, tab.endpoint.signature)
    elif tab.call.wanted.task.generates and len(answer) <= _ANSWER_BYTES_MAX:
        find = partial(find_flaw, body.members, answer)
    else:
        find = None
    if find is None:
        return
    # Before anything is found, so that flaws and none are rationed alike.
    if not runtime.looks.take(tab.call.payer.account_id, tab.endpoint.number, runtime.clock()):
        return
    loop = asyncio.get_running_loop()
    if not isinstance(body, TensorBody) and _is_short(body.members, answer):
        loop.call_soon(_look, tab, find)
        return
    task = loop.create_task(_look_beside(tab, find))
    runtime.running.add(task)
    task.add_done_callback(runtime.running.discard)


def _is_short(asked: Mapping[str, msgspec.Raw], answer: bytes) -> bool:
    if len(answer) > _SHORT_BYTES or any(name in asked for name in _LONG_WORK):
        return False
    return len(answer) + sum(memoryview(raw).nbytes for raw in asked.values()) <= _SHORT_BYTES


def _of_tensors(
    body: TensorBody, answer: bytes, headers: Headers, signature: Signature | None = None
) -> Find | None:
    """Return how to look at an answer in tensors; None where it, or its request, is compressed, or
    where either's JSON is long. What follows the JSON is not copied."""
    # Of a header that stands twice the first is the one that the answer was read by.
    asked, told = dict(body.headers), dict(reversed(headers))
    if CODED in told or CODED in asked:
        return None
    asked_bytes = int(asked.get(HEADER_LENGTH, body.size_bytes))
    json_bytes = int(told.get(HEADER_LENGTH, len(answer)))
    if max(asked_bytes, json_bytes) > _ANSWER_BYTES_MAX:
        return None
    asked_json, binary = body.begin(asked_bytes)[:asked_bytes], memoryview(answer)[json_bytes:]
    return partial(find_tensor_flaw, asked_json, answer[:json_bytes], binary, signature)


async def _look_beside(tab: Tab, find: Find) -> None:
    _tell(tab, await asyncio.to_thread(find))


def _look(tab: Tab, find: Find) -> None:
    _tell(tab, find())


def _tell(tab: Tab, flaw: Flaw | None) -> None:
    runtime = tab.runtime
    if flaw is None and runtime.random.random() >= PASSED_KEPT:
        return
    runtime.heard.append(
        Piece(
            at=runtime.clock(),
            endpoint_id=tab.endpoint.id,
            source=Source.CHECK,
            grade=Grade.BINARY,
            score=float(flaw is None),
            domain=tab.call.wanted.domain,
            weight=1.0 if flaw is None else PASSED_KEPT,
            account_id=tab.call.payer.account_id,
            call_id=tab.call.id,
        )
    )
