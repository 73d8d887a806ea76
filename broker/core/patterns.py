"""Finds a regular expression in a text in time that grows with both lengths, whatever it says.

An automaton of all ways at once (Thompson, "Regular Expression Search Algorithm", 1968), so that no
pattern of a stranger can take for ever, as it can with Python's own. What such an automaton cannot
do is refused: references back, looking around, possessive repeats.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from broker.errors import RequestMalformed

PATTERN_CHARACTERS_MAX: Final = 1_000
STEPS_MAX: Final = 1_000
"""Of a pattern whose counted repeats are written out."""
TEXT_CHARACTERS_MAX: Final = 8_000
"""Only so much of a text is looked at."""

_FLAGS: Final = re.compile(r"\(\?([ims]+)\)")
_COUNT: Final = re.compile(r"\{(\d{0,4})(,?)(\d{0,4})\}")
_GROUP: Final = re.compile(r"\((\?:|\?P<\w+>|(?!\?))")
_ESCAPE: Final = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[^xu1-9])", re.DOTALL)
_CLASS: Final = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_EDGES: Final = {"^": "start", "$": "end", r"\A": "first", r"\Z": "last", r"\b": "b", r"\B": "B"}

Fits = Callable[[str], object]


@dataclass(slots=True)
class _Step:
    """Takes a character that `fits`, or passes an `edge`, or only goes on to all of `onward`."""

    fits: Fits | None = None
    edge: str | None = None
    onward: list[int] = field(default_factory=list)


class Pattern:
    """A compiled pattern."""

    def __init__(self, text: str) -> None:
        """Raises RequestMalformed for what is no pattern, or not of the kind that is taken."""
        if len(text) > PATTERN_CHARACTERS_MAX:
            raise _refused(f"it is longer than {PATTERN_CHARACTERS_MAX} characters")
        try:
            re.compile(text)
        except (re.error, RecursionError, OverflowError) as error:
            raise _refused(str(error)) from None
        self._steps: list[_Step] = []
        flags = _FLAGS.match(text)
        self._flags = flags.group(1) if flags else ""
        self._text = text
        self._at = flags.end() if flags else 0
        self._start = self._step()
        self._end = self._either(self._start)
        assert self._at == len(text), "Python had taken it"

    def found_in(self, text: str) -> bool:
        """Return whether the pattern is found anywhere in the text."""
        text = text[:TEXT_CHARACTERS_MAX]
        standing: set[int] = set()
        for place in range(len(text) + 1):
            reached = self._reach({*standing, self._start}, text, place)
            if self._end in reached:
                return True
            if place < len(text):
                standing = self._take(reached, text[place])
        return False

    def _take(self, reached: set[int], character: str) -> set[int]:
        taken: set[int] = set()
        for each in reached:
            step = self._steps[each]
            if step.fits is not None and step.fits(character):
                taken.update(step.onward)
        return taken

    def _reach(self, standing: set[int], text: str, place: int) -> set[int]:
        """Return all steps that can be reached without taking a character."""
        reached, waiting = set(standing), list(standing)
        while waiting:
            step = self._steps[waiting.pop()]
            if step.fits is not None or (step.edge and not self._is_at(step.edge, text, place)):
                continue
            for onward in step.onward:
                if onward not in reached:
                    reached.add(onward)
                    waiting.append(onward)
        return reached

    def _is_at(self, edge: str, text: str, place: int) -> bool:
        many = "m" in self._flags
        if edge in ("start", "first"):
            return place == 0 or (many and edge == "start" and text[place - 1] == "\n")
        if edge in ("end", "last"):
            if place == len(text):
                return True
            ends = edge == "end" and text[place] == "\n"
            return ends and (many or place == len(text) - 1)
        before = place > 0 and _is_word(text[place - 1])
        after = place < len(text) and _is_word(text[place])
        return (before != after) == (edge == "b")

    def _step(self, fits: Fits | None = None, edge: str | None = None) -> int:
        if len(self._steps) >= STEPS_MAX:
            raise _refused("its repeats make it too long")
        self._steps.append(_Step(fits, edge))
        return len(self._steps) - 1

    def _link(self, here: int, there: int) -> None:
        self._steps[here].onward.append(there)

    def _either(self, start: int) -> int:
        """Read alternatives from `start` on; return where they end."""
        end = self._step()
        while True:
            self._link(self._row(start), end)
            if not self._text.startswith("|", self._at):
                return end
            self._at += 1

    def _row(self, here: int) -> int:
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            begun = self._at
            first = self._step()
            copy = first, self._piece(first)
            least, most = self._repeats()
            went_on = self._at
            here = self._repeated(here, (begun, copy), least, most)
            self._at = went_on
        return here

    def _repeated(
        self, here: int, piece: tuple[int, tuple[int, int]], least: int, most: int | None
    ) -> int:
        """Write a piece, of which there is one copy, out as often as it must and may come."""
        begun, copy = piece
        end = self._step()
        for number in range(max(least, 1) if most is None else most):
            first, last = self._again(begun) if number else copy
            if number >= least:
                self._link(here, end)
            self._link(here, first)
            here = last
            if most is None and number >= least - 1:
                self._link(here, first)
        self._link(here, end)
        return end

    def _again(self, begun: int) -> tuple[int, int]:
        self._at = begun
        first = self._step()
        return first, self._piece(first)

    def _piece(self, here: int) -> int:
        """Read a group, a class, an escape or a character; return where it ends."""
        text, at = self._text, self._at
        if text[at] == "(":
            group = _GROUP.match(text, at)
            if group is None:
                raise _refused("it looks around, or has a group of a kind that is not taken")
            self._at = group.end()
            end = self._either(here)
            self._at += 1
            return end
        found = (_CLASS if text[at] == "[" else _ESCAPE).match(text, at)
        if text[at] in "[\\" and found is None:
            raise _refused("it refers back, or has an escape that is not taken")
        word = found.group() if found else text[at]
        self._at = at + len(word)
        if word in _EDGES:
            passed = self._step(edge=_EDGES[word])
        else:
            own = word if found or word == "." else re.escape(word)
            flags = self._flags.replace("m", "")
            passed = self._step(re.compile(f"(?{flags}){own}" if flags else own).fullmatch)
        self._link(here, passed)
        end = self._step()
        self._link(passed, end)
        return end

    def _repeats(self) -> tuple[int, int | None]:
        """Read how often a piece must and may come: once and once where nothing is said."""
        rest = self._text[self._at : self._at + 1]
        count = _COUNT.match(self._text, self._at)
        if rest and rest in "*+?":
            self._at += 1
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[rest]
        elif count is not None and (count.group(1) or count.group(3)):
            self._at = count.end()
            least = int(count.group(1) or 0)
            most = int(count.group(3)) if count.group(3) else None if count.group(2) else least
        else:
            return 1, 1
        following = self._text[self._at : self._at + 1]
        if following == "+":
            raise _refused("it has a possessive repeat")
        self._at += following == "?"  # as few as can be: found is found
        return least, most


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _refused(why: str) -> RequestMalformed:
    return RequestMalformed(f"The pattern cannot be taken: {why}.", code="pattern_malformed")
