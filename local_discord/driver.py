"""The server as one object, with methods for people who type, click and read."""

import asyncio
import re
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

from aiohttp import web
from pydantic import JsonValue

from local_discord import limits
from local_discord.client import ClientRefusal, OptionValue, command_data, component_data, find_command, modal_data
from local_discord.gateway import Drop, Gateway
from local_discord.rest import MESSAGES, OVERALL, Fault, FaultAction, Limit, RateLimiter, Rest
from local_discord.routes import Routes, integration_owners
from local_discord.state import Call, Channel, Guild, StoredMessage, Upload, User, World
from local_discord.wire import Json, items, mapping, number, rows, text

COMMAND, COMPONENT, AUTOCOMPLETE, MODAL = 2, 3, 4, 5
# View, send, embed, attach, read history, mention everyone, use commands: the usual @everyone rights.
MEMBER_PERMISSIONS = 1 << 10 | 1 << 11 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 31


class Choice(NamedTuple):
    name: str
    value: str


class LocalDiscord(World):
    """A Discord on loopback; `violations` stays empty while the bot keeps to Discord's rules.

    The default deadlines are Discord's.
    """

    def __init__(
        self,
        *,
        token: str,
        answer_seconds: float = limits.ANSWER_SECONDS,
        message_limit: Limit = MESSAGES,
        overall_limit: Limit = OVERALL,
    ) -> None:
        super().__init__(token)
        self._answer_seconds = answer_seconds
        self._gateway = Gateway(self)
        self._rest = Rest(self, Routes(self), RateLimiter(message_limit, overall_limit))
        self.requests, self.bodies, self.faults = self._rest.requests, self._rest.bodies, self._rest.faults
        app = web.Application(client_max_size=256 * 1024 * 1024)
        app.router.add_route("*", "/api/v10/{rest:.*}", self._rest.handle)
        app.router.add_get("/gateway", self._gateway.handle)
        app.router.add_get("/attachments/{channel_id}/{file_id}/{name}", self._rest.file)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self._timers: list[asyncio.TimerHandle] = []

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        addresses: list[tuple[str, int]] = self._runner.addresses
        host = f"127.0.0.1:{addresses[0][1]}"
        self.cdn_base_url, self.api_base_url = f"http://{host}", f"http://{host}/api/v10"
        self.gateway_url = f"ws://{host}/gateway"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for timer in self._timers:
            timer.cancel()
        for call in self.unresolved:
            self.violate("unresolved", call.name, "Deferred, and never filled.")
        self._gateway.close()
        await self._runner.cleanup()

    @property
    def unresolved(self) -> list[Call]:
        """Return the calls that were deferred and still show "thinking"."""
        return [call for call in self.calls.values() if call.is_unresolved]

    # The world

    def add_user(self, name: str, *, dms_open: bool = True, locale: str = "en-US") -> User:
        user = User(self.new_id(), name, locale=locale)
        self.users[user.id] = user
        self.set_dms(user, is_open=dms_open)
        return user

    def set_dms(self, user: User, *, is_open: bool) -> None:
        (self.closed_dms.discard if is_open else self.closed_dms.add)(user.id)

    def add_guild(self, name: str, members: list[User], *, bot_present: bool = True) -> Guild:
        """Add a guild with one channel; its first member owns it."""
        guild = Guild(self.new_id(), name, [*members], bot_present)
        self.guilds[guild.id] = guild
        guild.channels.append(self.add_channel(Channel(self.new_id(), "general", guild.id)))
        if bot_present:
            guild.members.append(self.bot)
            self._gateway.dispatch("GUILD_CREATE", guild.created_payload(self.bot))
        return guild

    def read(self, attachment: Json) -> bytes:
        """Return the bytes of an attachment of a message."""
        return self.files[number(attachment["id"])].data

    # Waiting

    async def connected(self, timeout: float = limits.PATIENCE_SECONDS) -> None:
        await self.changes.until(lambda: self._gateway.is_connected, timeout, "A gateway session")

    async def disconnected(self) -> None:
        """Wait until a killed bot is disconnected, before `connected` of the next one."""
        what = "The end of the gateway connection"
        await self.changes.until(lambda: not self._gateway.is_connected, limits.PATIENCE_SECONDS, what)

    async def synced(self, timeout: float = limits.PATIENCE_SECONDS) -> list[Json]:
        """Wait for the bot's commands and return them."""
        return await self.changes.until(lambda: self.commands, timeout, "Command sync")

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

        return await self.changes.until(look, timeout, f"A message like {pattern!r}")

    async def wait_for_edit(self, message: StoredMessage, pattern: str) -> None:
        """Wait until a message has been edited and its text matches."""

        def look() -> bool:
            return len(message.versions) > 1 and re.search(pattern, shown_text(message.payload)) is not None

        await self.changes.until(look, limits.PATIENCE_SECONDS, f"An edit to {pattern!r}")

    # What people do

    def say(self, user: User, channel: Channel, content: str, *files: Upload) -> StoredMessage:
        """Send a person's own message."""
        return self.create_message(channel, user, {"content": content}, dict(enumerate(files)), {})

    async def slash(
        self, user: User, command: str, options: Mapping[str, OptionValue] | None = None, *, guild: Guild | None = None
    ) -> Call:
        """Type a command ("mt train") in the guild's first channel, or in direct messages with the bot."""
        leaf = find_command(self.commands, command)
        channel = self._offered_in(leaf.command, user, guild)
        data = command_data(leaf, options or {}, partial(self.add_file, channel))
        return self._begin(COMMAND, f"/{command}", user, channel, data)

    async def choose(self, user: User, message: StoredMessage, name: str) -> Call:
        """Choose a command in the menu of a message."""
        self._check_seen(user, message)
        menus = [row for row in self.commands if row["type"] == limits.MESSAGE_MENU]
        command = next((row for row in menus if row["name"] == name), None)
        if command is None:
            raise ClientRefusal(f"The menu of messages has no {name}; it has {[row['name'] for row in menus]}.")
        self._offered_in(command, user, self.guild_of(message.channel))
        self.check("MessageResponse", message.payload)
        data: Json = {
            **{"id": command["id"], "name": name, "type": limits.MESSAGE_MENU, "target_id": str(message.id)},
            "resolved": {"messages": {str(message.id): message.payload}},
        }
        return self._begin(COMMAND, name, user, message.channel, data)

    async def autocomplete(
        self,
        user: User,
        command: str,
        option: str,
        typed: str,
        timeout: float = limits.PATIENCE_SECONDS,
        *,
        guild: Guild | None = None,
    ) -> list[Choice]:
        """Return the suggestions for `option` after `typed`, in a guild or in direct messages with the bot."""
        leaf = find_command(self.commands, command)
        channel = self._offered_in(leaf.command, user, guild)
        if leaf.options.get(option, {}).get("autocomplete") is not True:
            raise ClientRefusal(f"/{command} has no autocomplete for {option}.")
        data = command_data(leaf, {option: typed}, partial(self.add_file, channel), focused=option)
        call = self._begin(AUTOCOMPLETE, f"/{command}", user, channel, data)
        await call.answered(timeout)
        return [Choice(text(row["name"]), text(row["value"])) for row in rows(call.callback_data.get("choices"))]

    async def click(self, user: User, message: StoredMessage, custom_id: str, values: list[str] | None = None) -> Call:
        """Press a button, or select `values` in a list."""
        self._check_seen(user, message)
        data = component_data(message.components, custom_id, values or [])
        return self._begin(COMPONENT, custom_id, user, message.channel, data, message)

    async def submit_modal(self, opened_by: Call, values: Mapping[str, str]) -> Call:
        """Fill in and submit the modal that answered `opened_by`."""
        data = modal_data(await opened_by.form(), values)
        name = text(data["custom_id"])
        return self._begin(MODAL, name, opened_by.user, opened_by.channel, data, opened_by.source)

    # Faults

    def fail_next(
        self, method: str, template: str, action: FaultAction, *, times: int = 1, retry_after_seconds: float = 0.1
    ) -> None:
        """Answer the next requests of a route of the API description with a fault.

        "reset" breaks the connection before the work, "reply_lost" after it.
        """
        self.faults += [Fault(method, template, action, retry_after_seconds)] * times

    def drop_gateway(self, how: Drop | int = "abort") -> None:
        """Break the bot's gateway connection; see `Gateway.drop`."""
        self._gateway.drop(how)

    # Interactions

    def _check_seen(self, user: User, message: StoredMessage) -> None:
        if message.deleted or message.visible_to not in (None, user):
            raise ClientRefusal(f"{user.name} does not see this message.")

    def _offered_in(self, command: Json, user: User, guild: Guild | None) -> Channel:
        """Return the channel of a command; raises ClientRefusal where a client does not offer the command."""
        contexts = items(command.get("contexts"))
        if contexts and (1 if guild is None else 0) not in contexts:
            raise ClientRefusal(f"/{command['name']} is not offered {'in DMs' if guild is None else 'in guilds'}.")
        if guild is None:
            shares_guild = any(one.bot_present and user in one.members for one in self.guilds.values())
            if not (shares_guild or 1 in items(command.get("integration_types"))):
                raise ClientRefusal(f"/{command['name']} cannot be installed by {user.name} for direct messages.")
            return self.dm_channel(user)
        if user not in guild.members or not (guild.bot_present or 1 in items(command.get("integration_types"))):
            raise ClientRefusal(f"/{command['name']} is not offered to {user.name} in {guild.name}.")
        return guild.channels[0]

    def _begin(
        self, kind: int, name: str, user: User, channel: Channel, data: Json, source: StoredMessage | None = None
    ) -> Call:
        """Create an interaction, start its deadlines and send it to the bot."""
        guild, call_id = self.guild_of(channel), self.new_id()
        call = Call(call_id, kind, name, user, channel, guild, data, self.changes, source)
        self.calls[call.token] = call
        loop = asyncio.get_running_loop()
        self._timers += [
            loop.call_later(self._answer_seconds, self._check_answered, call),
            loop.call_later(limits.TOKEN_SECONDS, self._check_resolved, call),
        ]
        self._gateway.dispatch("INTERACTION_CREATE", self._payload(call))
        return call

    def _payload(self, call: Call) -> Json:
        channel, user = call.channel.payload(), call.user.payload()
        self.check("PrivateChannelResponse" if call.guild is None else "GuildChannelResponse", channel)
        self.check("UserResponse", user)
        for attachment in mapping(mapping(call.data.get("resolved")).get("attachments")).values():
            self.check("MessageAttachmentResponse", attachment)
        rights = str(MEMBER_PERMISSIONS)
        payload: Json = {
            **{"id": str(call.id), "application_id": str(self.application_id), "type": call.type, "version": 1},
            **{"token": call.token, "data": call.data, "channel_id": str(call.channel.id)},
            "locale": call.user.locale,
            **{"channel": {**channel, "permissions": rights}, "app_permissions": rights},
            **{"entitlements": [], "attachment_size_limit": limits.ATTACHMENT_BYTES},
            **{"authorizing_integration_owners": integration_owners(call.guild, call.user)},
            "context": 1 if call.guild is None else 0,
        }
        if call.source is not None:
            self.check("MessageResponse", call.source.payload)
            payload["message"] = call.source.payload
        if call.guild is None:
            return {**payload, "user": user}
        member = call.guild.member_payload(call.user)
        self.check("GuildMemberResponse", member)
        member["permissions"] = rights
        place: Json = {"id": str(call.guild.id), "locale": "en-US", "features": []}
        return {**payload, "guild_id": place["id"], "guild": place, "guild_locale": "en-US", "member": member}

    def _check_answered(self, call: Call) -> None:
        if call.answered_seconds is None:
            call.expired = True
            self.violate("unanswered", call.name, f"No answer within {self._answer_seconds} s.")

    def _check_resolved(self, call: Call) -> None:
        if call.is_unresolved:
            self.violate("unresolved", call.name, f"Still deferred after {limits.TOKEN_SECONDS} s.")


def shown_text(payload: Json) -> str:
    """Return the visible text of a message: its content and every text of its embeds, line by line."""
    lines: list[JsonValue] = [payload.get("content")]
    for embed in rows(payload.get("embeds")):
        lines += [embed.get("title"), embed.get("description"), mapping(embed.get("footer")).get("text")]
    return "\n".join(line for line in lines if isinstance(line, str))
