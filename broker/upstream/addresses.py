"""Which addresses the broker may connect to, checked at connect: calls, probes and webhooks alike.

A name is resolved once, and the very address that was checked is the one connected to, so that a
name cannot answer with a public address for the check and a private one for the connection (DNS
rebinding).
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Iterable
from concurrent.futures import Executor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias, cast

import certifi

from broker.core.outcome import Fault, Outcome
from broker.settings import told_authorities
from broker.upstream.faults import AttemptFailed
from broker.upstream.names import Address, Names, Sockaddr

IP: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# Listed in full, for `is_global` changes from one Python to the next.
_REFUSED_V4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network, unspecified
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; holds a metadata address (100.100.100.200)
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's host service behind a public address
        "169.254.0.0/16",  # link-local; holds the metadata address 169.254.169.254
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_UNICAST_V6: Final = IPv6Network("2000::/3")
_REFUSED_V6: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments; holds Teredo
        "2001:db8::/32",
        "3fff::/20",
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP: Final = (0x00005EFE, 0x02005EFE)


class AddressPolicy:
    """Public unicast addresses, and whatever lies in `allowed_networks`."""

    def __init__(self, allowed_networks: Iterable[Network] = ()) -> None:
        self.allowed_networks = tuple(allowed_networks)

    def permits(self, ip: IP | str) -> bool:
        """True when the broker may connect to `ip`; False for text that is no address, too."""
        try:
            address = ip_address(ip)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # the kernel connects to just that
        if any(address in network for network in self.allowed_networks):
            return True
        if isinstance(address, IPv4Address):
            return not any(address in network for network in _REFUSED_V4)
        carried = _carried(address)
        if carried is not None and not self.permits(carried):
            return False
        if address in _NAT64:
            return True
        return address in _UNICAST_V6 and not any(address in each for each in _REFUSED_V6)


def _carried(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that packets to `address` may end up at."""
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


async def resolve(
    host: str, port: int, policy: AddressPolicy, threads: Executor | None = None
) -> list[Address]:
    """Return the permitted addresses of `host`, in the resolver's order.

    A name may take its time: in `threads` it keeps those waiting that are asked for there, without
    them nobody. Raises `AttemptFailed` (ADDRESS_REFUSED) when there are addresses but none is
    permitted, and `OSError` when there is none.
    """
    loop = asyncio.get_running_loop()
    if threads is None:
        return permitted(host, await Names().look_up(host, port), policy)
    kind = {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_TCP}
    asked = functools.partial(socket.getaddrinfo, host, port, **kind)
    found = await loop.run_in_executor(threads, asked)
    addresses = [Address(family, cast(Sockaddr, sockaddr)) for family, _, _, _, sockaddr in found]
    return permitted(host, addresses, policy)


def permitted(host: str, addresses: list[Address], policy: AddressPolicy) -> list[Address]:
    """Return those of the addresses of `host` that the broker may connect to.

    Raises `AttemptFailed` (ADDRESS_REFUSED) when there is none.
    """
    allowed = [each for each in addresses if policy.permits(str(each.sockaddr[0]))]
    if not allowed:
        at = str(addresses[0].sockaddr[0])
        who = host if host == at else f"{host}, at {at},"
        detail = (
            f"{who} is in a network that is not allowed; an operator may allow it "
            "(BROKER_ALLOW_NETWORKS)"
        )
        raise AttemptFailed(Outcome(Fault.ADDRESS_REFUSED, detail=detail, sent=False))
    return allowed


@functools.cache
def public_tls_context() -> ssl.SSLContext:
    """Return the context that trusts the public authorities; made once, for that takes a while.

    As httpx makes it, which would have to be loaded for it where the first call waits.
    """
    file, folder = told_authorities()
    if file is None and folder is None:
        file = certifi.where()
    context = ssl.create_default_context(cafile=file, capath=folder)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context
