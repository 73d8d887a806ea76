"""Lets a process open as many files as it may, and keeps some of them for what serves callers."""

from __future__ import annotations

import contextlib
import resource
import sys
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
