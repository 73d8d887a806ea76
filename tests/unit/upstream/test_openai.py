"""The facts of OpenAI answers, as llama.cpp, vLLM, SGLang and TGI write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from broker.core.outcome import Fault
from broker.core.wire.members import PROMPTS_MAX
from broker.upstream.faults import AttemptFailed
from broker.upstream.large_answers import CHOICES_MAX, DENSE_BYTES, PARTS_MAX
from broker.upstream.openai import (
    ChunkFacts,
    CompletionFacts,
    EmbeddingFacts,
    read_chunk,
    read_completion,
    read_embedding,
)

USAGE = {"prompt_tokens": 24, "completion_tokens": 30, "total_tokens": 54}


def completion(**choice: Any) -> bytes:
    """Return a completion with one choice."""
    choice = {"index": 0, "finish_reason": "stop", **choice}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()


def chunk(delta: dict[str, Any], **more: Any) -> ChunkFacts:
    """Return the facts of a chunk with one choice."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
    return read_chunk(json.dumps({"choices": [choice], **more}).encode())


def test_a_completion_says_its_usage_text_and_end() -> None:
    facts = read_completion(completion(message={"role": "assistant", "content": "grün"}))
    assert (facts.prompt_tokens, facts.completion_tokens) == (24, 30)
    assert (facts.reasoning_tokens, facts.cached_tokens) == (None, None)
    assert (facts.text, facts.text_bytes) == ("grün", 5)
    assert facts.finished
    assert facts.has_choices
    assert facts.error is None


def test_details_of_usage_are_read_where_they_are() -> None:
    usage = {
        **USAGE,
        "prompt_tokens_details": {"cached_tokens": 7, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 9},
    }
    body = json.dumps({"choices": [{"text": "x", "finish_reason": "stop"}], "usage": usage})
    facts = read_completion(body.encode())
    assert (facts.cached_tokens, facts.reasoning_tokens) == (7, 9)
    nulls = {**USAGE, "prompt_tokens_details": None, "completion_tokens_details": None}
    body = json.dumps({"choices": [{"text": "x", "finish_reason": "stop"}], "usage": nulls})
    assert read_completion(body.encode()).completion_tokens == 30


