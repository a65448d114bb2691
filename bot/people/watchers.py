"""A ledger `dm.json`: the watchers of a run, an experiment or a tokenizer, and the messages sent to each of them."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple, Protocol

from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import Frozen
from trainer.lab.language import Language, current_language
from trainer.system.files import Disk, read_regular, write_atomically


class SentMessage(Frozen):
    """A message that the bot began to send; without an id, its arrival is unknown."""

    nonce: str
    message_id: int | None = None


class Watcher(Frozen):
    """A user's card and final message. The nonce is stored before a message is sent, its id afterwards."""

    user_id: int
    in_dm: bool = True
    channel_id: int | None = None
    """The channel of the messages; None until the direct messages are opened."""
    card: SentMessage | None = None
    final: SentMessage | None = None
    watches: bool = True
    is_closed: bool = False
    """The channel refuses messages of this bot."""
    acknowledged: bool = False
    """The user has read the result in the answer to a command, because the channel refuses messages."""
    card_is_stale: bool = False
    """The final message was sent, and the card does not show the result yet."""
    origin_channel_id: int | None = None
    """Channel of the command, which the watcher is mentioned in if their direct messages are closed."""
    mention: SentMessage | None = None
    has_second_card: bool = False
    """The first card was deleted; a card is sent again once."""
    language: Language = "en"
    """Language of the messages: that of the command which asked for them."""

    @property
    def has_final(self) -> bool:
        return self.acknowledged or (self.final is not None and self.final.message_id is not None)

    @property
    def is_undelivered(self) -> bool:
        """Return whether the result can reach the user only in the answer to a command."""
        return self.watches and self.is_closed and not self.has_final

    @property
    def closed_place(self) -> Literal["dm", "channel"] | None:
        """Return the kind of channel that refuses messages, if it does."""
        return None if not self.is_closed else "dm" if self.in_dm else "channel"

    @property
    def is_done(self) -> bool:
        """Return whether nothing is left to send."""
        return not self.watches or self.is_closed or (self.has_final and not self.card_is_stale)


class MessageLedger(Frozen):
    schema_version: Literal[1] = 1
    watchers: tuple[Watcher, ...] = ()

    def of(self, user_id: int) -> Watcher | None:
        return next((watcher for watcher in self.watchers if watcher.user_id == user_id), None)

    @property
    def pending(self) -> list[Watcher]:
        """Watchers with messages left to send."""
        return [watcher for watcher in self.watchers if not watcher.is_done]


class GroupMessages:
    """The ledger of a group of runs, in the folder of one of them; the group has no folder."""

    def __init__(self, group_id: str, run: RunDirectory) -> None:
        self.job_id = group_id
        self.message_ledger = run.path / "group_dm.json"
        self.disk = run.disk
        self.record = run.record
        self.result = run.result


class HasLedger(Protocol):
    """Something on disk that has a ledger."""

    message_ledger: Path
    disk: Disk


class OwnerWatch(NamedTuple):
    """The owner of the bot as watcher of runs that no Discord user has started."""

    watcher: Callable[[], Watcher | None]
    """Returns the owner's entry; None if the owner wants no messages."""
    since: datetime
    """Start of the bot: a run that had ended before is not reported."""


def read_ledger(item: HasLedger, owner: OwnerWatch | None = None) -> MessageLedger:
    """Read a ledger; a run's or a group's starter watches it by default, but no run of another job.

    Without a Discord user who has started it, the owner of the bot does. Raises ValueError for a broken file.
    """
    try:
        return MessageLedger.model_validate_json(read_regular(item.message_ledger))
    except FileNotFoundError:
        if not isinstance(item, RunDirectory | GroupMessages):
            return MessageLedger()
        record = item.record()
        is_member = isinstance(item, RunDirectory) and record.group is not None
        if record.experiment_id is not None or record.study_id is not None or is_member:
            return MessageLedger()
        watcher = None if record.user_id is None else Watcher(user_id=record.user_id)
        is_new = owner is not None and (record.created_at >= owner.since or not item.result.exists())
        if watcher is None and owner is not None and is_new:
            watcher = owner.watcher()
        return MessageLedger(watchers=() if watcher is None else (watcher,))


class Ledger:
    """A ledger in memory and on disk; all writers of this process share one instance."""

    def __init__(self, item: HasLedger, owner: OwnerWatch | None = None) -> None:
        self._path, self._disk = item.message_ledger, item.disk
        for leftover in self._path.parent.glob(f".{self._path.name}.*.tmp"):  # of a bot that was killed
            self._disk.remove(leftover)
        self.current = read_ledger(item, owner)
        self._saving = Lock()

    async def update(self, watcher: Watcher, **changes: object) -> Watcher:
        """Change a watcher's entry and return it; the change is durable on return."""
        changed = watcher.model_copy(update=changes)
        watchers = {known.user_id: known for known in self.current.watchers} | {watcher.user_id: changed}
        self.current = MessageLedger(watchers=tuple(watchers.values()))
        saving = asyncio.create_task(asyncio.to_thread(self._save))
        try:
            await asyncio.shield(saving)
        finally:  # a cancelled delivery leaves no write behind that could replace a later one
            await asyncio.wait((saving,))
        return changed

    async def watch(self, user_id: int, channel_id: int | None, origin_channel_id: int | None = None) -> Watcher:
        """Add a watcher in a channel or (None) in direct messages.

        Messages that were sent to the same place stay in use; a final message is sent once, wherever it was sent.
        If direct messages are closed, the watcher is mentioned once in the channel of the command, its origin.
        """
        watcher = self.current.of(user_id)
        is_same_place = watcher is not None and (
            watcher.in_dm if channel_id is None else watcher.channel_id == channel_id
        )
        if watcher is None or not (watcher.has_final or is_same_place):
            watcher = Watcher(user_id=user_id, in_dm=channel_id is None, channel_id=channel_id)
        origin = origin_channel_id or watcher.origin_channel_id
        language = current_language()
        return await self.update(watcher, watches=True, is_closed=False, origin_channel_id=origin, language=language)

    def _save(self) -> None:
        """Write the current entries, whichever change this is for, so that a late save reverts nothing."""
        with self._saving:
            write_atomically(self._path, self.current.model_dump_json().encode(), self._disk)
