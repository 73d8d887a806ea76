"""What is forgotten when nobody asks for it."""

from __future__ import annotations

import pytest

from broker.core.health.recent import FORGET_AFTER_S, Recent


def begun() -> Recent[str, int]:
    recent = Recent[str, int]()
    recent.turn(0.0)
    return recent


def test_what_is_asked_for_is_found_however_long_ago_it_was_told() -> None:
    recent = begun()
    recent["law"] = 7
    for turn in range(1, 6):
        recent.turn(turn * FORGET_AFTER_S)
        assert recent["law"] == 7


def test_what_nobody_asks_for_is_forgotten_after_one_turn_to_two() -> None:
    recent = begun()
    recent["law"] = 7
    recent.turn(1.9 * FORGET_AFTER_S)
    assert list(recent.every()) == [7]
    recent.turn(2.9 * FORGET_AFTER_S)
    with pytest.raises(KeyError):
        recent["law"]
    assert list(recent.every()) == []


def test_nothing_turns_before_it_is_time() -> None:
    recent = begun()
    recent["law"] = 7
    for _ in range(5):
        recent.turn(0.9 * FORGET_AFTER_S)
    assert recent["law"] == 7


def test_what_is_to_be_kept_is_kept_and_looking_at_all_is_not_asking() -> None:
    recent = begun()
    recent["law"], recent["medicine"] = 7, 8
    for turn in range(1, 4):
        assert 7 in list(recent.every())
        recent.turn(turn * FORGET_AFTER_S, lambda value: value == 7)
    assert recent["law"] == 7
    with pytest.raises(KeyError):
        recent["medicine"]


def test_what_is_told_anew_is_the_newest() -> None:
    recent = begun()
    recent["law"] = 7
    recent.turn(FORGET_AFTER_S)
    recent["law"] = 8
    assert recent["law"] == 8
    recent.turn(2 * FORGET_AFTER_S)
    assert recent["law"] == 8
