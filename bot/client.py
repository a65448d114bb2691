"""The Discord client: its attributes and its life cycle."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Protocol, TypeAlias, TypeVar

import discord
import structlog
import yarl
from discord import app_commands
from discord.gateway import DiscordWebSocket
from discord.http import Route

from bot.buttons import Pressed, pressed
from bot.chart_process import ChartProcess
from bot.deferred import DeferredInteractions
from bot.discord_errors import CALL_ERRORS, NOT_FOUND
from bot.forms import filled
from bot.limits import UsageLimits
from bot.notifier import Listener
from bot.permissions import Permissions
from bot.retries import back_off, until_answered
from bot.run_index import RunIndex
from trainer.config.settings import Settings
from trainer.jobs.queue import JobQueue
from trainer.jobs.services import Services
from trainer.store.store import connect

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

_LONGEST_RATE_LIMIT_SECONDS = 60.0
_QUEUE_RETRIES = 4
"""So few that who gives a command while the queue is away hears of it within 3 seconds."""
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 1.0, 60.0


class Bot(discord.Client):
    """Answers commands and buttons; all that lasts is on disk, so that any two bots are the same bot."""

    queue: JobQueue
    limits: UsageLimits
    index: RunIndex
    listener: Listener

    tree: app_commands.CommandTree["Bot"]
    group_payload: dict[str, object]
    """The commands as Discord receives them."""

    def __init__(
        self, settings: Settings, buttons: "Mapping[str, ButtonHandler]", forms: "Mapping[str, FormHandler]"
    ) -> None:
        discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # this bot does not speak
        super().__init__(
            intents=discord.Intents(guilds=True),
            allowed_mentions=discord.AllowedMentions.none(),
            max_ratelimit_timeout=_LONGEST_RATE_LIMIT_SECONDS,
        )
        self.settings = settings
        self.permissions = Permissions(settings.discord, self._is_member)
        self.charts = ChartProcess()
        self.deferred = DeferredInteractions(settings.app.artifacts_root / "deferred")
        self._services = Services(settings)
        self._started = AsyncExitStack()
        self._buttons = buttons
        self._forms = forms
        _use_addresses(settings)

    async def start(self, token: str, *, reconnect: bool = True) -> None:
        """Log in, set up and stay connected until the end, however long Discord is away meanwhile.

        Raises what will not get better: discord.LoginFailure for a wrong token, discord.ConnectionClosed and
        discord.PrivilegedIntentsRequired where Discord has closed the gateway for good.
        """
        await self._until_answered(lambda: self._log_in(token))
        await self._set_up()
        await self._until_answered(self.tree.sync)
        waits = back_off(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
        while True:
            try:
                return await self.connect(reconnect=reconnect)
            except AttributeError:
                # discord.py asks a first connection that was refused for the session to go on with
                made: object = self.ws
                if made is not None:
                    raise
            await asyncio.sleep(next(waits))

    async def _log_in(self, token: str) -> None:
        try:
            await self.login(token)
        except CALL_ERRORS:
            await self.http.close()  # each try opens a session of its own
            self.http.connector = discord.utils.MISSING
            raise

    async def _until_answered(self, call: Callable[[], Awaitable[T]]) -> T:
        return await until_answered(call, back_off(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS), log)

    async def _set_up(self) -> None:
        """Start what the bot stands on, answer what an earlier bot left, and take up unfinished deliveries."""
        self._started.push_async_callback(self.deferred.stop)
        await self.deferred.start(self.http.user_agent)
        redis_url = await self._services.start()
        self.queue = JobQueue(self.settings, await connect(redis_url, retries=_QUEUE_RETRIES))
        self._started.push_async_callback(self.queue.close)
        self.limits = UsageLimits(self.settings.limits)
        self.index = RunIndex(self.queue, self.settings.app.artifacts_root)
        self._started.push_async_callback(self.index.stop)
        self.index.start()
        self.listener = Listener(
            self.queue.runs,
            self.queue,
            self,
            self.charts,
            self.permissions.may_be_told,
            edit_interval_seconds=self.settings.discord.edit_interval_seconds,
        )
        self._started.push_async_callback(self.listener.stop)
        await self.listener.start()

    async def on_ready(self) -> None:
        log.info("bot is ready", user_id=self.user and self.user.id, guilds=len(self.guilds))

    async def on_interaction(self, interaction: discord.Interaction["Bot"]) -> None:
        """Answer buttons and forms, whichever bot process sent them."""
        data = interaction.data
        if interaction.type is discord.InteractionType.component and data is not None:
            found = pressed(str(data.get("custom_id")), _chosen(data.get("values")))
            if found is not None and found.action in self._buttons:
                await self._buttons[found.action](interaction, found)
        elif interaction.type is discord.InteractionType.modal_submit and data is not None:
            sent = pressed(str(data.get("custom_id")))
            if sent is not None and sent.action in self._forms:
                await self._forms[sent.action](interaction, sent, filled(data))

    async def close(self) -> None:
        """End everything that this bot has started, the services while it leaves Discord."""
        try:
            await self._started.aclose()
        finally:
            self.charts.close()
            stopping = asyncio.create_task(self._services.stop())
            try:
                await super().close()
            finally:
                await stopping

    async def _is_member(self, guild_id: int, user_id: int) -> bool:
        await self.wait_until_ready()
        guild = self.get_guild(guild_id)
        if guild is None:
            return False
        try:
            await guild.fetch_member(user_id)
        except NOT_FOUND:
            return False
        return True


def _chosen(values: object) -> list[str]:
    """What was chosen from a list; nothing where a button was pressed."""
    listed: list[object] = values if isinstance(values, list) else []
    return [str(value) for value in listed]


ButtonHandler: TypeAlias = Callable[[discord.Interaction[Bot], Pressed], Awaitable[None]]
FormHandler: TypeAlias = Callable[[discord.Interaction[Bot], Pressed, dict[str, str]], Awaitable[None]]


class _HasBase(Protocol):
    """The part of discord.py's Route that is set here."""

    BASE: str


def _use_addresses(settings: Settings) -> None:
    """Reach Discord where the settings say: through a proxy, or on this machine."""
    if settings.discord.api_base_url is not None:
        route: _HasBase = Route
        route.BASE = str(settings.discord.api_base_url).rstrip("/")
    if settings.discord.gateway_url is not None:
        DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(str(settings.discord.gateway_url))