@pytest.mark.parametrize(
    ("message", "size", "text"),
    [
        ({"content": None, "refusal": "no"}, 2, ""),
        ({"content": "a", "reasoning_content": "bb"}, 3, "a"),
        ({"content": "a", "reasoning": "bb"}, 3, "a"),
        ({"content": "a", "reasoning": "bb", "reasoning_content": "bb"}, 3, "a"),
        ({"content": [{"type": "text", "text": "ab"}, {"type": "image"}, "c"]}, 2, "ab"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": '{"x":1}'}}]}, 8, ""),
        ({"tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}, 8, ""),
        ({"tool_calls": [{"function": {"name": None, "arguments": "{}"}}, {}]}, 2, ""),
        ({"content": "", "tool_calls": None}, 0, ""),
        ({"function_call": {"name": "ff", "arguments": "{}"}}, 4, ""),
    ],
)
def test_everything_that_is_delivered_counts(message: dict[str, Any], size: int, text: str) -> None:
    facts = read_completion(completion(message=message))
    assert (facts.text_bytes, facts.text) == (size, text)
    assert (chunk(message).text_bytes, chunk(message).text) == (size, text)
    assert chunk(message).has_content == (size > 0)


def test_all_choices_count_and_all_must_have_finished() -> None:
    choices: list[dict[str, Any]] = [
        {"message": {"content": "a"}, "finish_reason": "stop"},
        {"message": {"content": "b"}, "finish_reason": None},
    ]
    facts = read_completion(json.dumps({"choices": choices}).encode())
    assert (facts.text, facts.text_bytes, facts.finished) == ("ab", 2, False)
    choices[1]["finish_reason"] = "length"
    assert read_completion(json.dumps({"choices": choices}).encode()).finished


def test_all_choices_of_a_chunk_count_and_one_may_finish_before_the_others() -> None:
    choices = (
        b'{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"},'
        b'{"index":1,"delta":{"content":"bc"},"finish_reason":null}]}'
    )
    facts = read_chunk(choices)
    assert (facts.text, facts.text_bytes, facts.finished) == ("abc", 3, True)


def test_a_choice_without_any_text_delivers_nothing() -> None:
    assert not read_chunk(b'{"choices":[{"index":0,"finish_reason":"stop"}]}').has_content


def test_the_older_completions_have_text() -> None:
    assert read_completion(completion(text="abc")).text == "abc"
    facts = read_chunk(b'{"choices":[{"index":0,"text":" x","finish_reason":null}],"timings":{}}')
    assert (facts.text, facts.has_content, facts.finished) == (" x", True, False)


def test_a_stream_of_llama_cpp_is_understood() -> None:
    first = chunk({"role": "assistant", "content": None})
    assert not first.has_content
    assert first.has_choices
    assert chunk({"content": " fox"}).text == " fox"
    last = read_chunk(b'{"choices":[{"finish_reason":"stop","index":0,"delta":{}}]}')
    assert last.finished
    assert not last.has_content
    usage = read_chunk(
        b'{"choices":[],"usage":{"completion_tokens":5,"prompt_tokens":9,"total_tokens":14,'
        b'"prompt_tokens_details":{"cached_tokens":3}},"timings":{"predicted_ms":1.5}}'
    )
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (9, 5, 3)
    assert not usage.has_choices
    assert read_chunk(b"[DONE]").done


def test_usage_in_every_chunk_is_read_as_vllm_and_tgi_send_it() -> None:
    facts = chunk({"content": "x", "tool_calls": []}, usage=USAGE, prompt_token_ids=None)
    assert (facts.completion_tokens, facts.text) == (30, "x")
    assert chunk({"content": "x"}, usage=None).completion_tokens is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ({"message": "out of memory", "code": 500}, "out of memory"),
        ({"code": 500}, '{"code":500}'),
        ("overloaded", "overloaded"),
        ({"message": "x" * 500}, "x" * 200),
        ("", "an error without words"),
    ],
)
def test_an_error_inside_a_200_is_found(error: Any, words: str) -> None:
    body = json.dumps({"error": error, "error_type": "x"}).encode()
    assert read_completion(body).error == words
    assert read_chunk(body).error == words
    assert read_embedding(body).error == words


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"<html>",
        b"\xff\xfe",
        b'{"choices":{}}',
        b'{"choices":[1]}',
        b'{"choices":[{"message":"x"}]}',
        b'{"choices":[{"message":{"content":1}}]}',
        b'{"choices":[{"text":"x"}],"usage":{"prompt_tokens":-1}}',
        b'{"choices":[{"text":"x"}],"usage":{"completion_tokens":"9"}}',
        b'{"choices":[{"text":"x"}],"usage":{"completion_tokens":1e300}}',
        b'{"choices":[{"text":"x"}],"usage":{"completion_tokens":99999999999999999999}}',
        b'{"choices":' + b"[" * 100_000,
    ],
)
def test_what_is_no_openai_answer_is_malformed(body: bytes) -> None:
    for read in (read_completion, read_chunk):
        with pytest.raises(AttemptFailed) as failed:
            read(body)
        assert failed.value.outcome.fault is Fault.MALFORMED


def test_an_answer_without_choices_is_malformed_but_a_chunk_is_not() -> None:
    for body in (b"{}", b'{"choices":[]}', b'{"choices":null}'):
        with pytest.raises(AttemptFailed):
            read_completion(body)
        assert not read_chunk(body).has_choices


def test_embeddings_are_counted_in_both_encodings() -> None:
    vectors = [{"index": 0, "embedding": [0.5, 1.0]}, {"index": 1, "embedding": "AAAA"}]
    body = json.dumps({"data": vectors, "usage": {"prompt_tokens": 3, "total_tokens": 3}})
    facts = read_embedding(body.encode())
    assert (facts.vectors, facts.prompt_tokens, facts.error) == (2, 3, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[1]",
        b'{"data":[]}',
        b'{"data":[{"x":1}]}',
        b'{"data":[{"embedding":null}]}',
        b'{"data":[{"embedding":[ ]}]}',
        b'{"data":[{"embedding":""}]}',
        b'{"data":[{"embedding":[1]},{"embedding":[]}]}',
        b'{"data":[{"embedding":[1]},{"embedding":1}]}',
    ],
)
def test_embeddings_without_vectors_are_malformed(body: bytes) -> None:
    with pytest.raises(AttemptFailed) as failed:
        read_embedding(body)
    assert failed.value.outcome.fault is Fault.MALFORMED


@pytest.mark.parametrize("read", [read_completion, read_chunk, read_embedding])
def test_what_is_nested_too_deeply_is_malformed_and_not_our_fault(
    read: Callable[[bytes], object],
) -> None:
    nested = b"[" * 1_000_000 + b"]" * 1_000_000
    for body in (b'{"x":%b}', b'{"choices":[],"x":%b}', b'{"data":[{"embedding":%b}]}'):
        with pytest.raises(AttemptFailed) as failed:
            read(body % nested)
        assert failed.value.outcome.fault is Fault.MALFORMED


