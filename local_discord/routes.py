"""Handlers of the REST operations."""

import time
from collections.abc import Callable
from typing import NamedTuple

from pydantic import JsonValue

from local_discord import limits
from local_discord.state import Call, Channel, Guild, Refusal, StoredMessage, Upload, User, World, invalid_form
from local_discord.validation import Problem
from local_discord.wire import Json, mapping, number, text, without_nulls


class Request(NamedTuple):
    """A valid request: path and query parameters, JSON body, uploaded files by index."""

    ids: dict[str, str]
    query: Json
    body: Json
    commands: list[Json]
    uploads: dict[int, Upload]

    def id(self, name: str) -> int:
        return number(self.ids[name])


class Routes:
    """Handlers of the operations that the bot uses, by operation id."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._handlers: dict[str, Callable[[Request], JsonValue]] = {
            "get_my_user": self._my_user,
            "get_my_oauth2_application": self._my_application,
            "bulk_set_application_commands": self._set_commands,
            "list_application_commands": lambda request: [*self._world.commands],
            "create_interaction_response": self._callback,
            "get_original_webhook_message": lambda request: self._webhook_message(request).payload,
            "update_original_webhook_message": lambda request: self._edit(self._webhook_message(request), request),
            "delete_original_webhook_message": lambda request: self._delete(self._webhook_message(request)),
            "execute_webhook": self._followup,
            "create_dm": self._create_dm,
            "trigger_typing_indicator": self._type,
            "list_messages": self._list_messages,
            "create_message": self._create_message,
            "get_message": lambda request: self._message(request).payload,
            "update_message": self._update_message,
            "delete_message": lambda request: self._delete(self._message(request)),
            "get_user": lambda request: self._user(request).payload(),
            "get_guild_member": self._get_member,
        }

    def answer(self, operation_id: str, request: Request) -> JsonValue:
        """Handle a valid request and return the body of the answer; raises Refusal for an error answer."""
        if operation_id not in self._handlers:
            raise Refusal(501, 0, "local_discord does not serve this route", violation="request")
        return self._handlers[operation_id](request)

    # Application

    def _my_user(self, request: Request) -> JsonValue:
        return {**self._world.bot.payload(), "mfa_enabled": True, "locale": "en-US", "verified": True, "email": None}

    def _my_application(self, request: Request) -> JsonValue:
        absent = ("icon", "type", "interactions_endpoint_url", "role_connections_verification_url", "team")
        zero = ("flags", "approximate_user_install_count", "approximate_user_authorization_count")
        bot = self._world.bot.payload()
        return {
            **{name: None for name in absent},
            **{name: 0 for name in zero},
            **{"id": str(self._world.application_id), "name": self._world.bot.name, "description": ""},
            **{"verify_key": "0" * 64, "flags_new": "0", "redirect_uris": [], "eligible_oauth2_scopes": []},
            **{"explicit_content_filter": 0, "approximate_guild_count": len(self._world.guilds)},
            **{"owner": bot, "bot": bot, "bot_public": False, "bot_require_code_grant": False},
        }

    def _set_commands(self, request: Request) -> JsonValue:
        if problems := list(limits.command_problems(request.commands)):
            raise invalid_form(problems)
        known = {text(row["name"]): row["id"] for row in self._world.commands}
        self._world.commands = [self._command(command, known) for command in request.commands]
        self._world.changes.notify()
        return [*self._world.commands]

    def _command(self, command: Json, known: dict[str, JsonValue]) -> Json:
        new_id, version = str(self._world.new_id()), str(self._world.new_id())
        rights = command.get("default_member_permissions")
        return {
            **{"type": 1, "integration_types": [0], "contexts": None, "description": "", "nsfw": False},
            **mapping(without_nulls(command)),
            **{"id": known.get(text(command["name"]), new_id), "version": version},
            **{"application_id": str(self._world.application_id)},
            # Discord takes a number, and answers with a text
            "default_member_permissions": None if rights is None else str(rights),
        }

    # Interactions

    def _callback(self, request: Request) -> JsonValue:
        call = self._world.calls.get(request.ids["interaction_token"])
        if call is None or call.id != request.id("interaction_id") or call.expired:
            raise Refusal(404, 10062, "Unknown interaction")
        if call.answered_seconds is not None:
            raise Refusal(400, 40060, "Interaction has already been acknowledged.", violation="interaction")
        kind, data = number(request.body["type"]), mapping(request.body.get("data"))
        _check_callback(call, kind, data)
        message = self._apply(call, kind, data, request)
        call.answered_seconds = time.monotonic() - call.created_seconds
        call.callback_type, call.callback_data = kind, data
        self._world.changes.notify()
        if request.query.get("with_response") is not True:
            return None
        state: Json = {"id": str(call.id), "type": call.type, "channel_id": str(call.channel.id)}
        if message is None:
            return {"interaction": state}
        state |= {"response_message_id": str(message.id), "response_message_loading": message.is_loading}
        state["response_message_ephemeral"] = message.visible_to is not None
        # The message comes back only for the types 4 and 7.
        resource: Json = {"resource": {"type": kind, "message": message.payload}} if kind in (4, 7) else {}
        return {"interaction": state, **resource}

    def _apply(self, call: Call, kind: int, data: Json, request: Request) -> StoredMessage | None:
        """Create or change the message that the answer shows now."""
        request = request._replace(body=data)
        if kind in (4, 5):
            if kind == 4:
                _check_filled(data, request)
            call.original = self._respond(call, request, limits.LOADING if kind == 5 else 0)
            return call.original
        if kind in (6, 7):
            call.original = call.source
        if kind == 7 and call.source is not None:
            self._edit(call.source, request)
            return call.source
        return None

    def _respond(self, call: Call, request: Request, flags: int = 0) -> StoredMessage:
        """Create a message that answers `call`, with the fields of such messages."""
        owners = integration_owners(call.guild, call.user)
        about: Json = {"id": str(call.id), "type": call.type, "user": call.user.payload()}
        about["authorizing_integration_owners"] = owners
        if call.source is not None and call.type == 3:
            about["interacted_message_id"] = str(call.source.id)
        if call.type == 5:
            command: Json = {"id": str(call.id), "type": 2, "authorizing_integration_owners": owners}
            about["triggering_interaction_metadata"] = command
        application_id = str(self._world.application_id)
        extra: Json = {"interaction_metadata": about, "webhook_id": application_id, "application_id": application_id}
        flags |= number(request.body.get("flags"))
        body: Json = {**request.body, "flags": flags}
        reader = call.user if flags & limits.EPHEMERAL else None
        return self._world.create_message(
            call.channel, self._world.bot, body, request.uploads, extra, visible_to=reader
        )

    def _followup(self, request: Request) -> JsonValue:
        call = self._token(request)
        if call.is_unresolved and call.original is not None:
            # Documented: the first follow-up to a defer fills the loading message.
            return self._edit(call.original, request)
        _check_filled(request.body, request)
        call.followups.append(self._respond(call, request))
        self._world.changes.notify()
        return call.followups[-1].payload

    def _webhook_message(self, request: Request) -> StoredMessage:
        message = self._token(request).original
        if message is None or message.deleted:
            raise Refusal(404, 10008, "Unknown Message")
        return message

    def _token(self, request: Request) -> Call:
        call = self._world.calls.get(request.ids["webhook_token"])
        if call is None or request.id("webhook_id") != self._world.application_id or call.answered_seconds is None:
            raise Refusal(404, 10015, "Unknown Webhook")
        if time.monotonic() - call.created_seconds > limits.TOKEN_SECONDS:
            raise Refusal(401, 50027, "Invalid Webhook Token", violation="interaction")
        return call

    # Channels and messages

    def _create_dm(self, request: Request) -> JsonValue:
        user = self._world.users.get(number(request.body.get("recipient_id")))
        if user is None or user.is_bot:
            raise Refusal(400, 50033, "Invalid Recipient(s)")
        return self._world.dm_channel(user).payload()

    def _list_messages(self, request: Request) -> JsonValue:
        visible = self._world.messages(self._channel(request))
        if "before" in request.query:
            visible = [message for message in visible if message.id < number(request.query["before"])]
        newest = visible[-number(request.query.get("limit"), 50) :]
        return [message.payload for message in reversed(newest)]

    def _type(self, request: Request) -> JsonValue:
        self._open_channel(request)
        return None

    def _open_channel(self, request: Request) -> Channel:
        channel = self._channel(request)
        if channel.recipient is not None and channel.recipient.id in self._world.closed_dms:
            raise Refusal(403, 50007, "Cannot send messages to this user")
        return channel

    def _create_message(self, request: Request) -> JsonValue:
        channel = self._open_channel(request)
        _check_filled(request.body, request)
        nonce = request.body.get("nonce")
        key = (channel.id, str(nonce))
        if nonce is not None and request.body.get("enforce_nonce") is True and key in self._world.nonces:
            at_seconds, earlier = self._world.nonces[key]
            if time.monotonic() - at_seconds < limits.NONCE_SECONDS:
                return earlier.payload
        extra: Json = {} if nonce is None else {"nonce": nonce}
        message = self._world.create_message(channel, self._world.bot, request.body, request.uploads, extra)
        if nonce is not None:
            self._world.nonces[key] = (time.monotonic(), message)
        return message.payload

    def _get_member(self, request: Request) -> JsonValue:
        user, guild = self._user(request), self._world.guilds.get(request.id("guild_id"))
        if guild is None or not guild.bot_present:
            raise Refusal(404, 10004, "Unknown Guild")
        if user not in guild.members:
            raise Refusal(404, 10007, "Unknown Member")
        return guild.member_payload(user)

    def _user(self, request: Request) -> User:
        user = self._world.users.get(request.id("user_id"))
        if user is None:
            raise Refusal(404, 10013, "Unknown User")
        return user

    def _channel(self, request: Request) -> Channel:
        channel = self._world.channels.get(request.id("channel_id"))
        if channel is None:
            raise Refusal(404, 10003, "Unknown Channel")
        guild = self._world.guild_of(channel)
        if guild is not None and not guild.bot_present:
            raise Refusal(403, 50001, "Missing Access")
        return channel

    def _message(self, request: Request) -> StoredMessage:
        message = self._world.stored[self._channel(request).id].get(request.id("message_id"))
        if message is None or message.visible_to is not None or message.deleted:
            raise Refusal(404, 10008, "Unknown Message")
        return message

    def _update_message(self, request: Request) -> JsonValue:
        message = self._message(request)
        if message.edit_refusal is not None:
            raise message.edit_refusal
        return self._edit(message, request)

    def _edit(self, message: StoredMessage, request: Request) -> JsonValue:
        _check_filled({**message.payload, **request.body}, request)
        self._world.edit_message(message, request.body, request.uploads)
        return message.payload

    def _delete(self, message: StoredMessage) -> None:
        message.deleted = True
        self._world.changes.notify()


def integration_owners(guild: Guild | None, user: User) -> Json:
    """Return the installations of the application: of the guild (0; "0" in direct messages) and of the user (1)."""
    installed: Json = {} if guild is not None and not guild.bot_present else {"0": str(guild.id) if guild else "0"}
    return {**installed, "1": str(user.id)}


def _check_callback(call: Call, kind: int, data: Json) -> None:
    allowed = {2: (4, 5, 9), 3: (4, 5, 6, 7, 9), 4: (8,), 5: (4, 5, 6, 7) if call.source else (4, 5)}[call.type]
    problems: list[Problem] = []
    if kind not in allowed:
        message = f"Type {kind} does not answer an interaction of type {call.type}."
        problems.append(Problem(("type",), "INTERACTION_CALLBACK_TYPE_INVALID", message))
    if kind == 8:
        problems += limits.choice_problems(data.get("choices"), ("data", "choices"))
    if kind == 9:
        problems += limits.component_problems(data.get("components"), ("data", "components"))
    if problems:
        raise invalid_form(problems)


def _check_filled(body: Json, request: Request) -> None:
    if not request.uploads and not any(body.get(part) for part in ("content", "embeds", "components", "attachments")):
        raise Refusal(400, 50006, "Cannot send an empty message", violation="request")
