"""Messages about one subject to one watcher: a card that is edited, and one final message."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from hashlib import sha256
from typing import Literal, TypeVar

import discord
import structlog

from bot.messages.buttons import button_row
from bot.messages.files import no_files
from bot.messages.text import AMBER, make_embed
from bot.notifications.inbox import Inbox
from bot.notifications.subjects import Message, Subject, View
from bot.people.user_settings import use_unit
from bot.people.watchers import SentMessage, Watcher
from bot.rest.errors import (
    CALL_ERRORS,
    HTTP_ERROR,
    NOT_FOUND,
    error_code,
    is_closed,
    is_refusal,
    is_transient,
    retry,
    seconds_before_retry,
)
from bot.rest.pacing import Pace
from trainer.contracts.units import Unit
from trainer.lab.language import _, use_language
from trainer.system.retries import back_off

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")
Slot = Literal["card", "final", "mention"]

_NONCE_CHARACTERS = 25  # Discord's limit
_HISTORY_MESSAGES = 200
_CLOCK_DIFFERENCE = timedelta(minutes=1)
_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS = 1.0, 60.0
_EDIT_SECONDS = 15.0
"""Longest time of an edit: discord.py waits up to a minute after a rate limit, while other edits wait for it."""


class Delivery:
    """Sends the messages of one subject to one watcher; an interrupted delivery continues from the ledger."""

    def __init__(
        self,
        subject: Subject,
        watcher: Watcher,
        inbox: Inbox,
        client: discord.Client,
        pace: Pace,
        unit_of: Callable[[int], Unit],
        *,
        poll_seconds: Callable[[], float],
    ) -> None:
        self.wake_up = asyncio.Event()
        """Set when the subject has news."""
        self.tried = asyncio.Event()
        """Set when the first message has arrived or was refused, or is a line of a digest."""
        self.subject = subject
        self.inbox = inbox
        self.user_id = watcher.user_id
        self._watcher = watcher
        self._client = client
        self._pace = pace
        self._unit_of = unit_of
        self._poll_seconds = poll_seconds
        self._is_card_lost = False
        """The card was deleted, or Discord refuses its edits."""
        self._edits_from = 0.0
        """Monotonic time before which the card is not edited, after a failure."""
        self._waits = back_off(_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS)
        self._given_up: set[asyncio.Task[object]] = set()
        """Edits that are ending after their cancellation, for which nothing waits."""
        self._log = log.bind(**{subject.id_name: subject.subject_id}, user_id=watcher.user_id)

    async def deliver(self) -> None:
        """Send and edit messages until the subject has ended and its final message has arrived."""
        use_language(self._watcher.language)
        try:
            channel = await self._channel()
            shown: View | None = None
            while not self._watcher.is_done:
                shown = await self._show_next(channel, shown)
        except HTTP_ERROR as error:
            if not is_refusal(error):
                raise
            await self._close(error_code(error))
        finally:
            self.tried.set()

    async def _close(self, code: int = 0) -> None:
        """Remember that the channel refuses messages, with Discord's error code or 0."""
        self._log.warning("channel_closed", error_code=str(code))
        await self._mention()
        await self._update(is_closed=True)

    async def _update(self, **changes: object) -> None:
        self._watcher = await self.subject.ledger.update(self._watcher, **changes)

    async def _channel(self) -> discord.PartialMessageable:
        channel_id = self._watcher.channel_id
        if channel_id is None:
            async with self.inbox.opening_dm:  # once for all runs of a user
                if self.inbox.dm_id is None:
                    dm = await self._retry(lambda: self._client.create_dm(discord.Object(self.user_id)))
                    self.inbox.dm_id = dm.id
                channel_id = self.inbox.dm_id
            await self._update(channel_id=channel_id)
        return self._client.get_partial_messageable(channel_id)

    async def _mention(self) -> None:
        """Mention a watcher whose direct messages are closed, once, in the channel of the command."""
        origin_id = self._watcher.origin_channel_id
        if not self._watcher.in_dm or origin_id is None:
            return
        channel = self._client.get_partial_messageable(origin_id)

        async def send() -> None:
            async with self._pace.turn(origin_id, is_new=True):
                await self._send("mention", channel, _closed_message(self.subject.subject_id))

        try:
            await self._retry(send)
        except HTTP_ERROR as error:
            if not is_refusal(error):
                raise

    async def _show_next(self, channel: discord.PartialMessageable, shown: View | None) -> View | None:
        """Send or edit one message in its turn if the subject has news; wait otherwise.

        The final message comes first, since it notifies; then the card shows the end, too.
        """
        self.wake_up.clear()
        use_unit(self._unit_of(self.user_id))
        state = await self.subject.state()
        if await self.inbox.update(self.subject, state):
            if self.inbox.is_closed:
                await self._close()
                return None
            await self._remove_card(channel)
            self.tried.set()
            await self._wait()
            return None
        if shown is not None and not shown.state.has_ended and state == shown.state:
            await self._wait()
            return shown
        is_final = state.has_ended and not self._watcher.has_final
        is_new = is_final or self._watcher.card is None
        if not is_new and (seconds := self._edits_from - time.monotonic()) > 0:
            await self._wait(seconds)
            return shown
        try:
            shown = await self._show(channel, shown, is_new=is_new)
        except CALL_ERRORS as error:
            if not is_transient(error) and not isinstance(error, OSError):  # a disk may work again
                raise
            seconds = seconds_before_retry(error, next(self._waits), self._log)
            if is_new:
                await asyncio.sleep(seconds)
            else:
                self._edits_from = time.monotonic() + seconds
        else:
            self._waits = back_off(_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS)
        return shown

    async def _show(self, channel: discord.PartialMessageable, shown: View | None, *, is_new: bool) -> View | None:
        """Send or edit one message in a turn, with one try; return the view that the watcher has then."""
        async with self._pace.turn(channel.id, is_new=is_new):
            view = await self.subject.view(shown)
            if not view.state.has_ended:
                if self.subject.has_line and self.inbox.digest is not None:  # it began during the wait for the turn
                    return shown
                if not await self._send("card", channel, view.card(self.user_id)):
                    await self._edit(channel, view)
            elif view.final is not None and not self._watcher.has_final:
                message = await view.final(self._watcher)
                message.embed.set_footer(text=f"{self.subject.subject_id} · {_('result')}")
                await self._send("final", channel, message)
            else:
                await self._finish_card(channel, view)
        self.tried.set()
        return view

    async def _wait(self, seconds: float | None = None) -> None:
        """Wait for news, at most these seconds; without a number until the next poll, as a wake-up can be lost."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(self._poll_seconds(), seconds or math.inf)):
                await self.wake_up.wait()

    async def _remove_card(self, channel: discord.PartialMessageable) -> None:
        """Delete the card of a subject that has become a line of a digest."""
        card = self._watcher.card
        if card is None:
            return
        footer = (await self.subject.view(None)).card(self.user_id).embed.footer.text
        message_id = card.message_id or await self._retry(lambda: self._find(footer, channel))
        if message_id is not None:
            try:
                await self._retry(channel.get_partial_message(message_id).delete)
            except HTTP_ERROR as error:  # the old card stays
                if not is_refusal(error):
                    raise
        await self._update(card=None, has_second_card=True)

    async def _finish_card(self, channel: discord.PartialMessageable, view: View) -> None:
        """Show the end in the card; a card whose arrival is unknown is searched for, and not sent again."""
        card = self._watcher.card
        if card is not None and card.message_id is None:
            message_id = await self._find(view.card(self.user_id).embed.footer.text, channel)
            sent = None if message_id is None else SentMessage(nonce=card.nonce, message_id=message_id)
            await self._update(card=sent)
        await self._edit(channel, view)
        await self._update(card_is_stale=False)

    async def _edit(self, channel: discord.PartialMessageable, view: View) -> None:
        card = self._watcher.card
        if card is None or card.message_id is None or self._is_card_lost:
            return
        message = channel.get_partial_message(card.message_id)
        new = view.card(self.user_id)
        try:
            await self._edit_briefly(
                message.edit(embed=new.embed, attachments=new.files(), view=new.buttons), has_ended=view.state.has_ended
            )
        except HTTP_ERROR as error:
            if is_closed(error) or not is_refusal(error):
                raise
            is_deleted = isinstance(error, NOT_FOUND)
            self._log.warning("card_deleted" if is_deleted else "card_refused", error_code=str(error_code(error)))
            self._is_card_lost = not is_deleted or self._watcher.has_second_card or view.state.has_ended
            if not self._is_card_lost:
                await self._update(card=None, has_second_card=True)
                await self._send("card", channel, new)

    async def _edit_briefly(self, edit: Coroutine[None, None, object], *, has_ended: bool) -> None:
        """Run an edit until the subject ends, because the final message comes first.

        Raises TimeoutError after some seconds, and what the edit raises.
        """
        editing: asyncio.Task[object] = asyncio.create_task(edit)
        tasks = {editing} if has_ended else {editing, asyncio.create_task(self._wait_for_end())}
        try:
            done, _ = await asyncio.wait(tasks, timeout=_EDIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise TimeoutError
            if editing in done:
                editing.result()
        finally:
            for task in tasks:  # discord.py can take seconds to leave a cancelled call
                task.cancel()
                self._given_up.add(task)
                task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[object]) -> None:
        self._given_up.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen

    async def _wait_for_end(self) -> None:
        """Wait until the subject ends."""
        while not (await self.subject.state()).has_ended:
            await self._wait()
            self.wake_up.clear()

    async def _send(self, slot: Slot, channel: discord.PartialMessageable, message: Message) -> bool:
        """Try to create the slot's message, once over any number of tries; return whether it was created just now."""
        stored = {"card": self._watcher.card, "final": self._watcher.final, "mention": self._watcher.mention}[slot]
        if stored is not None and stored.message_id is not None:
            return False
        sent = stored or SentMessage(nonce=self._nonce(slot, channel))
        await self._update(**{slot: sent})
        known_id = None if stored is None else await self._find(message.embed.footer.text, channel)
        message_id = known_id or await self._create(slot, channel, message, sent.nonce)
        changes: dict[str, object] = {slot: SentMessage(nonce=sent.nonce, message_id=message_id)}
        if slot == "final":
            changes["card_is_stale"] = self._watcher.card is not None
        await self._update(**changes)
        return known_id is None

    async def _create(self, slot: Slot, channel: discord.PartialMessageable, message: Message, nonce: str) -> int:
        # a direct message notifies by itself
        notifies = slot == "mention" or (slot == "final" and not self._watcher.in_dm)
        users = [discord.Object(self.user_id)] if notifies else False
        created = await channel.send(
            f"<@{self.user_id}>" if notifies else None,
            embed=message.embed,
            files=message.files(),
            view=message.buttons,
            nonce=nonce,
            allowed_mentions=discord.AllowedMentions(everyone=False, roles=False, replied_user=False, users=users),
        )
        return created.id

    async def _find(self, footer: str | None, channel: discord.PartialMessageable) -> int | None:
        """Return the id of a message from the channel's history, by its footer; skip other watchers' ones."""
        others = (watcher for watcher in self.subject.ledger.current.watchers if watcher.user_id != self.user_id)
        taken = {
            sent.message_id
            for watcher in others
            for sent in (watcher.card, watcher.final, watcher.mention)
            if sent is not None
        }
        began_at = self.subject.began_at
        async for message in channel.history(limit=_HISTORY_MESSAGES):
            if began_at is not None and message.created_at < began_at - _CLOCK_DIFFERENCE:
                break  # of an earlier attempt
            has_footer = any(embed.footer.text == footer for embed in message.embeds)
            if has_footer and message.author == self._client.user and message.id not in taken:
                return message.id
        return None

    async def _retry(self, call: Callable[[], Awaitable[T]]) -> T:
        return await retry(call, back_off(_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS), self._log)

    def _nonce(self, slot: Slot, channel: discord.PartialMessageable) -> str:
        """Return a nonce that is the same after a restart, so that Discord itself drops a message sent twice."""
        name = f"{self.subject.subject_id}:{self.user_id}:{channel.id}:{slot}"
        if self.subject.began_at is not None:
            name += f":{self.subject.began_at.isoformat()}"
        if slot == "card" and self._watcher.has_second_card:
            name += ":2"
        return sha256(name.encode()).hexdigest()[:_NONCE_CHARACTERS]


def _closed_message(subject_id: str) -> Message:
    """Return the one message in the channel of the command; it tells others nothing but the id."""
    lines = [
        _("The bot cannot send you direct messages, so it sends none about this. `/mt status` shows your runs."),
        _("Allow direct messages from this server's members, then use `/mt watch`."),
    ]
    return Message(
        make_embed(AMBER, f"📪 {_('Direct messages are closed')}", lines, f"{subject_id} · closed"),
        no_files,
        button_row(),
    )
