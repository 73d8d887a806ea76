"""The `broker` command of the tests, run in this process, which has its modules loaded."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from broker.cli.main import main


@dataclass(frozen=True)
class Ended:
    """What a command said, and its exit status."""

    status: int
    said: str
    complained: str


async def command(environment: Mapping[str, str], *words: str) -> Ended:
    """Run `broker` with `words` as its process would, in a thread, for it has a loop of its own.

    Two at once would share their output; a test that needs a process starts one.
    """
    said, complained = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(complained),
    ):
        patch.setattr(sys, "argv", ["broker", *words])
        for name, value in environment.items():
            patch.setenv(name, value)
        status = await asyncio.to_thread(_status)
    return Ended(status, said.getvalue(), complained.getvalue())


def _status() -> int:
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0
