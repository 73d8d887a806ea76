"""Watches the bodies that are coming: who sends hardly anything of one makes room for others."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from broker.server.limits import ServerLimits
from broker.server.request import Request

Which = Callable[[Request], bool]


class Sender(Protocol):
    """A connection, as far as its caller has something to send."""

    @property
    def awaited(self) -> Request | None: ...
    @property
    def has_unread(self) -> bool: ...
    def cut_short(self) -> None:
        """Be done with the caller: nothing of it is awaited any more."""


class Mark(NamedTuple):
    """How much had come of a body when it was last seen to move on."""

    request: Request
    size_bytes: int
    at_s: float


class Uploads:
    """Bodies that have begun to come, the one that has not moved on for longest first."""

    def __init__(self, limits: ServerLimits, now_s: Callable[[], float]) -> None:
        self._limits = limits
        self._now_s = now_s
        self._marks: dict[Sender, Mark] = {}

    def watch(self, sender: Sender, request: Request) -> None:
        """Be told, a few times a second, who has yet to send more of which request."""
        mark = self._marks.get(sender)
        if mark is None or self._moves(mark, request):
            self._marks.pop(sender, None)  # so that it comes last
            self._marks[sender] = Mark(request, request.size_bytes, self._now_s())

    def forget_ended(self) -> None:
        """Keep nothing of what has come, or will never come."""
        ended = [each for each, mark in self._marks.items() if each.awaited is not mark.request]
        for each in ended:
            del self._marks[each]

    def let_go(self, which: Which = lambda _: True) -> bool:
        """Let go of who has stalled for longest, of those whose request is one that is asked for;
        False where nobody has stalled.

        Who has said what is yet to be read, as after a halt, stays.
        """
        latest_s = self._now_s() - self._limits.stalled_s
        for sender, mark in self._marks.items():
            if mark.at_s > latest_s:
                break
            request = mark.request
            stalled = sender.awaited is request and not self._moves(mark, request)
            if stalled and which(request) and not sender.has_unread:
                sender.cut_short()
                return True
        return False

    def _moves(self, mark: Mark, request: Request) -> bool:
        if mark.request is not request:
            return True
        return request.size_bytes - mark.size_bytes >= self._limits.stalled_bytes
