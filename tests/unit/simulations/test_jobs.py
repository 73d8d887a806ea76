"""How a worker hears that nobody waits for its cell any more."""

from __future__ import annotations

import signal

from simulations.jobs import _hearing_call_off
from simulations.studies.parcel import CALL_OFF


def test_a_cell_is_called_off_whatever_is_at_work_when_that_is_heard() -> None:
    number = signal.Signals[CALL_OFF]
    before = signal.getsignal(number)
    with _hearing_call_off() as wanted:
        assert wanted(0.0)
        try:
            signal.raise_signal(number)
        except Exception as error:
            raise AssertionError("a controller of prices would have swallowed it") from error
        assert not wanted(1.0)
    assert signal.getsignal(number) is before
