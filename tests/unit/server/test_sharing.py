"""What the processes on one port tell each other, and when they leave callers to each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from broker.server.sharing import AHEAD_MIN, AHEAD_S, FULL_S, STALE_S, Board, Turns
from tests.unit.server.test_shedding import Clock

MOST = 100


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(tmp_path: Path, clock: Clock) -> Callable[[int], Board]:
    """Opens the board as one of three processes does."""
    path = tmp_path / "board"
    Board.lay_out(path, 3)
    return lambda number: Board(path, number, clock)


def test_each_reads_what_the_others_that_have_room_told(board: Callable[[int], Board]) -> None:
    first, second, third = map(board, range(3))
    assert first.others() == [], "who has not begun has told nothing"
    first.tell(7, room=True)
    second.tell(300, room=True)
    assert (first.others(), second.others(), third.others()) == ([300], [7], [7, 300])
    second.tell(301, room=False)
    assert third.others() == [7]


def test_who_has_told_nothing_of_late_is_not_counted_on(
    board: Callable[[int], Board], clock: Clock
) -> None:
    first, dead = board(0), board(1)
    dead.tell(0, room=True)
    turns = Turns(first, MOST)
    assert turns.pause_s(MOST) == FULL_S
    clock.now_s += STALE_S
    assert turns.pause_s(MOST) == 0.0, "it takes callers again, to tell them that there is no room"


def test_who_is_full_leaves_callers_to_who_is_not_and_takes_them_where_all_are(
    board: Callable[[int], Board],
) -> None:
    first, second = Turns(board(0), MOST), Turns(board(1), MOST)
    second.tell(MOST - 1)
    assert first.pause_s(MOST) == FULL_S
    assert second.pause_s(MOST) == 0.0, "the other is full"
    assert first.pause_s(MOST) == 0.0
    first.tell(MOST - 1)
    assert second.pause_s(MOST) == FULL_S
    first.withdraw()
    assert second.pause_s(MOST) == 0.0


def test_who_is_ahead_leaves_the_next_to_others_for_a_moment_only(
    board: Callable[[int], Board],
) -> None:
    first, second = Turns(board(0), MOST), Turns(board(1), MOST)
    second.tell(0)
    taken = [first.pause_s(connections) for connections in range(1, AHEAD_MIN)]
    assert taken == [0.0] * (AHEAD_MIN - 1)
    assert first.pause_s(AHEAD_MIN) == AHEAD_S
    again = [first.pause_s(AHEAD_MIN + more) for more in range(AHEAD_MIN + 1)]
    assert again == [0.0] * AHEAD_MIN + [AHEAD_S], "though nobody took one, it takes some more"
    second.tell(50)
    assert first.pause_s(51) == first.pause_s(56) == 0.0
    assert first.pause_s(57) == AHEAD_S, "an eighth more is ahead among many"


def test_who_is_ahead_of_any_leaves_the_next_to_that_one(board: Callable[[int], Board]) -> None:
    turns = [Turns(board(number), MOST) for number in range(3)]
    turns[1].tell(50)
    turns[2].tell(0)
    assert turns[0].pause_s(AHEAD_MIN) == AHEAD_S
