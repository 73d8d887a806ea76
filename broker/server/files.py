"""Asks the system of open files: how many there may be, and what a connection holds unread."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import resource
import sys
import termios
from typing import Final

RESERVE: Final = 64
"""Files for the ledger, Valkey, what listens and what is being closed."""
_INSTEAD: Final = tuple(10_240 << doubled for doubled in range(7, -1, -1))
"""Where all that may be is refused: macOS takes 10,240, and more where its kernel has more."""


def allow_files() -> None:
    """Raise the limit of open files as far as it goes.

    Each call takes two, its caller's connection and its provider's, and shells allow 1,024: with no
    file left neither the ledger nor a provider can be reached.
    """
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS says that there is no limit, and then refuses to set none.
    for wanted in (most, *(each for each in _INSTEAD if each > files)):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
            return


def connections_max(calls_max: int) -> int:
    """Return how many callers may be connected: RESERVE files are kept, and of the rest one for
    each of `calls_max` calls at once, up to half."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        files = sys.maxsize
    rest = max(2, files - RESERVE)
    return rest - min(calls_max, rest // 2)


def unread_bytes(transport: asyncio.BaseTransport) -> int:
    """Return how much has come on an open connection that nobody has read yet."""
    told = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.FIONREAD, bytes(4))
    return int.from_bytes(told, sys.byteorder)
