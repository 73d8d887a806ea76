"""What domains are taught by: enough examples, each of one domain only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from broker.errors import RequestMalformed

EXAMPLES_MIN: Final = 20
EXAMPLES_MAX: Final = 200
_LINES_MAX: Final = 10 * EXAMPLES_MAX
"""Empty ones and those that come again too."""
EXAMPLE_CHARACTERS_MAX: Final = 8_000
DOMAINS_MAX: Final = 200
DOMAINS_OF_ONE_MAX: Final = 40
"""So many a provider may teach, for one to leave room to others."""
NAME_CHARACTERS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain and the prompts that show what it is. Operators' domains have no owner."""

    name: str
    owner_id: UUID | None
    examples: tuple[str, ...]
    author: str
    changed_at: datetime


def check_name(name: str) -> None:
    """Raise RequestMalformed with code `domain_malformed` for what cannot be a domain's name."""
    # What does not print may be a line's end, or half a character that no database takes.
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX or not name.isprintable() or name != name.strip():
        raise RequestMalformed(
            f"A domain's name has 1 to {NAME_CHARACTERS_MAX} characters, all of which print, and "
            "no space at its ends.",
            code="domain_malformed",
        )


def check_examples(examples: Sequence[str]) -> tuple[str, ...]:
    """Return the examples, each once, whatever its case and spaces. Raises RequestMalformed with
    code `domain_malformed` or `examples_too_few`."""
    if len(examples) > _LINES_MAX:
        raise RequestMalformed(
            f"A domain is taught by at most {EXAMPLES_MAX} examples; these are {len(examples)}.",
            code="domain_malformed",
        )
    distinct: dict[str, str] = {}
    for each in examples:
        distinct.setdefault(" ".join(each.split()).casefold(), each.strip())
    distinct.pop("", None)
    if len(distinct) < EXAMPLES_MIN or len(distinct) > EXAMPLES_MAX:
        raise RequestMalformed(
            f"A domain is taught by {EXAMPLES_MIN} to {EXAMPLES_MAX} different examples; "
            f"these are {len(distinct)}.",
            code="examples_too_few" if len(distinct) < EXAMPLES_MIN else "domain_malformed",
        )
    for number, each in enumerate(distinct.values(), start=1):
        if len(each) > EXAMPLE_CHARACTERS_MAX or "\0" in each or _is_broken(each):
            raise RequestMalformed(
                f"Example {number} has a NUL, half of a character, or more than "
                f"{EXAMPLE_CHARACTERS_MAX} characters.",
                code="domain_malformed",
            )
    return tuple(distinct.values())


def _is_broken(text: str) -> bool:
    """True for a lone surrogate, which cannot be written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
