"""Flaws of form are found, and what is merely short, dull or of another mind is none."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from broker.core.answers.answer_checks import Flaw, find_flaw

SHAPE = {
    "type": "object",
    "properties": {"days": {"type": "integer"}},
    "required": ["days"],
    "additionalProperties": False,
}
AS_SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"schema": SHAPE}}}
GERMAN = "Darf der Vermieter die Miete erhöhen, wenn das nicht im Vertrag steht und ist?"
ENGLISH = "The landlord may not raise the rent if that is not in the contract that you have."
IN_TWO = [{"role": "system", "content": ENGLISH}, {"role": "user", "content": GERMAN}]
LANGUAGE = Flaw.OTHER_LANGUAGE
AS_JSON = {"response_format": {"type": "json_object"}}
TOOLS = {"tools": [{"type": "function", "function": {"name": "wait", "parameters": SHAPE}}]}


def flaw(asked: dict[str, Any], message: dict[str, Any] | str, reason: str = "stop") -> Flaw | None:
    told = {"content": message} if isinstance(message, str) else message
    answer = {"choices": [{"message": told, "finish_reason": reason}]}
    members = {name: msgspec.Raw(json.dumps(value).encode()) for name, value in asked.items()}
    return find_flaw(members, json.dumps(answer).encode())


def called(name: str, arguments: object) -> dict[str, Any]:
    return {"content": None, "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}


@pytest.mark.parametrize(
    ("asked", "message", "expected"),
    [
        ({}, "Thirty days.", None),
        ({"messages": [{"role": "user", "content": GERMAN}]}, ENGLISH, Flaw.OTHER_LANGUAGE),
        ({"messages": [{"role": "user", "content": GERMAN}] * 2}, GERMAN, None),
        ({"messages": [{"role": "user", "content": [{"text": GERMAN}]}]}, ENGLISH, LANGUAGE),
        ({"messages": IN_TWO}, ENGLISH, None),
        ({"messages": "none"}, ENGLISH, None),
        ({"prompt": GERMAN}, ENGLISH, Flaw.OTHER_LANGUAGE),
        ({"prompt": [1, 2]}, ENGLISH, None),
        (AS_JSON | {"prompt": GERMAN}, json.dumps({"said": ENGLISH}), None),
        ({}, "", Flaw.EMPTY),
        ({}, {"content": None}, Flaw.EMPTY),
        ({}, {"content": None, "refusal": "I will not."}, Flaw.REFUSED),
        ({}, "I'm sorry, but I can't help with that.", Flaw.REFUSED),
        ({}, "I\u2019m sorry, I cannot assist you there.", Flaw.REFUSED),
        ({}, "As an AI language model, I cannot provide legal advice.", Flaw.REFUSED),
        ({}, "Unfortunately, I am unable to answer this.", Flaw.REFUSED),
        ({}, "Sorry to hear that! You can appeal within a month.", None),
        ({}, "I can help with that.", None),
        ({}, "She said: I cannot help you.", None),
        (AS_JSON, '{"days": 30}', None),
        (AS_JSON, "```json\n{}\n```", Flaw.NOT_JSON),
        (AS_SCHEMA, '{"days": 30}', None),
        (AS_SCHEMA, '{"days": "thirty"}', Flaw.OFF_SCHEMA),
        (AS_SCHEMA, "{}", Flaw.OFF_SCHEMA),
        (TOOLS, called("wait", '{"days": 3}'), None),
        (TOOLS, called("wait", {"days": 3}), None),
        (TOOLS, called("wait", '{"days": "3"}'), Flaw.BAD_TOOL_CALL),
        (TOOLS, called("wait", '{"days": '), Flaw.BAD_TOOL_CALL),
        (TOOLS, called("sleep", "{}"), Flaw.BAD_TOOL_CALL),
        ({"tools": "none"}, called("sleep", "{}"), None),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": 7}}}, "{}", None),
    ],
    ids=str,
)
def test_flaws_are_told_by_name(
    asked: dict[str, Any], message: dict[str, Any] | str, expected: Flaw | None
) -> None:
    assert flaw(asked, message) is expected


@pytest.mark.parametrize("message", ["It is", "", '{"days": ', {"content": None}], ids=str)
def test_what_a_limit_or_the_callers_own_stop_cut_off_is_no_flaw(
    message: dict[str, Any] | str,
) -> None:
    assert flaw(AS_SCHEMA, message, "length") is None
    assert flaw(AS_SCHEMA | {"max_tokens": 2}, message, "length") is None
    assert flaw(AS_SCHEMA | {"stop": ["\n"]}, message) is None
    assert flaw({"stop": None}, "") is Flaw.EMPTY
    assert flaw({"max_tokens": 2}, message, "content_filter") is Flaw.REFUSED


def test_completions_are_read_as_well_and_what_is_no_answer_is_let_be() -> None:
    assert find_flaw({}, b'{"choices": [{"text": "Well.", "finish_reason": "stop"}]}') is None
    assert find_flaw({}, b'{"choices": [{"text": ""}]}') is Flaw.EMPTY
    assert find_flaw({}, b"no JSON") is None
    assert find_flaw({}, b"{}") is None


def test_of_many_choices_the_first_are_looked_at() -> None:
    good, bad = ({"text": text, "finish_reason": "stop"} for text in ('{"days": 1}', "{}"))
    members = {name: msgspec.Raw(json.dumps(told).encode()) for name, told in AS_SCHEMA.items()}

    def found(*choices: dict[str, str]) -> Flaw | None:
        return find_flaw(members, json.dumps({"choices": choices}).encode())

    assert found(good, bad) is Flaw.OFF_SCHEMA
    assert found(*[good] * 10_000, bad) is None


def test_one_answer_is_held_against_schemas_for_so_long_and_no_longer() -> None:
    wide = {"properties": {f"at{number}": {"type": "string"} for number in range(700)}}
    asked = {"tools": [{"function": {"name": name, "parameters": wide}} for name in ("a", "b")]}
    good = {"function": {"name": "a", "arguments": "{}"}}
    bad = {"function": {"name": "b", "arguments": '{"at1": 1}'}}
    assert flaw(asked, {"tool_calls": [good, bad]}) is Flaw.BAD_TOOL_CALL
    assert flaw(asked, {"tool_calls": [*[good] * 30, bad]}) is None


def test_content_that_is_no_text_is_not_empty() -> None:
    assert flaw({}, {"content": [{"type": "text", "text": "Thirty days."}]}) is None
    assert flaw({}, {"content": []}) is Flaw.EMPTY
