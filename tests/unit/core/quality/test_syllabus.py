"""A domain is taught by enough different examples, none of which is another's."""

from __future__ import annotations

import pytest

from broker.core.quality.syllabus import (
    EXAMPLES_MAX,
    EXAMPLES_MIN,
    NAME_CHARACTERS_MAX,
    check_examples,
    check_name,
)
from broker.errors import BrokerError


def examples(count: int, word: str = "lease") -> list[str]:
    return [f"What of {word} number {each}?" for each in range(count)]


def test_each_example_counts_once() -> None:
    again = [" What of lease number 1? ", "what of  LEASE\tnumber 1?", "", " "]
    assert check_examples([*examples(EXAMPLES_MIN), *again]) == tuple(examples(EXAMPLES_MIN))


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (examples(EXAMPLES_MIN - 1), "examples_too_few"),
        ([], "examples_too_few"),
        (["the same"] * 50, "examples_too_few"),
        ([" ".join(["the"] * 3 + [" "] * at + ["Same"]) for at in range(50)], "examples_too_few"),
        (examples(EXAMPLES_MAX + 1), "domain_malformed"),
        (examples(10_000), "domain_malformed"),
        ([*examples(EXAMPLES_MIN), "a\0b"], "domain_malformed"),
        ([*examples(EXAMPLES_MIN), "half of \ud83d"], "domain_malformed"),
        ([*examples(EXAMPLES_MIN), "x" * 9_000], "domain_malformed"),
        ([*examples(EXAMPLES_MIN), "x" * 2_000_000], "domain_malformed"),
    ],
)
def test_what_teaches_nothing_is_refused(told: list[str], code: str) -> None:
    with pytest.raises(BrokerError) as refused:
        check_examples(told)
    assert refused.value.code == code
    assert len(refused.value.detail) < 300


@pytest.mark.parametrize(
    "name",
    ["", " ", " law", "law\n", "law\0", "la\ud83dw", "x" * (NAME_CHARACTERS_MAX + 1), "a\tb"],
)
def test_a_name_that_does_not_print_is_refused(name: str) -> None:
    with pytest.raises(BrokerError) as refused:
        check_name(name)
    assert refused.value.code == "domain_malformed"


@pytest.mark.parametrize("name", ["law", "customer support", "法律", "x" * NAME_CHARACTERS_MAX])
def test_a_name_that_prints_is_taken(name: str) -> None:
    check_name(name)
