"""What is said of a connection that did not come about."""

from __future__ import annotations

import errno
import os

import pytest

from broker.core.outcome import Fault
from broker.upstream.faults import of_connect_error


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EBUSY]
)
def test_a_broker_that_can_open_no_connection_blames_no_provider_for_it(number: int) -> None:
    outcome = of_connect_error(OSError(number, os.strerror(number)))
    assert outcome.fault is Fault.NO_ROOM
    assert outcome.fails_over
    assert not outcome.counts_against_provider
    assert not outcome.sent
    assert os.strerror(number) in outcome.detail


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH])
def test_a_provider_that_cannot_be_reached_is_held_responsible(number: int) -> None:
    outcome = of_connect_error(OSError(number, os.strerror(number)))
    assert outcome.fault is Fault.CONNECT_FAILED
    assert outcome.counts_against_provider
