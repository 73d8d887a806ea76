"""Asks the resolver for the addresses of names, so that no name keeps the others waiting.

`getaddrinfo` blocks, and a name whose server does not answer blocks it for half a minute. In the
loop's own pool a few such names stop every other look-up. Here a name is asked for once at a time,
whoever waits for it, in a thread of its own; the number of names under way is bounded, in all, and
of one provider, or of one domain where it is nobody's yet, and each provider has a place that no
other can take (`places.py`). While there is no place, what was found a moment ago is good enough.
Who waits sets his own limit. The threads are daemons: a process that ends does not wait for them.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

from broker.upstream.places import Places

AT_ONCE: Final = 64
"""Names under way, each in a thread, besides the first ones of providers."""
FIRSTS: Final = 256
"""Providers that have a place of their own, however many names of others hang."""
OF_AN_OWNER: Final = 8
"""Names under way of one provider, however many domains it has, or under one domain, of those that
are nobody's yet: one dead name takes not all others with it."""
KEPT_S: Final = 60.0
_KEPT_MAX: Final = 2_000
_KIND: Final = {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_TCP}

Sockaddr: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
Found: TypeAlias = list[tuple[Any, ...]]
"""As `socket.getaddrinfo` returns it."""


class Address(NamedTuple):
    """A resolved address in the form that sockets take."""

    family: int
    sockaddr: Sockaddr


class Names:
    """The look-ups under way on one event loop."""

    def __init__(
        self,
        ask: Callable[..., Found] = socket.getaddrinfo,
        at_once: int = AT_ONCE,
        owner_of: Callable[[str], str | None] | None = None,
        firsts: int = FIRSTS,
    ) -> None:
        """`owner_of` tells whose a host is; None: nobody's that is known."""
        self._ask = ask
        self._owner_of = owner_of or _nobody
        self._places = Places(at_once, firsts, OF_AN_OWNER)
        self._held_up: set[tuple[str, int]] = set()
        """Names that wait for other names to leave a place."""
        self._kept: dict[tuple[str, int], tuple[float, list[Address]]] = {}
        """Until when, in the order of their ends."""
        self._under_way: dict[tuple[str, int], asyncio.Task[list[Address]]] = {}

    async def look_up(self, host: str, port: int) -> list[Address]:
        """Return the addresses of `host` in the resolver's order. Raises OSError for none."""
        if _is_number(host):
            return [Address(each[0], each[4]) for each in self._ask(host, port, **_KIND)]
        key = (host, port)
        kept = self._kept.get(key)
        if kept is not None and self._is_full(host):
            until_s, found = kept
            if asyncio.get_running_loop().time() < until_s:
                return list(found)
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._look_up(host, port))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)  # it goes on for others when one stops waiting

    async def aclose(self) -> None:
        """Give up what is under way."""
        tasks = tuple(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_up(self, host: str, port: int) -> list[Address]:
        whose, is_known = self._whose(host)
        key = host, port
        self._held_up.add(key)
        try:
            await self._places.take(whose, is_known=is_known)
        finally:
            self._held_up.discard(key)
        try:
            found = await self._ask_in_thread(host, port)
        finally:
            self._places.leave(whose)
        self._keep(key, found)
        return found

    def is_held_up(self, host: str, port: int) -> bool:
        """True while a name waits for a place: nobody has been asked, who could be to blame."""
        return (host, port) in self._held_up

    def _whose(self, host: str) -> tuple[str, bool]:
        """Return whose places a name takes, and whether that is a provider."""
        owner = self._owner_of(host)
        return (domain_of(host), False) if owner is None else (f"/{owner}", True)

    def _is_full(self, host: str) -> bool:
        """True when a look-up that is begun now would have to wait for a place."""
        whose, is_known = self._whose(host)
        return self._places.is_full(whose, is_known=is_known)

    def _keep(self, key: tuple[str, int], found: list[Address]) -> None:
        now_s = asyncio.get_running_loop().time()
        self._kept.pop(key, None)
        self._kept[key] = now_s + KEPT_S, found
        for each, (until_s, _) in tuple(self._kept.items()):
            if until_s > now_s and len(self._kept) <= _KEPT_MAX:
                break
            del self._kept[each]

    async def _ask_in_thread(self, host: str, port: int) -> list[Address]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Address]] = loop.create_future()
        asking = threading.Thread(
            target=self._in_thread, args=(host, port, loop, answer), name="names", daemon=True
        )
        try:
            asking.start()
        except RuntimeError as error:  # what this machine has no more of is no provider's fault
            raise OSError(errno.ENOMEM, f"no thread to ask for a name in: {error}") from None
        return await answer

    def _in_thread(
        self,
        host: str,
        port: int,
        loop: asyncio.AbstractEventLoop,
        answer: asyncio.Future[list[Address]],
    ) -> None:
        found: list[Address] = []
        failure: Exception | None = None
        try:
            found = [Address(each[0], each[4]) for each in self._ask(host, port, **_KIND)]
        except Exception as error:
            failure = _without_a_file() or error
        try:
            loop.call_soon_threadsafe(_tell, answer, found, failure)
        except RuntimeError:
            return  # the loop has closed meanwhile, and nobody waits

    def _ended(self, key: tuple[str, int], task: asyncio.Task[list[Address]]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # seen, whether or not anybody still waits


def domain_of(host: str) -> str:
    """Return the domain that a name was registered under, as far as its look tells: two labels,
    three where the last two are like `co.uk`."""
    labels = host.lower().rstrip(".").split(".")
    of_a_country = len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3
    return ".".join(labels[-3 if of_a_country else -2 :])


def _nobody(_: str) -> None:
    """Whose a host is where that is not known of any."""


def _is_number(host: str) -> bool:
    """True for an address, which needs no resolver and blocks nothing."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _without_a_file() -> OSError | None:
    """Return what is wrong where this process can open no file: the resolver, which opens some,
    then calls any name unknown, or says that it is busy."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error
    return None


def _tell(
    answer: asyncio.Future[list[Address]], found: list[Address], failure: Exception | None
) -> None:
    if answer.done():
        return
    if failure is not None:
        answer.set_exception(failure)
    else:
        answer.set_result(found)
