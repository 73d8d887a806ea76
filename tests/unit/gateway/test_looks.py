"""Answers are looked at beside the calls: at once where that is soon done, else by a thread."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import UTC, datetime
from random import Random
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from broker.core.call import OpenAiBody, Payer
from broker.core.money.ration import Ration
from broker.flows.calls.inspect_answer import inspect
from tests.fakes import ACCOUNT, endpoint, requirements

REFUSAL = "I'm sorry, but I cannot help with that."


def tab_of(asked: dict[str, Any]) -> Any:
    """A tab as far as looks go."""
    members = {name: msgspec.Raw(msgspec.json.encode(each)) for name, each in asked.items()}
    body = OpenAiBody(b"/v1/chat/completions", members, 99, False, False, 1)
    runtime = SimpleNamespace(
        looks=Ration(20),
        clock=lambda: datetime.now(UTC),
        running=set(),
        heard=deque(),
        random=Random(1),
    )
    call = SimpleNamespace(
        body=body, wanted=requirements(), payer=Payer(ACCOUNT, "key", ACCOUNT), id=uuid4()
    )
    return SimpleNamespace(runtime=runtime, call=call, endpoint=endpoint())


@pytest.mark.parametrize(
    ("more", "size", "beside"),
    [
        ({}, 40, 0),
        ({}, 9_000, 1),
        ({"user": "u" * 9_000}, 40, 1),
        ({"response_format": {"type": "text"}}, 40, 1),
        ({"tools": []}, 40, 1),
    ],
)
async def test_only_what_may_take_long_is_looked_at_by_a_thread(
    more: dict[str, Any], size: int, beside: int
) -> None:
    tab = tab_of({"messages": [{"role": "user", "content": "What is a writ?"}]} | more)
    message = {"role": "assistant", "content": REFUSAL.ljust(size, ".")}
    answer = {"choices": [{"message": message, "finish_reason": "stop"}]}
    inspect(tab, msgspec.json.encode(answer))
    assert not tab.runtime.heard, "the answer is told to its caller first"
    assert len(tab.runtime.running) == beside
    await asyncio.gather(*tab.runtime.running)
    await asyncio.sleep(0)
    assert [each.score for each in tab.runtime.heard] == [0.0]
