"""Sends events of all runs to the addresses of the settings: one task per run, woken by the event stream."""

import asyncio
import math
import os
from collections.abc import Collection, Coroutine
from pathlib import Path
from typing import TypeVar

import structlog

from trainer.artifacts.runs import RunDirectory
from trainer.config.settings import WebhookSettings
from trainer.contracts.errors import AppError
from trainer.http.webhooks.client import Answer, WebhookClient
from trainer.http.webhooks.delivery import Address, WebhookDelivery, WebhookTimeouts
from trainer.http.webhooks.ledger import WebhookLedger, first_seen, read_webhooks
from trainer.queue.run_feeds import RunFeed, RunFeeds

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

_TIMEOUTS = WebhookTimeouts()
_CLOCK_SECONDS = 1.0
"""The time of a file may be older than the clock by less than this."""


class WebhookSender:
    """Sends to each address independently of the others; without an address it does nothing.

    It needs a running event loop.
    """

    def __init__(
        self, settings: WebhookSettings, feeds: RunFeeds, artifacts_root: Path, *, timeouts: WebhookTimeouts = _TIMEOUTS
    ) -> None:
        self._settings = settings
        self._feeds = feeds
        self._root = artifacts_root
        self._timeouts = timeouts
        self._client = WebhookClient(
            settings.signing_key, allow_private=settings.allow_private, timeout_seconds=timeouts.request
        )
        self._addresses: list[Address] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests: set[asyncio.Task[Answer]] = set()
        self._wake_ups: dict[str, list[asyncio.Event]] = {}
        """One event for each address, by the id of a run that is followed."""
        self._finished: set[str] = set()
        """Ids of runs with nothing left to send."""

    async def start(self) -> None:
        """Continue the deliveries of all runs; an address that is new receives events from now on."""
        addresses = {address.name: address for address in map(Address, self._settings.urls)}
        since = await asyncio.to_thread(first_seen, self._root / "webhooks.json", addresses)
        for name, address in addresses.items():
            address.since = since[name]
        self._addresses = list(addresses.values())
        if addresses:
            self._run(self._scan())

    async def stop(self) -> None:
        """Stop all deliveries; they continue from their ledgers after a restart.

        Waits for requests that are under way, because an answer that is lost makes a receiver get the event again.
        """
        self._addresses = []
        await _cancel(self._tasks)
        if self._requests:
            await asyncio.wait(self._requests, timeout=self._timeouts.stop)
        await _cancel(self._requests)
        await self._client.close()

    def wake(self, run_id: str) -> None:
        """Send the new events of a run."""
        if run_id in self._finished or not self._addresses:
            return
        if run_id not in self._wake_ups:
            self._wake_ups[run_id] = [asyncio.Event() for _ in self._addresses]
            self._run(self._follow(run_id))
        for wake_up in self._wake_ups[run_id]:
            wake_up.set()

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_log_failure)

    async def _scan(self) -> None:
        """Find the runs with events left to send, at the start and then every minute: a notification can be lost."""
        while True:
            known = self._finished | self._wake_ups.keys()
            for run_id in [*self._wake_ups, *await asyncio.to_thread(self._unfinished, known)]:
                self.wake(run_id)
            await asyncio.sleep(self._timeouts.scan)

    async def _follow(self, run_id: str) -> None:
        """Send the events of a run until nothing is left to send."""
        try:
            run = await asyncio.to_thread(self._find, run_id)
            if run is not None:
                await self._deliver(
                    await asyncio.to_thread(self._feeds.of, run), await asyncio.to_thread(WebhookLedger, run)
                )
        finally:
            del self._wake_ups[run_id]

    async def _deliver(self, feed: RunFeed, ledger: WebhookLedger) -> None:
        run_id = feed.run.run_id
        deliveries = [
            WebhookDelivery(
                feed,
                ledger,
                address,
                wake_up,
                self._client,
                self._requests,
                events=self._settings.events,
                timeouts=self._timeouts,
            )
            for address, wake_up in zip(self._addresses, self._wake_ups[run_id], strict=True)
        ]
        async with asyncio.TaskGroup() as group:
            for delivery in deliveries:
                group.create_task(delivery.deliver())
        self._finished.add(run_id)

    def _unfinished(self, known: Collection[str]) -> list[str]:
        try:
            names = os.listdir(self._root / "models")
        except OSError:  # there are no runs yet, or the next scan finds them
            return []
        return [name for name in names if name not in known and self._find(name) is not None]

    def _find(self, run_id: str) -> RunDirectory | None:
        """Return a run that has events left to send or to come; None for other runs."""
        try:
            run = self._feeds.states.runs.get(run_id)
            if not self._is_finished(run):
                return run
        except (AppError, OSError):  # not the name of a run, deleted, or found by the next scan
            return None
        except ValueError:
            log.error("run_unreadable", run_id=run_id)
        self._finished.add(run_id)
        return None

    def _is_finished(self, run: RunDirectory) -> bool:
        """Return True if the run ended before each address was known, or if the address has received its end."""
        try:
            ended_at = run.seal.stat().st_mtime + _CLOCK_SECONDS
        except FileNotFoundError:
            ended_at = math.inf
        record = read_webhooks(run)
        return all(
            address.is_gone or record.of(address.name).has_ended or ended_at < address.since.timestamp()
            for address in self._addresses
        )


async def _cancel(tasks: set[asyncio.Task[T]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("task_failed", task="webhooks", exc_info=error)
