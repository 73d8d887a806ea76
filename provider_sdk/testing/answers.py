"""What a scripted provider answers on the OpenAI paths; the text depends on the prompt alone."""

from __future__ import annotations

import base64
import hashlib
import random
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import msgspec

from provider_sdk.testing.script import Script

_WORDS = """
amber anchor arrow autumn barley basin beacon birch bridge canyon cedar cinder clover
coast copper coral delta dune ember falcon fern field flint forest garnet glacier grove
harbor hazel heron island ivory jasper juniper lagoon lantern larch ledger linen lumen
maple marble meadow mercury moss north oak ocean olive opal orchard pebble pine prairie
quartz raven reed ridge river saffron sage silver slate spruce
"""
WORDS = _WORDS.split()
EMBEDDING_DIMENSIONS = 8
EMBEDDING_DIMENSIONS_MAX = 8_192
"""More than any model has: whoever asks for more gets so many."""
CREATED_S = 1_700_000_000


class BadRequest(ValueError):
    """What an honest server would refuse."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer and the number of tokens in it, for which the pace is kept."""

    data: bytes
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """An honest answer, before any fault is laid over it."""

    content_type: str
    chunks: list[Chunk]
    stream: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What was asked, as far as the answer depends on it."""

    script: Script
    request: dict[str, Any]
    model: str
    prompt: str

    @property
    def id(self) -> str:
        return "scripted-" + hashlib.sha256(self.prompt.encode()).hexdigest()[:16]

    @property
    def words(self) -> list[str]:
        """The tokens that are made, those of a word to stop at included."""
        return self._stopped[0]

    @property
    def pieces(self) -> list[str]:
        """What of each token is told: nothing of the word that is stopped at."""
        words, text_characters, _ = self._stopped
        ends = list(accumulate(map(len, words)))
        return [
            word[: max(text_characters - end + len(word), 0)]
            for word, end in zip(words, ends, strict=True)
        ]

    @property
    def ending(self) -> dict[str, Any]:
        """Why the answer ends, with the word that it stops at, as vLLM tells it."""
        stop = self._stopped[2]
        if self.script.omit_finish_reason:
            return {"finish_reason": None}
        if stop is not None:
            return {"finish_reason": "stop", "stop_reason": stop}
        cut = self._limit() < self.script.output_tokens
        return {"finish_reason": "length" if cut else "stop"}

    @property
    def _stopped(self) -> tuple[list[str], int, str | None]:
        words = answer_words(self.prompt, min(self.script.output_tokens, self._limit()))
        stop = self.request.get("stop") or []
        return until_stop(words, [stop] if isinstance(stop, str) else stop)

    def _limit(self) -> int:
        asked = self.request.get("max_completion_tokens", self.request.get("max_tokens"))
        return asked if isinstance(asked, int) else 1_000_000_000


def until_stop(words: list[str], stops: Iterable[str]) -> tuple[list[str], int, str | None]:
    """Return the tokens that are made until a word to stop at is there, how many characters of text
    come before that, and the word; None: it does not come."""
    text = "".join(words)
    found = min(((text.find(stop), stop) for stop in stops if stop in text), default=None)
    if found is None:
        return words, len(text), None
    at, stop = found
    ends = accumulate(map(len, words))
    made = next(count for count, end in enumerate(ends, 1) if end >= at + len(stop))
    return words[:made], at, stop


def answer_words(prompt: str, tokens: int) -> list[str]:
    """The tokens a scripted provider answers to a prompt with; they concatenate to the text."""
    rng = random.Random(hashlib.sha256(prompt.encode()).digest())  # noqa: S311 - not a secret
    return [("" if index == 0 else " ") + rng.choice(WORDS) for index in range(tokens)]


def answer_text(prompt: str, tokens: int = 16) -> str:
    """The text a scripted provider answers to a prompt with (of a chat: `chat_prompt`)."""
    return "".join(answer_words(prompt, tokens))


def chat_prompt(messages: Iterable[dict[str, Any]]) -> str:
    """A conversation as one text, one `role: content` line for each message."""
    lines = []
    for message in messages:
        content = message.get("content") or ""
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content)
        lines.append(f"{message.get('role', '')}: {content}")
    return "\n".join(lines)


def count_tokens(prompt: str) -> int:
    """Prompt tokens as a scripted provider counts them: words, at least one."""
    return max(1, len(prompt.split()))


def usage(told: Told, output_tokens: int) -> dict[str, int]:
    """Usage, made a lie by `usage_factor`."""
    factor = told.script.usage_factor
    prompt = round(count_tokens(told.prompt) * factor)
    output = round(output_tokens * factor)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
    }


def _logprob(token: str, alternatives: int) -> dict[str, Any]:
    def entry(text: str, logprob: float) -> dict[str, Any]:
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    others = [entry(token, -0.1), *(entry(" " + word, -3.0) for word in WORDS)]
    return {**entry(token, -0.1), "top_logprobs": others[:alternatives]}


def _chat_logprobs(request: dict[str, Any], tokens: list[str]) -> dict[str, Any] | None:
    if not request.get("logprobs"):
        return None
    alternatives = int(request.get("top_logprobs") or 0)
    return {"content": [_logprob(token, alternatives) for token in tokens], "refusal": None}


def _text_logprobs(request: dict[str, Any], tokens: list[str]) -> dict[str, Any] | None:
    if request.get("logprobs") is None:
        return None
    starts = [len("".join(tokens[:index])) for index in range(len(tokens))]
    return {
        "tokens": tokens,
        "token_logprobs": [-0.1] * len(tokens),
        "top_logprobs": [{token: -0.1} for token in tokens],
        "text_offset": starts,
    }


def _tool_call(request: dict[str, Any]) -> dict[str, Any] | None:
    """A call of the first tool, unless the last message already is a tool's result."""
    tools = request.get("tools") or []
    messages = request.get("messages") or [{}]
    if not tools or request.get("tool_choice") == "none" or messages[-1].get("role") == "tool":
        return None
    function = tools[0]["function"]
    properties = function.get("parameters", {}).get("properties", {})
    plausible = {"string": "Berlin", "integer": 1, "number": 1.5, "boolean": True, "array": []}
    arguments = {
        name: plausible.get(schema.get("type", "string"), {}) for name, schema in properties.items()
    }
    called = {"name": function["name"], "arguments": msgspec.json.encode(arguments).decode()}
    return {"id": "call_scripted", "type": "function", "function": called}


