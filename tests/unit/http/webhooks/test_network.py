"""Addresses that webhooks may reach: those of the public internet, however an address is written."""

import socket
from ipaddress import ip_network

import pytest

from trainer.http.webhooks.client import is_public, public_socket

PUBLIC = (
    *("8.8.8.8", "1.1.1.1", "93.184.216.34", "172.15.255.255", "172.32.0.0", "100.63.255.255", "100.128.0.0"),
    *("2606:4700:4700::1111", "2a00:1450:4001:829::200e"),
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
)
PRIVATE = (
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3"),  # noqa: S104
    *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1", "100.100.100.200"),
    *("169.254.169.254", "168.63.129.16", "192.0.0.192", "192.88.99.1"),
    *("192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1"),
    "255.255.255.255",
    *("::", "::1", "::127.0.0.1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1"),
    *("2001:db8::1", "100::1", "4000::1", "2001:0:7f00:1::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:224.0.0.1", "::ffff:168.63.129.16"),
    *("64:ff9b::127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::1", "2002:a9fe:a9fe::1"),
)

SPECIAL = (  # RFC 6890 with its updates: addresses that no router of the internet forwards
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4"),
    "224.0.0.0/4",
    *("::1/128", "::/128", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "2001:db8::/32", "100::/64"),
    "64:ff9b:1::/48",
)


def test_address__may_be_reached_only_if_it_is_public() -> None:
    ends = [str(network[place]) for network in map(ip_network, SPECIAL) for place in (0, -1)]
    assert [host for host in PUBLIC if not is_public(host)] == []
    assert [host for host in (*PRIVATE, *ends) if is_public(host)] == []


def test_socket__is_created_for_a_public_address() -> None:
    with public_socket((socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("2606:4700::1", 443, 0, 0))) as created:
        assert created.family == socket.AF_INET6
    with pytest.raises(PermissionError, match="WEBHOOKS__ALLOW_PRIVATE"):
        public_socket((socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", 443, 0, 0)))
