"""What can be seen to be wrong with an answer without knowing what would be right.

Nothing, where it is none of these: an answer of the right form may be wrong all the same. Nor where
it ends for a limit of tokens, the caller's or the broker's, or where the caller named words to stop
at: what is missing then was cut off by others than who answered.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any, Final

import msgspec

from broker.core.answers.json_schema import WORK_MAX, Schema
from broker.core.answers.languages import Asked
from broker.errors import RequestMalformed

_NULL: Final = msgspec.Raw(b"null")


class Flaw(enum.StrEnum):
    """What is wrong."""

    EMPTY = "empty"
    REFUSED = "refused"
    """The model declines, or its provider's filter does."""
    NOT_JSON = "not_json"
    """JSON was asked for."""
    OFF_SCHEMA = "off_schema"
    """JSON of another shape than asked for."""
    OTHER_LANGUAGE = "other_language"
    """Plainly of another language than all that was asked, which speaks of none."""
    BAD_TOOL_CALL = "bad_tool_call"
    """Of a tool that there is not, or with arguments that it does not take."""
    BAD_TENSOR = "bad_tensor"
    """Of tensors: of another datatype or shape than it says, or not there though asked for."""
    NOT_FINITE = "not_finite"
    """Of tensors: a number that is none, or without end."""
    UNDECLARED = "undeclared"
    """Of tensors: of another datatype or shape than their model declares, or of a class that there
    is not."""


class _Function(msgspec.Struct, frozen=True, gc=False):
    name: str | None = None
    arguments: msgspec.Raw = _NULL


class _ToolCall(msgspec.Struct, frozen=True, gc=False):
    function: _Function = _Function()


class _Message(msgspec.Struct, frozen=True, gc=False):
    content: msgspec.Raw = _NULL
    """Only texts of it are read: of lists of next to nothing much memory would be made."""
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: msgspec.Raw = _NULL
    audio: msgspec.Raw = _NULL

    @property
    def text(self) -> str:
        return _text(self.content) if _is_text(self.content) else ""

    @property
    def calls(self) -> bool:
        return bool(self.tool_calls) or not _is_empty(self.function_call)

    @property
    def is_empty(self) -> bool:
        return not self.calls and _is_empty(self.content) and _is_empty(self.audio)


class _Choice(msgspec.Struct, gc=False):
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []


class _Shape(msgspec.Struct, frozen=True):
    schema: Any = None


class _Format(msgspec.Struct):
    type: str = "text"
    json_schema: _Shape | None = None


class _ToolFunction(msgspec.Struct, frozen=True):
    name: str = ""
    parameters: Any = None


class _Tool(msgspec.Struct, frozen=True):
    function: _ToolFunction = _ToolFunction()


class _Said(msgspec.Struct, frozen=True):
    role: str = ""
    content: Any = None

    @property
    def text(self) -> str:
        parts = self.content if isinstance(self.content, list) else [{"text": self.content}]
        texts = [each.get("text") for each in parts if isinstance(each, dict)]
        return " ".join(each for each in texts if isinstance(each, str))


def _is_text(raw: msgspec.Raw) -> bool:
    return bytes(memoryview(raw)[:1]) == b'"'


def _is_empty(raw: msgspec.Raw) -> bool:
    return bytes(memoryview(raw)[:5]) in (b"null", b'""', b"[]", b"{}")


_said: Final = msgspec.json.Decoder(list[_Said]).decode
_prompt: Final = msgspec.json.Decoder(Any).decode
_text: Final = msgspec.json.Decoder(str).decode
_answer: Final = msgspec.json.Decoder(_Answer).decode
_format: Final = msgspec.json.Decoder(_Format | None).decode
_tools: Final = msgspec.json.Decoder(list[_Tool] | None).decode
_NO_STOP: Final = (b"null", b"[]", b'""')
_REFUSAL: Final = re.compile(
    r"\W*(?:(?:i'?m|i am)? ?(?:so |very |really )?(?:sorry|afraid)|i apologi[sz]e|unfortunately)?"
    r"[,.:;!]?\s*(?:but )?(?:as an ai(?: language)?(?: model| assistant)?,? )?"
    r"(?:i can(?:'?t|not| not)|i(?:'m| am) (?:unable|not able)|i (?:will not|won't|must decline))"
    r"(?: to)? (?:help|assist|provide|answer|comply|fulfil|do that|create|generate|support|discuss)"
)
_OPENING: Final = 200
_READ_MAX: Final = 65_536
"""A longer text or schema is not held against JSON."""
READ_TOGETHER_MAX: Final = 2 * _READ_MAX
"""Of all texts and arguments of an answer: taken apart, JSON may be twenty times as large."""
_CHOICES_MAX: Final = 8
_CALLS_MAX: Final = 64
"""So many of an answer are looked at: who answers writes as many as it likes."""
_PART_WORK: Final = 50
_PATTERN_WORK: Final = 4_000
"""Of making a schema ready, in the unit of WORK_MAX."""


