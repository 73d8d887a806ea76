"""How many holds are opened ahead of their calls."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from broker.core.ledger import Hold
from broker.core.money.ahead import (
    CALLS_MIN,
    COVER_S,
    LATE_S,
    READY_MAX,
    UNUSED_S,
    WINDOW_S,
    Ready,
    Shelf,
)

ACCOUNT = UUID(int=1)
AMOUNT = 1_600


def a_shelf() -> Shelf:
    return Shelf(ACCOUNT, "key", 0.0)


def put(
    shelf: Shelf,
    amount_nanos: int,
    opened_s: float,
    number: int = 0,
    asked_s: float | None = None,
) -> Ready:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    hold = Hold(UUID(int=number), ACCOUNT, "key", amount_nanos, now, now)
    asked_s = opened_s if asked_s is None else asked_s
    ready = Ready(hold, str(hold.call_id), asked_s, opened_s)
    shelf.ready.append(ready)
    return ready


def ask(shelf: Shelf, calls: int, until_s: float, amount_nanos: int = AMOUNT) -> float:
    """Have so many calls come up to `until_s`, and one a window later; return when that is."""
    for _ in range(calls):
        shelf.take(amount_nanos, until_s)
    shelf.take(amount_nanos, until_s + WINDOW_S)
    return until_s + WINDOW_S


def test_nothing_is_opened_for_the_first_calls_of_a_key() -> None:
    shelf = a_shelf()
    assert shelf.take(AMOUNT, 0.0) is None
    assert shelf.due(0.0) == 0


def test_nothing_is_opened_for_calls_that_come_one_now_and_then() -> None:
    shelf = a_shelf()
    now_s = ask(shelf, CALLS_MIN - 1, 0.0)
    assert shelf.due(now_s) == 0


def test_where_calls_come_densely_as_many_are_opened_as_come_in_a_moment() -> None:
    shelf = a_shelf()
    now_s = ask(shelf, 100, 0.0)
    assert shelf.due(now_s) == round(100 / WINDOW_S * COVER_S)


def test_no_more_are_opened_than_may_be_ready_however_many_calls_come() -> None:
    shelf = a_shelf()
    now_s = ask(shelf, 50 * READY_MAX, 0.0)
    assert shelf.due(now_s) == READY_MAX


def test_more_are_opened_once_half_are_taken_and_what_is_under_way_counts() -> None:
    shelf = a_shelf()
    now_s = ask(shelf, 100, 0.0)
    wanted = shelf.due(now_s)
    shelf.coming = wanted
    assert shelf.due(now_s) == 0
    shelf.coming = wanted // 2
    assert shelf.due(now_s) == wanted - wanted // 2


def test_what_is_opened_is_for_a_little_more_than_the_largest_call_of_late() -> None:
    shelf = a_shelf()
    shelf.take(AMOUNT + 16, 0.0)
    ask(shelf, 20, 0.0)
    assert shelf.amount_nanos == (AMOUNT + 16) * 17 // 16


def test_what_is_opened_is_for_less_again_once_calls_have_become_smaller() -> None:
    shelf = a_shelf()
    now_s = ask(shelf, 20, 0.0, 100 * AMOUNT)
    shelf.take(AMOUNT, now_s + WINDOW_S)
    ask(shelf, 20, now_s + WINDOW_S)
    assert shelf.amount_nanos == AMOUNT * 17 // 16


def test_the_oldest_is_taken_first_and_once() -> None:
    shelf = a_shelf()
    first, second = put(shelf, AMOUNT, 0.0, 1), put(shelf, AMOUNT, 0.1, 2)
    assert [shelf.take(AMOUNT, 0.2) for _ in range(3)] == [first, second, None]


def test_a_call_that_needs_more_takes_none_and_the_next_to_be_opened_are_for_more() -> None:
    shelf = a_shelf()
    put(shelf, AMOUNT, 0.0)
    assert shelf.take(AMOUNT + 1, 0.1) is None
    assert shelf.amount_nanos > AMOUNT
    assert shelf.take(AMOUNT, 0.1) is not None


def test_none_that_has_waited_long_is_taken_and_all_of_them_go_back() -> None:
    shelf = a_shelf()
    old, young = put(shelf, AMOUNT, 0.0, 1), put(shelf, AMOUNT, UNUSED_S, 2)
    now_s = UNUSED_S + 0.1
    assert shelf.take(AMOUNT, now_s) is None
    assert shelf.unused(now_s) == [old.hold]
    assert shelf.take(AMOUNT, now_s) is young


def test_after_a_pause_calls_have_to_come_densely_again() -> None:
    shelf = a_shelf()
    now_s = ask(shelf, 100, 0.0)
    assert shelf.due(now_s)
    now_s += 2 * WINDOW_S
    shelf.take(AMOUNT, now_s)
    assert shelf.due(now_s) == 0


def test_a_shelf_that_rests_opens_none_for_a_while() -> None:
    shelf = a_shelf()
    now_s = ask(shelf, 100, 0.0)
    shelf.rest(now_s)
    assert shelf.due(now_s + WINDOW_S) == 0
    later_s = ask(shelf, 100, now_s + 4 * WINDOW_S)
    assert shelf.due(later_s) > 0


def test_where_the_account_has_room_for_few_these_are_kept_up_for_a_window() -> None:
    shelf = a_shelf()
    now_s = ask(shelf, 100, 0.0)
    for _ in range(4):
        put(shelf, AMOUNT, now_s)
    shelf.refused(now_s)
    assert shelf.due(now_s) == 0
    for _ in range(2):
        shelf.take(AMOUNT, now_s)
    assert shelf.due(now_s) == 2


def test_where_the_account_has_room_for_none_the_shelf_rests() -> None:
    shelf = a_shelf()
    now_s = ask(shelf, 100, 0.0)
    shelf.refused(now_s)
    later_s = ask(shelf, 100, now_s + 0.1)
    assert shelf.due(later_s) == 0


def test_none_whose_answer_a_halted_process_read_late_is_taken_however_fresh_it_looks() -> None:
    shelf = a_shelf()
    late = put(shelf, AMOUNT, LATE_S + 0.1, asked_s=0.0)
    now_s = LATE_S + 0.2
    assert shelf.take(AMOUNT, now_s) is None
    assert shelf.unused(now_s) == [late.hold]


def test_a_shelf_is_empty_once_nothing_is_left_on_it_and_nothing_is_on_its_way() -> None:
    shelf = a_shelf()
    assert shelf.is_empty
    put(shelf, AMOUNT, 0.0)
    assert not shelf.is_empty
    shelf.unused(10.0)
    shelf.coming = 1
    assert not shelf.is_empty
