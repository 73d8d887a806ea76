"""Patterns find what Python's own find, and never take for ever."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.patterns import Pattern
from broker.errors import RequestMalformed

PATTERNS = (
    r"a", r"ab|cd", r"a*b", r"(ab)+c?", r"[a-c]{2,3}d", r"^ab$", r"(?i)AB", r"\bab\b", r"a.c",
    r"(?:a|b)*c", r"\d+(?:,\d{3})*", r"[^a]b", r"(?s)a.c", r"(?m)^b$", r"a{0}b", r"\Aab\Z", r"",
    r"(a*)*b", r"a{,2}c", r"[]a]b", r"\Bb", r"a??b", r"(?P<x>a)b", r"a|", r"{a", r"a{2", r"\.",
)  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=30)
@given(text=st.text(alphabet="abcd12, \n.A]{", max_size=12))
def test_it_finds_what_python_finds(pattern: str, text: str) -> None:
    assert Pattern(pattern).found_in(text) == (re.search(pattern, text) is not None)


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+$", r"a*a*a*a*a*b", r"(.*)*x", r"(a|a)*b"])
def test_what_would_take_for_ever_takes_a_moment(pattern: str) -> None:
    # Python's own would not be through by the limit that every test has.
    assert not Pattern(pattern).found_in("a" * 1_000 + "!")


@pytest.mark.parametrize(
    "pattern",
    [r"(a)\1", r"(?=a)b", r"(?<!a)b", r"a++", r"(?>a)", r"(a", r"((a{99}){99}){99}", "a" * 1_001],
)
def test_what_it_cannot_do_is_refused(pattern: str) -> None:
    with pytest.raises(RequestMalformed, match="cannot be taken"):
        Pattern(pattern)
