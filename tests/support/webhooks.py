"""A receiver of webhooks, which checks their signatures by itself."""

import asyncio
import hmac
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from aiohttp import web
from pydantic import BaseModel

from tests.support.hand_queue import HandQueue
from tests.support.stories import Story, run_record
from trainer.artifacts.runs import RunStore
from trainer.config.settings import WebhookSettings
from trainer.contracts.base import changed, now
from trainer.http.webhooks.delivery import WebhookTimeouts
from trainer.http.webhooks.sender import WebhookSender
from trainer.queue.run_feeds import RunFeeds
from trainer.system.files import Disk

SECRET = "a-secret-of-more-than-16-bytes"  # noqa: S105
QUICK = WebhookTimeouts(first_retry=0.05, max_retry=0.2, scan=60.0)


class Body(BaseModel):
    """The fields of a body that tests look at."""

    run_id: str
    type: str
    seq: int
    event_id: str


class Received(NamedTuple):
    path: str
    message_id: str
    body: Body


class Receiver:
    """A server on this machine; answers 200 by default."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answered = 0
        self.answer: Callable[[Received], web.Response] = lambda received: web.Response()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def events(self) -> list[tuple[str, int]]:
        """Run and sequence number of each event that came, oldest first."""
        return [(received.body.run_id, received.body.seq) for received in self.received]

    async def handle(self, request: web.BaseRequest) -> web.Response:
        data = await request.read()
        message_id, timestamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
        signed = b".".join((message_id.encode(), timestamp.encode(), data))
        digest = hmac.new(SECRET.encode(), signed, "sha256").digest()
        assert request.headers["webhook-signature"] == f"v1,{b64encode(digest).decode()}"
        assert abs(int(timestamp) - now().timestamp()) < 300
        assert request.content_type == "application/json"
        received = Received(request.path, message_id, Body.model_validate_json(data))
        self.received.append(received)
        await self.may_answer.wait()
        self.answered += 1
        return self.answer(received)


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    here = Receiver()
    runner = web.ServerRunner(web.Server(here.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    addresses: list[tuple[str, int]] = runner.addresses
    here.port = addresses[0][1]
    try:
        yield here
    finally:
        await runner.cleanup()


def webhook_settings(*urls: str, events: str | None = None, allow_private: bool = True) -> WebhookSettings:
    fields: dict[str, object] = {"url": ",".join(urls), "secret": SECRET, "allow_private": allow_private}
    if events is not None:
        fields["events"] = events
    return WebhookSettings.model_validate(fields)


@asynccontextmanager
async def sending(
    root: Path,
    *urls: str,
    events: str | None = None,
    allow_private: bool = True,
    timeouts: WebhookTimeouts = QUICK,
    disk: Disk | None = None,
) -> AsyncIterator[WebhookSender]:
    settings = webhook_settings(*urls, events=events, allow_private=allow_private)
    sender = WebhookSender(settings, RunFeeds(HandQueue(RunStore(root, disk or Disk()))), root, timeouts=timeouts)
    await sender.start()
    try:
        yield sender
    finally:
        await sender.stop()


def new_story(root: Path, run_id: str = "char_lstm-1") -> Story:
    """A run that is accepted and begins now."""
    begin = now()
    return Story(root, changed(run_record(run_id), created_at=begin), begin)
