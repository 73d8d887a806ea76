"""Lets a process open as many files as it may."""

from __future__ import annotations

import contextlib
import resource


def allow_files() -> None:
    """Raise the limit of open files as far as it goes.

    Each call takes two, its caller's connection and its provider's, and shells allow 1,024: with no
    file left neither the ledger nor a provider can be reached.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems name a limit that they refuse
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
