"""The server as one object, with methods for people who type, click and read."""

import asyncio
import re
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple, Self

from aiohttp import web
from pydantic import JsonValue

from local_discord import limits
from local_discord.client import (
    ClientRefusal,
    OptionValue,
    command_data,
    component_data,
    find_command,
    modal_data,
)
from local_discord.gateway import Drop, Gateway
from local_discord.ratelimit import MESSAGES, Limit, RateLimiter
from local_discord.rest import Fault, FaultAction, RequestRecord, Rest, SentBody
from local_discord.routes import Routes, integration_owners
from local_discord.state import (
    MEMBER_PERMISSIONS,
    Call,
    Channel,
    Guild,
    StoredMessage,
    Upload,
    User,
    Violation,
    World,
)
from local_discord.validation import Description
from local_discord.wire import Json, items, mapping, number, rows, text

COMMAND, COMPONENT, AUTOCOMPLETE, MODAL = 2, 3, 4, 5


class Choice(NamedTuple):
    name: str
    value: str | int | float


class LocalDiscord:
    """A Discord on loopback; `violations` stays empty while the bot keeps to Discord's rules.

    The default deadlines are Discord's. `port` 0 takes any free port.
    """

    def __init__(
        self,
        *,
        token: str,
        application_id: int | None = None,
        port: int = 0,
        answer_seconds: float = limits.ANSWER_SECONDS,
        token_seconds: float = limits.TOKEN_SECONDS,
        message_limit: Limit = MESSAGES,
    ) -> None:
        self._world = World(token, application_id, Description())
        self._gateway = Gateway(self._world)
        routes = Routes(self._world, self._gateway, answer_seconds=answer_seconds, token_seconds=token_seconds)
        self._rest = Rest(self._world, routes, RateLimiter(message_limit))
        self._answer_seconds, self._token_seconds, self._port = answer_seconds, token_seconds, port
        self._runner: web.AppRunner | None = None
        self._timers: list[asyncio.TimerHandle] = []

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=256 * 1024 * 1024)
        app.router.add_route("*", "/api/v10/{rest:.*}", self._rest.handle)
        app.router.add_get("/gateway", self._gateway.handle)
        for folder in ("attachments", "ephemeral-attachments"):
            app.router.add_get(f"/{folder}/{{channel_id}}/{{file_id}}/{{name}}", self._rest.file)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = _bound_port(self._runner)
        self._world.base_url = f"http://127.0.0.1:{self._port}"
        self._gateway.url = self.gateway_url
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for timer in self._timers:
            timer.cancel()
        for call in self.unresolved:
            self._world.violate("unresolved", call.name, "Deferred, and never filled.")
        self._gateway.close()
        if self._runner is not None:
            await self._runner.cleanup()

    # Addresses and records

    @property
    def api_base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/api/v10"

    @property
    def gateway_url(self) -> str:
        return f"ws://127.0.0.1:{self._port}/gateway"

    @property
    def cdn_base_url(self) -> str:
        return self._world.base_url

    @property
    def application_id(self) -> int:
        return self._world.application_id

    @property
    def violations(self) -> list[Violation]:
        return self._world.violations

    @property
    def requests(self) -> list[RequestRecord]:
        return self._rest.requests

    @property
    def bodies(self) -> list[SentBody]:
        """Bodies of the requests, in order."""
        return self._rest.bodies

    @property
    def unresolved(self) -> list[Call]:
        """Return the calls that were deferred and still show "thinking"."""
        return [call for call in self._world.calls.values() if call.is_unresolved]

    @property
    def commands(self) -> list[Json]:
        return self._world.commands

    @property
    def faults(self) -> list[Fault]:
        """Return the faults that no request has met yet."""
        return self._rest.faults

    # The world

    def add_user(self, name: str, *, dms_open: bool = True) -> User:
        user = User(self._world.snowflakes.next(), name)
        self._world.users[user.id] = user
        self.set_dms(user, is_open=dms_open)
        return user

    def set_dms(self, user: User, *, is_open: bool) -> None:
        (self._world.closed_dms.discard if is_open else self._world.closed_dms.add)(user.id)

    def add_guild(self, name: str, members: list[User], *, bot_present: bool = True) -> Guild:
        """Add a guild with one channel; its first member owns it."""
        guild = Guild(self._world.snowflakes.next(), name, members[0], bot_present=bot_present)
        guild.members += members
        self._world.guilds[guild.id] = guild
        guild.channels.append(self._world.add_channel(Channel(self._world.snowflakes.next(), "general", guild.id)))
        if bot_present:
            guild.members.append(self._world.bot)
            self._gateway.introduce(guild)
        return guild

    def dm_channel(self, user: User) -> Channel:
        return self._world.dm_channel(user)

    def messages(self, channel: Channel, *, seen_by: User | None = None) -> list[StoredMessage]:
        """Return the messages of a channel, oldest first, with the ephemeral ones of a user."""
        stored = self._world.messages[channel.id].values()
        return [m for m in stored if not m.deleted and (m.visible_to is None or m.visible_to == seen_by)]

    def read(self, attachment: Json) -> bytes:
        """Return the bytes of an attachment of a message."""
        return self._world.files[number(attachment["id"])].data

    # Waiting

    async def connected(self, timeout: float = limits.PATIENCE_SECONDS) -> None:
        def look() -> bool | None:
            return self._gateway.is_connected or None

        await self._world.changes.until(look, timeout, "A gateway session")

    async def disconnected(self, timeout: float = limits.PATIENCE_SECONDS) -> None:
        """Wait until a killed bot is disconnected, before `connected` of the next one."""

        def look() -> bool | None:
            return None if self._gateway.is_connected else True

        await self._world.changes.until(look, timeout, "The end of the gateway connection")

    async def synced(self, timeout: float = limits.PATIENCE_SECONDS) -> list[Json]:
        """Wait for the bot's commands and return them."""
        return await self._world.changes.until(lambda: self._world.commands or None, timeout, "Command sync")

    async def wait_for_message(
        self,
        channel: Channel,
        pattern: str = "",
        *,
        after: StoredMessage | None = None,
        timeout: float = limits.PATIENCE_SECONDS,
    ) -> StoredMessage:
        """Wait for a message, newer than `after`, whose text matches a regular expression; return the newest."""

        def look() -> StoredMessage | None:
            newest = reversed(self.messages(channel))
            later = (message for message in newest if after is None or message.id > after.id)
            return next((message for message in later if re.search(pattern, shown_text(message.payload))), None)

        return await self._world.changes.until(look, timeout, f"A message like {pattern!r}")

    async def wait_for_edit(
        self, message: StoredMessage, pattern: str = "", timeout: float = limits.PATIENCE_SECONDS
    ) -> StoredMessage:
        """Wait until a message has been edited and its text matches."""

        def look() -> StoredMessage | None:
            edited = len(message.versions) > 1 and re.search(pattern, shown_text(message.payload))
            return message if edited else None

        return await self._world.changes.until(look, timeout, f"An edit to {pattern!r}")

    # What people do

    async def say(self, user: User, channel: Channel, content: str, *files: Upload) -> StoredMessage:
        """Send a person's own message."""
        if len(content) > limits.MESSAGE_CONTENT:
            raise ClientRefusal(f"A message has at most {limits.MESSAGE_CONTENT} characters.")
        uploads = dict(enumerate(files))
        return self._world.create_message(channel, user, {"content": content}, uploads, {})

    async def slash(
        self, user: User, command: str, options: Mapping[str, OptionValue] | None = None, *, guild: Guild | None = None
    ) -> Call:
        """Type a command ("mt train") in the guild's first channel, or in direct messages with the bot."""
        leaf = find_command(self.commands, command)
        channel = self._visible(leaf.command, user, guild)
        data = command_data(leaf, options or {}, self._store_in(channel))
        return self._begin(COMMAND, user, channel, data)

    async def autocomplete(
        self,
        user: User,
        command: str,
        option: str,
        typed: str,
        options: Mapping[str, OptionValue] | None = None,
        *,
        guild: Guild | None = None,
        timeout: float = limits.PATIENCE_SECONDS,
    ) -> list[Choice]:
        """Return the suggestions for `option` after `typed`, with the other options."""
        leaf = find_command(self.commands, command)
        channel = self._visible(leaf.command, user, guild)
        declared = next((row for row in leaf.options if row["name"] == option), None)
        if declared is None or declared.get("autocomplete") is not True:
            raise ClientRefusal(f"/{command} has no autocomplete for {option}.")
        data = command_data(leaf, {**(options or {}), option: typed}, self._store_in(channel), focused=option)
        call = self._begin(AUTOCOMPLETE, user, channel, data, focused_type=number(declared["type"]))
        await call.answered(timeout)
        return [_choice(row) for row in rows(call.callback_data.get("choices"))]

    async def click(self, user: User, message: StoredMessage, custom_id: str, values: list[str] | None = None) -> Call:
        """Press a button, or select `values` in a list."""
        if message.deleted or message.visible_to not in (None, user):
            raise ClientRefusal(f"{user.name} does not see this message.")
        data = component_data(message.components, custom_id, values)
        return self._begin(COMPONENT, user, message.channel, data, source=message)

    async def submit_modal(self, opened_by: Call, values: Mapping[str, str]) -> Call:
        """Fill in and submit the modal that answered `opened_by`, which closes it."""
        form = await opened_by.form()
        if opened_by.is_submitted:
            raise ClientRefusal(f"The modal of {opened_by.name} is closed.")
        data = modal_data(form, values)
        opened_by.is_submitted = True
        return self._begin(MODAL, opened_by.user, opened_by.channel, data, source=opened_by.source)

    # Faults

    def fail_next(
        self, method: str, template: str, action: FaultAction, *, times: int = 1, retry_after_seconds: float = 0.1
    ) -> None:
        """Answer the next requests of a route of the API description with a fault.

        "reset" breaks the connection before the work, "reply_lost" after it.
        """
        self._rest.faults += [Fault(method, template, action, retry_after_seconds)] * times

    def drop_gateway(self, how: Drop | int = "abort") -> None:
        """Break the bot's gateway connection; see `Gateway.drop`."""
        self._gateway.drop(how)

    # Interactions

    def _visible(self, command: Json, user: User, guild: Guild | None) -> Channel:
        """Return the channel of a command; raises ClientRefusal where a client does not offer the command."""
        name = text(command["name"])
        contexts, installs = items(command.get("contexts")), items(command.get("integration_types"))
        if contexts and (1 if guild is None else 0) not in contexts:
            raise ClientRefusal(f"/{name} is not offered {'in DMs' if guild is None else 'in guilds'}.")
        if guild is None:
            return self._world.dm_channel(user)
        if user not in guild.members:
            raise ClientRefusal(f"{user.name} is not a member of {guild.name}.")
        if not guild.bot_present and 1 not in installs:
            raise ClientRefusal(f"/{name} cannot be installed by users, and the bot is not in {guild.name}.")
        return guild.channels[0]

    def _store_in(self, channel: Channel) -> Callable[[Upload], Json]:
        return lambda upload: self._world.add_file(channel, upload, ephemeral=True)

    def _begin(
        self,
        kind: int,
        user: User,
        channel: Channel,
        data: Json,
        *,
        source: StoredMessage | None = None,
        focused_type: int = 0,
    ) -> Call:
        """Create an interaction, start its deadlines and send it to the bot."""
        guild = self._world.guild_of(channel)
        call = Call(self._world.snowflakes.next(), kind, user, channel, guild, data, self._world.changes)
        call.source, call.focused_type = source, focused_type
        self._world.calls[call.token] = call
        loop = asyncio.get_running_loop()
        self._timers += [
            loop.call_later(self._answer_seconds, self._check_answered, call),
            loop.call_later(self._token_seconds, self._check_resolved, call),
        ]
        self._gateway.dispatch("INTERACTION_CREATE", self._payload(call))
        return call

    def _payload(self, call: Call) -> Json:
        channel, user = call.channel.payload(), call.user.payload()
        self._world.check("PrivateChannelResponse" if call.guild is None else "GuildChannelResponse", channel)
        self._world.check("UserResponse", user)
        for attachment in mapping(mapping(call.data.get("resolved")).get("attachments")).values():
            self._world.check("MessageAttachmentResponse", attachment)
        rights = str(MEMBER_PERMISSIONS)
        payload: Json = {
            **{"id": str(call.id), "application_id": str(self.application_id), "type": call.type, "version": 1},
            **{"token": call.token, "data": call.data, "channel_id": str(call.channel.id), "locale": "en-US"},
            **{"channel": {**channel, "permissions": rights}, "app_permissions": rights},
            **{"entitlements": [], "attachment_size_limit": limits.ATTACHMENT_BYTES},
            **{"authorizing_integration_owners": integration_owners(call.guild, call.user)},
            "context": 1 if call.guild is None else 0,
        }
        if call.source is not None:
            self._world.check("MessageResponse", call.source.payload)
            payload["message"] = call.source.payload
        if call.guild is None:
            return {**payload, "user": user}
        member = call.guild.member_payload(call.user)
        self._world.check("GuildMemberResponse", member)
        member["permissions"] = rights
        place: Json = {"id": str(call.guild.id), "locale": "en-US", "features": []}
        return {**payload, "guild_id": place["id"], "guild": place, "guild_locale": "en-US", "member": member}

    def _check_answered(self, call: Call) -> None:
        if call.answered_seconds is None:
            call.expired = True
            self._world.violate("unanswered", call.name, f"No answer within {self._answer_seconds} s.")

    def _check_resolved(self, call: Call) -> None:
        if call.is_unresolved:
            self._world.violate("unresolved", call.name, f"Still deferred after {self._token_seconds} s.")


def shown_text(payload: Json) -> str:
    """Return the visible text of a message: its content and every text of its embeds, line by line."""
    lines: list[JsonValue] = [payload.get("content")]
    for embed in rows(payload.get("embeds")):
        lines += [embed.get("title"), embed.get("description"), mapping(embed.get("footer")).get("text")]
    return "\n".join(line for line in lines if isinstance(line, str))


def _choice(row: Json) -> Choice:
    value = row["value"]
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"A choice has the value {value!r}, which is neither text nor a number.")
    return Choice(text(row["name"]), value)


def _bound_port(runner: web.AppRunner) -> int:
    addresses: list[tuple[str, int]] = runner.addresses
    return addresses[0][1]
