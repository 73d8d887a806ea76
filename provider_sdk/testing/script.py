"""What a scripted provider is told to do: who it is, how fast, how wide, and how it fails."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Literal

import msgspec

from provider_sdk.complaints import spoken


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One behaviour; the defaults are a quick and honest provider.

    A *work call* is one to `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings` or
    `/v2/models/.../infer`. Pace, faults, `sequence` and `fault_rate` apply to work calls only.
    A *chunk* is one SSE event, the role chunk of a chat included, or the whole body of an answer
    that is not a stream.
    """

    # who it is (always of the outermost script)
    kind: Literal["openai", "kserve"] = "openai"
    models: tuple[str, ...] = ("scripted",)
    api_key: str | None = None
    """When set, work calls, `/v1/models` and `/metrics` want `Authorization: Bearer <api_key>`."""
    nonce: str | None = None
    """The answer under `/.well-known/model-broker`; 404 when absent."""
    datatype: str = "FP32"
    """Of the tensors that a KServe model says it takes and gives."""
    healthy: bool = True
    """When false, `/health` and `/v2/health/*` answer 503."""
    metrics: bool = True
    slow_heartbeat_ms: float = 0.0
    """Delay of `/health` and `/metrics`, on which an agent's heartbeat waits."""

    # how wide (always of the outermost script)
    capacity: int | None = None
    """Work calls served at once; the others queue. Unlimited when absent."""
    queue_limit: int | None = None
    """Work calls that may queue; the next is answered 429. Unlimited when absent."""

    # how fast
    latency_ms: float = 0.0
    """Before the head of the answer."""
    ttft_ms: float = 0.0
    """After the head, before the first token."""
    tokens_per_s: float | None = None
    output_tokens: int = 16

    split_at_bytes: int | None = None
    """Send a body that is no stream in two chunks, the first of so many bytes."""

    # how it lies
    usage_factor: float = 1.0
    omit_usage: bool = False
    omit_done: bool = False
    omit_finish_reason: bool = False

    # how it fails
    refuse: bool = False
    """Refuse connections; in a `sequence`, where a connection already stands, same as `reset`."""
    reset: bool = False
    """RST before a byte of the answer."""
    stall: bool = False
    """Never answer a byte, until the caller leaves."""
    stall_after_chunks: int | None = None
    cut_after_chunks: int | None = None
    """0: after the head of the answer."""
    cut_after_bytes: int | None = None
    """Of the body."""
    cut_by_reset: bool = False
    """Whether a cut is a RST instead of a FIN."""
    cut_wire_after_bytes: int | None = None
    """Of all that is sent, the head of the answer included; it is sent at once."""
    malformed_chunk: bool = False
    """The second chunk of the body in chunks has a size that is no number."""
    wrong_answer: bool = False
    """A valid answer, but to another question."""
    wrong_tensor: Literal["", "datatype", "shape", "size", "missing", "nan", "no_outputs"] = ""
    """What is wrong with the outputs of an inference: the first says another datatype, has one
    dimension more, is a byte or an element short, or begins with what is no number; the last is
    missing; or nothing is there to be one."""
    encoding: Literal["", "gzip", "deflate"] = ""
    """Compress OpenAI answers although nobody has asked for it; `garbage_mb` then makes a bomb."""
    close_after_answer: bool = False
    """Close the connection after an answer that promised keep-alive, as llama.cpp does."""
    status: int = 200
    body: str | None = None
    """The body that goes with `status`; one in the shape of the protocol when absent."""
    retry_after_s: float | None = None
    malformed_json: bool = False
    nested_json: bool = False
    """A member of lists within lists, deeper than parsers go."""
    malformed_sse: bool = False
    wrong_content_type: bool = False
    empty: bool = False
    """200 with no body at all."""
    error_after_chunks: int | None = None
    """An error object inside a stream that began with 200, which then ends."""
    garbage_mb: float = 0.0
    """Megabytes without a line end: after the first chunk of a stream, or instead of a body."""
    byte_interval_ms: float | None = None
    """Send the body byte by byte with this pause between."""

    # when
    sequence: tuple[Script, ...] = ()
    """Behaviours of the first work calls, one each; the outermost script is for those after."""
    fault_rate: float = 1.0
    """Share of calls on which the faults ("how it lies", "how it fails") show."""
    seed: int = 0


FAULTS = (
    *("usage_factor", "omit_usage", "omit_done", "omit_finish_reason"),
    *("reset", "stall", "stall_after_chunks", "cut_after_chunks", "cut_after_bytes"),
    *("cut_wire_after_bytes", "malformed_chunk", "wrong_answer", "wrong_tensor", "encoding"),
    *(
        "close_after_answer",
        "status",
        "body",
        "retry_after_s",
        "malformed_json",
        "nested_json",
        "malformed_sse",
    ),
    *("wrong_content_type", "empty", "error_after_chunks", "garbage_mb", "byte_interval_ms"),
)
_DEFAULT = Script()


def without_faults(script: Script) -> Script:
    """The same provider on a good day; `refuse` stays, as it is no matter of single calls."""
    return msgspec.structs.replace(script, **{name: getattr(_DEFAULT, name) for name in FAULTS})


class ScriptWrong(Exception):
    """A script that cannot be played; the text names the file, the field and what is wrong."""


def read_script(path: Path) -> Script:
    """Return the script in a JSON file. Raises ScriptWrong."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Script)
    except OSError as error:
        raise ScriptWrong(f"{path}: {error.strerror}") from error
    except msgspec.ValidationError as error:
        raise ScriptWrong(f"{path}: {spoken(str(error), (Script,))}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ScriptWrong(f"{path}: {error}") from error


class Playback:
    """Says for each work call in turn which behaviour it gets."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._played = 0
        self._rng = random.Random(script.seed)  # noqa: S311 - a test wants the same run twice

    def next(self) -> Script:
        """The behaviour of the next work call."""
        number = self._played
        self._played += 1
        if number < len(self.script.sequence):
            return self.script.sequence[number]
        if self.script.fault_rate < 1.0 and self._rng.random() >= self.script.fault_rate:
            return without_faults(self.script)
        return self.script
