"""The HTTP API in this process, on a free port, with clients of every role."""

import asyncio
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Literal, NamedTuple, TypeVar

import pytest
from aiohttp import ClientResponse, ClientSession, TCPConnector
from multidict import CIMultiDictProxy
from pydantic import BaseModel, SecretStr, TypeAdapter
from pydantic_core import to_json
from yarl import URL

from tests.support import ROOT, twin
from tests.support.lab import Lab
from tests.support.waiting import PATIENCE_SECONDS
from trainer.artifacts.runs import RunDirectory
from trainer.config.settings import DiscordSettings, HttpSettings, LimitSettings, SecuritySettings, Settings
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorBody
from trainer.http.api import Api, HttpTimeouts
from trainer.http.backend import Backend
from trainer.http.error_answers import OpenAiErrorBody
from trainer.http.metrics import Metrics
from trainer.http.server import HttpServer
from trainer.lab import lab
from trainer.lab.permissions import Permissions, no_member
from trainer.queue.queue import JobQueue
from trainer.queue.run_feeds import RunFeeds

_ROW = re.compile(r"^\| `(?P<code>[A-Z_]+)` \| (?P<statuses>\d{3}(?: \(\d{3} for a path\))?) \|", re.MULTILINE)
STATUSES: dict[str, str] = {
    row["code"]: row["statuses"] for row in _ROW.finditer((ROOT / "docs" / "api.md").read_text("utf-8"))
}
"""The status of each code, as the API's page has it."""
Record = TypeVar("Record", bound=BaseModel)

PERSON_ID = 700
ADMIN, ANA, BOB, PERSON = (f"{name}-key-0123456789" for name in ("admin", "ana", "bob", "person"))
"""The keys of an admin, two users and a user whose key has the name of a Discord user."""
ALL_KEYS = f"root:admin:{ADMIN},ana:user:{ANA},bob:user:{BOB},{PERSON_ID}:user:{PERSON}"
WRONG = "wrong-key-0123456789"

_object: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])


class Got(NamedTuple):
    """An answer that has been read."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    url: URL

    @property
    def location(self) -> str:
        """The path in the header Location, which is relative to the request's address."""
        return self.url.join(URL(self.headers["Location"])).path

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def fields(self) -> dict[str, object]:
        return _object.validate_json(self.body)

    def record(self, model: type[Record]) -> Record:
        return model.model_validate_json(self.body)

    @property
    def error(self) -> ErrorBody:
        """The error, whose id is the one of the answer, and whose status is the one of its code."""
        request_id = self.headers["X-Request-ID"]
        if self.body.startswith(b'{"error":'):
            found = OpenAiErrorBody.model_validate_json(self.body).error
            body = ErrorBody(code=found.code, message=found.message, request_id=request_id)
        else:
            body = ErrorBody.model_validate_json(self.body)
        assert self.headers["Content-Type"].startswith("application/json")
        assert body.request_id == request_id
        assert str(self.status) in STATUSES[body.code]
        return body

    @property
    def outcome(self) -> tuple[int, str]:
        return self.status, self.error.code


class Sent(NamedTuple):
    """A server-sent event."""

    id: str
    event: str
    data: str


