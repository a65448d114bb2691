"""Connections to public addresses only: a webhook must not reach the network that this server is in."""

import errno
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import aiohttp

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]
"""An address as `socket.getaddrinfo` returns it."""

_REFUSED = (
    IPv4Network("192.0.0.0/24"),  # for protocols; newer versions of Python do not call it global
    IPv4Network("192.88.99.0/24"),  # relays of 6to4
    IPv4Network("168.63.129.16/32"),  # the host of a virtual machine at Azure
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


def new_connector(*, allow_private: bool) -> aiohttp.TCPConnector:
    """Return a connector that refuses addresses which are not public, unless `allow_private`.

    It checks the address that it connects to, so a host name cannot change its address after the check.
    """
    return aiohttp.TCPConnector(limit=0, socket_factory=None if allow_private else public_socket)


def public_socket(address: AddressInfo) -> socket.socket:
    """Create a socket for a public address; raises PermissionError for any other."""
    family, kind, protocol, _, (host, *_) = address
    if not is_public(str(host)):
        raise PermissionError(errno.EACCES, "WEBHOOKS__ALLOW_PRIVATE is false, and the address is not public")
    return socket.socket(family, kind, protocol)


def is_public(host: str) -> bool:
    """Return True if an IP address is a host of the public internet.

    An IPv6 address that stands for an IPv4 address (mapped, NAT64, 6to4) is judged by that one.
    """
    address = ip_address(host)
    if isinstance(address, IPv6Address):
        embedded = _embedded(address)
        if embedded is None:
            return address in _GLOBAL_UNICAST and address.is_global
        address = embedded
    return address.is_global and not address.is_multicast and not any(address in network for network in _REFUSED)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour
