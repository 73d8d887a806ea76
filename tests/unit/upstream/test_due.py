"""When an answer is too late, and what is said of it: by the phase that it is in."""

from __future__ import annotations

import pytest

from broker.core.outcome import Fault
from broker.upstream.due import SLOWEST_BYTES_PER_S, TICK_S, due_at, heard_at, too_late
from broker.upstream.request import Limits, Timeouts
from broker.upstream.response import Response

ASKED_AT = 100.0
TIMES = Timeouts(connect_s=1.0, first_byte_s=10.0, idle_s=5.0, total_s=60.0)


def answer(status: int = 0, *, total_due: float = 160.0, length: bytes | None = None) -> Response:
    made = Response(TIMES, Limits(), ASKED_AT, total_due, None, 10**6, status=status)
    if length is not None:
        made.headers = [(b"content-length", length)]
    made.heard_at = 120.0
    return made


@pytest.mark.parametrize(
    ("status", "paused", "total_due", "due"),
    [
        (0, False, 160.0, 110.0),
        (0, True, 160.0, 110.0),
        (0, False, 105.0, 105.0),
        (200, False, 160.0, 125.0),
        (200, False, 121.0, 121.0),
        (200, True, 160.0, 160.0),
    ],
)
def test_each_phase_has_its_time_and_all_of_them_no_more_than_the_whole(
    status: int, paused: bool, total_due: float, due: float
) -> None:
    response = answer(status, total_due=total_due)
    response.paused = paused
    assert due_at(response) == due


@pytest.mark.parametrize(
    ("status", "now", "fault"),
    [
        (0, 110.0, Fault.FIRST_BYTE_TIMEOUT),
        (200, 125.0, Fault.IDLE_TIMEOUT),
        (0, 160.0, Fault.TOTAL_TIMEOUT),
        (200, 160.0 - TICK_S / 2, Fault.TOTAL_TIMEOUT),
        (200, 160.0 - 2 * TICK_S, Fault.IDLE_TIMEOUT),
    ],
)
def test_what_is_too_late_is_blamed_by_its_phase_unless_the_whole_is_over(
    status: int, now: float, fault: Fault
) -> None:
    outcome = too_late(answer(status), now)
    assert (outcome.fault, outcome.status) == (fault, status or None)


def test_what_is_made_while_it_is_sent_is_heard_of_with_each_byte() -> None:
    response = answer(200)
    assert heard_at(response, 1, 150.0) == 150.0
    assert heard_at(response, 1, 151.0) == 151.0


def test_what_was_ready_is_heard_of_for_as_long_as_its_bytes_take_at_the_slowest() -> None:
    response = answer(200, length=b"99999")
    assert heard_at(response, 1, 119.0) == 119.0, "what came with the head"
    assert heard_at(response, 1, 150.0) == 120.0 + 1 / SLOWEST_BYTES_PER_S
    assert heard_at(response, 2 * SLOWEST_BYTES_PER_S, 150.0) == 122.0
    assert heard_at(response, 2 * SLOWEST_BYTES_PER_S, 121.0) == 121.0, "never later than now"


def test_whether_an_answer_was_ready_is_known_once_its_head_is() -> None:
    response = answer(length=b"99999")
    assert heard_at(response, 1, 150.0) == 150.0
    response.status = 200
    assert heard_at(response, 1, 150.0) == 150.0
    assert heard_at(response, SLOWEST_BYTES_PER_S, 150.0) == 121.0
