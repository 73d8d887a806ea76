"""What domains are taught by: enough examples, each of one domain only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from broker.errors import Conflict, RequestMalformed

EXAMPLES_MIN: Final = 20
EXAMPLES_MAX: Final = 200
EXAMPLE_CHARACTERS_MAX: Final = 8_000
DOMAINS_MAX: Final = 200
NAME_CHARACTERS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain and the prompts that show what it is. Operators' domains have no owner."""

    name: str
    owner_id: UUID | None
    examples: tuple[str, ...]
    author: str
    changed_at: datetime


def check_examples(name: str, examples: Sequence[str], known: Iterable[Domain]) -> tuple[str, ...]:
    """Return the examples, each once. Raises RequestMalformed with code `domain_malformed` or
    `examples_too_few`, and Conflict with code `examples_contradict` for another domain's."""
    if not name.strip() or len(name) > NAME_CHARACTERS_MAX or "\0" in name:
        raise RequestMalformed(
            f"A domain's name has 1 to {NAME_CHARACTERS_MAX} characters.", code="domain_malformed"
        )
    distinct = tuple(dict.fromkeys(each.strip() for each in examples if each.strip()))
    if len(distinct) < EXAMPLES_MIN or len(distinct) > EXAMPLES_MAX:
        raise RequestMalformed(
            f"A domain is taught by {EXAMPLES_MIN} to {EXAMPLES_MAX} different examples; "
            f"these are {len(distinct)}.",
            code="examples_too_few" if len(distinct) < EXAMPLES_MIN else "domain_malformed",
        )
    for number, each in enumerate(distinct, start=1):
        if len(each) > EXAMPLE_CHARACTERS_MAX or "\0" in each:
            raise RequestMalformed(
                f"Example {number} has a NUL or more than {EXAMPLE_CHARACTERS_MAX} characters.",
                code="domain_malformed",
            )
    others = [each for each in known if each.name != name]
    if len(others) >= DOMAINS_MAX:
        raise Conflict(f"There are {DOMAINS_MAX} domains already.", code="domains_too_many")
    for other in others:
        shared = len(set(other.examples) & set(distinct))
        if shared:
            raise Conflict(
                f"{shared} of the examples are examples of '{other.name}' already; a prompt that "
                "is of both teaches neither.",
                code="examples_contradict",
            )
    return distinct
