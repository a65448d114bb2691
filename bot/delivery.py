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
from bot.embeds import attach_chart, can_resume, final_footer, final_message, run_card
from bot.ledger import Ledger, SentMessage, Watcher
from bot.outcome import Outcome, read_outcome
from bot.pacing import Pace
from bot.retries import back_off, until_answered
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.runs import RunStatus

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")
Slot = Literal["card", "final"]
Standing = Callable[[RunStatus], Awaitable[RunStatus]]
"""Adds to how a run stands by its log what only the queue knows."""

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
        return _has_ended(self.status)


class ToldRun:
    """What the deliveries of one run share: the ledger, and the run's newest state with its chart, drawn once."""

    def __init__(self, run: RunDirectory, charts: ChartProcess, standing: Standing, *, interval_seconds: float) -> None:
        self.run_id = run.run_id
        self.ledger = Ledger(run)
        self._run = run
        self._follower = run.follow()
        self.record = self._follower.record
        self._charts = charts
        self._standing = standing
        self._interval_seconds = interval_seconds
        self._reading, self._drawing = Lock(), asyncio.Lock()
        self._newest: State | None = None
        self._fresh_until = 0.0

    async def logged_status(self) -> RunStatus:
        """How the run stands now, by its log."""
        return await asyncio.to_thread(self._refresh)

    async def status(self) -> RunStatus:
        """How the run stands now, by its log and the queue."""
        read = await self.logged_status()
        standing = await self._standing(read)
        # not the heartbeat: nobody needs a card that is edited for each
        changes: dict[str, object] = {
            "reachable": standing.reachable,
            "message": standing.message,
            "queue_position": standing.queue_position,
        }
        return read.model_copy(update=changes)

    async def state(self, shown: State | None) -> State:
        """How the run stands now, for a watcher who was shown a state.

        A state that is younger than `interval_seconds` is good for all other watchers, so that a chart is drawn for
        them together; an end is shown by all at once.
        """
        async with self._drawing:
            status = await self.status()
            newest = self._newest
            is_fresh = time.monotonic() < self._fresh_until and newest is not shown and not _has_ended(status)
            if newest is None or (status != newest.status and not is_fresh):
                newest = self._newest = await self._draw(status)
                self._fresh_until = time.monotonic() + self._interval_seconds
            return newest

    async def outcome(self) -> Outcome:
        """What came of the run, once it has ended."""
        return await asyncio.to_thread(read_outcome, self._run)

    async def _draw(self, status: RunStatus) -> State:
        losses = [loss for _, loss in self._follower.train_losses]
        chart = await self._charts.loss_chart(
            self._follower.train_losses, self._follower.val_losses, status.bits_per_nat
        )
        return State(status, losses, chart)

    def _refresh(self) -> RunStatus:
        with self._reading:  # a thread outlives the task that was cancelled waiting for it
            return self._follower.refresh()


class Delivery:
    """Keeps one watcher told of one run; whatever is interrupted goes on where the ledger says."""

    def __init__(
        self, run: ToldRun, watcher: Watcher, client: discord.Client, pace: Pace, *, look_interval_seconds: float
    ) -> None:
        self.bell = asyncio.Event()
        """Set when the run's event log has grown."""
        self.tried = asyncio.Event()
        """Set when the first message has arrived, or was refused."""
        self.run = run
        self.user_id = watcher.user_id
        self._watcher = watcher
        self._client = client
        self._pace = pace
        self._look_interval_seconds = look_interval_seconds
        self._card_is_gone = False
        self._log = log.bind(run_id=run.run_id, user_id=watcher.user_id)

    async def deliver(self) -> None:
        """Follow the run to its end, and its messages to the last one."""
        try:
            channel = await self._channel()
            shown: State | None = None
            while not self._watcher.is_settled:
                shown = await self._show_next(channel, shown)
        except HTTP_ERROR as error:
            if not is_closed(error):
                raise
            await self._note(is_closed=True)
            self._log.warning("a watcher's channel is closed")
        finally:
            self.tried.set()

    async def _note(self, **changes: object) -> None:
        self._watcher = await self.run.ledger.note(self._watcher, **changes)

    async def _channel(self) -> discord.PartialMessageable:
        channel_id = self._watcher.channel_id
        if channel_id is None:
            dm = await self._persist(lambda: self._client.create_dm(discord.Object(self.user_id)))
            channel_id = dm.id
            await self._note(channel_id=channel_id)
        return self._client.get_partial_messageable(channel_id)

    async def _show_next(self, channel: discord.PartialMessageable, shown: State | None) -> State:
        """Write one message or edit, in its turn, where there is something new to show; else wait a while.

        The end comes as a new message first, which notifies; then the card shows it too, where there is a card.
        """
        self.bell.clear()
        status = await self.run.status()
        if shown is not None and not shown.has_ended and status == shown.status:
            await self._wait_for_bell()
            return shown
        is_final = _has_ended(status) and not self._watcher.has_final
        async with self._pace.turn(channel.id, is_new=is_final or self._watcher.card is None):
            state = await self.run.state(shown)
            if not state.has_ended:
                if not await self._send("card", channel, state):
                    await self._edit(channel, state)
            elif not self._watcher.has_final:
                await self._send("final", channel, state)
            else:
                await self._end_card(channel, state)
        self.tried.set()
        return state

    async def _wait_for_bell(self) -> None:
        try:
            async with asyncio.timeout(self._look_interval_seconds):
                await self.bell.wait()
        except TimeoutError:
            pass  # a bell may be lost: the log is looked at anyway

    async def _end_card(self, channel: discord.PartialMessageable, state: State) -> None:
        """Show the end in the card; one of which it is not known whether it arrived is looked for, and not sent."""
        card = self._watcher.card
        if card is not None and card.message_id is None:
            found = await self._persist(lambda: self._find("card", channel))
            await self._note(card=None if found is None else SentMessage(nonce=card.nonce, message_id=found))
        await self._edit(channel, state)
        await self._note(card_is_stale=False)

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
        embed, files = await self._message(slot, state)
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
                self._mention if slot == "final" else None,
                embed=embed,
                files=files(),
                view=self._buttons(state) if slot == "card" else self._next_buttons(state),
                nonce=sent.nonce,
                allowed_mentions=self._allowed_mentions(slot),
            )
            return message.id

        message_id = await self._persist(look_then_send)
        is_stale = slot == "final" and self._watcher.card is not None
        await self._note(**{slot: SentMessage(nonce=sent.nonce, message_id=message_id)}, card_is_stale=is_stale)
        return is_new

    async def _message(self, slot: Slot, state: State) -> tuple[discord.Embed, Callable[[], list[discord.File]]]:
        """What stands in a message, and its files, new for each try; a final message beside a card repeats no chart."""
        if slot == "card":
            embed = run_card(self.run.record, state.status, state.losses)
            return embed, lambda: attach_chart(embed, state.chart, state.status)
        outcome = await self.run.outcome()
        if not (self._is_own and self._watcher.in_dm):  # a run's log is for who started it, not for all who watch
            outcome = outcome._replace(last_lines=())
        embed = final_message(self.run.record, state.status, outcome)
        chart = state.chart if self._watcher.card is None else None
        return embed, lambda: attach_chart(embed, chart, state.status)

    @property
    def _mention(self) -> str | None:
        """What calls a watcher to the final message in a channel; a direct message notifies by itself."""
        return None if self._watcher.in_dm else f"<@{self.user_id}>"

    def _allowed_mentions(self, slot: Slot) -> discord.AllowedMentions:
        is_called = slot == "final" and not self._watcher.in_dm
        users = [discord.Object(self.user_id)] if is_called else False
        return discord.AllowedMentions(everyone=False, roles=False, replied_user=False, users=users)

    @property
    def _is_own(self) -> bool:
        return self.user_id == self.run.record.user_id

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
        if not self._is_own:
            return row(unwatch)
        cancel = button("cancel", self.run.run_id, "Cancel", style=discord.ButtonStyle.danger)
        return row(cancel, button("logs", self.run.run_id, "Logs"), unwatch)

    def _next_buttons(self, state: State) -> discord.ui.View:
        """What one may do with a run that has ended: ask its model; or, who started it, see why it ended, resume it."""
        if state.status.status == "completed":
            return row(*question_buttons(self.run.record))
        if not self._is_own:
            return row()
        logs = button("logs", self.run.run_id, "Logs")
        return row(button("resume", self.run.run_id, "Resume"), logs) if can_resume(state.status) else row(logs)


def _has_ended(status: RunStatus) -> bool:
    return status.status not in ("queued", "running")
