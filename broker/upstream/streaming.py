"""Reads a provider's SSE stream on its way through: what to pass on now, what to keep for the end.

Usage and `[DONE]` are kept back, for the caller gets them only once the call has been settled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

import msgspec

from broker.core.metering import Delivered
from broker.core.outcome import Fault, Outcome
from broker.upstream.beside_text import Beside, told_beside
from broker.upstream.event_form import EventForm, form_of
from broker.upstream.faults import AttemptFailed, malformed
from broker.upstream.openai import only_text, read_chunk
from broker.upstream.sse import SseSplitter, data_of
from broker.upstream.unpacking import Unpacker

_DONE = b"[DONE]"
_WITHOUT_DATA = (b":", b"event", b"id", b"retry")
"""How an event without data may begin: comments, and fields that say nothing of content."""
_PLAIN_TRIES = 3
"""Where so many events in a row were more than text, none is taken for text any more."""
_AROUND_BYTES = len(b"data: ") + len(b"\n\n")
_FORM_OF = 2
"""The how manieth of the events that came together, and are read one by one, gives the form."""
_FORM_TRIES = 3
"""Where so many forms in a row held for no other event, none is looked for any more."""
PLAIN_BYTES_MAX = 1_048_576
"""An event of more than so many is refused, so what is longer is looked at one by one."""
_STEP_BYTES = 16_384
STEP_LINES = 2_048
"""What came at once, is longer than `_STEP_BYTES` and has more lines is read in steps of about so
many: 256 KiB of line ends alone would hold all other calls up for 0.3 s, and 4 MiB of events that
say nothing, to which a few thousand bytes unpack, for half a second."""
TEXT_BYTES_MAX = 16_777_216
"""Of one stream: no model says so much, and what is kept of it must have an end."""
_PIECES_MAX = 256
_PIECE_BYTES = 64
"""Where there are more pieces of text than so many, they are to be of so many bytes on average: a
piece takes fifty more."""


class Scribe(Protocol):
    """Who hears the data of each event that is passed on, and says how it is."""

    def hear(self, payload: bytes) -> bytes: ...


class StreamReader:
    """Told of bytes as they come; `feed` returns the bytes to pass on."""

    def __init__(
        self,
        *,
        usage_asked: bool,
        keep_text: bool,
        unpacker: Unpacker | None = None,
        scribe: Scribe | None = None,
        beside: Beside | None = None,
    ) -> None:
        """`scribe` hears every event that is passed on, and says how it is; `beside` is what the
        caller has asked to be told beside the text."""
        self.has_content = False
        self.ended = False
        """`[DONE]` has come, or the stream ended cleanly after a finish reason."""
        self.text_bytes = 0
        self.beside_text = 0
        """As in `Delivered`."""
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.reasoning_tokens: int | None = None
        self.texts: list[str] = []
        """The content, kept only where it will be counted."""
        self.failure: AttemptFailed | None = None
        """What ended the stream badly; no more is fed then."""
        self.behind = b""
        """What came at once and is not yet read to its end; `catch_up` before more is fed."""
        self._behind_at = self._step_bytes = 0
        self._whole_bytes = _STEP_BYTES if unpacker is None else 0
        """What came is read as it is up to so many bytes."""
        self._keep_text = keep_text
        self._unpacker = unpacker
        self._finished = False
        self._usage_asked = usage_asked
        self._usage_event: bytes | None = None
        self._scribe = scribe
        self._beside = beside
        self._only_text = only_text if beside is None else _only_some_text
        self._splitter = SseSplitter()
        self._plain_tries = _PLAIN_TRIES
        self._may_be_plain = unpacker is None and scribe is None
        self._form: EventForm | None = None
        """Of the latest event of text alone."""
        self._form_tries = _FORM_TRIES

    def feed(self, data: bytes) -> bytes:
        """Take bytes, return what may be passed on; what is malformed or an error sets `failure`.

        What came before the failure is returned even so: it was counted, so it must be delivered.
        Nothing is fed but what `catch_up` returns while something is `behind`.
        """
        if self.text_bytes > TEXT_BYTES_MAX:
            detail = f"the text is over {TEXT_BYTES_MAX} bytes"
            self.failure = AttemptFailed(Outcome(Fault.TOO_LARGE, status=200, detail=detail))
        if len(data) > self._whole_bytes or not data:
            data = self._cut(data)
        plain_bytes = 0
        plain = self._may_be_plain and self._plain_tries > 0 and not self.ended
        if plain and self._splitter.is_empty:
            plain_bytes = self._hear_plain(data)
            if plain_bytes == len(data):
                return data
        passed = [data[:plain_bytes]] if plain_bytes else []
        try:
            if plain_bytes:
                data = data[plain_bytes:]
            events = filter(self._passes, self._splitter.feed(data))
            passed.extend(events if self._scribe is None else map(self._transcribed, events))
        except AttemptFailed as failure:
            self.failure = failure
        return passed[0] if len(passed) == 1 else b"".join(passed)

    async def catch_up(self) -> bytes:
        """Let other calls go on before the next step of what is `behind`; return what is to be fed
        for it."""
        await asyncio.sleep(0)
        return b""

    def _cut(self, data: bytes) -> bytes:
        """Return what is to be read now of what came; where nothing did, of what is behind."""
        if data:
            try:
                data = data if self._unpacker is None else self._unpacker.feed(data)
            except AttemptFailed as failure:
                self.failure = failure
                return b""
            lines = 0
            if len(data) > _STEP_BYTES:
                lines = data.count(b"\n") + data.count(b"\r")
            if lines <= STEP_LINES:
                return data
            self.behind, self._behind_at = data, 0
            self._step_bytes = len(data) * STEP_LINES // lines
        begin, step_bytes = self._behind_at, self._step_bytes
        end = begin + step_bytes
        event_end = self.behind.find(b"\n\n", end, end + step_bytes)
        if event_end >= 0:  # what begins with an event is read sooner
            end = event_end + 2
        data, self._behind_at = self.behind[begin:end], end
        if end >= len(self.behind):
            self.behind = b""
        return data

    def _hear_plain(self, data: bytes) -> int:
        """Note the texts of the leading events that are text alone; return their bytes.

        They pass as they are: taking each out and putting all together again took as long as
        reading them.
        """
        begin, size = 0, len(data)
        if size > PLAIN_BYTES_MAX or data.find(b"\r") >= 0:
            return 0
        if self._form is not None:
            begin = self._hear_formed(data, self._form)
        by_one = 0
        while begin < size and (payload := self._hear_next(data, begin)) is not None:
            begin += len(payload) + _AROUND_BYTES
            by_one += 1
            # At most once for what came in one piece; a stream's first event is often of its own.
            if by_one == _FORM_OF and self._form_tries > 0 and size - begin > 2 * len(payload):
                self._form_tries -= 1
                self._form = form_of(payload)
                if self._form is not None:
                    begin += self._hear_formed(data[begin:], self._form)
        return begin

    def _hear_next(self, data: bytes, begin: int) -> bytes | None:
        """Note the text of the event that begins there; return its data, None where it is not whole
        or says more."""
        end = data.find(b"\n", begin)
        if not data.startswith(b"data: ", begin) or end < 0 or not data.startswith(b"\n", end + 1):
            return None
        payload = data[begin + 6 : end]
        text = self._only_text(payload)
        if text is None:
            return None
        self._note(len(text) if text.isascii() else len(text.encode()), text)
        return payload

    def _hear_formed(self, data: bytes, form: EventForm) -> int:
        """Note the texts of the leading events of this form together; return their bytes."""
        heard = form.read(data, keep_text=self._keep_text)
        if heard is None:
            return 0
        size, text_bytes, text = heard
        self._form_tries = _FORM_TRIES
        self._note(text_bytes, text)
        return size

    def _note(self, text_bytes: int, text: str) -> None:
        if text_bytes:
            self.text_bytes += text_bytes
            self.has_content = True
            if self._keep_text:
                self.texts.append(text)
                pieces = len(self.texts)
                if pieces > _PIECES_MAX and self.text_bytes < _PIECE_BYTES * pieces:
                    self.texts = ["".join(self.texts)]

    def _passes(self, event: bytes) -> bool:
        """Take one event; True when it is to be passed on now. Raises AttemptFailed."""
        payload = data_of(event)
        if payload is None:
            if not event.lstrip().startswith(_WITHOUT_DATA) and not event.isspace():
                raise malformed("an event that is none", 200)
            return True
        if payload == _DONE:
            self.ended = True
        if self.ended:
            return False
        # Nearly every event is text alone, which takes half the time of all its facts.
        return (self._plain_tries > 0 and self._hears_text(payload)) or self._keep(payload)

    def _transcribed(self, event: bytes) -> bytes:
        payload = data_of(event)
        if payload is None or self._scribe is None:
            return event
        heard = self._scribe.hear(payload)
        if heard is payload:
            return event
        # Its JSON may have come in several data lines; a line break in it is mere space.
        return b"data: " + heard.replace(b"\n", b" ") + b"\n\n"

    def finish(self) -> None:
        """Be told that the provider's stream ended cleanly. Raises AttemptFailed if it was cut."""
        if not self._finished and not self.ended:
            raise AttemptFailed(Outcome(Fault.RESET, status=200, detail="ended without a finish"))
        self.ended = True

    def delivered(self, choices: int, *, complete: bool) -> Delivered:
        """Return what was seen of the answer so far."""
        return Delivered(
            claimed_in=self.prompt_tokens,
            claimed_out=self.completion_tokens,
            text_bytes=self.text_bytes,
            text="".join(self.texts),
            hidden_out=self.reasoning_tokens or 0,
            complete=complete,
            choices=choices,
            beside_text=self.beside_text,
        )

    def tail(
        self,
        cost_json: bytes,
        tokens: tuple[int, int],
        identity: Mapping[str, object] | None = None,
    ) -> bytes:
        """Return the end of the stream: usage with the cost if it was asked for, else a comment.

        `tokens` (in, out) are those paid for; they make the usage where the provider told none, and
        of a stream of several parts, which has the `identity` of the first.
        """
        if self._usage_asked and (identity is not None or self._usage_event is None):
            self._usage_event = _usage_chunk(tokens, identity or {})
        if self._usage_event is not None:
            # Its JSON may have come in several data lines; a line break in it is mere space.
            usage = self._usage_event.replace(b"\n", b" ").rstrip()[:-1]
            usage += b',"broker":' + cost_json + b"}"
            return b"data: " + usage + b"\n\ndata: [DONE]\n\n"
        return b": broker " + cost_json + b"\n\ndata: [DONE]\n\n"

    def _hears_text(self, payload: bytes) -> bool:
        """Note the text of an event that says nothing else; False: it is for `_keep` to read."""
        text = self._only_text(payload)
        if text is None:
            self._plain_tries -= 1
            return False
        self._plain_tries = _PLAIN_TRIES
        self._note(len(text) if text.isascii() else len(text.encode()), text)
        return True

    def _keep(self, payload: bytes) -> bool:
        """Note what an event says; False when it is not to be passed on now."""
        facts = read_chunk(payload)
        if facts.error is not None:
            raise AttemptFailed(Outcome(Fault.SERVER_ERROR, status=200, said=facts.error))
        self._note(facts.text_bytes, facts.text)
        if self._beside is not None and facts.has_choices and not facts.text_bytes:
            told = told_beside(payload, self._beside)
            self.beside_text += told
            self.has_content |= told > 0
        if facts.finished:
            self._finished = True
        if facts.completion_tokens is None:
            return True
        self.prompt_tokens = facts.prompt_tokens
        self.completion_tokens = facts.completion_tokens
        self.reasoning_tokens = facts.reasoning_tokens
        if facts.has_choices:
            return True
        if not payload.rstrip().endswith(b"}"):
            raise malformed("a usage chunk that is no object", 200)
        if self._usage_asked:
            self._usage_event = payload
        return False


def _usage_chunk(tokens: tuple[int, int], identity: Mapping[str, object]) -> bytes:
    tokens_in, tokens_out = tokens
    usage = {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }
    chunk: dict[str, object] = {
        "id": "",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "",
        "choices": [],
    }
    return msgspec.json.encode({**chunk, **identity, "usage": usage})


def _only_some_text(payload: bytes) -> str | None:
    """Return the text of a chunk that says nothing else; None of one that has none, which may tell
    something beside it."""
    return only_text(payload) or None
