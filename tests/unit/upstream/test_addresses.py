"""Which addresses the broker may connect to."""

from __future__ import annotations

import ipaddress
import ssl

import pytest

from broker.settings import told_authorities
from broker.upstream.addresses import AddressPolicy, public_tls_context

PUBLIC = AddressPolicy()

REFUSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "100::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "64:ff9b:1::808:808",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::169.254.169.254",
    "2002:7f00:1::",
    "2002:a00:1::",
    "2002:a9fe:a9fe::",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2a00::5efe:10.0.0.1",
    "2a00::200:5efe:127.0.0.1",
]

PERMITTED = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.0.1",
    "172.32.0.1",
    "192.167.1.1",
    "223.255.255.254",
    "2606:4700:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::",
    "2a00::5efe:8.8.8.8",
]


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_not_public_is_refused_in_every_disguise(address: str) -> None:
    assert not PUBLIC.permits(address)


@pytest.mark.parametrize("address", PERMITTED)
def test_what_is_public_is_permitted(address: str) -> None:
    assert PUBLIC.permits(address)
    assert PUBLIC.permits(ipaddress.ip_address(address))


def test_text_that_is_no_address_is_refused() -> None:
    for text in ("", "localhost", "1.2.3", "1.2.3.4.5", "0x7f.1", "2130706433"):
        assert not PUBLIC.permits(text)


def test_an_allowed_network_is_permitted_and_its_neighbours_are_not() -> None:
    policy = AddressPolicy(
        (ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00:1::/32"))
    )
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5", "64:ff9b::10.1.2.3"):
        assert policy.permits(address)
    for address in ("10.2.0.1", "127.0.0.1", "fd00:2::5", "::1", "::ffff:10.2.0.1"):
        assert not policy.permits(address)


def test_nobody_renegotiates_over_tls() -> None:
    """A server that asks for it again and again has the broker compute for nothing (TLS 1.2)."""
    assert public_tls_context().options & ssl.OP_NO_RENEGOTIATION


def test_the_public_authorities_are_trusted_unless_the_environment_names_others() -> None:
    told = public_tls_context()
    assert told.cert_store_stats()["x509_ca"] > 50
    assert (told.verify_mode, told.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert told_authorities({"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""}) == (None, None)
    assert told_authorities({"SSL_CERT_DIR": "/certs"}) == (None, "/certs")
    both = {"SSL_CERT_FILE": "/ca.pem", "SSL_CERT_DIR": "/certs"}
    assert told_authorities(both) == ("/ca.pem", None)
