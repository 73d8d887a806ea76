"""httpx on connections to permitted addresses only: for probes, webhooks and payouts, off the hot
path.

A broker that sends none of them does not load it, nor httpx, which are 3 MB.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from concurrent.futures import Executor

import httpcore
import httpx

from broker.upstream.addresses import AddressPolicy, public_tls_context, resolve
from broker.upstream.faults import AttemptFailed


def transport(
    policy: AddressPolicy,
    ssl_context: ssl.SSLContext | None = None,
    threads: Executor | None = None,
) -> httpx.AsyncBaseTransport:
    """Return a transport for `httpx.AsyncClient` that connects to permitted addresses only.

    A refused address shows as `httpx.ConnectError`. TLS is verified for the name, not the address.
    Names are resolved in `threads`, if given. The transport uses no proxy; it follows no redirects,
    and `follow_redirects` of the client must stay off.
    """
    return _CheckedTransport(policy, ssl_context, threads)


class _CheckedTransport(httpx.AsyncHTTPTransport):
    """httpx's transport on a pool whose backend checks addresses, for which it has no argument."""

    def __init__(
        self, policy: AddressPolicy, ssl_context: ssl.SSLContext | None, threads: Executor | None
    ) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context or public_tls_context(),
            max_connections=16,
            network_backend=_CheckedBackend(policy, threads),
        )


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Resolves and checks, then lets httpcore connect to the checked address by its number."""

    def __init__(self, policy: AddressPolicy, threads: Executor | None) -> None:
        self._policy = policy
        self._threads = threads
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                addresses = await resolve(host, port, self._policy, self._threads)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"{host} was not resolved in time") from error
        except AttemptFailed as error:
            raise httpcore.ConnectError(error.outcome.detail) from error
        except OSError as error:
            raise httpcore.ConnectError(f"{host} was not resolved: {error.strerror}") from error
        for address in addresses[:-1]:
            try:
                return await self._inner.connect_tcp(
                    address.sockaddr[0], port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._inner.connect_tcp(
            addresses[-1].sockaddr[0], port, timeout, local_address, socket_options
        )

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)
