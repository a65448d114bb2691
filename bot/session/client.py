"""The Discord client: attributes, start and shutdown."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Literal, TypeAlias, TypeVar
from uuid import uuid4

import discord
import structlog
import yarl
from discord import app_commands
from discord.gateway import DiscordWebSocket

from bot.messages.buttons import ButtonPress, parse_press
from bot.notifications.broken_workers import report_broken_workers
from bot.notifications.notifier import Notifier
from bot.people.user_settings import CatalogueTranslator, UserSettingsStore
from bot.people.watchers import Watcher
from bot.processes.chart_process import ChartProcess
from bot.rest.errors import CALL_ERRORS, HTTP_ERROR, NOT_FOUND, ROUTE, answer_trace, error_code, is_closed, retry
from bot.rest.proxy import proxy_for
from bot.session.deferred import DeferredInteractions
from trainer.config.settings import Settings
from trainer.http.backend import Backend
from trainer.lab.lab import Lab
from trainer.lab.language import use_language
from trainer.system.logs import say
from trainer.system.retries import back_off

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

_MAX_RATE_LIMIT_SECONDS = 60.0
_UNREACHABLE = "Discord is not reachable from this machine. The bot tries again; `mt up --no-discord` runs without it."
_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS = 1.0, 60.0
POSTING = discord.Permissions(
    **{"view_channel": True, "send_messages": True, "send_messages_in_threads": True, "embed_links": True},
    **{"attach_files": True, "read_message_history": True},
)
"""Rights that the bot needs for cards in the channels of a server.