def _of(count: int, unit: str, opening: str, closing: str) -> bytes:
    return (opening + ",".join([unit] * count) + closing).encode()


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ('{"choices":[', "]}"),
        ('{"choices":[{"message":{"content":[', ']},"finish_reason":"stop"}]}'),
        ('{"choices":[{"message":{"tool_calls":[', ']},"finish_reason":"stop"}]}'),
        ('{"choices":[{"delta":{"function_call":{"arguments":[', "]}}}]}"),
        ('{"choices":[{}],"error":[', "]}"),
    ],
)
def test_a_large_answer_made_of_next_to_nothing_is_not_taken_apart(
    opening: str, closing: str
) -> None:
    with pytest.raises(AttemptFailed) as failed:
        read_completion(_of(500_000, "{}", opening, closing))
    assert failed.value.outcome.fault is Fault.MALFORMED


DENSE = [
    (CHOICES_MAX, '{"choices":[', "]}"),
    (PARTS_MAX, '{"choices":[{"delta":{"content":[', "]}}]}"),
    (PARTS_MAX, '{"choices":[{"message":{"tool_calls":[', "]}}]}"),
    (PARTS_MAX // 2, '{"choices":[{"delta":{"content":[1],"tool_calls":[', "]}},@]}"),
]


@pytest.mark.parametrize("read", [read_completion, read_chunk])
@pytest.mark.parametrize(("most", "opening", "closing"), DENSE)
def test_of_what_is_not_short_so_many_parts_are_taken_apart_and_no_more(
    read: Callable[[bytes], object], most: int, opening: str, closing: str
) -> None:
    """340,000 choices in one event held all other calls up for 0.15 s."""
    unit = json.dumps({"x": "a" * (2 * DENSE_BYTES // most)})
    for count in (most - 1, most + 1):
        more = json.dumps({"message": {"content": [json.loads(unit)] * (count - 1)}})
        body = _of(count, unit, opening, closing.replace("@", more))
        assert len(body) > DENSE_BYTES
        if count < most:
            read(body)
            continue
        with pytest.raises(AttemptFailed) as failed:
            read(body)
        assert failed.value.outcome.fault is Fault.MALFORMED


@pytest.mark.parametrize("read", [read_completion, read_chunk])
def test_what_is_short_may_have_as_many_parts_as_it_likes(read: Callable[[bytes], object]) -> None:
    for _, opening, closing in DENSE[:3]:
        read(_of((DENSE_BYTES - 99) // 3, "{}", opening, closing))


def test_the_answers_to_a_long_list_of_prompts_are_all_taken() -> None:
    choice = json.dumps({"text": "a" * 2_000, "finish_reason": "stop"})
    facts = read_completion(_of(PROMPTS_MAX, choice, '{"choices":[', "]}"))
    assert facts.text_bytes == PROMPTS_MAX * 2_000


@pytest.mark.parametrize("read", [read_completion, read_embedding])
@pytest.mark.parametrize("opening", ['{"error":[', ' {\n "error" : {"message":['])
def test_a_large_error_is_told_without_a_look_for_its_end(
    read: Callable[[bytes], CompletionFacts | EmbeddingFacts], opening: str
) -> None:
    """To read over 64 MiB of empty lists held all other calls up for 0.14 s."""
    assert read(_of(400_000, "[]", opening, "")).error == "an error of many words"


def test_what_says_that_it_has_no_error_is_no_error() -> None:
    vectors = _of(300_000, "0.5", '{"error":null,"data":[{"embedding":[', "]}]}")
    assert read_embedding(vectors).vectors == 1
    assert read_completion(completion(text="a" * 2_000_000, error=[])).error is None
    with pytest.raises(AttemptFailed):
        read_embedding(b'{"error":[]')


def test_a_large_answer_may_have_long_texts_and_what_the_broker_does_not_read() -> None:
    tokens = [{"token": "a", "logprob": -0.1}] * 40_000
    texts = {"content": "a" * 2_000_000, "tool_calls": [{"function": {"name": "f"}}]}
    facts = read_completion(completion(message=texts, logprobs={"content": tokens}))
    assert facts.text_bytes == 2_000_001


def test_a_large_answer_of_too_many_embeddings_is_refused() -> None:
    vectors = _of(70_000, '{"embedding":[1]}', '{"data":[', "]}")
    with pytest.raises(AttemptFailed) as failed:
        read_embedding(vectors)
    assert failed.value.outcome.fault is Fault.MALFORMED
