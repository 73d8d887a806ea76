"""Libraries are imported without their docstrings, and do all else as they are written."""

from __future__ import annotations

from types import CodeType
from typing import Any

import pytest

from broker.cli.wordless import NOTHING, wordless

SOURCE = '''"""A module that says something."""

SAID = __doc__


class Told:
    """A class that says something."""

    TEXT = "A class that says something else."

    def method(self):
        """A method that says something."""
        def inner():
            """Something within."""
            return "within"
        return inner


def echo():
    """Returned as well."""
    return "Returned as well."


def speechless(flag):
    assert flag, "it is looked at all the same"
    return ["first" for _ in range(2)], (lambda: "second")(), {at: "third" for at in "a"}


async def later():
    """Says something."""
    yield "later"
'''


def run(code: CodeType) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "told"}
    exec(code, names)
    return names


@pytest.fixture
def names() -> dict[str, Any]:
    return run(wordless(compile(SOURCE, "told.py", "exec")))


def test_what_a_library_says_of_itself_is_left_out(names: dict[str, Any]) -> None:
    told = names["Told"]
    inner = told().method()
    for each in (told, told.method, inner, names["later"]):
        assert each.__doc__ == NOTHING
    assert names["SAID"] == NOTHING == names["__doc__"]


def test_texts_that_are_used_stay_as_they_are(names: dict[str, Any]) -> None:
    assert names["Told"].TEXT == "A class that says something else."
    assert names["Told"]().method()() == "within"
    assert names["echo"]() == names["echo"].__doc__ == "Returned as well."
    assert names["speechless"](flag=True) == (["first"] * 2, "second", {"a": "third"})


def test_assertions_stay(names: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match="all the same"):
        names["speechless"](flag=False)


def test_code_that_says_nothing_stays_the_same_object() -> None:
    code = compile("def f(a):\n    return [a, 'b']\n", "told.py", "exec")
    assert wordless(code) is code
