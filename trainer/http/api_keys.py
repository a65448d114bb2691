"""API keys: the client of a request, by its key."""

import hmac
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from trainer.config.settings import ApiKey
from trainer.contracts.errors import AppError, ErrorCode
from trainer.people.permissions import Caller
from trainer.queue.run_index import discord_user, owner_number


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
