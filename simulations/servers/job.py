"""A call on a server, and what every form of a server can be told and asked."""

from __future__ import annotations

import math
from typing import Any, Protocol

WAITING, READING, DECODING, ENDED = range(4)


class Job:
    """One attempt as a server has it. Times are those of the run; NaN until they come."""

    __slots__ = (
        "end_s",
        "finish",
        "first_s",
        "from_step",
        "key",
        "left_in",
        "made",
        "order",
        "started_s",
        "state",
        "tokens_in",
        "tokens_out",
    )

    def __init__(self, key: Any, tokens_in: int, tokens_out: int) -> None:
        self.key = key
        self.tokens_in = tokens_in
        self.tokens_out = tokens_out
        self.started_s = math.nan
        self.first_s = math.nan
        """When its first token had been made."""
        self.end_s = math.nan
        self.state = WAITING
        self.left_in = tokens_in
        """Tokens still to be read before the next token can be made."""
        self.made = 0
        """Tokens made, as of the last time that it left decoding."""
        self.finish = 0.0
        """Where the server's own count of steps or tokens stands when it is done."""
        self.order = 0
        """Its place among those taken in."""
        self.from_step = 0
        """The step from which on it may be taken in."""


class Server(Protocol):
    """A server between events. It is told of everything in order of time."""

    @property
    def running(self) -> int:
        """Calls being worked on."""
        ...

    @property
    def waiting(self) -> int:
        """Calls in line."""
        ...

    def submit(self, job: Job, now_s: float) -> None:
        """Take a call in."""
        ...

    def cancel(self, job: Job, now_s: float) -> int:
        """Drop a call, whether or not it has ended; return how many tokens it had made."""
        ...

    def ended(self, now_s: float) -> list[Job]:
        """Return the calls that have ended by now, in order, each once."""
        ...

    def wake_s(self) -> float:
        """When to ask `ended` again, should nothing be told before; infinite while idle."""
        ...

    def slow(self, slowdown: float, now_s: float) -> None:
        """Let everything take so many times as long from now on."""
        ...