class Site:
    """A running API and a client of it."""

    def __init__(self, queue: JobQueue, port: int | None, session: ClientSession) -> None:
        assert port is not None
        self.queue = queue
        self.port = port
        self.session = session

    def url(self, path: str) -> URL:
        """The address of a path, which is sent as it is."""
        return URL(f"http://127.0.0.1:{self.port}{path}", encoded=True)

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = ADMIN,
        headers: Mapping[str, str] | None = None,
    ) -> Got:
        sent = {"Content-Type": "application/json"} if body is not None else {}
        if key is not None:
            sent["X-Api-Key"] = key
        content = body if isinstance(body, bytes) else to_json(body)
        data = None if body is None else BytesIO(content)
        request = self.session.request(
            method, self.url(path), data=data, headers={**sent, **(headers or {})}, allow_redirects=False
        )
        async with request as response:
            return Got(response.status, response.headers, await response.read(), response.url)

    async def get(self, path: str, *, key: str | None = ADMIN, headers: Mapping[str, str] | None = None) -> Got:
        return await self.ask("GET", path, key=key, headers=headers)

    async def post(
        self, path: str, body: object = None, *, key: str | None = ADMIN, headers: Mapping[str, str] | None = None
    ) -> Got:
        return await self.ask("POST", path, body, key=key, headers=headers)

    @asynccontextmanager
    async def stream(self, path: str, *, key: str = ADMIN, last_id: str | None = None) -> AsyncIterator[ClientResponse]:
        headers = {"X-Api-Key": key, **({} if last_id is None else {"Last-Event-ID": last_id})}
        async with self.session.get(self.url(path), headers=headers) as response:
            yield response

    async def events(self, path: str, *, key: str = ADMIN, last_id: str | None = None) -> list[Sent]:
        """All events of a stream, which ends."""
        async with self.stream(path, key=key, last_id=last_id) as response:
            assert response.status == 200
            return [event async for event in sent_events(response)]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def begin(self, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request on a connection of its own, and leave its answer where it is."""
        reader, writer = await self.connect()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {ADMIN}\r\n\r\n".encode())
        return reader, writer

    async def say(self, data: bytes) -> bytes:
        """Send bytes on a connection of their own, and return all that comes back until it is closed."""
        reader, writer = await self.connect()
        writer.write(data)
        async with asyncio.timeout(PATIENCE_SECONDS):
            answer = await reader.read()
        writer.close()
        return answer


async def sent_events(response: ClientResponse) -> AsyncIterator[Sent]:
    """Read server-sent events as their standard says."""
    fields: dict[str, list[str]] = {}
    async for raw in response.content:
        line = raw.decode().removesuffix("\n").removesuffix("\r")
        name, _, value = line.partition(":")
        if line and name:
            fields.setdefault(name, []).append(value.removeprefix(" "))
        elif not line:
            if "data" in fields:
                yield Sent(fields.get("id", [""])[0], fields.get("event", [""])[0], "\n".join(fields["data"]))
            fields = {}


def with_api(
    settings: Settings,
    keys: str = ALL_KEYS,
    *,
    private_runs: bool = False,
    http: Mapping[str, object] | None = None,
    limits: Mapping[str, object] | None = None,
    surprisals: Literal["owner", "all"] = "owner",
    open_weights: bool = True,
) -> Settings:
    """Settings with an API on a free port; without keys, every client is an admin."""
    fields: dict[str, object] = {"port": 0, **(http or {})}
    limited: dict[str, object] = {**(limits or {})}
    api_keys = SecretStr(keys) if keys else None
    discord: dict[str, object] = {"private_runs": private_runs}
    return changed(
        settings,
        http=HttpSettings.model_validate(fields),
        security=SecuritySettings(api_keys=api_keys, surprisals=surprisals, open_weights=open_weights),
        discord=DiscordSettings.model_validate(discord),
        limits=LimitSettings.model_validate(limited),
    )


@asynccontextmanager
async def site(settings: Settings) -> AsyncIterator[Site]:
    """The API of an installation."""
    installation = Backend(settings)
    try:
        await installation.start()
        async with ClientSession(connector=TCPConnector(limit=0)) as session:
            yield Site(installation.lab.queue, installation.port, session)
    finally:
        await installation.close()
        await installation.stop_services()


@asynccontextmanager
async def lab_site(
    lab: Lab,
    keys: str = ALL_KEYS,
    *,
    private_runs: bool = False,
    limits: Mapping[str, object] | None = None,
    surprisals: Literal["owner", "all"] = "owner",
    open_weights: bool = True,
) -> AsyncIterator[Site]:
    """The API of the shared lab, whose worker answers and trains; its runs have ended before and after."""
    chosen = with_api(
        lab.settings,
        keys,
        private_runs=private_runs,
        limits=limits,
        surprisals=surprisals,
        open_weights=open_weights,
    )
    async with lab.queue(), site(chosen) as here:
        yield here


@pytest.fixture(name="here")
async def here_fixture(lab: Lab) -> AsyncIterator[Site]:
    """The API of the shared lab for clients of every role."""
    async with lab_site(lab) as here:
        yield here


@pytest.fixture(name="run")
async def run_fixture(lab: Lab, here: Site) -> RunDirectory:
    """The completed run of the lab."""
    return await lab.finished_run(here.queue)


@pytest.fixture(name="copied")
async def copied_fixture(here: Site, run: RunDirectory) -> AsyncIterator[RunDirectory]:
    """A copy of the completed run, which tests may damage, on a site that has read its list of runs."""
    await here.get("/runs")
    copied = twin(run, "copied-1")
    yield copied
    shutil.rmtree(copied.path)


class Inside(NamedTuple):
    """A site, and the state that its server shares."""

    site: Site
    api: Api


@asynccontextmanager
async def inside(
    queue: JobQueue,
    settings: Settings,
    timeouts: HttpTimeouts = HttpTimeouts(),  # noqa: B008
) -> AsyncIterator[Inside]:
    """The API of a queue, with its own limits of time."""
    feeds = RunFeeds(queue.states)
    permissions = Permissions(settings.discord, no_member)
    api = Api(lab.Lab(settings, queue.stores, feeds, permissions, queue), Metrics(Counter()), timeouts)
    server = HttpServer(api)
    port = await server.start()
    try:
        async with ClientSession(connector=TCPConnector(limit=0)) as session:
            yield Inside(Site(queue, port, session), api)
    finally:
        await server.stop()
