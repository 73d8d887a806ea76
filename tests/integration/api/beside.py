"""Sees what is done in threads, so that calls are served meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any


class Threads(ThreadPoolExecutor):
    """Threads that remember what they did."""

    def __init__(self) -> None:
        super().__init__()
        self._begun: list[Future[Any]] = []

    def submit(self, work: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        begun = super().submit(work, *args, **more)
        self._begun.append(begun)
        return begun

    def results(self) -> list[Any]:
        """Return what was made in them."""
        return [each.result() for each in self._begun]


@contextmanager
def done_beside() -> Iterator[Threads]:
    """Have the running loop use such threads for a while."""
    loop, threads = asyncio.get_running_loop(), Threads()
    loop.set_default_executor(threads)
    try:
        yield threads
    finally:
        loop.set_default_executor(ThreadPoolExecutor())
        threads.shutdown()