It needs the history, too, to find out after a crash whether a message has arrived.
"""
OWNER_DM_CLOSED = (
    "The bot cannot send direct messages to the owner. Add it to your account, or to a server where you are a member,"
    " and allow direct messages there."
)
RIVAL = (
    "Another process answers commands with the same DISCORD__TOKEN. Stop one of the two, or create an application for"
    " each of them in Discord's developer portal."
)


class Bot(discord.Client):
    """Answers commands and buttons; all lasting state is on disk."""

    lab: Lab
    notifier: Notifier
    tree: app_commands.CommandTree["Bot"]

    def __init__(self, settings: Settings, answer_press: "PressHandler") -> None:
        discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # this bot does not speak
        root = settings.app.artifacts_root
        self.user_settings = UserSettingsStore(root / "users", settings.app.unit)
        self.backend = Backend(settings, self._is_member)
        super().__init__(
            intents=discord.Intents(guilds=True),
            allowed_mentions=discord.AllowedMentions.none(),
            max_ratelimit_timeout=_MAX_RATE_LIMIT_SECONDS,
            http_trace=answer_trace(self.backend.discord_answers),
            proxy=proxy_for(settings.discord),
        )
        self.settings = settings
        self.owner_dm: Literal["open", "closed", "unknown"] = "unknown"
        """State of the owner's direct messages as of the start."""
        self._is_introduced = self._is_unreachable = False
        self.has_rival = False
        """True if another process has answered a command with the same token."""
        self.charts = ChartProcess()
        self.deferred = DeferredInteractions(root / "deferred")
        self.offered_files: dict[str, discord.Attachment] = {}
        """The files of open forms, by form; the oldest ones are forgotten."""
        self._answers: set[asyncio.Task[object] | None] = set()
        self._started = AsyncExitStack()
        self._answer_press = answer_press
        _use_addresses(settings)

    async def start(self, token: str, *, reconnect: bool = True) -> None:
        """Log in, start all parts and stay connected, over any time in which Discord is unavailable.

        Raises discord.LoginFailure for a wrong token; discord.ConnectionClosed or discord.PrivilegedIntentsRequired
        if Discord permanently refuses the connection.
        """
        self._started.push_async_callback(self.backend.close)
        await self.backend.start()  # the HTTP API does not wait for Discord
        await self._retry(lambda: self._log_in(token))
        await self._set_up()
        await self.tree.set_translator(CatalogueTranslator())
        await self._retry(self.tree.sync)
        waits = back_off(_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS)
        while True:
            try:
                return await self.connect(reconnect=reconnect)
            except AttributeError:
                # discord.py looks for a session to resume even after its first connection was refused
                socket: object = self.ws
                if socket is not None:
                    raise
            await asyncio.sleep(next(waits))

    async def _log_in(self, token: str) -> None:
        try:
            await self.login(token)
        except CALL_ERRORS as error:
            if not isinstance(error, discord.DiscordException):
                if not self._is_unreachable:
                    say(self.settings, _UNREACHABLE)
                self._is_unreachable = True
                log.warning("discord_unreachable", reason=_UNREACHABLE)
            await self.http.close()  # each try opens a session of its own
            self.http.connector = discord.utils.MISSING
            raise

    async def _retry(self, call: Callable[[], Awaitable[T]]) -> T:
        return await retry(call, back_off(_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS), log)

    async def _set_up(self) -> None:
        """Answer interrupted commands, and continue deliveries."""
        self._started.push_async_callback(self.deferred.stop)
        await self.deferred.start(self.http.user_agent)
        self.lab = self.backend.lab
        self.notifier = Notifier(
            self.settings.app.artifacts_root,
            self.lab.feeds,
            self.lab.queue.states.next_run_ids,
            self,
            self.charts,
            self.lab.permissions.can_receive,
            self.user_settings.unit_of,
            edit_interval_seconds=self.settings.discord.edit_interval_seconds,
            listeners=[self.backend.webhooks.wake],
            owner=self._owner_as_watcher,
        )
        self._started.push_async_callback(self.notifier.stop)
        await self.notifier.start()
        self._answers.add(asyncio.create_task(self._check_owner_dm()))
        self._answers.add(asyncio.create_task(self._report_broken_workers()))
        self._started.push_async_callback(self._end_answers)

    def _owner_as_watcher(self) -> Watcher | None:
        """Return the owner as the watcher of a run that no Discord user has started; None if that is switched off."""
        owner_id = self.settings.discord.owner_id
        if owner_id is None or not self.settings.discord.notify_owner:
            return None
        chosen = self.user_settings.of(owner_id)
        return None if chosen.notify == "off" else Watcher(user_id=owner_id, language=chosen.language or "en")

    async def _check_owner_dm(self) -> None:
        """Open the owner's direct messages and show there that the bot types, which sends no message."""
        owner_id = self.settings.discord.owner_id
        if owner_id is None:
            return

        async def type_to_owner() -> None:
            channel = await self.create_dm(discord.Object(owner_id))
            await channel.typing()

        try:
            await self._retry(type_to_owner)
            self.owner_dm = "open"
        except HTTP_ERROR as error:
            if is_closed(error):
                self.owner_dm = "closed"
                log.warning("owner_dm_closed", user_id=owner_id)
                say(self.settings, OWNER_DM_CLOSED)
            else:
                log.error("owner_dm_unknown", user_id=owner_id, exc_info=error)

    async def _report_broken_workers(self) -> None:
        """Send the owner a message about workers that break, unless the owner has switched messages off."""
        owner_id = self.settings.discord.owner_id
        if owner_id is None:
            return

        async def send(message: discord.Embed, nonce: str) -> None:
            channel = await self.create_dm(discord.Object(owner_id))
            await channel.send(embed=message, nonce=nonce)

        async def send_if_wanted(message: discord.Embed) -> None:
            if self.user_settings.of(owner_id).notify != "off":
                nonce = uuid4().hex[:25]
                try:
                    await self._retry(lambda: send(message, nonce))
                except HTTP_ERROR as error:
                    log.warning("owner_not_reached", user_id=owner_id, error_code=str(error_code(error)))

        use_language(self.user_settings.of(owner_id).language or "en")
        await report_broken_workers(self.lab.queue.workers, send_if_wanted)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """End the current task with the bot, before the services that it uses."""
        task: asyncio.Task[object] | None = asyncio.current_task()
        self._answers.add(task)
        try:
            yield
        finally:
            self._answers.discard(task)

    async def _end_answers(self) -> None:
        tasks = [task for task in self._answers if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def on_ready(self) -> None:
        log.info("bot_ready", user_id=self.user and self.user.id, guilds=len(self.guilds))
        say(self.settings, f"Discord: connected as {self.user}.")
        if self.application_id is not None and not self._is_introduced:
            self._is_introduced = True
            for_account, for_server = install_links(self.application_id)
            if self.settings.app.env == "prod":
                log.info("bot_links", account_link=for_account, server_link=for_server)
            say(self.settings, f"To add it to your account, open {for_account}")
            say(self.settings, f"To add it to a server, open {for_server}")

    async def on_interaction(self, interaction: discord.Interaction["Bot"]) -> None:
        """Answer buttons and forms, also those of an earlier process."""
        if interaction.type in (discord.InteractionType.component, discord.InteractionType.modal_submit):
            press = parse_press(interaction.data)
            if press is not None:
                await self._answer_press(interaction, press)

    async def close(self) -> None:
        """Stop everything that this bot has started; services stop while the client disconnects."""
        try:
            await self._started.aclose()
        finally:
            self.charts.close()
            stopping = asyncio.create_task(self.backend.stop_services())
            try:
                await super().close()
            finally:
                await stopping

    async def _is_member(self, guild_id: int, user_id: int) -> bool:
        await self.wait_until_ready()
        guild = self.get_guild(guild_id)
        if guild is not None:
            with suppress(NOT_FOUND):
                await guild.fetch_member(user_id)
                return True
        return False


def install_links(application_id: int) -> tuple[str, str]:
    """Return the addresses that add an application to a person's account, and to a server."""
    commands = "applications.commands"
    account = discord.utils.oauth_url(application_id, scopes=(commands,))
    server = discord.utils.oauth_url(application_id, scopes=("bot", commands), permissions=POSTING)
    return f"{account}&integration_type=1", f"{server}&integration_type=0"


PressHandler: TypeAlias = Callable[[discord.Interaction[Bot], ButtonPress], Awaitable[None]]


def _use_addresses(settings: Settings) -> None:
    """Use the addresses of the settings: of a proxy, or of a local Discord."""
    if settings.discord.api_base_url is not None:
        ROUTE.BASE = str(settings.discord.api_base_url).rstrip("/")
    if settings.discord.gateway_url is not None:
        DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(str(settings.discord.gateway_url))
