"""A run's `dm.json`: its watchers, and the messages that were sent to each of them."""

import asyncio
from threading import Lock
from typing import Literal

from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import Frozen
from trainer.system.files import read_regular, write_atomically


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
    has_second_card: bool = False
    """The card was deleted and sent again, which is done once."""

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


def read_ledger(run: RunDirectory) -> MessageLedger:
    """Read a run's ledger; the run's owner watches it by default. Raises ValueError for a broken file."""
    try:
        return MessageLedger.model_validate_json(read_regular(run.message_ledger))
    except FileNotFoundError:
        user_id = run.record().user_id
        return MessageLedger(watchers=() if user_id is None else (Watcher(user_id=user_id),))


class Ledger:
    """The ledger of a run in memory and on disk; all writers of this process share one instance."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        for leftover in run.path.glob(f".{run.message_ledger.name}.*.tmp"):  # of a bot that was killed
            run.disk.remove(leftover)
        self.current = read_ledger(run)
        self._saving = Lock()

    async def update(self, watcher: Watcher, **changes: object) -> Watcher:
        """Change a watcher's entry and return it; the change is durable on return."""
        changed = watcher.model_copy(update=changes)
        watchers = {known.user_id: known for known in self.current.watchers} | {watcher.user_id: changed}
        self.current = MessageLedger(watchers=tuple(watchers.values()))
        await asyncio.to_thread(self._save)
        return changed

    async def watch(self, user_id: int, channel_id: int | None) -> Watcher:
        """Add a watcher in a channel or (None) in direct messages.

        Messages that were sent to the same place stay in use; a final message is sent once, wherever it was sent.
        """
        watcher = self.current.of(user_id)
        is_same_place = watcher is not None and (
            watcher.in_dm if channel_id is None else watcher.channel_id == channel_id
        )
        if watcher is None or not (watcher.has_final or is_same_place):
            watcher = Watcher(user_id=user_id, in_dm=channel_id is None, channel_id=channel_id)
        return await self.update(watcher, watches=True, is_closed=False)

    def _save(self) -> None:
        """Write the current entries, whichever change this is for, so that a late save reverts nothing."""
        with self._saving:
            write_atomically(self._run.message_ledger, self.current.model_dump_json().encode(), self._run.disk)
