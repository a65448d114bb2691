"""API keys: the client of a request, by its key."""

import hmac
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from bot.permissions import Caller
from bot.run_index import discord_user, owner_number
from trainer.config.settings import ApiKey
from trainer.contracts.errors import AppError, ErrorCode

_MAX_FAILURES, _FAILURE_SECONDS = 20, 60.0
_MAX_ADDRESSES = 10_000


class ApiClient(NamedTuple):
    """The client of a request."""

    name: str | None
    """None for a server without keys, whose clients are admins."""
    is_admin: bool
    key_hash: bytes = b""

    @property
    def user_id(self) -> int | None:
        """The Discord user whose id is the name of the key; None for another name."""
        return None if self.name is None else discord_user(self.name)

    @property
    def caller(self) -> Caller:
        """This client for permissions and limits."""
        return Caller(0 if self.name is None else owner_number(self.name), self.is_admin)

    def idempotency(self, path: str, key: str) -> str:
        """Return the hash that stands for an Idempotency-Key of this client; others cannot compute it."""
        return hmac.digest(self.key_hash, f"{path}\n{key}".encode(), "sha256").hex()


class ApiKeys:
    """The keys of the settings; only their hashes are compared, each in the same time."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._clients = [
            ApiClient(key.name, key.role == "admin", _digest(key.secret.get_secret_value())) for key in keys
        ]
        self._failures: dict[str, list[float]] = {}

    @property
    def is_open(self) -> bool:
        """True without keys: every client of this machine is an admin."""
        return not self._clients

    def client(self, headers: Mapping[str, str], address: str) -> ApiClient:
        """Return the client of a request; raises UNAUTHORIZED, and RATE_LIMIT_EXCEEDED after many wrong keys."""
        if self.is_open:
            return ApiClient(None, is_admin=True)
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        given = headers.get("X-Api-Key") or (token.strip() if scheme.lower() == "bearer" else "")
        digest = _digest(given)
        known = [client for client in self._clients if hmac.compare_digest(client.key_hash, digest)]
        if known:
            return known[0]
        self._count_failure(address)
        raise AppError(ErrorCode.UNAUTHORIZED, "Send a valid API key in the header X-Api-Key.")

    def _count_failure(self, address: str) -> None:
        now = time.monotonic()
        recent = [at for at in self._failures.get(address, []) if at > now - _FAILURE_SECONDS]
        if len(recent) >= _MAX_FAILURES:
            raise AppError(ErrorCode.RATE_LIMIT_EXCEEDED, "Too many wrong API keys. Try again in a minute.")
        if len(self._failures) >= _MAX_ADDRESSES:
            self._failures.clear()
        self._failures[address] = [*recent, now]


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()
