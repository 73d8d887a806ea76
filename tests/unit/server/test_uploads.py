"""Who is let go of those whose bodies are on their way."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

from broker.server.limits import ServerLimits
from broker.server.request import Request
from broker.server.shedding import Shedding
from broker.server.uploads import Uploads
from tests.unit.server.test_shedding import Caller, Clock

LIMITS = ServerLimits(stalled_s=5.0, stalled_bytes=1_000)


def coming(owner: str = "") -> Request:
    return Request(None, "POST", "/", b"/", b"", [], {}, "1.1", owner=owner)  # type: ignore[arg-type]


@dataclass(eq=False)
class Sender:
    """A caller who sends what it is told to send."""

    awaited: Request | None
    has_unread: bool = False
    cut: bool = False

    def cut_short(self) -> None:
        self.cut, self.awaited = True, None

    def send(self, size_bytes: int) -> None:
        assert self.awaited is not None
        self.awaited.size_bytes += size_bytes


class Watch:
    """Uploads, looked at each second as the server does."""

    def __init__(self, *senders: Sender) -> None:
        self.clock = Clock()
        self.senders = senders
        self.uploads = Uploads(LIMITS, self.clock)

    def passes(self, seconds: int, sent: dict[int, int] | None = None) -> None:
        """Let time pass, while some send so many bytes each second."""
        for _ in range(seconds):
            self.look()
            self.clock.now_s += 1.0
            for number, size_bytes in (sent or {}).items():
                self.senders[number].send(size_bytes)
        self.look()

    def look(self) -> None:
        for each in self.senders:
            if each.awaited is not None:
                self.uploads.watch(each, each.awaited)
        self.uploads.forget_ended()


def test_who_has_stalled_longest_goes_first_and_who_sends_slowly_stays() -> None:
    early, late, slow = (Sender(coming()) for _ in range(3))
    watch = Watch(early, late, slow)
    watch.passes(3, {1: 1_000, 2: 200})
    assert not watch.uploads.let_go(), "nobody has kept us waiting for long"
    watch.passes(4, {2: 200})
    assert watch.uploads.let_go()
    assert (early.cut, late.cut) == (True, False)
    watch.passes(1, {2: 200})
    assert watch.uploads.let_go()
    assert late.cut
    watch.passes(60, {2: 200})
    assert not watch.uploads.let_go()
    assert not slow.cut


def test_who_trickles_has_stalled_though_it_never_ceases_to_send() -> None:
    trickle = Sender(coming())
    watch = Watch(trickle)
    watch.passes(6, {0: 150})
    assert watch.uploads.let_go()
    assert trickle.cut


def test_who_has_sent_what_is_yet_to_be_read_or_has_come_to_an_end_is_not_let_go() -> None:
    unread, ended, moved = Sender(coming(), has_unread=True), Sender(coming()), Sender(coming())
    watch = Watch(unread, ended, moved)
    watch.passes(6)
    ended.awaited = None
    moved.send(1_000)
    assert not watch.uploads.let_go()
    ended.awaited = coming()  # the next request on the same connection
    watch.passes(1)
    assert not watch.uploads.let_go()
    watch.passes(4)
    assert watch.uploads.let_go()
    assert (unread.cut, ended.cut, moved.cut) == (False, True, False)


def test_who_moves_on_hides_nobody_who_stalls() -> None:
    moving, stalled = Sender(coming()), Sender(coming())
    watch = Watch(moving, stalled)
    watch.passes(6, {0: 1_000})
    assert watch.uploads.let_go()
    assert (moving.cut, stalled.cut) == (False, True)


def test_nothing_is_kept_of_who_has_sent_all() -> None:
    sender = Sender(coming())
    watch = Watch(sender)
    watch.passes(1)
    sender.awaited = None
    watch.look()
    watch.senders = ()
    kept = weakref.ref(sender)
    del sender
    assert kept() is None


def test_only_such_are_let_go_as_are_asked_for() -> None:
    mine, theirs = Sender(coming("me")), Sender(coming("them"))
    watch = Watch(mine, theirs)
    watch.passes(6)
    for found in (True, False):
        assert watch.uploads.let_go(lambda each: each.owner == "them") is found
    assert (mine.cut, theirs.cut) == (False, True)


def test_who_has_stalled_makes_room_before_who_is_idle() -> None:
    crowd: set[Caller] = set()
    idle = Caller(crowd, 1.0)
    stalled = Sender(coming())
    watch = Watch(stalled)
    shedding = Shedding(crowd, 1, watch.uploads, watch.clock)
    watch.passes(6)
    assert shedding.make_room()
    assert (stalled.cut, idle.closed) == (True, False)
    assert shedding.make_room()
    assert idle.closed
