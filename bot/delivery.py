"""One run's direct messages: a card that is edited, and one message at its end (R8)."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Literal, TypeVar

import discord
import structlog

from bot.chart_process import ChartProcess
from bot.discord_errors import CALL_ERRORS, HTTP_ERROR, NOT_FOUND, is_dm_closed, is_transient
from bot.embeds import attach_chart, final_footer, final_message, run_card
from trainer.contracts.base import Frozen
from trainer.contracts.runs import RunStatus
from trainer.files import write_atomically
from trainer.run_follower import RunFollower
from trainer.runs import RunDirectory

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")
Slot = Literal["card", "final"]

_NONCE_CHARACTERS = 25  # Discord's limit
_HISTORY_MESSAGES = 200
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 1.0, 60.0


class SentMessage(Frozen):
    """A message that was to be sent; without an id, whether it arrived is not known."""

    nonce: str
    message_id: int | None = None


class MessageLedger(Frozen):
    """`dm.json`: what the run's starter has been sent. The intent is noted before a call, the id after it."""

    schema_version: Literal[1] = 1
    channel_id: int | None = None
    card: SentMessage | None = None
    final: SentMessage | None = None
    dm_closed: bool = False

    @property
    def is_settled(self) -> bool:
        return self.dm_closed or (self.final is not None and self.final.message_id is not None)


def read_ledger(run: RunDirectory) -> MessageLedger:
    try:
        return MessageLedger.model_validate_json(run.message_ledger.read_bytes())
    except FileNotFoundError:
        return MessageLedger()


