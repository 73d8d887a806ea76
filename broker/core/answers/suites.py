"""Suites of prompts with references, by which endpoints are examined; read from JSON lines.

One row: `{"prompt", "reference", "metric"}` with `metric` one of Metric, and where they apply
`choices` (a list, for choice), `tolerance` (absolute, for numeric), `judge` (`provider/endpoint`,
for judge), `max_tokens`, and an `id` that is passed over. Several references are a list. Rows of
the metric closer are for endpoints that embed; rows with `inputs`, which are tensors as in KServe
v2, for endpoints that take these, with the name of the `output` that is compared; all others for
those that answer in words.
"""

from __future__ import annotations

import enum
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from itertools import accumulate
from random import Random
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec

from broker.core.answers.json_schema import PATTERNS_MAX, Pattern, Schema
from broker.errors import RequestMalformed

ROWS_MAX: Final = 2_000
LINE_BYTES_MAX: Final = 256 * 1024
PROMPT_CHARACTERS_MAX: Final = 32_000
REFERENCES_MAX: Final = 100
SUITE_PARTS_MAX: Final = 300_000
"""Lists, objects, words and numbers in all references of a suite, such as those of schemas: each
takes sixty times the bytes that it is written with."""
CHOICES_MAX: Final = 1_000
"""An answer is held against each of them, which takes up to 2 ms."""
LETTERS: Final = tuple("ABCDEFGHIJ")
"""What may be chosen where a row does not say."""
SAMPLE: Final = 40
"""So many prompts of a suite suffice."""
TOKENS_MAX: Final = 100_000
"""What an examination may take, each way together; its cost is the provider's."""
HELD_BACK_FROM: Final = 16
"""Shorter suites have no rows to spare."""
_HELD_BACK: Final = 4
_CHARACTERS_PER_TOKEN: Final = 4
_TOKENS_OUT: Final = 512
_REASON_CHARACTERS_MAX: Final = 200


class Metric(enum.StrEnum):
    """How an answer is compared with its reference."""

    EXACT = "exact"
    CHOICE = "choice"
    NUMERIC = "numeric"
    REGEX = "regex"
    JSON_SCHEMA = "json_schema"
    F1 = "f1"
    JUDGE = "judge"
    CLOSER = "closer"
    """The prompt's vector is nearer to that of the first reference than to that of the second."""

    @property
    def graded(self) -> bool:
        """True where scores lie anywhere within 0..1; False where an answer is right or wrong."""
        return self in (Metric.F1, Metric.JUDGE)

    @property
    def embeds(self) -> bool:
        """True where not words are compared but vectors."""
        return self is Metric.CLOSER


class Form(enum.StrEnum):
    """What endpoints answer with."""

    WORDS = "words"
    VECTORS = "vectors"
    TENSORS = "tensors"


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor that is put, with all of its elements, flat or nested: these stay as they are
    written, for taken apart they would be sixty times as large."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    datatype: Annotated[str, msgspec.Meta(min_length=1, max_length=20)]
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    data: msgspec.Raw


class Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One prompt and how its answer is judged."""

    prompt: Annotated[str, msgspec.Meta(max_length=PROMPT_CHARACTERS_MAX)] = ""
    metric: Metric
    reference: Any = None
    choices: tuple[str, ...] | None = None
    tolerance: Annotated[float, msgspec.Meta(ge=0.0)] | None = None
    judge: str | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=16_384)] = _TOKENS_OUT
    id: str | int | None = None
    inputs: tuple[Input, ...] | None = None
    output: str | None = None

    @property
    def form(self) -> Form:
        """What endpoints it is for."""
        if self.inputs is not None:
            return Form.TENSORS
        return Form.VECTORS if self.metric.embeds else Form.WORDS

    @property
    def references(self) -> tuple[str, ...]:
        """The references as texts."""
        each = self.reference if isinstance(self.reference, list) else [self.reference]
        return tuple(map(str, each))


class Broken(msgspec.Struct, frozen=True):
    """A row that cannot be run; `line` counts from 1."""

    line: int
    reason: str


class _Owned:
    __slots__ = ()
    owner_id: UUID | None

    def is_for(self, provider_id: UUID) -> bool:
        """True where a provider's endpoints are examined on it: another provider's suite is none,
        for it might be made to favour its author."""
        return self.owner_id is None or self.owner_id == provider_id


@dataclass(frozen=True, slots=True)
class Cover(_Owned):
    """A suite as lists tell of it: how many rows it has, and none of them."""

    domain: str
    owner_id: UUID | None
    rows: int
    author: str
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Suite(_Owned):
    """What endpoints that claim a domain are examined on. Operators' suites have no owner."""

    domain: str
    owner_id: UUID | None
    items: tuple[Item, ...]
    author: str
    changed_at: datetime

    def part(self, form: Form) -> Suite:
        """Return the rows for endpoints that answer in this form."""
        return replace(self, items=tuple(each for each in self.items if each.form is form))

    def split(self) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
        """Return what examinations put and what canaries do, the same each time.

        An endpoint sees what it is examined on, so each fourth row is held back for canaries.
        """
        if len(self.items) < HELD_BACK_FROM:
            return self.items, self.items
        mixed = sorted(self.items, key=lambda each: sha256(_told_of(each)).digest())
        count = len(mixed) // _HELD_BACK
        return tuple(mixed[count:]), tuple(mixed[:count])

    def draw(self, random: Random) -> tuple[Item, ...]:
        """Return what one examination puts: SAMPLE prompts, fewer where these are long."""
        items = sample(self.split()[0], SAMPLE, random)
        costs = [each.max_tokens + len(each.prompt) // _CHARACTERS_PER_TOKEN for each in items]
        fitting = sum(total <= TOKENS_MAX for total in accumulate(costs))
        return items[:fitting]


def parse_suite(lines: bytes, judge: str | None = None) -> tuple[tuple[Item, ...], list[Broken]]:
    """Return the rows that can be run, and those that cannot, by line; empty lines are passed over.

    `judge` is the endpoint that judges where a row names none. Raises RequestMalformed with code
    `suite_empty` where nothing can be run, `suite_too_long` beyond ROWS_MAX or SUITE_PARTS_MAX.
    """
    items: list[Item] = []
    broken: list[Broken] = []
    parts = 0
    for number, line in enumerate(io.BytesIO(lines), start=1):
        if not line.strip():
            continue
        if len(items) + len(broken) >= ROWS_MAX:
            raise RequestMalformed(
                f"A suite has at most {ROWS_MAX} rows.", code="suite_too_long", facts=_told(broken)
            )
        try:
            item = _item(line, judge)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            broken.append(Broken(number, str(error)[:_REASON_CHARACTERS_MAX]))
        except RequestMalformed as error:
            broken.append(Broken(number, error.detail[:_REASON_CHARACTERS_MAX]))
        else:
            items.append(item)
            parts += _parts(item.reference)
            _require_few(parts, broken)
    if not items:
        first = f" Line {broken[0].line}: {broken[0].reason}" if broken else ""
        raise RequestMalformed(
            f"No row of this suite can be run.{first}", code="suite_empty", facts=_told(broken)
        )
    return tuple(items), broken


def sample(items: Sequence[Item], count: int, random: Random) -> tuple[Item, ...]:
    """Return `count` items drawn by `random`; all of them where there are no more."""
    if len(items) <= count:
        return tuple(items)
    return tuple(random.sample(list(items), count))


def _told_of(item: Item) -> bytes:
    """Return what tells a row from others; a row of words as ever, for rows to stay held back."""
    told = msgspec.structs.asdict(item)
    if item.inputs is None:
        del told["inputs"], told["output"]
    return msgspec.json.encode(told)


def _parts(reference: object) -> int:
    """Return how many values a reference is made of, those within others too."""
    total, ahead = 0, [reference]
    while ahead:
        each = ahead.pop()
        total += 1
        if isinstance(each, dict):
            ahead.extend(each.values())
        elif isinstance(each, list):
            ahead.extend(each)
    return total


def _require_few(parts: int, broken: Sequence[Broken]) -> None:
    if parts > SUITE_PARTS_MAX:
        raise RequestMalformed(
            f"The references of a suite have at most {SUITE_PARTS_MAX:,} parts together.",
            code="suite_too_long",
            facts=_told(broken),
        )


def _item(line: bytes, judge: str | None) -> Item:
    if len(line) > LINE_BYTES_MAX:
        raise RequestMalformed(f"It is longer than {LINE_BYTES_MAX} bytes.")
    item = msgspec.json.decode(line, type=Item)
    if item.inputs is not None:
        inputs = tuple(map(_without_blanks, item.inputs))
        item = msgspec.structs.replace(item, inputs=inputs)
    if item.metric is Metric.JUDGE and item.judge is None:
        item = msgspec.structs.replace(item, judge=judge)
    fault = _fault(item)
    if fault:
        raise RequestMalformed(fault)
    return item


def _without_blanks(tensor: Input) -> Input:
    """Return a tensor as it is kept: the same elements are the same text. Raises
    UnicodeDecodeError."""
    text = str(bytes(tensor.data), "utf-8")
    return msgspec.structs.replace(tensor, data=msgspec.Raw(msgspec.json.format(text, indent=-1)))


def _fault(item: Item) -> str | None:
    """Return what keeps an item from being run; what its pattern or schema raises is raised."""
    reference, metric = item.reference, item.metric
    if item.inputs is not None:
        if not item.inputs or metric not in (Metric.EXACT, Metric.CHOICE, Metric.NUMERIC):
            return "`inputs` are one tensor or more, by the metric exact, choice or numeric."
    elif item.output is not None:
        return "An `output` is for rows with `inputs`."
    elif "\0" in item.prompt or not item.prompt.strip():
        return "The prompt is empty, or has a NUL."
    if metric is Metric.JUDGE:
        named = item.judge is not None and "/" in item.judge
        return None if named else "Name the endpoint that judges, as provider/endpoint, in `judge`."
    if metric is Metric.JSON_SCHEMA:
        Schema(reference)
        return None
    if metric is Metric.CLOSER:
        two = isinstance(reference, list) and len(reference) == 2 and reference[0] != reference[1]
        texts = two and all(isinstance(each, str) and each.strip() for each in reference)
        return None if texts else "`reference` is two texts: the nearer one, then the other."
    if isinstance(reference, list):
        sound = bool(reference) and all(isinstance(each, str | int | float) for each in reference)
    else:
        sound = isinstance(reference, str | int | float)
    if not sound or isinstance(reference, bool):
        return f"The metric '{metric}' needs a text or a number as `reference`, or a list of them."
    return _fault_of_words(item)


def _fault_of_words(item: Item) -> str | None:
    most = PATTERNS_MAX if item.metric is Metric.REGEX else REFERENCES_MAX
    if len(item.references) > most:
        return f"The metric '{item.metric}' takes at most {most} references."
    if item.metric is Metric.REGEX:
        for each in item.references:
            Pattern(each)
    elif item.metric is Metric.NUMERIC:
        for each in item.references:
            if not _is_number(each):
                return f"The reference '{each[:40]}' is no number."
    elif item.metric is Metric.CHOICE:
        return _fault_of_choices(item)
    return None


def _fault_of_choices(item: Item) -> str | None:
    choices = item.choices or LETTERS
    known = set(choices)
    if len(choices) > CHOICES_MAX or len(known) < len(choices) or not all(map(str.strip, choices)):
        return f"`choices` are at most {CHOICES_MAX}, each another and none empty."
    return None if set(item.references) <= known else "The reference is none of the choices."


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _told(broken: Sequence[Broken]) -> dict[str, object]:
    return {"broken": msgspec.to_builtins(broken[:20])}
