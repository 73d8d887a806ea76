"""What an HTTP status from a provider means."""

from __future__ import annotations

import pytest

from broker.core.outcome import Fault, Outcome, fault_of_status

MEANINGS: list[tuple[list[int], Fault | None]] = [
    ([200, 201, 299], None),
    ([429, 503], Fault.OVERLOADED),
    ([401, 402, 403], Fault.CREDENTIAL),
    ([404, 405], Fault.NOT_FOUND),
    ([100, 301, 302, 408, 500, 502, 504, 599], Fault.SERVER_ERROR),
    ([400, 409, 413, 415, 422, 431], Fault.CALLER_FAULT),
]


@pytest.mark.parametrize(
    ("status", "fault"), [(status, fault) for statuses, fault in MEANINGS for status in statuses]
)
def test_a_status_means_one_fault(status: int, fault: Fault | None) -> None:
    assert fault_of_status(status) is fault


def test_only_the_callers_own_faults_and_the_deadline_do_not_fail_over() -> None:
    final = {each for each in Fault if not Outcome(each).fails_over}
    assert final == {Fault.CALLER_FAULT, Fault.CALLER_LEFT, Fault.DEADLINE}


def test_a_success_neither_fails_over_nor_counts_against_anybody() -> None:
    assert not Outcome().fails_over
    assert not Outcome().counts_against_provider
