"""Inboxes: a user who watches many runs in one channel has one card there, with a line per run."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog

from bot.messages.buttons import button_row
from bot.messages.digest_card import digest_card
from bot.messages.files import no_files
from bot.notifications.subjects import Message, Reading, State, Subject, View
from bot.people.watchers import Ledger, Watcher
from trainer.lab.language import current_language
from trainer.system.files import DISK

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

MAX_CARDS = 5
"""Cards of unfinished runs in one channel; a user with more has a digest there until all of these runs have ended."""


class InboxKey(NamedTuple):
    """A user's messages in one channel, or (None) in direct messages."""

    user_id: int
    channel_id: int | None


def inbox_key(watcher: Watcher) -> InboxKey:
    return InboxKey(watcher.user_id, None if watcher.in_dm else watcher.channel_id)


class DigestFile:
    """The file of a digest, which is its ledger; it exists from the first line to the end of the last run."""

    def __init__(self, path: Path) -> None:
        self.message_ledger = path
        self.disk = DISK


class DigestState(NamedTuple):
    lines: tuple[str, ...]

    @property
    def has_ended(self) -> bool:
        return not self.lines


class Digest(Subject):
    """The digest of an inbox; it ends with its card, without a final message."""

    id_name = "digest_id"

    def __init__(self, file: DigestFile, interval_seconds: float) -> None:
        super().__init__(file.message_ledger.stem, Ledger(file), lambda user_id: True, interval_seconds)
        self.file = file
        self.lines: dict[str, str | None] = {}
        """Lines of the unfinished runs by run id; None for a run whose state is not known yet."""

    async def _read(self) -> Reading:
        state = DigestState(lines=tuple(line or f"… `{run_id}`" for run_id, line in self.lines.items()))
        return Reading(state, partial(self._draw, state))

    async def _draw(self, state: DigestState) -> View:
        return View(state, lambda user_id: Message(digest_card(state.lines, self.subject_id), no_files, button_row()))


class Inbox:
    """The unfinished runs that a user watches in one channel, and their digest, which `deliver` sends and wakes."""

    def __init__(
        self, key: InboxKey, folder: Path, interval_seconds: float, deliver: Callable[[Subject], None]
    ) -> None:
        self.digest: Digest | None = None
        self.dm_id: int | None = None
        self.opening_dm = asyncio.Lock()
        self._key = key
        self._folder = folder
        self._interval_seconds = interval_seconds
        self._deliver = deliver
        self._lines: dict[str, str | None] = {}
        self._beginning = asyncio.Lock()

    @property
    def is_closed(self) -> bool:
        """Return whether the channel has refused the digest."""
        return self.digest is not None and any(one.is_closed for one in self.digest.ledger.current.watchers)

    def resume(self, digest: Digest) -> None:
        """Continue the digest of an earlier process."""
        self.digest = digest
        digest.lines = self._lines

    def join(self, run_id: str) -> None:
        self._lines.setdefault(run_id, None)

    def leave(self, run_id: str) -> None:
        if run_id in self._lines:
            del self._lines[run_id]
            self._wake()

    async def update(self, subject: Subject, state: State) -> bool:
        """Take the state of a subject; return whether its card is a line of the digest."""
        line = subject.line(state)
        if state.has_ended:
            self.leave(subject.subject_id)
        if state.has_ended or line is None:
            return False
        if self._lines.get(subject.subject_id) != line:
            self._lines[subject.subject_id] = line
            self._wake()
        async with self._beginning:
            if self.digest is None and sum(line is not None for line in self._lines.values()) > MAX_CARDS:
                await self._begin()
        return self.digest is not None

    async def close_if_done(self) -> None:
        """Remove a digest whose card shows the end; a refused one stays until the deliveries of its runs have ended."""
        digest = self.digest
        if digest is not None and not digest.ledger.current.pending and not (self.is_closed and self._lines):
            self.digest = None
            await asyncio.to_thread(digest.file.disk.remove, digest.file.message_ledger)

    async def _begin(self) -> None:
        await asyncio.to_thread(DISK.make_folder, self._folder)
        # another digest of the same inbox has another name, so that Discord does not take its card for a repetition
        name = f"digest-{self._key.user_id}-{time.time_ns():x}"
        digest = Digest(DigestFile(self._folder / f"{name}.json"), self._interval_seconds)
        user_id, channel_id = self._key
        await digest.ledger.update(
            Watcher(
                user_id=user_id,
                in_dm=channel_id is None,
                channel_id=channel_id,
                acknowledged=True,  # no final message
                card_is_stale=True,
                language=current_language(),
            )
        )
        self.resume(digest)
        self._deliver(digest)

    def _wake(self) -> None:
        if self.digest is not None:
            self._deliver(self.digest)


def stored_digests(folder: Path, interval_seconds: float) -> list[Digest]:
    """Return the digests of an earlier process; an unreadable one is logged and skipped."""
    found: list[Digest] = []
    for path in sorted(folder.glob("digest-*.json")):
        try:
            found.append(Digest(DigestFile(path), interval_seconds))
        except ValueError:
            log.error("digest_unreadable", digest_id=path.stem)
    return found
