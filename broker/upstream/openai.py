"""What the broker must know of OpenAI answers: usage, how much text, an end, an error.

Typed msgspec structs skip everything else unread. They are wide enough for llama.cpp, vLLM, SGLang
and TGI, which differ in nulls, in names for reasoning, and in the shape of errors inside a 200.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from broker.upstream.faults import UNREADABLE, malformed
from broker.upstream.large_answers import (
    DENSE_BYTES,
    LONG_ERROR,
    NULL,
    begins_with_error,
    error_text,
    is_told,
    require_few_vectors,
    require_substance,
    size_of_arguments,
    string_in,
)

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: Count | None = None


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: Count | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: msgspec.Raw = NULL
    """A string of JSON by the book; an object from some servers."""


class _ToolCall(msgspec.Struct, gc=False):
    function: _Function | None = None


class _Part(msgspec.Struct, gc=False):
    """Of content in parts; what the broker does not read is not taken apart."""

    text: msgspec.Raw = NULL


class _Message(msgspec.Struct, gc=False):
    """A message of a completion or a delta of a chunk."""

    content: str | list[_Part | str | float | None] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message | None = None
    delta: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Answer(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: msgspec.Raw = NULL


class _Text(msgspec.Struct, gc=False):
    """A message or a delta of text alone: what else it might hold is empty, or not there."""

    content: str
    reasoning_content: None = None
    reasoning: None = None
    refusal: None = None
    tool_calls: tuple[()] | None = None
    function_call: None = None


class _TextDelta(msgspec.Struct, gc=False):
    delta: _Text
    finish_reason: None = None


class _TextChunk(msgspec.Struct, gc=False):
    """A chunk of text alone, of one choice: the decoder does all the checking."""

    choices: tuple[_TextDelta]
    usage: None = None
    error: None = None


class _TextMessage(msgspec.Struct, gc=False):
    message: _Text
    finish_reason: str | None = None
    delta: None = None


class _TextAnswer(msgspec.Struct, gc=False):
    """A whole answer of text alone, likewise."""

    choices: tuple[_TextMessage]
    usage: _Usage | None = None
    error: None = None


class _Vector(msgspec.Struct):
    embedding: msgspec.Raw


class _Embeddings(msgspec.Struct):
    data: list[_Vector] | None = None
    usage: _Usage | None = None
    error: msgspec.Raw = NULL


class CompletionFacts(msgspec.Struct, frozen=True, gc=False):
    """Facts of a whole completion; token counts are what the provider claims, if anything."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    text_bytes: int = 0
    """UTF-8 bytes of content, reasoning, refusals, tool names and arguments, over all choices."""
    text: str = ""
    """The content of all choices, without reasoning and tool calls."""
    finished: bool = False
    """True when every choice has a finish reason."""
    error: str | None = None
    has_choices: bool = False


class ChunkFacts(CompletionFacts, frozen=True):
    """Facts of one chunk of a stream; `finished` when a choice in it is."""

    done: bool = False
    """True for `[DONE]`."""

    @property
    def has_content(self) -> bool:
        """True when the chunk delivers something: text, reasoning, or a part of a tool call."""
        return self.text_bytes > 0


class EmbeddingFacts(msgspec.Struct, frozen=True):
    """Facts of an embeddings answer."""

    prompt_tokens: int | None = None
    vectors: int = 0
    error: str | None = None


_EMPTY_BYTES_MAX: Final = 64
"""A list of no numbers is no longer, whatever space is in it."""
_UNCOUNTED: Final = (None, None, None, None)
_DONE: Final = ChunkFacts(done=True)
_ANSWER: Final = msgspec.json.Decoder(_Answer)
_TEXT_CHUNK: Final = msgspec.json.Decoder(_TextChunk)
_TEXT_ANSWER: Final = msgspec.json.Decoder(_TextAnswer)
_EMBEDDINGS: Final = msgspec.json.Decoder(_Embeddings)


def read_completion(body: bytes) -> CompletionFacts:
    """Return the facts of a whole answer. Raises `AttemptFailed` (MALFORMED), also for none."""
    try:
        # Most are one message of text alone, and a decoder that takes nothing else spares half.
        plain = _TEXT_ANSWER.decode(body)
    except UNREADABLE:
        return _read_any(body)
    choice = plain.choices[0]
    asked, made, hidden, cached = _counts(plain.usage)
    text, finished = choice.message.content, choice.finish_reason is not None
    return CompletionFacts(asked, made, hidden, cached, _size(text), text, finished, None, True)