def _body(value: dict[str, Any], tokens: int) -> Answer:
    return Answer("application/json", [Chunk(msgspec.json.encode(value), tokens)])


def _event(value: dict[str, Any], tokens: int = 0) -> Chunk:
    return Chunk(b"data: " + msgspec.json.encode(value) + b"\n\n", tokens)


def _stream(told: Told, chunks: Iterator[Chunk], base: dict[str, Any]) -> Answer:
    listed = list(chunks)
    asked = (told.request.get("stream_options") or {}).get("include_usage")
    if asked and not told.script.omit_usage:
        counted = usage(told, sum(chunk.tokens for chunk in listed))
        listed.append(_event({**base, "choices": [], "usage": counted}))
    if not told.script.omit_done:
        listed.append(Chunk(b"data: [DONE]\n\n"))
    return Answer("text/event-stream", listed, stream=True)


def chat(told: Told) -> Answer:
    """The answer of `/v1/chat/completions`. Raises BadRequest, as vLLM does."""
    if told.request.get("top_logprobs") and not told.request.get("logprobs"):
        raise BadRequest("when using `top_logprobs`, `logprobs` must be set to true")
    base = {"id": told.id, "created": CREATED_S, "model": told.model}
    call = _tool_call(told.request)
    count = int(told.request.get("n") or 1)
    if told.request.get("stream"):
        base["object"] = "chat.completion.chunk"
        return _stream(told, _chat_chunks(told, call, base, count), base)
    words = [] if call else told.words
    text = None if call else "".join(told.pieces)
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if call:
        message["tool_calls"] = [call]
    choice = {
        "message": message,
        "logprobs": _chat_logprobs(told.request, words),
        **_ending(told, call),
    }
    tokens = count * (len(words) or 1)
    value = {
        **base,
        "object": "chat.completion",
        "choices": [{"index": index, **choice} for index in range(count)],
    }
    if not told.script.omit_usage:
        value["usage"] = usage(told, tokens)
    return _body(value, tokens)


