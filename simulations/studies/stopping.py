"""Hears SIGINT and SIGTERM, for a study to be stopped at a moment that suits it.

The first signal is only noted: whoever waits or works looks now and then whether there was one. So
none of many that come at once can break into the winding up; but one that comes when that should
long be over ends the process at once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

HEARD = (signal.SIGINT, signal.SIGTERM)
PATIENCE_S = 5.0
"""Who asks again after so long gets no winding up."""


class Stop:
    """Whether somebody asked for a stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._asked_s = 0.0

    @property
    def asked(self) -> bool:
        """True from the first signal on."""
        return self.signal is not None

    @property
    def exit_status(self) -> int:
        """What a shell expects of a process that was stopped so."""
        return 128 + (self.signal or signal.SIGINT)

    @contextmanager
    def heard(self) -> Iterator[Stop]:
        """Note signals instead of being ended by them while the block runs; a no-op outside the
        main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {each: signal.signal(each, self._note) for each in HEARD}
        try:
            yield self
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _note(self, number: int, _: object) -> None:
        now_s = time.monotonic()
        if self.signal is None:
            self.signal, self._asked_s = signal.Signals(number), now_s
        elif now_s - self._asked_s > PATIENCE_S:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


@contextmanager
def blocked() -> Iterator[None]:
    """Put such signals off while the block runs. Processes that it starts never get any: signals
    go to whole groups of processes, and the first of a group says what is to be done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