def _read_any(body: bytes) -> CompletionFacts:
    if begins_with_error(body):
        return CompletionFacts(error=LONG_ERROR)
    require_substance(body)
    answer = _decoded(body)
    if is_told(answer.error):
        return CompletionFacts(error=error_text(answer.error))
    choices = answer.choices
    if not choices:
        raise malformed("a completion without choices", 200)
    if len(choices) == 1:
        text_bytes, text = _delivered_by(choices[0])
        finished = choices[0].finish_reason is not None
    else:
        text_bytes, text = _delivered(choices)
        finished = all(choice.finish_reason is not None for choice in choices)
    asked, made, hidden, cached = _counts(answer.usage)
    return CompletionFacts(asked, made, hidden, cached, text_bytes, text, finished, None, True)


def read_chunk(data: bytes) -> ChunkFacts:
    """Return the facts of the data of one event. Raises `AttemptFailed` (MALFORMED)."""
    if data == b"[DONE]":
        return _DONE
    if len(data) > DENSE_BYTES:
        require_substance(data)
    answer = _decoded(data)
    if is_told(answer.error):
        return ChunkFacts(error=error_text(answer.error))
    choices = answer.choices
    if not choices:
        return ChunkFacts(*_counts(answer.usage))
    if len(choices) == 1:
        text_bytes, text = _delivered_by(choices[0])
        finished = choices[0].finish_reason is not None
    else:
        text_bytes, text = _delivered(choices)
        finished = any(choice.finish_reason is not None for choice in choices)
    asked, made, hidden, cached = _UNCOUNTED if answer.usage is None else _counts(answer.usage)
    return ChunkFacts(asked, made, hidden, cached, text_bytes, text, finished, None, True)


def only_text(data: bytes) -> str | None:
    """Return the text of a chunk of one choice that says nothing else; None: it is for `read_chunk`
    to tell."""
    try:
        return _TEXT_CHUNK.decode(data).choices[0].delta.content
    except UNREADABLE:
        return None


def read_embedding(body: bytes) -> EmbeddingFacts:
    """Return the facts of an embeddings answer. Raises `AttemptFailed` (MALFORMED)."""
    if begins_with_error(body):
        return EmbeddingFacts(error=LONG_ERROR)
    require_few_vectors(body)
    try:
        answer = _EMBEDDINGS.decode(body)
    except UNREADABLE as error:
        raise malformed(f"not an embeddings answer: {error}", 200) from error
    if is_told(answer.error):
        return EmbeddingFacts(error=error_text(answer.error))
    if not answer.data:
        raise malformed("an embeddings answer without vectors", 200)
    if any(memoryview(vector.embedding)[0] not in b'["' for vector in answer.data):
        raise malformed("an embedding that is neither a list nor base64", 200)
    if any(_is_empty(memoryview(vector.embedding)) for vector in answer.data):
        raise malformed("an embedding without numbers", 200)
    return EmbeddingFacts(_counts(answer.usage)[0], len(answer.data))


def _is_empty(embedding: memoryview) -> bool:
    return embedding.nbytes < _EMPTY_BYTES_MAX and not embedding.tobytes().strip(b'[]" \t\r\n')


def _decoded(body: bytes) -> _Answer:
    try:
        return _ANSWER.decode(body)
    except UNREADABLE as error:
        raise malformed(f"not an OpenAI answer: {error}", 200) from error


def _counts(usage: _Usage | None) -> tuple[int | None, int | None, int | None, int | None]:
    """Return prompt, completion, reasoning and cached tokens."""
    if usage is None:
        return _UNCOUNTED
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    return (
        usage.prompt_tokens,
        usage.completion_tokens,
        None if completion is None else completion.reasoning_tokens,
        None if prompt is None else prompt.cached_tokens,
    )


def _delivered(choices: list[_Choice]) -> tuple[int, str]:
    """Return the bytes delivered and the content, over all choices."""
    total, texts = 0, []
    for choice in choices:
        size, text = _delivered_by(choice)
        total += size
        if text:
            texts.append(text)
    return total, "".join(texts)


def _delivered_by(choice: _Choice) -> tuple[int, str]:
    message = choice.delta or choice.message
    if message is None:
        text = choice.text or ""
        return _size(text), text
    content = message.content
    text = content if isinstance(content, str) else _joined(content)
    size = _size(text)
    # vLLM names its reasoning twice while it renames it: count it once
    reasoning = message.reasoning_content or message.reasoning
    if reasoning:
        size += _size(reasoning)
    if message.refusal:
        size += _size(message.refusal)
    if message.tool_calls:
        size += sum(_function_size(call.function) for call in message.tool_calls)
    if message.function_call is not None:
        size += _function_size(message.function_call)
    return size, text


def _joined(content: list[_Part | str | float | None] | None) -> str:
    """Return the text of content in parts."""
    parts = (each for each in content or () if isinstance(each, _Part))
    return "".join(string_in(each.text) for each in parts)


def _function_size(function: _Function | None) -> int:
    if function is None:
        return 0
    size = _size(function.name or "")
    return size + size_of_arguments(function.arguments)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
