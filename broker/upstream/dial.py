"""Opens TCP or TLS connections to an origin, at an address that the policy has permitted.

Of several addresses the next is tried where one fails, and where one does not answer within its
share of the time that is left: a machine that is gone takes not those beside it with it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final, TypeVar

from broker.upstream.addresses import AddressPolicy, permitted, public_tls_context
from broker.upstream.names import Address, Names
from broker.upstream.request import Origin

_P = TypeVar("_P", bound=asyncio.Protocol)

ADDRESSES_MAX: Final = 4
"""Of one name that are tried: nobody has the broker knock at any number of doors."""


class Dialler:
    """Opens connections; without an `ssl_context` of its own it trusts the public authorities."""

    def __init__(
        self,
        policy: AddressPolicy,
        ssl_context: ssl.SSLContext | None,
        names: Names | None = None,
    ) -> None:
        self._policy = policy
        self._ssl_context = ssl_context
        self._names = names or Names()

    async def dial(self, origin: Origin, make_protocol: Callable[[], _P], due: float) -> _P:
        """Return a protocol connected to `origin`; addresses are tried in the resolver's order.

        `due` is the loop time that they share; who calls keeps to it. Raises `AttemptFailed` for a
        refused address, else whatever the loop raises for the last address.
        """
        now = asyncio.get_running_loop().time
        found = await self._names.look_up(origin.host, origin.port)
        addresses = permitted(origin.host, found, self._policy)[:ADDRESSES_MAX]
        for behind in range(len(addresses) - 1, 0, -1):
            address = addresses[-1 - behind]
            try:
                async with asyncio.timeout_at(now() + (due - now()) / (1 + behind)):
                    return await self._open(origin, address, make_protocol)
            except OSError:  # and so is a TimeoutError
                continue
        return await self._open(origin, addresses[-1], make_protocol)

    def is_held_up(self, origin: Origin) -> bool:
        """True while its name waits for those of others."""
        return self._names.is_held_up(origin.host, origin.port)

    async def aclose(self) -> None:
        """Give up the look-ups under way."""
        await self._names.aclose()

    async def _open(self, origin: Origin, address: Address, make_protocol: Callable[[], _P]) -> _P:
        """Connect to exactly this address: resolving again could give another."""
        loop = asyncio.get_running_loop()
        sock = await connected_socket(address)
        try:
            if origin.scheme != "https":
                _, protocol = await loop.create_connection(make_protocol, sock=sock)
            else:
                _, protocol = await loop.create_connection(
                    make_protocol,
                    sock=sock,
                    ssl=self._ssl_context or public_tls_context(),
                    server_hostname=origin.host,
                )
        except BaseException:
            sock.close()
            raise
        return protocol


async def connected_socket(address: Address) -> socket.socket:
    """Return a non-blocking TCP socket connected to `address`."""
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock
