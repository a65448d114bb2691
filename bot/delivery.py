"""One run's messages to one watcher: a card that is edited, and one message at its end (R8)."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from threading import Lock
from typing import Literal, NamedTuple, TypeVar

import discord
import structlog

from bot.buttons import button, question_buttons, row
from bot.chart_process import ChartProcess
from bot.discord_errors import HTTP_ERROR, NOT_FOUND, is_closed
from bot.embeds import attach_chart, final_footer, final_message, run_card
from bot.ledger import Ledger, SentMessage, Watcher
from bot.retries import back_off, until_answered
from trainer.contracts.runs import RunStatus
from trainer.runs import RunDirectory

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")
Slot = Literal["card", "final"]

_NONCE_CHARACTERS = 25  # Discord's limit
_HISTORY_MESSAGES = 200
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 1.0, 60.0


class State(NamedTuple):
    """How a run stood when its chart was drawn."""

    status: RunStatus
    losses: Sequence[float]
    chart: bytes | None

    @property
    def has_ended(self) -> bool:
        return self.status.status not in ("queued", "running")


class ToldRun:
    """What the deliveries of one run share: the ledger, and the run's newest state with its chart, drawn once."""

    def __init__(self, run: RunDirectory, charts: ChartProcess, *, interval_seconds: float) -> None:
        self.run_id = run.run_id
        self.ledger = Ledger(run)
        self._follower = run.follow()
        self.record = self._follower.record
        self._charts = charts
        self._interval_seconds = interval_seconds
        self._reading, self._drawing = Lock(), asyncio.Lock()
        self._newest: State | None = None
        self._next_drawing = 0.0

    async def status(self) -> RunStatus:
        """How the run stands now."""
        return await asyncio.to_thread(self._refresh)

    async def state(self, shown: State | None) -> State:
        """The newest state, once the run has moved on from `shown`; `shown` itself where it has not.

        States are at least `interval_seconds` apart: what is newer than the newest is waited for.
        """
        if self._newest is not None and self._newest is not shown:
            return self._newest
        async with self._drawing:
            if self._newest is None or (self._newest is shown and await self.status() != shown.status):
                await asyncio.sleep(self._next_drawing - time.monotonic())
                self._newest = await self._draw()
                self._next_drawing = time.monotonic() + self._interval_seconds
            return self._newest

    async def _draw(self) -> State:
        status = await self.status()
        losses = [loss for _, loss in self._follower.train_losses]
        return State(
            status, losses, await self._charts.loss_chart(self._follower.train_losses, self._follower.val_losses)
        )

    def _refresh(self) -> RunStatus:
        with self._reading:  # a thread outlives the task that was cancelled waiting for it
            return self._follower.refresh()


