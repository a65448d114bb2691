"""Handlers of the REST operations."""

import time
from collections.abc import Callable
from typing import NamedTuple

from pydantic import JsonValue

from local_discord import limits
from local_discord.gateway import Gateway
from local_discord.state import Call, Channel, Guild, Refusal, StoredMessage, Upload, User, World, invalid_form
from local_discord.validation import Problem
from local_discord.wire import Json, copy, mapping, number, rows, text


class Request(NamedTuple):
    """A valid request: path and query parameters, JSON body, uploaded files by index."""

    ids: dict[str, str]
    query: Json
    body: Json
    commands: list[Json]
    uploads: dict[int, Upload]

    def id(self, name: str) -> int:
        return number(self.ids[name])


class Response(NamedTuple):
    status: int
    body: JsonValue


class Routes:
    """Handlers of the operations that the bot uses, by operation id."""

    def __init__(self, world: World, gateway: Gateway, *, answer_seconds: float, token_seconds: float) -> None:
        self._world, self._gateway = world, gateway
        self._answer_seconds, self._token_seconds = answer_seconds, token_seconds
        self._handlers: dict[str, Callable[[Request], Response]] = {
            "get_my_user": self._my_user,
            "get_my_application": self._my_application,
            "get_my_oauth2_application": self._my_application,
            "bulk_set_application_commands": self._set_commands,
            "create_interaction_response": self._callback,
            "get_original_webhook_message": self._get_original,
            "update_original_webhook_message": self._edit_original,
            "delete_original_webhook_message": self._delete_original,
            "get_webhook_message": self._get_original,
            "update_webhook_message": self._edit_original,
            "delete_webhook_message": self._delete_original,
            "execute_webhook": self._followup,
            "create_dm": self._create_dm,
            "list_messages": self._list_messages,
            "create_message": self._create_message,
            "get_message": self._get_message,
            "update_message": self._edit_message,
            "delete_message": self._delete_message,
            "get_user": self._get_user,
            "get_guild_member": self._get_member,
        }

    def answer(self, operation_id: str, request: Request) -> Response:
        """Handle a valid request; raises Refusal for an error answer."""
        return self._handlers.get(operation_id, _unsupported)(request)

    # Application

    def _my_user(self, request: Request) -> Response:
        private: Json = {"mfa_enabled": True, "locale": "en-US", "verified": True, "email": None}
        return Response(200, {**self._world.bot.payload(), **private})

    def _my_application(self, request: Request) -> Response:
        absent = ("icon", "type", "interactions_endpoint_url", "role_connections_verification_url", "team")
        zero = ("flags", "approximate_user_install_count", "approximate_user_authorization_count")
        bot = self._world.bot.payload()
        return Response(
            200,
            {
                **{name: None for name in absent},
                **{name: 0 for name in zero},
                **{"id": str(self._world.application_id), "name": self._world.bot.name, "description": ""},
                **{"verify_key": "0" * 64, "flags_new": "0", "redirect_uris": [], "eligible_oauth2_scopes": []},
                **{"explicit_content_filter": 0, "approximate_guild_count": len(self._world.guilds)},
                **{"owner": bot, "bot": bot, "bot_public": False, "bot_require_code_grant": False},
            },
        )

    def _set_commands(self, request: Request) -> Response:
        self._own_application(request)
        if problems := limits.command_problems(request.commands):
            raise invalid_form(problems)
        known = {(text(row["name"]), row["type"]): row["id"] for row in self._world.commands}
        self._world.commands = [self._command(command, known) for command in request.commands]
        self._world.changes.notify()
        return Response(200, [*self._world.commands])

    def _command(self, command: Json, known: dict[tuple[str, JsonValue], JsonValue]) -> Json:
        kind = command.get("type") or 1
        given: Json = {key: value for key, value in copy(command).items() if value is not None}
        _drop_nulls(given.get("options"))
        return {
            **{"integration_types": [0], "contexts": None, "description": "", "nsfw": False},
            **given,
            **{"id": known.get((text(command["name"]), kind), str(self._world.snowflakes.next())), "type": kind},
            **{"application_id": str(self._world.application_id), "version": str(self._world.snowflakes.next())},
            "default_member_permissions": None,
        }

    def _own_application(self, request: Request) -> None:
        if request.id("application_id") != self._world.application_id:
            raise Refusal(404, 10002, "Unknown Application")

    # Interactions

    def _callback(self, request: Request) -> Response:
        call = self._world.calls.get(request.ids["interaction_token"])
        late = call is not None and (call.expired or time.monotonic() - call.created_seconds > self._answer_seconds)
        if call is None or call.id != request.id("interaction_id") or (late and call.answered_seconds is None):
            raise Refusal(404, 10062, "Unknown interaction")
        if call.answered_seconds is not None:
            message = "Interaction has already been acknowledged."
            raise Refusal(400, 40060, message, violation="interaction")
        kind, data = number(request.body["type"]), mapping(request.body.get("data"))
        self._check_callback(call, kind, data, request)
        created = self._apply(call, kind, data, request)
        call.answered_seconds = time.monotonic() - call.created_seconds
        call.callback_type, call.callback_data = kind, data
        self._world.changes.notify()
        if request.query.get("with_response") is not True:
            return Response(204, None)
        state: Json = {"id": str(call.id), "type": call.type, "channel_id": str(call.channel.id)}
        if created is None:
            return Response(200, {"interaction": state})
        state |= {"response_message_id": str(created.id), "response_message_loading": created.is_loading}
        state["response_message_ephemeral"] = created.visible_to is not None
        # The message comes back only for the types 4 and 7.
        resource: Json = {"resource": {"type": kind, "message": created.payload}} if kind in (4, 7) else {}
        return Response(200, {"interaction": state, **resource})

    def _check_callback(self, call: Call, kind: int, data: Json, request: Request) -> None:
        allowed = {2: (4, 5, 9), 3: (4, 5, 6, 7, 9), 4: (8,), 5: (4, 5, 6, 7) if call.source else (4, 5)}[call.type]
        problems: list[Problem] = []
        if kind not in allowed:
            message = f"Type {kind} does not answer an interaction of type {call.type}."
            problems.append(Problem(("type",), "INTERACTION_CALLBACK_TYPE_INVALID", message))
        if kind == 8:
            problems += limits.choice_problems(data.get("choices"), call.focused_type, ("data", "choices"))
        if kind == 9:
            problems += limits.modal_problems(data)
        if problems:
            raise invalid_form(problems)
        if kind == 4 and limits.is_empty(data) and not request.uploads:
            raise Refusal(400, 50006, "Cannot send an empty message", violation="request")

    def _apply(self, call: Call, kind: int, data: Json, request: Request) -> StoredMessage | None:
        if kind in (4, 5):
            flags = limits.LOADING if kind == 5 else 0
            call.original = self._respond(call, {**data, "flags": number(data.get("flags")) | flags}, request)
            return call.original
        if kind in (6, 7):
            call.original = call.source
        if kind == 7 and call.source is not None:
            self._edit(call.source, data, request)
            return call.source
        return None

    def _respond(self, call: Call, data: Json, request: Request) -> StoredMessage:
        """Create a message that answers `call`, with the fields of such messages."""
        owners = integration_owners(call.guild, call.user)
        about: Json = {"id": str(call.id), "type": call.type, "user": call.user.payload()}
        about["authorizing_integration_owners"] = owners
        if call.source is not None and call.type == 3:
            about["interacted_message_id"] = str(call.source.id)
        if call.type == 5:
            about["triggering_interaction_metadata"] = {
                "id": str(call.id),
                "type": 2,
                "authorizing_integration_owners": owners,
            }
        extra: Json = {
            **{"interaction_metadata": about, "webhook_id": str(self._world.application_id)},
            "application_id": str(self._world.application_id),
        }
        hidden = call.user if number(data.get("flags")) & limits.EPHEMERAL else None
        return self._world.create_message(
            call.channel, self._world.bot, data, request.uploads, extra, visible_to=hidden
        )

    def _followup(self, request: Request) -> Response:
        call = self._token(request)
        if call.is_unresolved and call.original is not None:
            # Documented: the first follow-up to a defer fills the loading message.
            self._edit(call.original, request.body, request)
            return Response(200, call.original.payload)
        if limits.is_empty(request.body) and not request.uploads:
            raise Refusal(400, 50006, "Cannot send an empty message", violation="request")
        if call.guild is not None and not call.guild.bot_present and len(call.followups) >= 5:
            message = "This interaction has reached the maximum number of follow up messages."
            raise Refusal(400, 40094, message, violation="interaction")
        call.followups.append(self._respond(call, request.body, request))
        self._world.changes.notify()
        return Response(200, call.followups[-1].payload)

    def _get_original(self, request: Request) -> Response:
        return Response(200, self._webhook_message(request).payload)

    def _edit_original(self, request: Request) -> Response:
        message = self._webhook_message(request)
        self._edit(message, request.body, request)
        return Response(200, message.payload)

    def _delete_original(self, request: Request) -> Response:
        return self._delete(self._webhook_message(request))

    def _webhook_message(self, request: Request) -> StoredMessage:
        call = self._token(request)
        wanted = request.ids.get("message_id", "@original")
        known = [call.original] if wanted == "@original" else [call.original, *call.followups]
        message = next((m for m in known if m is not None and wanted in (str(m.id), "@original")), None)
        if message is None or message.deleted:
            raise Refusal(404, 10008, "Unknown Message")
        return message

    def _token(self, request: Request) -> Call:
        call = self._world.calls.get(request.ids["webhook_token"])
        if call is None or request.id("webhook_id") != self._world.application_id or call.answered_seconds is None:
            raise Refusal(404, 10015, "Unknown Webhook")
        if time.monotonic() - call.created_seconds > self._token_seconds:
            raise Refusal(401, 50027, "Invalid Webhook Token", violation="interaction")
        return call

    # Channels and messages

    def _create_dm(self, request: Request) -> Response:
        user = self._world.users.get(number(request.body.get("recipient_id")))
        if user is None or user.is_bot:
            raise Refusal(400, 50033, "Invalid Recipient(s)")
        return Response(200, self._world.dm_channel(user).payload())

    def _list_messages(self, request: Request) -> Response:
        visible = [m for m in self._world.messages[self._channel(request).id].values() if _public(m)]
        limit = number(request.query.get("limit"), 50)
        if "before" in request.query:
            visible = [m for m in visible if m.id < number(request.query["before"])]
        return Response(200, [m.payload for m in reversed(visible[-limit:])])

    def _create_message(self, request: Request) -> Response:
        channel = self._channel(request)
        if channel.recipient is not None and channel.recipient.id in self._world.closed_dms:
            raise Refusal(403, 50007, "Cannot send messages to this user")
        if limits.is_empty(request.body) and not request.uploads:
            raise Refusal(400, 50006, "Cannot send an empty message", violation="request")
        nonce = request.body.get("nonce")
        key = (channel.id, str(nonce))
        if nonce is not None and request.body.get("enforce_nonce") is True and key in self._world.nonces:
            at_seconds, earlier = self._world.nonces[key]
            if time.monotonic() - at_seconds < limits.NONCE_SECONDS:
                return Response(200, earlier.payload)
        extra: Json = {} if nonce is None else {"nonce": nonce}
        message = self._world.create_message(channel, self._world.bot, request.body, request.uploads, extra)
        if nonce is not None:
            self._world.nonces[key] = (time.monotonic(), message)
        return Response(200, message.payload)

    def _get_message(self, request: Request) -> Response:
        return Response(200, self._message(request).payload)

    def _edit_message(self, request: Request) -> Response:
        message = self._message(request)
        if message.payload["author"] != self._world.bot.payload():
            raise Refusal(403, 50005, "Cannot edit a message authored by another user")
        self._edit(message, request.body, request)
        return Response(200, message.payload)

    def _delete_message(self, request: Request) -> Response:
        return self._delete(self._message(request))

    def _get_user(self, request: Request) -> Response:
        return Response(200, self._user(request).payload())

    def _get_member(self, request: Request) -> Response:
        user, guild = self._user(request), self._guild(request)
        if user not in guild.members:
            raise Refusal(404, 10007, "Unknown Member")
        return Response(200, guild.member_payload(user))

    def _user(self, request: Request) -> User:
        user = self._world.users.get(request.id("user_id"))
        if user is None:
            raise Refusal(404, 10013, "Unknown User")
        return user

    def _guild(self, request: Request) -> Guild:
        guild = self._world.guilds.get(request.id("guild_id"))
        if guild is None or not guild.bot_present:
            raise Refusal(404, 10004, "Unknown Guild")
        return guild

    def _channel(self, request: Request) -> Channel:
        channel = self._world.channels.get(request.id("channel_id"))
        if channel is None:
            raise Refusal(404, 10003, "Unknown Channel")
        guild = self._world.guild_of(channel)
        if guild is not None and not guild.bot_present:
            raise Refusal(403, 50001, "Missing Access")
        return channel

    def _message(self, request: Request) -> StoredMessage:
        message = self._world.messages[self._channel(request).id].get(request.id("message_id"))
        if message is None or not _public(message):
            raise Refusal(404, 10008, "Unknown Message")
        return message

    def _edit(self, message: StoredMessage, body: Json, request: Request) -> None:
        if limits.is_empty({**message.payload, **body}) and not request.uploads:
            raise Refusal(400, 50006, "Cannot send an empty message", violation="request")
        self._world.edit_message(message, body, request.uploads)

    def _delete(self, message: StoredMessage) -> Response:
        message.deleted = True
        self._world.changes.notify()
        return Response(204, None)


def integration_owners(guild: Guild | None, user: User) -> Json:
    """Return the installations of the application: of the guild (0; "0" in direct messages) and of the user (1)."""
    installed: Json = {} if guild is not None and not guild.bot_present else {"0": str(guild.id) if guild else "0"}
    return {**installed, "1": str(user.id)}


def _unsupported(request: Request) -> Response:
    raise Refusal(501, 0, "local_discord does not serve this route", violation="request")


def _public(message: StoredMessage) -> bool:
    return message.visible_to is None and not message.deleted


def _drop_nulls(options: JsonValue) -> None:
    for option in rows(options):
        for key in [key for key, value in option.items() if value is None]:
            del option[key]
        _drop_nulls(option.get("options"))
        for choice in rows(option.get("choices")):
            if choice.get("name_localizations") is None:
                choice.pop("name_localizations", None)
