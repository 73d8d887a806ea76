"""What a whole answer from a provider shows, and when a 200 is none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from broker.core.call import OpenAiBody
from broker.core.catalog import Task
from broker.core.outcome import Fault
from broker.flows.calls.exchange import _facts
from broker.upstream.faults import AttemptFailed
from tests.fakes import requirements


def call(task: Task) -> Any:
    body = OpenAiBody(b"/v1/x", {}, 10, False, False, 2)
    return SimpleNamespace(wanted=requirements(task=task), body=body)


PLAIN: Any = SimpleNamespace(header=lambda name: None)
"""A response without headers."""
ERROR = b'{"error":{"message":"out of memory"}}'
KSERVE_ERROR = b'{"error":"out of memory"}'


@pytest.mark.parametrize("task", list(Task))
def test_an_error_inside_a_200_is_a_fault_of_the_provider(task: Task) -> None:
    with pytest.raises(AttemptFailed) as caught:
        _facts(call(task), PLAIN, KSERVE_ERROR if task is Task.INFER else ERROR)
    outcome = caught.value.outcome
    assert (outcome.fault, outcome.said) == (Fault.SERVER_ERROR, "out of memory")


@pytest.mark.parametrize("task", list(Task))
def test_an_empty_200_is_malformed(task: Task) -> None:
    with pytest.raises(AttemptFailed) as caught:
        _facts(call(task), PLAIN, b"")
    assert caught.value.outcome.fault is Fault.MALFORMED


def test_a_completion_shows_its_usage_its_text_and_how_many_were_asked_for() -> None:
    seen = _facts(
        call(Task.CHAT),
        PLAIN,
        b'{"choices":[{"message":{"content":"h\xc3\xa9"},"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":5,"completion_tokens":3,'
        b'"completion_tokens_details":{"reasoning_tokens":1}}}',
    )
    assert (seen.claimed_in, seen.claimed_out, seen.hidden_out) == (5, 3, 1)
    assert (seen.text, seen.text_bytes, seen.choices) == ("hé", 3, 2)


def test_an_embedding_shows_its_prompt_alone() -> None:
    seen = _facts(
        call(Task.EMBEDDING), PLAIN, b'{"data":[{"embedding":[1]}],"usage":{"prompt_tokens":5}}'
    )
    assert (seen.claimed_in, seen.claimed_out, seen.generates) == (5, 0, False)