def find_flaw(asked: Mapping[str, msgspec.Raw], answer: bytes) -> Flaw | None:
    """Return the first flaw of a whole completion; `asked` are the members of its request.

    None too where there is nothing to check by: a request that cannot be read is no fault of the
    answer.
    """
    try:
        choices = _answer(answer).choices
    except (msgspec.MsgspecError, RecursionError):
        return None
    checks = _Checks(asked)
    for choice in choices[:_CHOICES_MAX]:
        flaw = _of_choice(asked, choice, checks)
        if flaw is not None:
            return flaw
    return None


class _Checks:
    """What the choices of one answer are held against together: of schemas, until that has been
    much work."""

    def __init__(self, asked: Mapping[str, msgspec.Raw]) -> None:
        self.spoken = Asked(partial(_texts, asked))
        self._asked = asked
        self._left = WORK_MAX
        self._unread = READ_TOGETHER_MAX

    @cached_property
    def form(self) -> _Format | None:
        """What the answer was to look like."""
        form: _Format | None = _read(_format, self._asked.get("response_format"))
        return form

    @cached_property
    def tools(self) -> dict[str, Any] | None:
        """What each tool takes, by its name; None where none can be read."""
        tools = _read(_tools, self._asked.get("tools"))
        if tools is None:
            return None
        return {each.function.name: each.function.parameters for each in tools}

    def takes(self, text: str | msgspec.Raw) -> bool:
        """True where a text, or JSON, may be read besides those that were."""
        size = len(text) if isinstance(text, str) else memoryview(text).nbytes
        if size > min(_READ_MAX, self._unread):
            return False
        self._unread -= size
        return True

    def admit(self, schema: object, value: object) -> bool:
        """True too where the schema says nothing, or nothing that can be checked."""
        if schema is None or self._left <= 0:
            return True
        try:
            ready = Schema(schema)
        except RequestMalformed:
            self._left -= WORK_MAX // 4
            return True
        self._left -= ready.size.parts * _PART_WORK + ready.size.patterns * _PATTERN_WORK
        self._left -= ready.work(value)
        return self._left < 0 or ready.admits(value) is not False


def _of_choice(asked: Mapping[str, msgspec.Raw], choice: _Choice, checks: _Checks) -> Flaw | None:
    message = choice.message or _Message(msgspec.Raw(msgspec.json.encode(choice.text)))
    text = message.text
    filtered = choice.finish_reason == "content_filter"
    if message.refusal or filtered or (not message.calls and is_refusal(text)):
        return Flaw.REFUSED
    if choice.finish_reason == "length" or _stops(asked):
        return None
    if message.is_empty:
        return Flaw.EMPTY
    if message.tool_calls:
        return _of_tool_calls(message.tool_calls, checks)
    return None if message.calls else _of_format(text, checks) or _of_language(asked, text, checks)


def _stops(asked: Mapping[str, msgspec.Raw]) -> bool:
    """True where the caller named words at which the answer ends."""
    return "stop" in asked and bytes(asked["stop"]).strip() not in _NO_STOP


def is_refusal(text: str) -> bool:
    """True where a text, or the beginning of one, declines to answer."""
    opening = text[:_OPENING].replace("\u2019", "'").lower().lstrip()
    return _REFUSAL.match(opening) is not None


def _of_format(text: str, checks: _Checks) -> Flaw | None:
    form = checks.form
    if form is None or form.type not in ("json_object", "json_schema") or not checks.takes(text):
        return None
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return Flaw.NOT_JSON
    shape = form.json_schema
    return None if shape is None or checks.admit(shape.schema, value) else Flaw.OFF_SCHEMA


def _of_language(asked: Mapping[str, msgspec.Raw], text: str, checks: _Checks) -> Flaw | None:
    if "response_format" in asked or not checks.spoken.is_in_another(text):
        return None
    return Flaw.OTHER_LANGUAGE


def _texts(asked: Mapping[str, msgspec.Raw]) -> list[str]:
    """Return what was asked, but for what an assistant had said."""
    messages = _read(_said, asked.get("messages")) or []
    prompt = _read(_prompt, asked.get("prompt"))
    texts = [each.text for each in messages if each.role in ("system", "developer", "user")]
    return [*texts, prompt] if isinstance(prompt, str) else texts


def _of_tool_calls(calls: list[_ToolCall], checks: _Checks) -> Flaw | None:
    known = checks.tools
    if known is None:
        return None
    for each in calls[:_CALLS_MAX]:
        name, raw = each.function.name, each.function.arguments
        if name not in known:
            return Flaw.BAD_TOOL_CALL
        try:
            told = _text(raw) if _is_text(raw) else raw
            if not checks.takes(told):
                continue
            value = msgspec.json.decode("{}" if told == "" or told == _NULL else told)
        except (msgspec.DecodeError, RecursionError):
            return Flaw.BAD_TOOL_CALL
        if not checks.admit(known[name], value):
            return Flaw.BAD_TOOL_CALL
    return None


def _read(decode: Any, raw: msgspec.Raw | None) -> Any:
    if raw is None or memoryview(raw).nbytes > _READ_MAX:
        return None
    try:
        return decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return None
