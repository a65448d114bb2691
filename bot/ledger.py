"""A run's `dm.json`: who watches the run, and what each of them has been sent of it (R8)."""

import asyncio
from threading import Lock
from typing import Literal

from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import Frozen
from trainer.system.files import read_regular, write_atomically


class SentMessage(Frozen):
    """A message that was to be sent; without an id, whether it arrived is not known."""

    nonce: str
    message_id: int | None = None


class Watcher(Frozen):
    """Somebody and their one card and one final message. The intent is noted before a call, the id after it."""

    user_id: int
    in_dm: bool = True
    channel_id: int | None = None
    """Where they are told; None before the direct messages were opened."""
    card: SentMessage | None = None
    final: SentMessage | None = None
    watches: bool = True
    is_closed: bool = False
    """Their channel takes no messages of this bot."""
    is_told: bool = False
    """They have read the end in the answer to a command, since their channel takes no messages."""
    card_is_stale: bool = False
    """They have the final message, and their card does not show the end yet."""
    has_second_card: bool = False
    """Their card was deleted and made anew, which is done once."""

    @property
    def has_final(self) -> bool:
        return self.is_told or (self.final is not None and self.final.message_id is not None)

    @property
    def is_untold(self) -> bool:
        """Whether they can hear of the end only when they give a command."""
        return self.watches and self.is_closed and not self.has_final

    @property
    def closed_place(self) -> Literal["dm", "channel"] | None:
        """Which place of theirs takes no messages."""
        return None if not self.is_closed else "dm" if self.in_dm else "channel"

    def is_told_in(self, channel_id: int | None) -> bool:
        """Whether their place is this channel, or (None) the direct messages."""
        return self.in_dm if channel_id is None else self.channel_id == channel_id

    @property
    def is_settled(self) -> bool:
        return not self.watches or self.is_closed or (self.has_final and not self.card_is_stale)


class MessageLedger(Frozen):
    schema_version: Literal[1] = 1
    watchers: tuple[Watcher, ...] = ()

    def of(self, user_id: int) -> Watcher | None:
        return next((watcher for watcher in self.watchers if watcher.user_id == user_id), None)

    @property
    def unsettled(self) -> list[Watcher]:
        """Those who are still to be sent something."""
        return [watcher for watcher in self.watchers if not watcher.is_settled]


def read_ledger(run: RunDirectory) -> MessageLedger:
    """What is on disk; a run's starter watches it without having asked. Raises ValueError for a broken file."""
    try:
        return MessageLedger.model_validate_json(read_regular(run.message_ledger))
    except FileNotFoundError:
        user_id = run.record().user_id
        return MessageLedger(watchers=() if user_id is None else (Watcher(user_id=user_id),))


class Ledger:
    """The ledger of a run that is being told of; all of this process that write to it share one."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        for leftover in run.path.glob(f".{run.message_ledger.name}.*.tmp"):  # of a bot that was killed
            run.disk.remove(leftover)
        self._newest = read_ledger(run)
        self._saving = Lock()

    @property
    def newest(self) -> MessageLedger:
        return self._newest

    async def note(self, watcher: Watcher, **changes: object) -> Watcher:
        """Change somebody's entry and return it; it is on disk when this returns."""
        changed = watcher.model_copy(update=changes)
        watchers = {known.user_id: known for known in self._newest.watchers} | {watcher.user_id: changed}
        self._newest = MessageLedger(watchers=tuple(watchers.values()))
        await asyncio.to_thread(self._save)
        return changed

    async def watch(self, user_id: int, channel_id: int | None) -> Watcher:
        """Let somebody be told in a channel, or (None) by direct message; in the same place, by the same messages.

        Who has had the final message has had it, wherever that was.
        """
        watcher = self._newest.of(user_id)
        if watcher is None or not (watcher.has_final or watcher.is_told_in(channel_id)):
            watcher = Watcher(user_id=user_id, in_dm=channel_id is None, channel_id=channel_id)
        return await self.note(watcher, watches=True, is_closed=False)

    def _save(self) -> None:
        """Write the newest state, whose change ever this is for: a save that was overtaken takes nothing back."""
        with self._saving:
            write_atomically(self._run.message_ledger, self._newest.model_dump_json().encode(), self._run.disk)
