"""Sends updates about jobs to Discord: one supervised task per subject and watcher."""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from weakref import WeakValueDictionary

import discord
import structlog

from bot.notifications.delivery import Delivery
from bot.notifications.inbox import Digest, Inbox, InboxKey, inbox_key, stored_digests
from bot.notifications.job_subjects import Watched, subject_kinds
from bot.notifications.subjects import Sources, Subject
from bot.people.watchers import OwnerWatch, Watcher, read_ledger
from bot.processes.chart_process import ChartProcess
from bot.rest.pacing import Pace
from trainer.contracts.base import now
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.seeds import group_id_of
from trainer.contracts.units import Unit
from trainer.lab.permissions import Owned
from trainer.queue.run_feeds import RunFeeds

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_MAX_RETRY_SECONDS = 600.0
_STEADY_SECONDS = 60.0
"""The back-off starts again after a task has run this long."""
_MAX_POLLS_PER_SECOND = 50.0
"""Polls of all deliveries together."""
_MAX_RESULTS = 4
_FIRST_MESSAGE_SECONDS = 3.0


class UndeliveredResult(NamedTuple):
    """An ended subject whose final message a watcher's channel has refused, and the card that shows its end."""

    subject: Subject
    watcher: Watcher
    card: discord.Embed


class Notifier:
    """Runs one delivery per subject and watcher; a failed delivery is logged and restarted, and affects no other.

    `next_run_ids` yields the id of each run whose event log has grown. `listeners` are called with the id of each run
    that has new events. `owner` returns the watcher of new runs that no Discord user has started.
    """

    def __init__(
        self,
        artifacts_root: Path,
        feeds: RunFeeds,
        next_run_ids: Callable[[], AsyncIterator[str]],
        client: discord.Client,
        charts: ChartProcess,
        can_receive: Callable[[int, Owned], bool],
        unit_of: Callable[[int], Unit],
        *,
        edit_interval_seconds: float,
        listeners: Sequence[Callable[[str], None]] = (),
        owner: Callable[[], Watcher | None] | None = None,
        poll_seconds: float = 3.0,
        retry_seconds: float = 5.0,
        steady_seconds: float = _STEADY_SECONDS,
    ) -> None:
        of_owner = None if owner is None else OwnerWatch(owner, now())
        sources = Sources(charts, feeds, can_receive, edit_interval_seconds, of_owner)
        self._kinds = subject_kinds(artifacts_root, sources)
        self._digests = artifacts_root / "digests"
        self._next_run_ids = next_run_ids
        self._client = client
        self._unit_of = unit_of
        self._edit_interval_seconds = edit_interval_seconds
        self._listeners = listeners
        self._poll_seconds = poll_seconds
        self._retry_seconds = retry_seconds
        self._steady_seconds = steady_seconds
        self.pace = Pace(edit_interval_seconds)
        # all deliveries of a subject share one ledger while any of them uses it
        self._subjects: WeakValueDictionary[str, Subject] = WeakValueDictionary()
        self._deliveries: dict[str, Delivery] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._inboxes: dict[InboxKey, Inbox] = {}
        self._undelivered: defaultdict[int, set[str]] = defaultdict(set)
        """Ids of subjects by user id."""
        self._holds = 0
        self._held: set[str] = set()

    async def start(self) -> None:
        """Continue the deliveries of every subject with pending messages, and listen for events."""
        digests = await asyncio.to_thread(stored_digests, self._digests, self._edit_interval_seconds)
        for digest in digests:
            for watcher in digest.ledger.current.watchers:
                self._inbox(watcher).resume(digest)
        for subject_id in await asyncio.to_thread(self._pending):
            self.follow(subject_id)
        for digest in digests:
            self._deliver(digest)
        for inbox in [*self._inboxes.values()]:  # the last process can have ended before it removed a digest
            await inbox.close_if_done()
        self._tasks["events"] = asyncio.create_task(self._supervise("events", self._listen))

    async def stop(self) -> None:
        """Stop all deliveries; they continue from their ledgers after a restart."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def follow(self, subject_id: str) -> None:
        """Start or wake a delivery for every watcher of a job."""
        try:
            subject = self._subject(subject_id)
        except AppError:
            log.warning("run_unknown", run_id=subject_id)
        except ValueError:
            log.error("run_unreadable", run_id=subject_id)
        else:
            self._deliver(subject)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait with runs that are new, so that the block can add a watcher to the run that it starts."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if not self._holds:
                held, self._held = self._held, set()
                for run_id in held:
                    self.follow(run_id)

    async def watch(
        self,
        subject_id: str,
        user_id: int,
        channel_id: int | None,
        origin_channel_id: int | None = None,
        *,
        waits: bool = True,
    ) -> Watcher:
        """Add a watcher of a job, in a channel or (None) in direct messages; durable on return.

        With `waits`, returns after the first message, or after three seconds, to report whether the channel accepts
        messages. A watcher whose direct messages are closed is mentioned once in the channel of the command,
        `origin_channel_id`.
        """
        subject = self._subject(subject_id)
        name = _name(subject_id, user_id)
        self._stop_delivery(name)
        watcher = await subject.ledger.watch(user_id, channel_id, origin_channel_id)
        await self._inbox(watcher).close_if_done()
        self._deliver(subject)
        if waits and name in self._deliveries:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_MESSAGE_SECONDS):
                    await self._deliveries[name].tried.wait()
        return subject.ledger.current.of(user_id) or watcher

    async def unwatch(self, subject_id: str, user_id: int) -> None:
        """Remove a watcher of a job; durable on return."""
        subject = self._subject(subject_id)
        self._stop_delivery(_name(subject_id, user_id))
        watcher = subject.ledger.current.of(user_id)
        if watcher is not None:
            await subject.ledger.update(watcher, watches=False)
            await self._inbox(watcher).close_if_done()

    async def unwatch_hidden(self, user_id: int) -> None:
        """Remove a user as a watcher of everything about which the user may no longer receive messages."""
        subjects = [delivery.subject for delivery in self._deliveries.values() if delivery.user_id == user_id]
        for subject in subjects:
            if not isinstance(subject, Digest) and not subject.may_receive(user_id):
                await self.unwatch(subject.subject_id, user_id)

    def watched_by(self, user_id: int) -> list[str]:
        """Return the ids of subjects with messages left to send to a user."""
        own = (delivery for delivery in self._deliveries.values() if delivery.user_id == user_id)
        return sorted(delivery.subject.subject_id for delivery in own if not isinstance(delivery.subject, Digest))

    @asynccontextmanager
    async def deliver_pending(self, user_id: int) -> AsyncIterator[Sequence[UndeliveredResult]]:
        """Yield a few undelivered results of a user; they are marked as delivered if the block succeeds."""
        waiting = self._undelivered.pop(user_id, set())
        try:
            results = await self._results(user_id, sorted(waiting))
            yield results
            for result in results:
                await result.subject.ledger.update(result.watcher, acknowledged=True)
                waiting.discard(result.subject.subject_id)
        finally:
            self._undelivered[user_id] |= waiting

    async def _results(self, user_id: int, subject_ids: Sequence[str]) -> list[UndeliveredResult]:
        results: list[UndeliveredResult] = []
        for subject_id in subject_ids:
            try:
                subject = self._subject(subject_id)
                state = await subject.state()
            except (AppError, ValueError, OSError):  # deleted or broken, which `follow` logs
                continue
            watcher = subject.ledger.current.of(user_id)
            is_wanted = state.has_ended and subject.may_receive(user_id)
            if watcher is not None and watcher.is_undelivered and is_wanted and len(results) < _MAX_RESULTS:
                card = (await subject.view(None)).card(user_id)
                results.append(UndeliveredResult(subject, watcher, card.embed))
        return results

    def _subject(self, subject_id: str) -> Subject:
        """Return a subject by id; raises AppError for an unknown one, ValueError for a broken one."""
        known = self._subjects.get(subject_id)
        if known is not None:
            return known
        for kind in self._kinds:
            subject = kind.find(subject_id)
            if subject is not None:
                self._subjects[subject_id] = subject
                return subject
        raise AppError(ErrorCode.DATA_NOT_FOUND, f"There is no job '{subject_id}'.")

    def _inbox(self, watcher: Watcher) -> Inbox:
        key = inbox_key(watcher)
        if key not in self._inboxes:
            self._inboxes[key] = Inbox(key, self._digests, self._edit_interval_seconds, self._deliver)
        return self._inboxes[key]

    def _deliver(self, subject: Subject) -> None:
        """Start missing deliveries and wake the others; a subject that has become private is not delivered."""
        self._collect_undelivered(subject)
        for watcher in subject.ledger.current.pending:
            name = _name(subject.subject_id, watcher.user_id)
            if name in self._deliveries:
                self._deliveries[name].wake_up.set()
            elif subject.may_receive(watcher.user_id):
                inbox = self._inbox(watcher)
                if subject.has_line:
                    inbox.join(subject.subject_id)
                delivery = Delivery(
                    subject,
                    watcher,
                    inbox,
                    self._client,
                    self.pace,
                    self._unit_of,
                    poll_seconds=self._seconds_between_polls,
                )
                self._deliveries[name] = delivery
                self._tasks[name] = asyncio.create_task(self._run_delivery(name, delivery))

    async def _run_delivery(self, name: str, delivery: Delivery) -> None:
        await self._supervise(name, delivery.deliver)
        self._collect_undelivered(delivery.subject)
        del self._tasks[name], self._deliveries[name]
        delivery.inbox.leave(delivery.subject.subject_id)
        await delivery.inbox.close_if_done()

    def _seconds_between_polls(self) -> float:
        """Return the seconds after which a delivery reads its subject without news; many deliveries read less often.

        The random part spreads the reads of deliveries that have started together.
        """
        longest = max(self._poll_seconds, len(self._deliveries) / _MAX_POLLS_PER_SECOND)
        return longest * random.uniform(1.0, 1.5)  # noqa: S311

    def _collect_undelivered(self, subject: Subject) -> None:
        for watcher in subject.ledger.current.watchers:
            if watcher.is_undelivered:
                self._undelivered[watcher.user_id].add(subject.subject_id)

    async def _listen(self) -> None:
        async for run_id in self._next_run_ids():
            for notify in self._listeners:
                notify(run_id)
            group_id = group_id_of(run_id)
            for subject_id in (run_id,) if group_id is None else (run_id, group_id):
                if self._holds and subject_id not in self._subjects:
                    self._held.add(subject_id)
                else:
                    self.follow(subject_id)

    def _pending(self) -> list[str]:
        """Return the ids of subjects with messages left to send."""
        return [job.job_id for kind in self._kinds for job in kind.jobs() if _is_pending(job)]

    async def _supervise(self, name: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Run a task to its end; restart it after a failure, with exponential back-off."""
        failures = 0
        while True:
            started = time.monotonic()
            [error] = await asyncio.gather(work(), return_exceptions=True)
            if error is None:
                return
            failures = 1 if time.monotonic() - started > self._steady_seconds else failures + 1
            seconds = min(_MAX_RETRY_SECONDS, self._retry_seconds * 2.0 ** (failures - 1))
            log.error("task_failed", task=name, retry_seconds=seconds, exc_info=error)
            await asyncio.sleep(seconds)

    def _stop_delivery(self, name: str) -> None:
        delivery = self._deliveries.pop(name, None)
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
        if delivery is not None:
            delivery.inbox.leave(delivery.subject.subject_id)


def _name(subject_id: str, user_id: int) -> str:
    return f"{subject_id} for {user_id}"


def _is_pending(job: Watched) -> bool:
    try:
        ledger = read_ledger(job)
        return bool(ledger.pending) or any(watcher.is_undelivered for watcher in ledger.watchers)
    except ValueError:
        log.error("run_unreadable", run_id=job.job_id)
        return False
