"""Reads the top-level members of a request as slices, however many somebody has made of 16 MiB.

Each member and each element of a list that is told apart takes microseconds and some hundred bytes:
a million of them would hold all other calls up for seconds, even where they are refused in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from functools import cache
from typing import Final

import msgspec

from broker.core.wire.counting import count_of
from broker.errors import ParameterMalformed, RequestMalformed

LARGE_BYTES: Final = 1 << 18
MEMBERS_MAX: Final = 10_000
"""Of a large body; counted are the colons outside of the members that may be long."""
PROMPTS_MAX: Final = 2_048

READ: Final = frozenset(
    {
        *("model", "models", "messages", "prompt", "input", "stream", "stream_options", "broker"),
        *("max_tokens", "max_completion_tokens", "n", "best_of", "service_tier"),
    }
)
"""Members by which calls are routed, held and priced."""
_SHORT: Final = READ - {"messages", "prompt", "input", "broker"}
"""Those of them that are taken apart to their end: 16 MiB of names in `models`, each made an
object, held all other calls up for 0.6 s."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_several = msgspec.json.Decoder(list[msgspec.Raw]).decode
# Besides what OpenAI names, what vLLM and SGLang take: of each the last alone is left out.
_LONG: Final = (
    *("messages", "prompt", "input", "tools", "functions", "response_format"),
    *("prediction", "suffix", "logit_bias", "metadata", "documents", "chat_template_kwargs"),
    *("guided_json", "guided_choice", "guided_grammar", "json_schema", "structured_outputs"),
)
_Long: Final = msgspec.defstruct("_Long", [(name, msgspec.Raw, msgspec.Raw(b"")) for name in _LONG])
_long = msgspec.json.Decoder(_Long).decode


@cache
def _prompts() -> Callable[[msgspec.Raw], msgspec.Struct]:
    """Return what reads as many prompts as there may be: a list would be made whole before its
    length is looked at. It takes 1 MB, and is made when somebody brings so many."""
    fields = [(f"prompt{number}", msgspec.Raw, msgspec.Raw(b"")) for number in range(PROMPTS_MAX)]
    kind = msgspec.defstruct("_Prompts", fields, array_like=True, forbid_unknown_fields=True)
    return msgspec.json.Decoder(kind).decode


class _First(msgspec.Struct, array_like=True):
    first: msgspec.Raw = msgspec.Raw(b"")


_first = msgspec.json.Decoder(_First).decode


def read_members(body: bytes) -> dict[str, msgspec.Raw]:
    """Return the members of a JSON object. Raises RequestMalformed, and what msgspec raises."""
    if len(body) > LARGE_BYTES:
        colons = count_of(b":", body)
        if colons > MEMBERS_MAX:
            told = msgspec.structs.astuple(_long(body))
            colons -= sum(count_of(b":", memoryview(each)) for each in told)
        if colons > MEMBERS_MAX:
            raise RequestMalformed(f"The body has more than {MEMBERS_MAX} members.")
        members = _members(body)
        for name in _SHORT & members.keys():
            if memoryview(members[name]).nbytes > LARGE_BYTES:
                raise ParameterMalformed(name, f"'{name}' has more than {LARGE_BYTES} bytes.")
        return members
    return _members(body)


def look_alike(members: Iterable[str], read: Set[str]) -> tuple[str, str] | None:
    """Return a member, and that of `read` which servers that fold case take it for: of two that are
    one to them the last counts, so that what runs would not be what was priced."""
    names = "".join(members)
    if names.isascii() and names.islower():
        return None  # as nearly always
    for name in members:
        folded = name.casefold()
        if folded != name and folded in read:
            return name, folded
    return None


def sizes_of_prompts(raw: msgspec.Raw) -> list[int] | None:
    """Return the bytes of each text of a `prompt` or `input`: one text, or one list of tokens, is
    one. None: a large list has more than PROMPTS_MAX. Raises what msgspec raises.
    """
    size_bytes = memoryview(raw).nbytes
    if memoryview(raw)[0] != ord("["):
        return [size_bytes]
    first = memoryview(_first(raw).first)
    if not first.nbytes or first[0] not in b'"[':
        return [size_bytes]
    if size_bytes <= LARGE_BYTES:
        return [memoryview(each).nbytes for each in _several(raw)]
    try:
        told = msgspec.structs.astuple(_prompts()(raw))
    except msgspec.ValidationError:
        return None
    return [size for each in told if (size := memoryview(each).nbytes)]
