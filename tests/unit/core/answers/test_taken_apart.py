"""Of an answer of a cascade only what is judged and changed is taken apart."""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from broker.core.answers.answer_checks import READ_TOGETHER_MAX, Flaw, find_flaw
from broker.core.answers.taken_apart import PARTS_MAX, take_apart
from broker.core.answers.transcript import LOGPROBS_MAX, Transcript, logprobs_of
from broker.upstream.faults import AttemptFailed
from broker.upstream.kserve import read_infer
from broker.upstream.openai import read_completion, read_embedding

MANY = 100_000
_A_RUN = 1_000
TOOLS = msgspec.Raw(
    b'[{"function":{"name":"a","parameters":{"required":["b"]}}},{"function":{"name":"b"}}]'
)
LISTS = b"[" + b",".join([b"[]"] * MANY) + b"]"


def _kept(work: Callable[[], object]) -> int:
    """Return of how many objects the collector was told while they were kept, about."""
    runs = 0

    def note(phase: str, _: dict[str, int]) -> None:
        nonlocal runs
        runs += phase == "start"

    before = gc.get_threshold()
    gc.collect()
    gc.callbacks.append(note)
    gc.set_threshold(_A_RUN, 1_000_000, 1_000_000)
    try:
        work()
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(note)
    return runs * _A_RUN


def whole(**more: Any) -> bytes:
    first = {"index": 0, "message": {"content": "Yes."}, "logprobs": {"content": []}} | more
    return json.dumps({"id": "a", "choices": [first], "odd": 1.50}).encode()


def test_an_answer_comes_back_as_it_was_but_for_what_was_asked_for_the_broker() -> None:
    parts = take_apart(
        whole(logprobs={"content": [{"token": "Yes", "logprob": -0.5}, {"logprob": None}]})
    )
    assert (parts.text, parts.logprobs) == ("Yes.", [-0.5])
    shown = json.loads(parts.whole({"kept": True}, hides_logprobs=False))
    assert shown["choices"][0]["logprobs"]["content"][0]["logprob"] == -0.5
    hidden = json.loads(parts.whole({"kept": True}, hides_logprobs=True))
    assert hidden == {
        "id": "a",
        "choices": [{"index": 0, "message": {"content": "Yes."}}],
        "odd": 1.5,
        "broker": {"kept": True},
    }


def test_the_text_of_a_completion_is_that_of_its_first_choice() -> None:
    told = b'{"choices":[{"text":"Yes.","logprobs":{"token_logprobs":[null,-1]}},{"text":"No."}]}'
    parts = take_apart(told)
    assert (parts.text, parts.logprobs) == ("Yes.", [-1.0])


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        (b'{"choices":[]}', "no choices"),
        (b'{"choices":[1]}', "Expected `object`"),
        (b'{"a":1}', "has no choices"),
        (b"[]", "Expected `object`"),
        (b'{"choices":[{"text":"\xff"}]}', "utf-8"),
        (b'{"choices":[%b]}' % b",".join([b"{}"] * (PARTS_MAX + 1)), "more than"),
        (b'{"choices":[{%b}]}' % b",".join(b'"%d":1' % at for at in range(PARTS_MAX)), "more than"),
    ],
)
def test_an_answer_that_is_none_or_of_too_many_parts_is_refused(told: bytes, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        take_apart(told)


def test_colons_in_what_choices_say_are_no_parts() -> None:
    told = whole(message={"content": ": " * 2 * PARTS_MAX})
    assert len(take_apart(told).text) == 4 * PARTS_MAX


@pytest.mark.parametrize(
    "told",
    [
        b'{"choices":[{"message":{"content":"Yes."}}],"prompt_logprobs":%b}',
        b'{"choices":[{"text":"Yes.","prompt_logprobs":%b}]}',
    ],
)
def test_what_is_told_of_a_long_prompt_s_tokens_is_no_parts(told: bytes) -> None:
    token = {"9707": {"logprob": -0.25, "rank": 1, "decoded_token": "Hello"}}
    answer = told % json.dumps([None, *[token] * PARTS_MAX]).encode()
    parts = take_apart(answer)
    assert parts.text == "Yes."
    back = json.loads(parts.whole({}, hides_logprobs=True))
    assert back == json.loads(answer) | {"broker": {}}


def test_of_very_many_tokens_the_first_tell_how_sure_an_answer_is() -> None:
    many = b",".join([b"-1"] * LOGPROBS_MAX) + b",-9"
    told = b'{"choices":[{"text":"a","logprobs":{"token_logprobs":[%b]}}]}' % many
    assert logprobs_of(told) == take_apart(told).logprobs == [-1.0] * LOGPROBS_MAX


@pytest.mark.parametrize(
    "told",
    [
        b'{"choices":[{"text":"a","logprobs":%b}]}',
        b'{"choices":[{"message":{"content":"a","function_call":{"arguments":%b}}}]}',
        b'{"choices":[{"message":{"content":"a","tool_calls":[{"function":{"arguments":%b}}]}}]}',
        b'{"choices":[{"message":{"content":"a","audio":%b}}]}',
        b'{"choices":[{"delta":{"content":%b}}]}',
        b'{"choices":[{"text":"a"}],"error":%b}',
    ],
)
def test_lists_of_nothing_in_an_answer_are_not_made_into_objects(told: bytes) -> None:
    answer = told % LISTS

    def read() -> None:
        reads = (read_completion, read_embedding, partial(read_infer, None), take_apart)
        for each in (*reads, Transcript().hear):
            with contextlib.suppress(AttemptFailed, ValueError):  # refused is as good as read
                each(answer)
        find_flaw({"tools": TOOLS}, answer)

    assert _kept(lambda: json.loads(answer)) > MANY // 2, "so many are there"
    assert _kept(read) < MANY // 10


def test_of_the_arguments_of_one_answer_only_so_much_is_read() -> None:
    def told(arguments: dict[str, str]) -> dict[str, Any]:
        return {"function": {"name": "a", "arguments": json.dumps(arguments)}}

    good, bad = told({"b": "x" * (READ_TOGETHER_MAX // 2 - 10_000)}), told({"c": "x" * 30_000})
    asked = {"tools": TOOLS}
    for before, flaw in ((1, Flaw.BAD_TOOL_CALL), (2, None)):
        message = {"tool_calls": [good] * before + [bad]}
        answer = json.dumps({"choices": [{"message": message}]}).encode()
        assert find_flaw(asked, answer) is flaw
    message["tool_calls"].append({"function": {"name": "z"}})
    answer = json.dumps({"choices": [{"message": message}]}).encode()
    assert find_flaw(asked, answer) is Flaw.BAD_TOOL_CALL, "a name is no argument"


def test_no_arguments_are_those_of_a_tool_that_needs_none() -> None:
    ways: list[Any] = [None, "", "{}", {}]
    for each in ways:
        message = {"tool_calls": [{"function": {"name": "b", "arguments": each}}]}
        answer = json.dumps({"choices": [{"message": message}]}).encode()
        assert find_flaw({"tools": TOOLS}, answer) is None
