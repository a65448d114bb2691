"""State of the API server: its clients, their streams, and the installation that it serves."""

import hmac
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import NamedTuple

from trainer.config.settings import ApiKey
from trainer.contracts.errors import AppError, ErrorCode
from trainer.http.metrics import Metrics
from trainer.http.tails import Tails
from trainer.lab.lab import Lab
from trainer.lab.requests import ApiClient
from trainer.system.hardware import descriptor_limit

_OWN_DESCRIPTORS = 96
"""File descriptors for everything but clients: logs, Redis, event logs, child processes, Discord."""


class ApiKeys:
    """The keys of the settings; only their hashes are compared, each in the same time."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._clients = [
            ApiClient(key.name, key.role == "admin", _digest(key.secret.get_secret_value())) for key in keys
        ]

    @property
    def is_open(self) -> bool:
        """True without keys: every client of this machine is an admin."""
        return not self._clients

    def client(self, headers: Mapping[str, str]) -> ApiClient:
        """Return the client of a request; raises UNAUTHORIZED for a missing or wrong key."""
        if self.is_open:
            return ApiClient(None, is_admin=True)
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        given = headers.get("X-Api-Key") or (token.strip() if scheme.lower() == "bearer" else "")
        digest = _digest(given)
        known = [client for client in self._clients if hmac.compare_digest(client.key_hash, digest)]
        if known:
            return known[0]
        raise AppError(ErrorCode.UNAUTHORIZED, "Send a valid API key in the header X-Api-Key.")


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


class HttpTimeouts(NamedTuple):
    """The times after which the server disconnects a client."""

    idle_seconds: float = 30.0
    """Without a complete header of a request."""
    body_seconds: float = 60.0
    """Without the complete body of a request."""
    send_seconds: float = 30.0
    """Without reading an answer."""
    stop_seconds: float = 2.0
    """Until its request is completed, when the server stops."""


class Api:
    """State of the API server."""

    def __init__(
        self,
        lab: Lab,
        metrics: Metrics,
        timeouts: HttpTimeouts = HttpTimeouts(),  # noqa: B008  (immutable)
    ) -> None:
        self.lab = lab
        self.settings = lab.settings
        self.tails = Tails(lab.feeds)
        self.metrics = metrics
        self.timeouts = timeouts
        self._streams: dict[str | None, int] = {}

    @property
    def max_connections(self) -> int:
        """The most connections: each may need two file descriptors, its own and that of a file."""
        return min(self.settings.http.max_connections, max(8, (descriptor_limit() - _OWN_DESCRIPTORS) // 2))

    @property
    def max_streams(self) -> int:
        """The most streams and waiting requests: other requests keep half of the connections."""
        return self.max_connections // 2

    @contextmanager
    def stream(self, client: ApiClient) -> Iterator[None]:
        """Count an open stream or waiting request; raises RATE_LIMIT_EXCEEDED above the limits."""
        most = self.max_streams
        own = self._streams.get(client.name, 0)
        if own >= max(1, most // 2) or sum(self._streams.values()) >= most:
            raise AppError(ErrorCode.RATE_LIMIT_EXCEEDED, "Too many streams are open. Close some, or try again later.")
        self._streams[client.name] = own + 1
        try:
            yield
        finally:
            self._streams[client.name] -= 1

    @property
    def open_streams(self) -> int:
        return sum(self._streams.values())
