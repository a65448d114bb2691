"""The installations that tools work on: the lab of this process for one client, or a server's."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Protocol

from pydantic import BaseModel

from trainer.client.http_api import address
from trainer.client.remote import Remote
from trainer.contracts.base import FileRecord, narrowed
from trainer.contracts.http_answers import ArtifactFiles
from trainer.contracts.parameters import ArtifactPath, NoBody, NoQuery
from trainer.lab.artifacts import artifact, open_file
from trainer.lab.calls import LIST_FILES, AnyCall
from trainer.lab.lab import Asked, Lab
from trainer.lab.requests import ApiClient


class Installation(Protocol):
    """An installation, as one client may use it."""

    async def call(self, call: AnyCall, path: BaseModel, query: BaseModel, body: BaseModel, key: str | None) -> object:
        """Do an operation; `key` is the Idempotency-Key. Raises AppError."""

    async def read(self, path: ArtifactPath, file: FileRecord) -> bytes:
        """Read a file that `list_files` has listed; raises AppError."""

    def waiting(self) -> AbstractContextManager[None]:
        """Count a call that waits; raises RATE_LIMIT_EXCEEDED."""


class LabInstallation:
    """The lab of this process, for a client with an API key or for the operator."""

    def __init__(
        self, lab: Lab, client: ApiClient, waiting: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._lab = lab
        self._client = client
        self.waiting = waiting

    async def call(self, call: AnyCall, path: BaseModel, query: BaseModel, body: BaseModel, key: str | None) -> object:
        names: dict[str, object] = path.model_dump()
        row, client = call.operation, self._client
        known = None if key is None else client.idempotency(row.path.format(**names), key)
        asked = Asked(row, client.caller, path, query, body, known, client.origin(known, body))
        with ExitStack() as held:
            return await self._lab.work(call, await self._lab.allowed(asked, held))

    async def read(self, path: ArtifactPath, file: FileRecord) -> bytes:
        folder, _ = await artifact(self._lab, self._client.caller, path)
        if path.kind == "models":
            await (await self._lab.live()).replication.fetch("models", folder.name, with_weights=True)
        with await asyncio.to_thread(open_file, folder, file) as opened:
            return await asyncio.to_thread(opened.read)


class ServerInstallation:
    """The installation of the server of MT_URL, for the client of MT_KEY."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def call(self, call: AnyCall, path: BaseModel, query: BaseModel, body: BaseModel, key: str | None) -> object:
        return await self._remote.call(call, path, query, body, key=key)

    async def read(self, path: ArtifactPath, file: FileRecord) -> bytes:
        place = address("artifacts", path.kind, path.item_id, "download")
        return await self._remote.api.send("GET", place, {"path": file.path})

    def waiting(self) -> AbstractContextManager[None]:
        return nullcontext()


async def files_of(installation: Installation, path: ArtifactPath) -> ArtifactFiles:
    """List the files of an artifact."""
    return narrowed(ArtifactFiles, await installation.call(LIST_FILES, path, NoQuery(), NoBody(), None))
