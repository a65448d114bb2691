"""Messages about one run to one watcher: a card that is edited, and one final message."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from threading import Lock
from typing import Literal, NamedTuple, TypeVar

import discord
import structlog

from bot.buttons import button, button_row, inference_buttons
from bot.chart_process import ChartProcess
from bot.discord_errors import HTTP_ERROR, NOT_FOUND, is_closed, retry
from bot.embeds.run_card import attach_chart, can_resume, final_footer, final_message, run_card
from bot.ledger import Ledger, SentMessage, Watcher
from bot.outcome import read_outcome
from bot.pacing import Pace, back_off
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import changed
from trainer.contracts.runs import RunStatus

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")
Slot = Literal["card", "final"]
LiveStatus = Callable[[RunStatus], Awaitable[RunStatus]]
"""Adds the queue's knowledge to a status that was read from the run's event log."""

_NONCE_CHARACTERS = 25  # Discord's limit
_HISTORY_MESSAGES = 200
_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS = 1.0, 60.0


class RunView(NamedTuple):
    """A run's status, its training losses, and its chart as PNG."""

    status: RunStatus
    losses: Sequence[float]
    chart: bytes | None


class RunNotifications:
    """State that all deliveries of one run share: the ledger, and the run's current view, drawn once for all."""

    def __init__(
        self, run: RunDirectory, charts: ChartProcess, live_status: LiveStatus, *, interval_seconds: float
    ) -> None:
        self.run_id = run.run_id
        self.ledger = Ledger(run)
        self.directory = run
        self._follower = run.follow()
        self.record = self._follower.record
        self._charts = charts
        self._live_status = live_status
        self._interval_seconds = interval_seconds
        self._reading, self._drawing = Lock(), asyncio.Lock()
        self._view: RunView | None = None
        self._fresh_until = 0.0

    async def logged_status(self) -> RunStatus:
        """Read the run's status from its event log."""

        def refresh() -> RunStatus:
            with self._reading:  # a thread outlives the cancelled task that waits for it
                return self._follower.refresh()

        return await asyncio.to_thread(refresh)

    async def status(self) -> RunStatus:
        """Read the run's status from its event log and the queue."""
        logged = await self.logged_status()
        live = await self._live_status(logged)
        # without the heartbeat, which would edit the card every time
        return changed(logged, reachable=live.reachable, message=live.message, queue_position=live.queue_position)

    async def view(self, shown: RunView | None) -> RunView:
        """Return the run's current view for a watcher who has seen `shown`.

        All watchers share a view for `interval_seconds`, so that a chart is drawn once; the end is shown at once.
        """
        async with self._drawing:
            status = await self.status()
            view = self._view
            is_fresh = time.monotonic() < self._fresh_until and view is not shown and not status.has_ended
            if view is None or (status != view.status and not is_fresh):
                follower = self._follower
                losses = [loss for _, loss in follower.train_losses]
                chart = await self._charts.loss_chart(follower.train_losses, follower.val_losses, status.bits_per_nat)
                view = self._view = RunView(status, losses, chart)
                self._fresh_until = time.monotonic() + self._interval_seconds
            return view


