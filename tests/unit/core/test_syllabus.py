"""A domain is taught by enough different examples, none of which is another's."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from broker.core.syllabus import EXAMPLES_MAX, EXAMPLES_MIN, Domain, check_examples
from broker.errors import BrokerError

WHEN = datetime(2026, 3, 1, tzinfo=UTC)


def examples(count: int, word: str = "lease") -> list[str]:
    return [f"What of {word} number {each}?" for each in range(count)]


def test_each_example_counts_once() -> None:
    told = check_examples("law", [*examples(EXAMPLES_MIN), " What of lease number 1? ", ""], ())
    assert told == tuple(examples(EXAMPLES_MIN))


@pytest.mark.parametrize(
    ("name", "told", "code"),
    [
        ("law", examples(EXAMPLES_MIN - 1), "examples_too_few"),
        ("law", ["the same"] * 50, "examples_too_few"),
        ("law", examples(EXAMPLES_MAX + 1), "domain_malformed"),
        (" ", examples(EXAMPLES_MIN), "domain_malformed"),
        ("law", [*examples(EXAMPLES_MIN), "\0"], "domain_malformed"),
        ("law", [*examples(EXAMPLES_MIN), "x" * 9_000], "domain_malformed"),
    ],
)
def test_what_teaches_nothing_is_refused(name: str, told: list[str], code: str) -> None:
    with pytest.raises(BrokerError) as refused:
        check_examples(name, told, ())
    assert refused.value.code == code


def test_an_example_of_two_domains_contradicts_itself() -> None:
    known = Domain("medicine", None, tuple(examples(EXAMPLES_MIN)), "boss", WHEN)
    with pytest.raises(BrokerError, match="of 'medicine' already") as refused:
        check_examples("law", [*examples(25, "rash"), examples(1)[0]], [known])
    assert refused.value.code == "examples_contradict"
    assert check_examples("medicine", examples(30), [known])
