"""Delivery of one run's events to one address: in order, each until it is confirmed or given up."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import urlsplit

import structlog

from trainer.config.settings import is_event_of
from trainer.contracts.base import now
from trainer.contracts.errors import AppError
from trainer.contracts.events import RUN_ENDS, Event
from trainer.http.webhooks.client import Answer, WebhookClient
from trainer.http.webhooks.ledger import Progress, WebhookLedger
from trainer.queue.run_feeds import RunFeed
from trainer.system.retries import back_off

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_REQUESTS_PER_ADDRESS = 4
_ADDRESS_CHARACTERS = 16
_MAX_SAVE_SECONDS = 60.0


class WebhookTimeouts(NamedTuple):
    """Waits of the webhooks in seconds."""

    first_retry: float = 1.0
    max_retry: float = 3600.0
    give_up: float = 24 * 3600.0
    """An event is given up after failures for this time."""
    request: float = 10.0
    scan: float = 60.0
    """Pause between two searches for events whose notification was lost."""
    stop: float = 2.0
    """Time for requests that are under way when the bot stops."""


class Address:
    """An address of the settings."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = sha256(url.encode()).hexdigest()[:_ADDRESS_CHARACTERS]
        self.host = urlsplit(url).hostname
        self.since: datetime = now()
        """Earlier events are not sent."""
        self.is_gone = False
        self.slots = asyncio.Semaphore(_REQUESTS_PER_ADDRESS)

    def close(self) -> None:
        """Send nothing more until the next start of the bot."""
        if not self.is_gone:
            self.is_gone = True
            log.warning("webhook_address_gone", host=self.host)


class WebhookDelivery:
    """Sends events of one run to one address; an interrupted delivery continues from the ledger."""

    def __init__(
        self,
        feed: RunFeed,
        ledger: WebhookLedger,
        address: Address,
        wake_up: asyncio.Event,
        client: WebhookClient,
        requests: set[asyncio.Task[Answer]],
        *,
        events: Sequence[str],
        timeouts: WebhookTimeouts,
    ) -> None:
        self._feed = feed
        self._seen = 0
        """Number of the last event that was read."""
        self._ledger = ledger
        self._address = address
        self._wake_up = wake_up
        self._client = client
        self._requests = requests
        self._events = events
        self._timeouts = timeouts
        self._waits = self._new_waits()
        self._run_id = feed.run.run_id

    async def deliver(self) -> None:
        """Send events until the run has ended or the address is gone. A failing disk is tried again."""
        waits = back_off(self._timeouts.first_retry, _MAX_SAVE_SECONDS)
        while True:
            try:
                await self._ledger.save()
                return await self._deliver()
            except FileNotFoundError:
                log.warning("run_deleted", run_id=self._run_id)
                return
            except ValueError:
                log.error("run_unreadable", run_id=self._run_id)
                return
            except (AppError, OSError) as error:
                reason = str(error) if isinstance(error, AppError) else type(error).__name__  # others name a path
                log.error("webhook_ledger_failed", run_id=self._run_id, error=reason)
            await asyncio.sleep(next(waits))

    def _new_waits(self) -> Iterator[float]:
        return back_off(self._timeouts.first_retry, self._timeouts.max_retry)

    @property
    def _progress(self) -> Progress:
        return self._ledger.current.of(self._address.name)

    def _has_ended(self) -> bool:
        return self._progress.has_ended or self._address.is_gone

    async def _deliver(self) -> None:
        self._seen = self._progress.seq
        while not self._has_ended():
            self._wake_up.clear()
            for event in await asyncio.to_thread(self._read_new):
                await (self._send(event) if self._is_wanted(event) else self._settle(event))
                if self._has_ended():
                    return
            await self._wake_up.wait()

    def _read_new(self) -> list[Event]:
        """Return the new events that this address receives, and the last event of the run."""
        events = self._feed.events_after(self._seen)
        self._seen = events[-1].seq if events else self._seen
        return [event for event in events if isinstance(event, RUN_ENDS) or self._is_wanted(event)]

    def _is_wanted(self, event: Event) -> bool:
        return event.ts >= self._address.since and any(is_event_of(event.type, name) for name in self._events)

    async def _send(self, event: Event) -> None:
        """Send an event until it is confirmed or given up, or its address is gone."""
        while True:
            async with self._address.slots:
                if self._address.is_gone:
                    return
                answer = await self._request(event)
            if answer.is_delivered:
                self._waits = self._new_waits()
                return
            if answer.is_gone:
                self._address.close()
                return
            seconds = max(next(self._waits), min(self._timeouts.max_retry, answer.retry_after_seconds))
            if await self._give_up(event, answer.error, seconds):
                return
            await asyncio.sleep(seconds)

    async def _request(self, event: Event) -> Answer:
        """Send an event once; a cancelled delivery leaves the request to those who wait for `requests`."""
        request = asyncio.create_task(self._post(event))
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)
        return await asyncio.shield(request)

    async def _post(self, event: Event) -> Answer:
        answer = await self._client.post(self._address.url, event)
        if answer.is_delivered:
            await self._settle(event, failing_since=None)
        return answer

    async def _settle(self, event: Event, **changes: object) -> None:
        ended = isinstance(event, RUN_ENDS)
        await self._ledger.update(self._address.name, seq=event.seq, has_ended=ended, **changes)

    async def _give_up(self, event: Event, error: str, retry_seconds: float) -> bool:
        """Give an event up if it has waited too long; else store the time of the first failure, and return False."""
        progress = self._progress
        failing_since = progress.failing_since or now()
        waited = now() - max(failing_since, event.ts)
        bound = log.bind(run_id=self._run_id, host=self._address.host, event_id=event.event_id, error=error)
        if waited.total_seconds() >= self._timeouts.give_up:
            bound.error("webhook_given_up")
            await self._settle(event, failing_since=failing_since, given_up=progress.given_up + 1)
            return True
        bound.warning("webhook_failed", retry_seconds=round(retry_seconds, 1))
        if progress.failing_since is None:
            await self._ledger.update(self._address.name, failing_since=failing_since)
        return False
