"""The bot: one Discord client with the job queue, the services beside it and the listener that tells people."""

import asyncio
import re
from contextlib import AsyncExitStack
from typing import Protocol

import discord
import structlog
import yarl
from discord import app_commands
from discord.gateway import DiscordWebSocket
from discord.http import Route

from bot.chart_process import ChartProcess
from bot.commands.group import Tree
from bot.commands.inference import generate, score
from bot.commands.runs import cancel, cancel_clicked, status
from bot.commands.training import train
from bot.discord_errors import NOT_FOUND
from bot.listener import Listener
from bot.permissions import Permissions
from trainer.contracts.settings import Settings
from trainer.queue import JobQueue
from trainer.services import Services

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_CANCEL_BUTTON = re.compile(r"mt:cancel:(?P<run>[a-z0-9][a-z0-9_-]{0,63})")
_LONGEST_RATE_LIMIT_SECONDS = 60.0


class Bot(discord.Client):
    """Answers commands and buttons; all that lasts is on disk, so that any two bots are the same bot."""

    queue: JobQueue
    listener: Listener

    def __init__(self, settings: Settings) -> None:
        discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # this bot does not speak
        super().__init__(
            intents=discord.Intents(guilds=True),
            allowed_mentions=discord.AllowedMentions.none(),
            max_ratelimit_timeout=_LONGEST_RATE_LIMIT_SECONDS,
        )
        self.settings = settings
        self.permissions = Permissions(settings.discord, self._is_member)
        self.charts = ChartProcess()
        self.tree = Tree(self)
        self._services = Services(settings)
        self._started = AsyncExitStack()
        self._add_commands()
        _use_addresses(settings)

    async def setup_hook(self) -> None:
        """Start what the bot stands on, take up unfinished deliveries, and tell Discord the commands."""
        redis_url = await self._services.start()
        self.queue = await JobQueue.connect(self.settings, redis_url)
        self._started.push_async_callback(self.queue.close)
        self.listener = Listener(
            self.queue.runs,
            self.queue,
            self,
            self.charts,
            edit_interval_seconds=self.settings.discord.edit_interval_seconds,
        )
        self._started.push_async_callback(self.listener.stop)
        await self.listener.start()
        await self.tree.sync()

    async def on_ready(self) -> None:
        log.info("bot is ready", user_id=self.user and self.user.id, guilds=len(self.guilds))

    async def on_interaction(self, interaction: discord.Interaction["Bot"]) -> None:
        """Answer the buttons of cards, whichever bot process sent them."""
        data = interaction.data
        if interaction.type is discord.InteractionType.component and data is not None:
            found = _CANCEL_BUTTON.fullmatch(str(data.get("custom_id")))
            if found:
                await cancel_clicked(interaction, found["run"])

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

    def _add_commands(self) -> None:
        mt = app_commands.Group(
            name="mt",
            description="Train small language models, and ask them.",
            allowed_installs=app_commands.AppInstallationType(guild=True, user=True),
            allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=True),
        )
        mt.add_command(train)
        mt.add_command(status)
        mt.add_command(cancel)
        mt.add_command(score)
        mt.add_command(generate)
        self.tree.add_command(mt)


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
