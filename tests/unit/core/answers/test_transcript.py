"""A stream is written down as the whole answer that it would have been."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import msgspec
import pytest

from broker.core.answers.answer_checks import Flaw, find_flaw
from broker.core.answers.transcript import (
    BYTES_MAX,
    LOGPROBS_MAX,
    OBJECTS_MAX,
    Transcript,
    logprobs_of,
)


def chunk(delta: dict[str, Any] | None = None, **more: Any) -> bytes:
    return json.dumps({"id": "x", "choices": [{"index": 0, "delta": delta or {}, **more}]}).encode()


def written(*chunks: bytes, **how: Any) -> Transcript:
    transcript = Transcript(**how)
    for each in chunks:
        transcript.hear(each)
    return transcript


def test_text_comes_together() -> None:
    told = written(chunk({"role": "assistant", "content": ""}), chunk({"content": "Yes"}))
    told.hear(chunk({"content": ", so."}))
    told.hear(chunk(finish_reason="stop"))
    [choice] = json.loads(told.answer())["choices"]
    assert choice == {"message": {"content": "Yes, so."}, "finish_reason": "stop"}
    assert told.text == "Yes, so."


def test_tool_calls_come_together_by_their_places() -> None:
    parts = [
        [{"index": 0, "function": {"name": "find", "arguments": '{"ci'}}],
        [{"index": 1, "function": {"name": "buy", "arguments": {"n": 1}}}],
        [{"index": 0, "function": {"arguments": 'ty":"Bonn"}'}}],
    ]
    told = written(*(chunk({"tool_calls": each}) for each in parts))
    [choice] = json.loads(told.answer())["choices"]
    called = [each["function"] for each in choice["message"]["tool_calls"]]
    assert called == [
        {"name": "find", "arguments": '{"city":"Bonn"}'},
        {"name": "buy", "arguments": '{"n":1}'},
    ]


def test_probabilities_are_heard_and_taken_out() -> None:
    transcript = Transcript(hides_logprobs=True)
    first = chunk({"content": "a"}, logprobs={"content": [{"token": "a", "logprob": -0.5}]})
    passed = transcript.hear(first)
    assert b"logprobs" not in passed
    assert json.loads(passed)["choices"][0]["delta"] == {"content": "a"}
    legacy = json.dumps({"choices": [{"text": "b", "logprobs": {"token_logprobs": [None, -1.5]}}]})
    transcript.hear(legacy.encode())
    assert transcript.logprobs == [-0.5, -1.5]
    assert transcript.text == "ab"
    plain = chunk({"content": "c"})
    assert transcript.hear(plain) is plain
    assert written(first).logprobs == [-0.5]


def test_probabilities_are_taken_out_however_their_name_is_spelt() -> None:
    told = chunk({"content": "ü"}, logprobs={"content": [{"token": "a", "logprob": -0.5}]})
    spelt = told.replace(b'"logprobs"', b'"log\\u0070robs"')
    hides = Transcript(hides_logprobs=True)
    assert "logprobs" not in json.loads(hides.hear(spelt))["choices"][0]
    assert hides.logprobs == [-0.5]
    plain = chunk({"content": "\u00fc"})
    assert b"\\u" in plain
    assert hides.hear(plain) is plain, "what has none goes through as it came"


@pytest.mark.parametrize(
    "odd", [b"1" * 400, b"-%b" % (b"1" * 400), b"1e999", b'"x"', b"[1]", b"{}"]
)
def test_probabilities_that_are_none_break_nothing(odd: bytes) -> None:
    told = chunk({"content": "a"}, logprobs={"content": [{"token": "a", "logprob": 7}]})
    transcript = Transcript(hides_logprobs=True)
    heard = transcript.hear(told.replace(b"7", odd))
    assert json.loads(heard)["choices"] == [{"index": 0, "delta": {"content": "a"}}]
    assert transcript.logprobs == []
    assert transcript.text == "a"
    assert logprobs_of(told.replace(b"7", odd)) == []


def test_what_cannot_be_read_goes_through_as_it_is() -> None:
    deep = b'{"choices":[{"logprobs":%b}]}' % (b"[" * 1_000_000 + b"]" * 1_000_000)
    assert Transcript(hides_logprobs=True).hear(deep) == deep
    told = Transcript(hides_logprobs=True)
    for odd in (b'{"logprobs"', b"[1]", b'{"choices":[{"index":"x","logprobs":1}]}'):
        assert told.hear(odd) in (odd, b'{"choices":[{"index":"x"}]}')
    assert json.loads(told.answer()) == {"choices": []}


def test_a_stream_is_checked_for_its_form() -> None:
    asked = {"response_format": msgspec.Raw(b'{"type":"json_object"}')}
    bad = written(chunk({"content": "Here you"}), chunk({"content": " are"}, finish_reason="stop"))
    assert find_flaw(asked, bad.answer()) is Flaw.NOT_JSON
    good = written(chunk({"content": '{"a"'}), chunk({"content": ":1}"}, finish_reason="stop"))
    assert find_flaw(asked, good.answer()) is None
    refused = written(chunk({"refusal": "I must"}), chunk({"refusal": " not."}))
    assert find_flaw({}, refused.answer()) is Flaw.REFUSED


def test_of_a_very_long_answer_the_rest_is_not_written_down() -> None:
    told = written(chunk({"content": "x" * BYTES_MAX}), chunk({"content": "more"}))
    assert not told.is_whole
    assert told.text == ""


def told_by_numbers(count: int, unit: bytes = b"-1") -> bytes:
    return b'{"choices":[{"logprobs":{"token_logprobs":[%b]}}]}' % b",".join([unit] * count)


def test_of_very_many_numbers_the_first_are_read_and_no_more() -> None:
    """Eight megabytes of them, each made an object, held all other calls up for 70 ms."""
    many = told_by_numbers(2_000_000)
    tracemalloc.start()
    try:
        assert logprobs_of(many) == [-1.0] * LOGPROBS_MAX
        taken_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken_bytes < 24 * 1_048_576
    long = told_by_numbers(LOGPROBS_MAX, b"-0.1250000000000000000")
    found = logprobs_of(long)
    assert set(found) == {-0.125}
    assert len(found) == 1_048_576 // len("-0.1250000000000000000,")
    assert logprobs_of(told_by_numbers(1, b"1" * 2_000_000)) == []


def test_where_very_many_objects_tell_of_tokens_none_is_made() -> None:
    def told(count: int) -> bytes:
        units = b",".join([b'{"logprob":-1}'] * count)
        return b'{"choices":[{"logprobs":{"content":[%b]}}]}' % units

    assert logprobs_of(told(OBJECTS_MAX)) == []
    assert len(logprobs_of(told(OBJECTS_MAX - 1))) == LOGPROBS_MAX