class Delivery:
    """Keeps one person told of one run; whatever is interrupted goes on where the ledger says."""

    def __init__(
        self,
        run: RunDirectory,
        client: discord.Client,
        charts: ChartProcess,
        *,
        edit_interval_seconds: float,
        look_interval_seconds: float,
    ) -> None:
        self.bell = asyncio.Event()
        """Set when the run's event log has grown."""
        self._run = run
        self._client = client
        self._charts = charts
        self._edit_interval_seconds = edit_interval_seconds
        self._look_interval_seconds = look_interval_seconds
        self._next_edit = 0.0
        self._card_is_gone = False
        self._ledger = MessageLedger()

    async def deliver(self) -> None:
        """Follow the run to its end, and its messages to the last one; returns at once where there is nobody to tell.

        Edits are at least `edit_interval_seconds` apart, the last one included: the newest state wins.
        """
        follower = await asyncio.to_thread(self._run.follow)
        self._ledger = await asyncio.to_thread(read_ledger, self._run)
        user_id = follower.record.user_id
        if user_id is None or self._ledger.is_settled:
            return
        try:
            channel = await self._channel(user_id)
            await self._follow(follower, channel)
            await self._send("final", channel, follower, await asyncio.to_thread(follower.refresh))
        except HTTP_ERROR as error:
            if not is_dm_closed(error):
                raise
            await self._note(dm_closed=True)
            log.warning("direct messages are closed", run_id=self._run.run_id, user_id=user_id)

    async def _follow(self, follower: RunFollower, channel: discord.PartialMessageable) -> None:
        """Keep the card true until it shows how the run ended."""
        shown: RunStatus | None = None
        while not follower.ended or shown is None:
            self.bell.clear()
            status = await asyncio.to_thread(follower.refresh)
            if status != shown:
                await asyncio.sleep(self._next_edit - time.monotonic())
                shown = await asyncio.to_thread(follower.refresh)
                await self._show(channel, follower, shown)
            else:
                await self._wait_for_bell()

    async def _wait_for_bell(self) -> None:
        try:
            async with asyncio.timeout(self._look_interval_seconds):
                await self.bell.wait()
        except TimeoutError:
            pass  # a bell may be lost: the log is looked at anyway

    async def _channel(self, user_id: int) -> discord.PartialMessageable:
        channel_id = self._ledger.channel_id
        if channel_id is None:
            dm = await self._persist(lambda: self._client.create_dm(discord.Object(user_id)))
            channel_id = dm.id
            await self._note(channel_id=channel_id)
        return self._client.get_partial_messageable(channel_id, type=discord.ChannelType.private)

    async def _show(self, channel: discord.PartialMessageable, follower: RunFollower, status: RunStatus) -> None:
        sent = self._ledger.card
        if sent is None or sent.message_id is None:
            await self._send("card", channel, follower, status)
        elif not self._card_is_gone:
            message = channel.get_partial_message(sent.message_id)
            embed, chart = await self._draw("card", follower, status)
            try:
                await self._persist(
                    lambda: message.edit(
                        embed=embed, attachments=attach_chart(embed, chart, status), view=_buttons(status)
                    )
                )
            except NOT_FOUND:
                self._card_is_gone = True
                log.warning("card was deleted", run_id=self._run.run_id)
            self._next_edit = time.monotonic() + self._edit_interval_seconds

    async def _send(
        self, slot: Slot, channel: discord.PartialMessageable, follower: RunFollower, status: RunStatus
    ) -> None:
        """Create the slot's message once, however often this is tried."""
        embed, chart = await self._draw(slot, follower, status)
        sent = self._ledger.card if slot == "card" else self._ledger.final
        is_unknown = sent is not None
        sent = sent or SentMessage(nonce=_nonce(self._run.run_id, slot))
        await self._note(**{slot: sent})

        async def look_then_send() -> int:
            nonlocal is_unknown
            found = await self._find(slot, channel) if is_unknown else None
            is_unknown = True
            if found is not None:
                return found
            message = await channel.send(
                embed=embed, files=attach_chart(embed, chart, status), view=_buttons(status), nonce=sent.nonce
            )
            return message.id

        message_id = await self._persist(look_then_send)
        await self._note(**{slot: SentMessage(nonce=sent.nonce, message_id=message_id)})

    async def _find(self, slot: Slot, channel: discord.PartialMessageable) -> int | None:
        """The slot's message in the channel's history, by its footer."""
        footer = self._run.run_id if slot == "card" else final_footer(self._run.run_id)
        async for message in channel.history(limit=_HISTORY_MESSAGES):
            if message.author == self._client.user and any(embed.footer.text == footer for embed in message.embeds):
                return message.id
        return None

    async def _draw(self, slot: Slot, follower: RunFollower, status: RunStatus) -> tuple[discord.Embed, bytes | None]:
        losses = [loss for _, loss in follower.train_losses]
        embed = (run_card if slot == "card" else final_message)(follower.record, status, losses)
        return embed, await self._charts.loss_chart(follower.train_losses, follower.val_losses)

    async def _persist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call Discord until it answers, waiting longer each time; what it refuses is raised."""
        seconds = _FIRST_RETRY_SECONDS
        while True:
            try:
                return await call()
            except CALL_ERRORS as error:
                if not is_transient(error):
                    raise
                log.warning("Discord did not answer, trying again", run_id=self._run.run_id, error=str(error))
            await asyncio.sleep(seconds)
            seconds = min(_LONGEST_RETRY_SECONDS, seconds * 2)

    async def _note(self, **changes: object) -> None:
        self._ledger = self._ledger.model_copy(update=changes)
        data = self._ledger.model_dump_json().encode()
        await asyncio.to_thread(write_atomically, self._run.message_ledger, data)


def _nonce(run_id: str, slot: Slot) -> str:
    return sha256(f"{run_id}:{slot}".encode()).hexdigest()[:_NONCE_CHARACTERS]


def _buttons(status: RunStatus) -> discord.ui.View:
    """A Cancel button while there is something to cancel; the id alone says which run, so it outlives the process."""
    view = discord.ui.View(timeout=None)
    if status.status in ("queued", "running"):
        button: discord.ui.Button[discord.ui.View] = discord.ui.Button(
            label="Cancel", style=discord.ButtonStyle.danger, custom_id=f"mt:cancel:{status.run_id}"
        )
        view.add_item(button)
    view.stop()  # Bot.on_interaction answers, so the library need not remember the view
    return view