def _chat_chunks(
    told: Told, call: dict[str, Any] | None, base: dict[str, Any], count: int
) -> Iterator[Chunk]:
    def event(index: int, delta: dict[str, Any], tokens: int = 0, **more: Any) -> Chunk:
        choice = {"index": index, "delta": delta, "finish_reason": None, **more}
        return _event({**base, "choices": [choice]}, tokens)

    for index in range(count):
        yield event(index, {"role": "assistant", "content": None if call else ""})
    if call:
        for index in range(count):
            yield event(index, {"tool_calls": [{"index": 0, **call}]}, tokens=1)
    for word, piece in [] if call else zip(told.words, told.pieces, strict=True):
        for index in range(count):
            logprobs = _chat_logprobs(told.request, [word])
            more = {} if logprobs is None else {"logprobs": logprobs}
            yield event(index, {"content": piece}, tokens=1, **more)
    ending = _ending(told, call)
    if ending["finish_reason"]:
        for index in range(count):
            yield event(index, {}, **ending)


def _ending(told: Told, call: dict[str, Any] | None) -> dict[str, Any]:
    ending = told.ending
    return {"finish_reason": "tool_calls"} if call and ending["finish_reason"] else ending


def completion(told: Told) -> Answer:
    """The answer of `/v1/completions`; each prompt of a list gets a choice of its own."""
    base = {"id": told.id, "object": "text_completion", "created": CREATED_S, "model": told.model}
    asked = told.request.get("prompt", "")
    several = isinstance(asked, list) and bool(asked) and not isinstance(asked[0], int)
    prompts = [str(prompt) for prompt in asked] if several else [told.prompt]
    parts = [Told(told.script, told.request, told.model, prompt) for prompt in prompts]
    if told.request.get("stream"):
        return _stream(told, _text_chunks(parts, base), base)
    choices = [
        {
            "index": index,
            "text": "".join(part.pieces),
            "logprobs": _text_logprobs(part.request, part.words),
            **part.ending,
        }
        for index, part in enumerate(parts)
    ]
    tokens = sum(len(part.words) for part in parts)
    counted = {} if told.script.omit_usage else {"usage": usage(told, tokens)}
    return _body({**base, "choices": choices, **counted}, tokens)


def _text_chunks(parts: list[Told], base: dict[str, Any]) -> Iterator[Chunk]:
    for index, part in enumerate(parts):
        for word, piece in zip(part.words, part.pieces, strict=True):
            logprobs = _text_logprobs(part.request, [word])
            choice = {"index": index, "text": piece, "logprobs": logprobs, "finish_reason": None}
            yield _event({**base, "choices": [choice]}, tokens=1)
        if part.ending["finish_reason"]:
            last = {"index": index, "text": "", "logprobs": None}
            yield _event({**base, "choices": [{**last, **part.ending}]})


def embedding_vector(text: str, dimensions: int = EMBEDDING_DIMENSIONS) -> list[float]:
    """The unit vector a scripted provider embeds a text as."""
    rng = random.Random(hashlib.sha256(text.encode()).digest())  # noqa: S311 - not a secret
    raw = [rng.uniform(-1.0, 1.0) for _ in range(dimensions)]
    length = sum(value * value for value in raw) ** 0.5
    return [value / length for value in raw]


def embeddings(told: Told) -> Answer:
    """The answer of `/v1/embeddings`, as floats or base64 of little-endian float32."""
    asked = told.request.get("input", "")
    single = isinstance(asked, str) or (bool(asked) and isinstance(asked[0], int))
    texts = [str(text) for text in ([asked] if single else asked)]
    dimensions = int(told.request.get("dimensions") or EMBEDDING_DIMENSIONS)
    dimensions = min(dimensions, EMBEDDING_DIMENSIONS_MAX)
    data: list[dict[str, Any]] = []
    for index, text in enumerate(texts):
        vector: list[float] | str = embedding_vector(text, dimensions)
        if told.request.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    value: dict[str, Any] = {"object": "list", "model": told.model, "data": data}
    if not told.script.omit_usage:
        tokens = round(sum(map(count_tokens, texts)) * told.script.usage_factor)
        value["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _body(value, 0)
