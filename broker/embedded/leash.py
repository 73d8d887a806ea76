"""Ties a command to the life of its parent: run as a script, it then becomes the command.

It is a script of its own, not a `preexec_fn`, because Python code between fork and exec may
deadlock in a process with threads, and because other event loops offer no `user=`. Standard library
only, and all imported at the top: the account that it drops to may not be able to reach Python.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass

_PR_SET_PDEATHSIG = 1
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
"""The number of the system call, which the C library has no name for."""


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
    slice_ns: int = 0,
) -> list[str]:
    """Return the command line that runs `command` with this very process as its parent.

    On Linux the command gets `end_signal` when the thread that started it ends, however that
    happens; and it and its children ask for the processor for `slice_ns` at a time, unless that is
    0 or the kernel older than 6.12. The process id stays the same throughout.
    """
    account = f"{identity.uid}:{identity.gid}" if identity else "-"
    options = [str(os.getpid()), str(int(end_signal)), account, str(slice_ns)]
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


def _ask_for(slice_ns: int) -> None:
    """Ask to run for a short time, and soon: who asks for less comes sooner.

    Only a wish, and an older kernel does not hear it; a container may forbid to tell it.
    """
    call = _SCHED_SETATTR.get(platform.machine())
    if call is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    # struct sched_attr: size, policy, flags, niceness, priority, runtime, deadline, period
    wish = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, 0, niceness, 0, slice_ns, 0, 0)
    ctypes.CDLL(None).syscall(call, 0, wish, 0)


def main(arguments: Sequence[str]) -> None:
    """Put on the leash and become the command; never returns."""
    parent_pid, end_signal, account, slice_ns, *command = arguments
    if account != "-":
        _drop_to(account)
    if sys.platform == "linux":
        _die_with(int(parent_pid), int(end_signal))
        if int(slice_ns):
            _ask_for(int(slice_ns))
    try:
        os.execvp(command[0], command)  # noqa: S606 - to become a command is its job
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
