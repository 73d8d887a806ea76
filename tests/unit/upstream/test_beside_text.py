"""What an answer without a text tells all the same, of that which its caller has asked for."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from broker.upstream.beside_text import Beside, beside_of, told_beside
from broker.upstream.streaming import StreamReader

ALL = Beside(logprobs=True, stop_words=True, stop_tokens=True)
NONE = Beside()
TOKEN = {"token": "spam", "logprob": -0.1, "bytes": [115], "top_logprobs": []}
LOGPROBS: tuple[dict[str, Any], ...] = (
    {"logprobs": {"content": [TOKEN], "refusal": None}},
    {"logprobs": {"tokens": ["spam"], "token_logprobs": [-0.1]}},
)
STOPS: tuple[dict[str, Any], ...] = ({"stop_reason": "spam"}, {"matched_stop": 17})
OTHERS: tuple[dict[str, Any], ...] = (
    {"message": {"content": None, "audio": {"data": "UklG"}}},
    {"delta": {"tool_calls": [{"type": "custom", "custom": {"name": "f", "input": "x"}}]}},
)
EMPTY: tuple[dict[str, Any], ...] = (
    {"logprobs": None},
    {"logprobs": {"content": None}},
    {"logprobs": {"content": []}},
    {"logprobs": {"tokens": []}},
    {"stop_reason": None},
    {"message": {"content": "", "audio": None, "tool_calls": [{"custom": {"input": ""}}]}},
)
ODD: tuple[dict[str, Any], ...] = (
    {"logprobs": 3},
    {"logprobs": {"content": {}}},
    {"stop_reason": {}},
    {"message": {"tool_calls": {}}},
)


def told(choice: dict[str, Any], asked: Beside) -> int:
    return told_beside(json.dumps({"choices": [{"index": 0}, choice, choice]}).encode(), asked)


@pytest.mark.parametrize("choice", LOGPROBS + STOPS + OTHERS)
def test_each_choice_that_tells_what_was_asked_for_is_counted(choice: dict[str, Any]) -> None:
    assert told(choice, ALL) == 2


@pytest.mark.parametrize("choice", LOGPROBS + STOPS)
def test_what_nobody_has_asked_for_is_nothing(choice: dict[str, Any]) -> None:
    assert told(choice, NONE) == 0


def test_the_token_that_a_model_ends_with_by_itself_is_no_word_to_stop_at() -> None:
    assert told({"matched_stop": 2, "finish_reason": "stop"}, Beside(stop_words=True)) == 0
    assert told({"matched_stop": "spam"}, Beside(stop_tokens=True)) == 0


@pytest.mark.parametrize("choice", EMPTY + ODD)
def test_what_is_empty_or_not_as_it_should_be_tells_nothing(choice: dict[str, Any]) -> None:
    assert told(choice, ALL) == 0


@pytest.mark.parametrize(
    ("member", "value", "asked"),
    [
        ("logprobs", True, Beside(logprobs=True)),
        ("logprobs", 0, Beside(logprobs=True)),
        ("stop", "a", Beside(stop_words=True)),
        ("stop_token_ids", [7], Beside(stop_tokens=True)),
        ("tools", [{}], NONE),
        ("audio", {"format": "wav"}, NONE),
        ("stop", None, None),
        ("logprobs", False, None),
        ("temperature", 1, None),
    ],
)
def test_what_is_asked_for_stands_in_the_request(
    member: str, value: object, asked: Beside | None
) -> None:
    members = {member: msgspec.Raw(msgspec.json.encode(value))}
    assert beside_of(members, hides_logprobs=False) == asked


def test_probabilities_that_the_broker_asked_for_by_itself_are_not_the_callers() -> None:
    members = {"logprobs": msgspec.Raw(b"true"), "stop": msgspec.Raw(b'"a"')}
    assert beside_of(members, hides_logprobs=True) == Beside(stop_words=True)


def event(choice: dict[str, Any]) -> bytes:
    delta = {"index": 0, "delta": {"content": ""}, "finish_reason": None}
    return b"data: " + json.dumps({"choices": [delta | choice]}).encode() + b"\n\n"


@pytest.mark.parametrize("choice", LOGPROBS + STOPS)
def test_a_stream_delivers_with_what_it_tells_beside_its_text(choice: dict[str, Any]) -> None:
    heard = StreamReader(usage_asked=False, keep_text=False, beside=ALL)
    told = event(choice)
    assert heard.feed(event({}) + told + told) == event({}) + told + told
    assert heard.has_content
    assert heard.delivered(1, complete=True).beside_text == 2
    deaf = StreamReader(usage_asked=False, keep_text=False)
    deaf.feed(told)
    assert not deaf.has_content
