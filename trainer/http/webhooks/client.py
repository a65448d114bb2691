"""Sends one event to one address, signed as the Standard Webhooks specification says (standardwebhooks.com)."""

import errno
import hmac
import socket
import time
from base64 import b64encode
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

import aiohttp
from pydantic_core import to_json

from trainer.contracts.events import Event

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]
"""An address as `socket.getaddrinfo` returns it."""
_REFUSED = (
    IPv4Network("192.0.0.0/24"),  # for protocols; newer versions of Python do not call it global
    IPv4Network("192.88.99.0/24"),  # relays of 6to4
    IPv4Network("168.63.129.16/32"),  # the host of a virtual machine at Azure
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_MESSAGE_ID_CHARACTERS = 32
_GONE = 410


class Answer(NamedTuple):
    """A receiver's answer, or the failure to get one."""

    is_delivered: bool = False
    is_gone: bool = False
    """The receiver asks for no more webhooks."""
    error: str = ""
    retry_after_seconds: float = 0.0


class WebhookClient:
    """HTTP client without redirects, proxies and cookies; needs a running event loop.

    Unless `allow_private`, it connects to public addresses only: a webhook must not reach this server's network.
    """

    def __init__(self, key: bytes, *, allow_private: bool, timeout_seconds: float) -> None:
        self._key = key
        self._session = aiohttp.ClientSession(
            # it checks the address that it connects to, so a host name cannot change its address after the check
            connector=aiohttp.TCPConnector(limit=0, socket_factory=None if allow_private else public_socket),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
            headers={"Content-Type": "application/json", "User-Agent": "model-trainer"},
            auto_decompress=False,
        )

    async def close(self) -> None:
        await self._session.close()

    async def post(self, url: str, event: Event) -> Answer:
        """Send an event once. The answer's body is not read."""
        body = message_body(event)
        headers = signed_headers(self._key, message_id(event), int(time.time()), body)
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                if 200 <= response.status < 300:
                    return Answer(is_delivered=True)
                error, after = f"HTTP {response.status}", response.headers.get("Retry-After", "")
                seconds = float(after) if after.isdecimal() else 0.0
                return Answer(is_gone=response.status == _GONE, error=error, retry_after_seconds=seconds)
        except (aiohttp.ClientError, OSError) as failure:
            return Answer(error=_described(failure))


def message_id(event: Event) -> str:
    """Return an id that is the same in all attempts, by which a receiver recognizes an event that arrives twice."""
    return f"msg_{sha256(event.event_id.encode()).hexdigest()[:_MESSAGE_ID_CHARACTERS]}"


def message_body(event: Event) -> bytes:
    fields: dict[str, object] = event.model_dump(mode="json")
    body: dict[str, object] = {"run_id": event.job_id, **fields}
    return to_json(body)


def signed_headers(key: bytes, message: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of a message: its id, the time of the attempt in seconds since 1970, and the signature."""
    digest = hmac.digest(key, f"{message}.{timestamp}.".encode() + body, "sha256")
    return {
        "webhook-id": message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{b64encode(digest).decode()}",
    }


def _described(failure: Exception) -> str:
    """Describe a failure without the address, whose path may be a secret."""
    cause: object = getattr(failure, "os_error", None)
    return (cause.strerror if isinstance(cause, OSError) else None) or type(failure).__name__


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