class Delivery:
    """Sends the messages of one run to one watcher; an interrupted delivery continues from the ledger."""

    def __init__(
        self, run: RunNotifications, watcher: Watcher, client: discord.Client, pace: Pace, *, poll_seconds: float
    ) -> None:
        self.wake_up = asyncio.Event()
        """Set when the run's event log has grown."""
        self.tried = asyncio.Event()
        """Set when the first message has arrived or was refused."""
        self.run = run
        self.user_id = watcher.user_id
        self._watcher = watcher
        self._client = client
        self._pace = pace
        self._poll_seconds = poll_seconds
        self._is_card_deleted = False
        self._log = log.bind(run_id=run.run_id, user_id=watcher.user_id)

    async def deliver(self) -> None:
        """Send and edit messages until the run has ended and its final message has arrived."""
        try:
            channel = await self._channel()
            shown: RunView | None = None
            while not self._watcher.is_done:
                shown = await self._show_next(channel, shown)
        except HTTP_ERROR as error:
            if not is_closed(error):
                raise
            await self._update(is_closed=True)
            self._log.warning("channel_closed")
        finally:
            self.tried.set()

    async def _update(self, **changes: object) -> None:
        self._watcher = await self.run.ledger.update(self._watcher, **changes)

    async def _channel(self) -> discord.PartialMessageable:
        channel_id = self._watcher.channel_id
        if channel_id is None:
            dm = await self._retry(lambda: self._client.create_dm(discord.Object(self.user_id)))
            channel_id = dm.id
            await self._update(channel_id=channel_id)
        return self._client.get_partial_messageable(channel_id)

    async def _show_next(self, channel: discord.PartialMessageable, shown: RunView | None) -> RunView:
        """Send or edit one message in its turn if the run has news; wait otherwise.

        The final message comes first, since it notifies; then the card shows the end, too.
        """
        self.wake_up.clear()
        status = await self.run.status()
        if shown is not None and not shown.status.has_ended and status == shown.status:
            with suppress(TimeoutError):  # a wake-up can be lost: the log is polled as well
                async with asyncio.timeout(self._poll_seconds):
                    await self.wake_up.wait()
            return shown
        is_final = status.has_ended and not self._watcher.has_final
        async with self._pace.turn(channel.id, is_new=is_final or self._watcher.card is None):
            view = await self.run.view(shown)
            if not view.status.has_ended:
                if not await self._send("card", channel, view):
                    await self._edit(channel, view)
            elif not self._watcher.has_final:
                await self._send("final", channel, view)
            else:
                await self._finish_card(channel, view)
        self.tried.set()
        return view

    async def _finish_card(self, channel: discord.PartialMessageable, view: RunView) -> None:
        """Show the end in the card; a card whose arrival is unknown is searched for, and not sent again."""
        card = self._watcher.card
        if card is not None and card.message_id is None:
            message_id = await self._retry(lambda: self._find("card", channel))
            sent = None if message_id is None else SentMessage(nonce=card.nonce, message_id=message_id)
            await self._update(card=sent)
        await self._edit(channel, view)
        await self._update(card_is_stale=False)

    async def _edit(self, channel: discord.PartialMessageable, view: RunView) -> None:
        card = self._watcher.card
        if card is None or card.message_id is None or self._is_card_deleted:
            return
        message = channel.get_partial_message(card.message_id)
        embed = run_card(self.run.record, view.status, view.losses)
        try:
            await self._retry(
                lambda: message.edit(
                    embed=embed, attachments=attach_chart(embed, view.chart, view.status), view=self._buttons(view)
                )
            )
        except NOT_FOUND as error:
            if is_closed(error):
                raise
            self._log.warning("card_deleted")
            self._is_card_deleted = self._watcher.has_second_card or view.status.has_ended
            if not self._is_card_deleted:
                await self._update(card=None, has_second_card=True)
                await self._send("card", channel, view)

    async def _send(self, slot: Slot, channel: discord.PartialMessageable, view: RunView) -> bool:
        """Create the slot's message once, over any number of tries; return whether it was created just now."""
        stored = self._watcher.card if slot == "card" else self._watcher.final
        if stored is not None and stored.message_id is not None:
            return False
        embed, chart = await self._message(slot, view)
        may_exist, is_new = stored is not None, True
        sent = stored or SentMessage(nonce=self._nonce(slot, channel))
        await self._update(**{slot: sent})

        async def find_or_send() -> int:
            nonlocal may_exist, is_new
            message_id = await self._find(slot, channel) if may_exist else None
            may_exist = True
            if message_id is not None:
                is_new = False
                return message_id
            notifies = slot == "final" and not self._watcher.in_dm  # a direct message notifies by itself
            users = [discord.Object(self.user_id)] if notifies else False
            message = await channel.send(
                f"<@{self.user_id}>" if notifies else None,
                embed=embed,
                files=attach_chart(embed, chart, view.status),
                view=self._buttons(view) if slot == "card" else self._final_buttons(view),
                nonce=sent.nonce,
                allowed_mentions=discord.AllowedMentions(everyone=False, roles=False, replied_user=False, users=users),
            )
            return message.id

        message_id = await self._retry(find_or_send)
        is_stale = slot == "final" and self._watcher.card is not None
        await self._update(**{slot: SentMessage(nonce=sent.nonce, message_id=message_id)}, card_is_stale=is_stale)
        return is_new

    async def _message(self, slot: Slot, view: RunView) -> tuple[discord.Embed, bytes | None]:
        """Return a message's embed and chart; a final message has a chart if no card has one."""
        if slot == "card":
            return run_card(self.run.record, view.status, view.losses), view.chart
        outcome = await asyncio.to_thread(read_outcome, self.run.directory)
        if not (self._is_owner and self._watcher.in_dm):  # only the owner may read a run's log
            outcome = outcome._replace(last_lines=())
        embed = final_message(self.run.record, view.status, outcome)
        return embed, view.chart if self._watcher.card is None else None

    @property
    def _is_owner(self) -> bool:
        return self.user_id == self.run.record.user_id

    async def _find(self, slot: Slot, channel: discord.PartialMessageable) -> int | None:
        """Return the id of the slot's message from the channel's history, by its footer; skip other watchers' ones."""
        footer = self.run.run_id if slot == "card" else final_footer(self.run.run_id)
        others = (watcher for watcher in self.run.ledger.current.watchers if watcher.user_id != self.user_id)
        taken = {sent.message_id for watcher in others for sent in (watcher.card, watcher.final) if sent is not None}
        async for message in channel.history(limit=_HISTORY_MESSAGES):
            has_footer = any(embed.footer.text == footer for embed in message.embeds)
            if has_footer and message.author == self._client.user and message.id not in taken:
                return message.id
        return None

    async def _retry(self, call: Callable[[], Awaitable[T]]) -> T:
        return await retry(call, back_off(_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS), self._log)

    def _nonce(self, slot: Slot, channel: discord.PartialMessageable) -> str:
        """Return a nonce that is the same after a restart, so that Discord itself drops a message sent twice."""
        name = f"{self.run.run_id}:{self.user_id}:{channel.id}:{slot}"
        if slot == "card" and self._watcher.has_second_card:
            name += ":2"
        return sha256(name.encode()).hexdigest()[:_NONCE_CHARACTERS]

    def _buttons(self, view: RunView) -> discord.ui.View:
        """Return the card's buttons until the run ends: Unwatch, and for the owner Cancel and Logs."""
        if view.status.has_ended:
            return button_row()
        unwatch = button("unwatch", self.run.run_id, "Unwatch")
        if not self._is_owner:
            return button_row(unwatch)
        cancel = button("cancel", self.run.run_id, "Cancel", style=discord.ButtonStyle.danger)
        return button_row(cancel, button("logs", self.run.run_id, "Logs"), unwatch)

    def _final_buttons(self, view: RunView) -> discord.ui.View:
        """Return the final message's buttons: inference, or for the owner Resume and Logs."""
        if view.status.status == "completed":
            return button_row(*inference_buttons(self.run.record))
        if not self._is_owner:
            return button_row()
        resume = [button("resume", self.run.run_id, "Resume")] if can_resume(view.status) else []
        return button_row(*resume, button("logs", self.run.run_id, "Logs"))
