"""Ties a command to the life of its parent: run as a script, it then becomes the command.

It is a script of its own, not a `preexec_fn`, because Python code between fork and exec may
deadlock in a process with threads, and because other event loops offer no `user=`. Standard library
only, and all imported at the top: the account that it drops to may not be able to reach Python.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Identity:
    """The account, by number, that a command runs as."""

    uid: int
    gid: int


def leashed(
    command: Sequence[str],
    *,
    end_signal: signal.Signals = signal.SIGTERM,
    identity: Identity | None = None,
) -> list[str]:
    """Return the command line that runs `command` with this very process as its parent.

    On Linux the command gets `end_signal` when the thread that started it ends, however that
    happens. The process id stays the same throughout.
    """
    account = f"{identity.uid}:{identity.gid}" if identity else "-"
    options = [str(os.getpid()), str(int(end_signal)), account]
    return [sys.executable, "-I", "-S", __file__, *options, *command]


def _drop_to(account: str) -> None:
    uid, gid = (int(number) for number in account.split(":"))
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _die_with(parent_pid: int, end_signal: int) -> None:
    # After the change of account, for the kernel forgets the signal at a change of credentials.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, end_signal, 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit(1)  # the parent ended before the leash was on


def main(arguments: Sequence[str]) -> None:
    """Put on the leash and become the command; never returns."""
    parent_pid, end_signal, account, *command = arguments
    if account != "-":
        _drop_to(account)
    if sys.platform == "linux":
        _die_with(int(parent_pid), int(end_signal))
    try:
        os.execvp(command[0], command)  # noqa: S606 - to become a command is its job
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
