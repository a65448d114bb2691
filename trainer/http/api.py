"""State that all operations of the API share: settings, queue, feeds of runs, index, limits, streams and figures."""

import asyncio
import hmac
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import NamedTuple, TypeVar

from pydantic import BaseModel

from trainer.artifacts.run_ids import one_run_id
from trainer.artifacts.runs import RunDirectory
from trainer.artifacts.tokenizers import TokenizerDirectory
from trainer.config.settings import ApiKey, Settings
from trainer.contracts.base import run_of
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference_fields import SHARED_TOKENS
from trainer.data.corpus_uploads import CorpusUploads
from trainer.http.metrics import Metrics
from trainer.http.tails import Tails
from trainer.people.limits import UsageLimits
from trainer.people.permissions import Caller, Permissions
from trainer.queue.exports import Exports
from trainer.queue.queue import JobQueue
from trainer.queue.run_feeds import RunFeeds
from trainer.queue.run_index import RunEntry, RunIndex, RunRow, discord_user, owner_number
from trainer.queue.verifications import Verifications
from trainer.system.hardware import descriptor_limit

PathT = TypeVar("PathT", bound=BaseModel)
_NAMED = ("run_id", "group_id", "experiment_id", "battery_id", "tokenizer_id", "model")
"""Parameters of paths that take names."""
_OWN_DESCRIPTORS = 96
"""File descriptors for everything but clients: logs, Redis, event logs, child processes, Discord."""
_MAX_LISTS = 16
"""Lists of runs that stay in memory."""


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


class Listed(NamedTuple):
    """The rows of a list of runs that a client has asked for."""

    runs: Sequence[RunEntry]
    """The runs of the index when the list was made."""
    query: BaseModel
    caller: Caller
    rows: Sequence[RunRow]


