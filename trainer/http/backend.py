"""The parts of a bot process that need no Discord: services, the lab and the HTTP API."""

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from trainer.config.settings import Settings
from trainer.http.webhooks.sender import WebhookSender
from trainer.lab.lab import Lab
from trainer.lab.permissions import AccessList, Permissions, no_member
from trainer.queue.queue import JobQueue
from trainer.queue.run_feeds import RunFeeds
from trainer.services.embedded import Services
from trainer.store.store import connect
from trainer.system.logs import say

_QUEUE_RETRIES = 4
"""Few enough that a command fails within 3 seconds while Redis is unavailable."""


class Backend:
    """Services, lab and HTTP API of one process."""

    lab: Lab
    webhooks: WebhookSender

    def __init__(self, settings: Settings, is_member: Callable[[int, int], Awaitable[bool]] = no_member) -> None:
        """Read the stored access; `is_member` is that of `Permissions`."""
        self.settings = settings
        self.access = AccessList(settings.app.artifacts_root / "access.json")
        self._permissions = Permissions(settings.discord, is_member, self.access)
        self.discord_answers: Counter[int] = Counter()
        """Answers of Discord by status; 0: none."""
        self.port: int | None = None
        """The port of the HTTP API, once it listens."""
        self._services = Services(settings)
        self._started = AsyncExitStack()

    async def start(self) -> None:
        """Start the services and the HTTP API; raises AppError for settings that cannot be used."""
        redis_url = await self._services.start()
        await (await connect(redis_url)).close()  # waits for another server: one of a killed process ends by itself
        queue = JobQueue(self.settings, await connect(redis_url, retries=_QUEUE_RETRIES))
        self._started.push_async_callback(queue.close)
        await queue.replication.check()
        await queue.replication.join()
        await self._started.enter_async_context(queue.workers.version_published(replaces=True))
        feeds = RunFeeds(queue.states)
        self._started.push_async_callback(feeds.stop)
        self.lab = Lab(self.settings, queue.stores, feeds, self._permissions, queue)
        self._started.push_async_callback(self.lab.index.stop)
        self.lab.index.start()
        self.webhooks = WebhookSender(self.settings.webhooks, feeds, self.settings.app.artifacts_root)
        self._started.push_async_callback(self.webhooks.stop)
        await self.webhooks.start()
        if self.settings.http.port is not None:
            from trainer.http.api import Api
            from trainer.http.metrics import Metrics
            from trainer.http.server import HttpServer

            server = HttpServer(Api(self.lab, Metrics(self.discord_answers)))
            self._started.push_async_callback(server.stop)
            self.port = await server.start()
        say(self.settings, self.settings.app.place())

    @property
    def public_url(self) -> str | None:
        """The address of the HTTP API for people; None if it does not listen, or serves only this machine."""
        url = self.settings.http.public_url
        has_keys = bool(self.settings.security.keys)
        return str(url) if url is not None and self.port is not None and has_keys else None

    async def wake_webhooks(self) -> None:
        """Tell the webhooks of new events, without end; in a process with Discord, its notifier does that."""
        async for run_id in self.lab.queue.states.next_run_ids():
            self.webhooks.wake(run_id)

    async def close(self) -> None:
        """Stop everything but the services."""
        await self._started.aclose()

    async def stop_services(self) -> None:
        """Stop the services that this process has started."""
        await self._services.stop()
