"""Outlives its parent to end what the parent left running: run as a script, told by a pipe.

Each line on standard input is `+ GROUP SIGNAL` or `- GROUP`; the end of the input means that the
parent is gone, whichever way it went. Standard library only, for it must start quickly.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping

_GRACE_S = 5.0
_POLL_S = 0.05


def left_running(lines: Iterable[str]) -> dict[int, int]:
    """Return the process groups that began and did not end, each with the signal that ends it."""
    groups: dict[int, int] = {}
    for line in lines:
        sign, group, *end_signal = line.split()
        if sign == "+":
            groups[int(group)] = int(end_signal[0])
        else:
            groups.pop(int(group), None)
    return groups


def end(groups: Mapping[int, int]) -> None:
    """Ask the groups to end, last begun first, and kill those that have not after 5 s."""
    for group, end_signal in reversed(list(groups.items())):
        _signal(group, end_signal)
    deadline = time.monotonic() + _GRACE_S
    while any(_signal(group, 0) for group in groups) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    for group in groups:
        _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False


def main() -> None:
    """Wait for the end of the input, then end what is left."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    end(left_running(sys.stdin))


if __name__ == "__main__":
    main()