class Api:
    """State of the API server."""

    def __init__(
        self,
        settings: Settings,
        queue: JobQueue,
        feeds: RunFeeds,
        index: RunIndex,
        limits: UsageLimits,
        permissions: Permissions,
        metrics: Metrics,
        exports: Exports,
        timeouts: HttpTimeouts = HttpTimeouts(),  # noqa: B008  (immutable)
    ) -> None:
        self.settings = settings
        self.queue = queue
        self.index = index
        self.limits = limits
        self.permissions = permissions
        self.feeds = feeds
        self.tails = Tails(feeds)
        self.metrics = metrics
        self.exports = exports
        self.verifications = Verifications(settings, queue)
        self.timeouts = timeouts
        self.accepting = asyncio.Lock()
        """Held while a run with an Idempotency-Key is accepted: of two equal requests, one finds the other's run."""
        self.uploads = CorpusUploads(settings, queue.corpora)
        self.storing_upload = asyncio.Lock()
        """Held while a complete upload is checked and stored: one at a time, and no upload twice."""
        self.lists: deque[Listed] = deque(maxlen=_MAX_LISTS)
        self._streams: dict[str | None, int] = {}

    async def with_ids(self, client: ApiClient, path: PathT, method: str, *, or_checkpoint: bool) -> PathT:
        """Return the parameters of a path with complete ids in place of names of what the client may see.

        Only a complete id names what is deleted; raises INVALID_INPUT for another name of it.
        """
        given: dict[str, object] = path.model_dump()
        ids: dict[str, object] = {}
        for field, name in given.items():
            if isinstance(name, str) and field in _NAMED:
                ids[field] = await self.full_id(client, field, name, or_checkpoint=or_checkpoint)
        if method == "DELETE" and ids != {field: given[field] for field in ids}:
            message = f"Only a complete id names what is deleted: give {' and '.join(map(repr, ids.values()))}."
            raise AppError(ErrorCode.INVALID_INPUT, message)
        return path.model_copy(update=ids)

    async def full_id(self, client: ApiClient, field: str, given: str, *, or_checkpoint: bool = False) -> str:
        """Return the id of the run, group or job that a name is meant for in a field of a path."""
        see, caller = self.permissions.may_see, client.caller
        match field:
            case "experiment_id":
                self.permissions.check_experiments(is_admin=client.is_admin)
                stored = self.queue.experiments.stored
                return (await asyncio.to_thread(stored.find_named, given)).experiment_id
            case "battery_id":
                batteries = self.queue.batteries.stored
                found = await asyncio.to_thread(
                    batteries.find_named, given, lambda name: see(caller, batteries.get(name).record())
                )
                return found.battery_id
            case "tokenizer_id":
                tokenizers, is_usable = self.queue.tokenizers, await self.tokenizers(client)
                tokenizer = await asyncio.to_thread(
                    tokenizers.find_named, given, lambda name: is_usable(tokenizers.get(name))
                )
                return tokenizer.tokenizer_id
            case _:
                or_group = field == "group_id"
                return await self.run_name(client, given, or_group=or_group, or_checkpoint=or_checkpoint)

    async def run_name(
        self, client: ApiClient, given: str, *, or_group: bool = False, or_checkpoint: bool = False
    ) -> str:
        """Return the id that a name is meant for, as `one_run_id` does, of the runs that the client may see."""
        exact = given if or_group or not or_checkpoint else run_of(given)
        if self.queue.runs.find(exact) is not None:
            return given
        await self.index.refresh()
        seen = [run for run in self.index.runs if self.permissions.may_see(client.caller, run)]
        try:
            return one_run_id(given, seen, or_group=or_group, or_checkpoint=or_checkpoint)
        except AppError as error:
            if error.code is ErrorCode.RUN_NOT_FOUND and or_group:
                return given  # of runs that the client may not see
            raise

    async def run(self, client: ApiClient, name: str, command: str = "status") -> RunDirectory:
        """Return a run, also by the name of a model of it.

        Raises RUN_NOT_FOUND, or FORBIDDEN if the client may not run the bot's command on it.
        """
        run = self.queue.runs.get(run_of(name))
        if not client.is_admin:
            record = await asyncio.to_thread(run.record)
            if not self.permissions.can_run(command, client.caller, record):
                raise AppError(ErrorCode.FORBIDDEN, "Only the owner of this run and admins may do this.")
        return run

    async def check_surprisals(self, client: ApiClient, name: str) -> None:
        """Raise FORBIDDEN unless the client may read surprisals of single words and tokens of a run or its model.

        Requests name those that need this: `has_surprisals`.
        """
        if self.settings.security.surprisals == "all":
            return
        record = await asyncio.to_thread(self.queue.runs.get(run_of(name)).record)
        if not self.permissions.can_run("resume", client.caller, record):
            raise AppError(
                ErrorCode.FORBIDDEN,
                "Only the owner of this run and admins get surprisals of single words and tokens here. Others get the"
                f" probabilities of the {SHARED_TOKENS} likeliest next tokens, of greedy text only (`temperature` 0).",
            )

    async def tokenizers(self, client: ApiClient, command: str = "status") -> Callable[[TokenizerDirectory], bool]:
        """Return a test of tokenizers: shared ones are for all, others for those who may use a run with them so."""
        await self.index.refresh()
        caller = client.caller
        usable = {run.tokenizer_id for run in self.index.runs if self.permissions.can_run(command, caller, run)}
        return lambda one: client.is_admin or one.tokenizer_id in usable or one.is_shared()

    async def tokenizer(self, client: ApiClient, tokenizer_id: str, command: str = "status") -> TokenizerDirectory:
        """Return a tokenizer; raises TOKENIZER_NOT_FOUND, or FORBIDDEN if it is not for the client."""
        tokenizer = self.queue.tokenizers.get(tokenizer_id)
        is_usable = await self.tokenizers(client, command)
        if not await asyncio.to_thread(is_usable, tokenizer):
            message = "Only owners of runs with this tokenizer and admins may do this."
            raise AppError(ErrorCode.FORBIDDEN, message)
        return tokenizer

    @property
    def max_connections(self) -> int:
        """The most connections: each may need two file descriptors, its own and that of a file."""
        return min(self.settings.http.max_connections, max(8, (descriptor_limit() - _OWN_DESCRIPTORS) // 2))

    @property
    def max_streams(self) -> int:
        """The most streams and waiting requests: where connections are few, others keep a quarter of them."""
        return min(self.settings.http.max_streams, self.max_connections * 3 // 4)

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