class Delivery:
    """Keeps one watcher told of one run; whatever is interrupted goes on where the ledger says."""

    def __init__(
        self,
        run: ToldRun,
        watcher: Watcher,
        client: discord.Client,
        *,
        edit_interval_seconds: float,
        look_interval_seconds: float,
    ) -> None:
        self.bell = asyncio.Event()
        """Set when the run's event log has grown."""
        self.run = run
        self.user_id = watcher.user_id
        self._watcher = watcher
        self._client = client
        self._edit_interval_seconds = edit_interval_seconds
        self._look_interval_seconds = look_interval_seconds
        # the process before this one may have edited the card a moment ago
        self._next_edit = time.monotonic() + edit_interval_seconds
        self._card_is_gone = False
        self._log = log.bind(run_id=run.run_id, user_id=watcher.user_id)

    async def deliver(self) -> None:
        """Follow the run to its end, and its messages to the last one.

        Edits are at least `edit_interval_seconds` apart, the last one included: the newest state wins.
        """
        try:
            channel = await self._channel()
            await self._send("final", channel, await self._follow(channel))
        except HTTP_ERROR as error:
            if not is_closed(error):
                raise
            await self._note(is_closed=True)
            self._log.warning("a watcher's channel is closed")

    async def _note(self, **changes: object) -> None:
        self._watcher = await self.run.ledger.note(self._watcher, **changes)

    async def _channel(self) -> discord.PartialMessageable:
        channel_id = self._watcher.channel_id
        if channel_id is None:
            dm = await self._persist(lambda: self._client.create_dm(discord.Object(self.user_id)))
            channel_id = dm.id
            await self._note(channel_id=channel_id)
        return self._client.get_partial_messageable(channel_id)

    async def _follow(self, channel: discord.PartialMessageable) -> State:
        """Keep the card true until it shows how the run ended; a run that had ended before needs none."""
        shown: State | None = None
        while shown is None or not shown.has_ended:
            self.bell.clear()
            state = await self.run.state(shown)
            if state is shown:
                await self._wait_for_bell()
            elif state.has_ended and self._watcher.card is None:
                return state
            else:
                if not await self._send("card", channel, state):
                    await asyncio.sleep(self._next_edit - time.monotonic())
                    state = await self.run.state(shown)
                    await self._edit(channel, state)
                shown = state
                self._next_edit = time.monotonic() + self._edit_interval_seconds
        return shown

    async def _wait_for_bell(self) -> None:
        try:
            async with asyncio.timeout(self._look_interval_seconds):
                await self.bell.wait()
        except TimeoutError:
            pass  # a bell may be lost: the log is looked at anyway

    async def _edit(self, channel: discord.PartialMessageable, state: State) -> None:
        card = self._watcher.card
        if card is None or card.message_id is None or self._card_is_gone:
            return
        message = channel.get_partial_message(card.message_id)
        embed = run_card(self.run.record, state.status, state.losses)
        try:
            await self._persist(
                lambda: message.edit(
                    embed=embed,
                    attachments=attach_chart(embed, state.chart, state.status),
                    view=self._buttons(state),
                )
            )
        except NOT_FOUND as error:
            if is_closed(error):
                raise
            self._log.warning("card was deleted")
            self._card_is_gone = self._watcher.has_second_card or state.has_ended
            if not self._card_is_gone:
                await self._note(card=None, has_second_card=True)
                await self._send("card", channel, state)

    async def _send(self, slot: Slot, channel: discord.PartialMessageable, state: State) -> bool:
        """Create the slot's message once, however often this is tried; return whether it was made just now."""
        sent = self._watcher.card if slot == "card" else self._watcher.final
        if sent is not None and sent.message_id is not None:
            return False
        draw = run_card if slot == "card" else final_message
        embed = draw(self.run.record, state.status, state.losses)
        is_unknown, is_new = sent is not None, True
        sent = sent or SentMessage(nonce=self._nonce(slot, channel))
        await self._note(**{slot: sent})

        async def look_then_send() -> int:
            nonlocal is_unknown, is_new
            found = await self._find(slot, channel) if is_unknown else None
            is_unknown = True
            if found is not None:
                is_new = False
                return found
            message = await channel.send(
                embed=embed,
                files=attach_chart(embed, state.chart, state.status),
                view=self._buttons(state) if slot == "card" else self._next_buttons(state),
                nonce=sent.nonce,
            )
            return message.id

        message_id = await self._persist(look_then_send)
        await self._note(**{slot: SentMessage(nonce=sent.nonce, message_id=message_id)})
        return is_new

    async def _find(self, slot: Slot, channel: discord.PartialMessageable) -> int | None:
        """The slot's message in the channel's history, by its footer; not one that is another watcher's."""
        footer = self.run.run_id if slot == "card" else final_footer(self.run.run_id)
        async for message in channel.history(limit=_HISTORY_MESSAGES):
            has_footer = any(embed.footer.text == footer for embed in message.embeds)
            if has_footer and message.author == self._client.user and not self._is_of_another(message.id):
                return message.id
        return None

    def _is_of_another(self, message_id: int) -> bool:
        others = (watcher for watcher in self.run.ledger.newest.watchers if watcher.user_id != self.user_id)
        return any(sent is not None and sent.message_id == message_id for w in others for sent in (w.card, w.final))

    async def _persist(self, call: Callable[[], Awaitable[T]]) -> T:
        return await until_answered(call, back_off(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS), self._log)

    def _nonce(self, slot: Slot, channel: discord.PartialMessageable) -> str:
        """Known beforehand, so that Discord itself takes a message that is sent again shortly after for the same."""
        name = f"{self.run.run_id}:{self.user_id}:{channel.id}:{slot}"
        if slot == "card" and self._watcher.has_second_card:
            name += ":2"
        return sha256(name.encode()).hexdigest()[:_NONCE_CHARACTERS]

    def _buttons(self, state: State) -> discord.ui.View:
        """While there is something to come: no more of it, and for who started the run, its end."""
        if state.has_ended:
            return row()
        unwatch = button("unwatch", self.run.run_id, "Unwatch")
        if self.user_id != self.run.record.user_id:
            return row(unwatch)
        cancel = button("cancel", self.run.run_id, "Cancel", style=discord.ButtonStyle.danger)
        return row(cancel, button("logs", self.run.run_id, "Logs"), unwatch)

    def _next_buttons(self, state: State) -> discord.ui.View:
        """What one may do with a run that has ended: ask its model, where there is one."""
        return row(*question_buttons(self.run.record)) if state.status.status == "completed" else row()
