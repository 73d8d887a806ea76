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


def allow_files() -> None:
    """Raise the limit of open files as far as it goes.

    Each call takes two, its caller's connection and its provider's, and shells allow 1,024: with no
    file left neither the ledger nor a provider can be reached.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems name a limit that they refuse
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


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
