"""State of the local Discord: people, guilds, channels, messages with all versions, interactions."""

import asyncio
import mimetypes
import re
import secrets
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal, NamedTuple, TypeVar
from urllib.parse import quote

from pydantic import JsonValue

from local_discord import limits
from local_discord.validation import DISCORD, Problem
from local_discord.wire import Json, items, mapping, now_iso, number, rows, text, without_nulls

T = TypeVar("T")

DISCORD_EPOCH_MS = 1_420_070_400_000

ViolationKind = Literal["request", "answer", "payload", "unanswered", "unresolved", "interaction"]


class Violation(NamedTuple):
    """A violation of Discord's API description, limits or deadlines by the bot or by local_discord.

    `request`: bad path, query, body or limit; `answer`, `payload`: a fault of local_discord itself; `unanswered`: no
    first answer in time; `unresolved`: a deferred answer that never came; `interaction`: a second answer or an expired
    token.
    """

    kind: ViolationKind
    where: str
    detail: str


@dataclass(eq=False)
class Refusal(Exception):
    """An HTTP error of Discord, recorded as a violation of the kind `violation`, if any."""

    status: int
    code: int
    message: str
    problems: Sequence[Problem] = ()
    violation: ViolationKind | None = None
    retry_after_seconds: float | None = None
    """Of a rate limit (429): the seconds that Discord demands before the next try."""


def invalid_form(problems: Sequence[Problem]) -> Refusal:
    return Refusal(400, 50035, "Invalid Form Body", problems, "request")


class Upload(NamedTuple):
    """A file on its way to Discord."""

    filename: str
    data: bytes

    @property
    def content_type(self) -> str:
        kind = mimetypes.guess_type(self.filename)[0] or "application/octet-stream"
        return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


class User(NamedTuple):
    id: int
    name: str
    is_bot: bool = False
    locale: str = "en-US"

    def payload(self) -> Json:
        return {
            **{"id": str(self.id), "username": self.name, "global_name": None, "discriminator": "0"},
            **{"avatar": None, "public_flags": 0, "flags": 0, "bot": self.is_bot, "primary_guild": None},
        }


class Channel(NamedTuple):
    """A text channel of a guild, or the DM between the bot and `recipient`."""

    id: int
    name: str
    guild_id: int | None = None
    recipient: User | None = None

    def payload(self) -> Json:
        if self.recipient is not None:
            return {"id": str(self.id), "type": 1, "flags": 0, "recipients": [self.recipient.payload()]}
        return {
            **{"id": str(self.id), "type": 0, "flags": 0, "guild_id": str(self.guild_id), "name": self.name},
            **{"position": 0, "parent_id": None, "topic": None, "nsfw": False, "permission_overwrites": []},
            **{"rate_limit_per_user": 0, "last_message_id": None},
        }


@dataclass(eq=False)
class Guild:
    """A server; `bot_present` is false where people only use the app they installed for themselves."""

    id: int
    name: str
    members: list[User]
    """The first one owns the guild."""
    bot_present: bool
    channels: list[Channel] = field(default_factory=list)
    joined_at: str = field(default_factory=now_iso)

    def member_payload(self, user: User) -> Json:
        return {
            **{"user": user.payload(), "roles": [], "joined_at": self.joined_at, "nick": None, "flags": 0},
            **{"avatar": None, "banner": None, "communication_disabled_until": None, "pending": False},
            **{"premium_since": None, "mute": False, "deaf": False},
        }

    def created_payload(self, bot: User) -> Json:
        """Return the data of GUILD_CREATE."""
        return {
            **{"id": str(self.id), "name": self.name, "owner_id": str(self.members[0].id), "features": []},
            **{"joined_at": self.joined_at, "large": False, "unavailable": False, "threads": [], "presences": []},
            **{"member_count": len(self.members), "channels": [channel.payload() for channel in self.channels]},
            **{"members": [self.member_payload(bot)], "roles": [], "voice_states": [], "stage_instances": []},
            **{"soundboard_sounds": [], "guild_scheduled_events": []},
        }


class Version(NamedTuple):
    """A version of a message from `at_seconds` (monotonic) on."""

    at_seconds: float
    payload: Json


class StoredMessage:
    """A message and all its versions, oldest first; `visible_to` is set for ephemeral ones."""

    def __init__(self, channel: Channel, payload: Json, *, visible_to: User | None) -> None:
        self.id = number(payload["id"])
        self.channel, self.visible_to = channel, visible_to
        self.versions = [Version(time.monotonic(), payload)]
        self.deleted = False
        self.edit_refusal: Refusal | None = None
        """The answer to every edit, for example 30046 for a message that is older than an hour."""

    @property
    def payload(self) -> Json:
        return self.versions[-1].payload

    @property
    def content(self) -> str:
        return text(self.payload["content"])

    @property
    def embeds(self) -> list[Json]:
        return rows(self.payload["embeds"])

    @property
    def components(self) -> list[Json]:
        return rows(self.payload["components"])

    @property
    def attachments(self) -> list[Json]:
        return rows(self.payload["attachments"])

    @property
    def is_loading(self) -> bool:
        return number(self.payload["flags"]) & limits.LOADING != 0

    @property
    def edit_seconds(self) -> list[float]:
        """Return the monotonic times of the edits."""
        return [version.at_seconds for version in self.versions[1:]]


class Changes:
    """Wakes the tasks that wait for a state."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def until(self, look: Callable[[], T | None], timeout: float, what: str) -> T:
        """Return the first value of `look` that is true; raises TimeoutError with `what` was awaited."""
        try:
            async with asyncio.timeout(timeout):
                while not (found := look()):
                    await self._event.wait()
                return found
        except TimeoutError:
            raise TimeoutError(f"{what} did not happen within {timeout} s.") from None


@dataclass(eq=False)
class Call:
    """An interaction of a person, and the answers so far."""

    id: int
    type: int
    name: str
    """The command (`/mt train`), or the custom_id of the component or modal."""
    user: User
    channel: Channel
    guild: Guild | None
    data: Json
    changes: Changes
    source: StoredMessage | None
    """The message with the component."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(96))
    created_seconds: float = field(default_factory=time.monotonic)
    answered_seconds: float | None = None
    expired: bool = False
    callback_type: int = 0
    callback_data: Json = field(default_factory=dict)
    original: StoredMessage | None = None
    followups: list[StoredMessage] = field(default_factory=list)

    @property
    def is_unresolved(self) -> bool:
        return self.original is not None and self.original.is_loading and not self.original.deleted

    async def answered(self, timeout: float = limits.PATIENCE_SECONDS) -> float:
        """Wait for the first answer and return its seconds."""
        return await self.changes.until(lambda: self.answered_seconds, timeout, f"An answer to {self.name}")

    async def reply(self, timeout: float = limits.PATIENCE_SECONDS) -> StoredMessage:
        """Wait for the answer that a person reads: the message, after a defer the filled one, or the changed one."""
        return await self.changes.until(self._resolved, timeout, f"A reply to {self.name}")

    async def followup(self) -> StoredMessage:
        """Wait for the first follow-up."""
        what = f"A follow-up of {self.name}"
        [first, *_] = await self.changes.until(lambda: self.followups, limits.PATIENCE_SECONDS, what)
        return first

    async def form(self) -> Json:
        """Wait for a modal and return it: title, custom_id, components."""
        await self.answered()
        if self.callback_type != 9:
            raise ValueError(f"{self.name} was answered with type {self.callback_type}, not with a modal (9).")
        return self.callback_data

    def _resolved(self) -> StoredMessage | None:
        if self.original is None or self.original.is_loading:
            return None
        untouched = self.callback_type == 6 and self.original.versions[-1].at_seconds < self.created_seconds
        return None if untouched else self.original


class World:
    """The complete state; creates and changes all messages."""

    def __init__(self, token: str) -> None:
        self.token = token
        self._last_id = 0
        self.changes = Changes()
        self.violations: list[Violation] = []
        self.application_id = self.new_id()
        self.bot = User(self.application_id, "model-trainer", is_bot=True)
        self.users: dict[int, User] = {self.bot.id: self.bot}
        self.guilds: dict[int, Guild] = {}
        self.channels: dict[int, Channel] = {}
        self.stored: dict[int, dict[int, StoredMessage]] = {}
        """Messages by channel and id."""
        self.files: dict[int, Upload] = {}
        self.commands: list[Json] = []
        self.calls: dict[str, Call] = {}
        self.closed_dms: set[int] = set()
        self.nonces: dict[tuple[int, str], tuple[float, StoredMessage]] = {}
        self.api_base_url, self.gateway_url, self.cdn_base_url = "", "", ""

    def new_id(self) -> int:
        """Return a snowflake: larger than the last one, with milliseconds since Discord's epoch in its upper bits."""
        self._last_id = max(self._last_id + 1, (int(time.time() * 1000) - DISCORD_EPOCH_MS) << 22)
        return self._last_id

    def violate(self, kind: ViolationKind, where: str, detail: str) -> None:
        self.violations.append(Violation(kind, where, detail))
        self.changes.notify()

    def check(self, schema: str, value: JsonValue) -> None:
        """Record differences between an object and its schema in the API description."""
        for problem in DISCORD.object_problems(schema, value):
            self.violate("payload", schema, f"{problem.path}: {problem.message}")

    def guild_of(self, channel: Channel) -> Guild | None:
        return None if channel.guild_id is None else self.guilds[channel.guild_id]

    def dm_channel(self, user: User) -> Channel:
        known = next((channel for channel in self.channels.values() if channel.recipient == user), None)
        return known or self.add_channel(Channel(self.new_id(), user.name, recipient=user))

    def add_channel(self, channel: Channel) -> Channel:
        self.channels[channel.id] = channel
        self.stored[channel.id] = {}
        return channel

    def messages(self, channel: Channel, *, seen_by: User | None = None) -> list[StoredMessage]:
        """Return the messages of a channel, oldest first, with the ephemeral ones of a user."""
        stored = self.stored[channel.id].values()
        return [m for m in stored if not m.deleted and (m.visible_to is None or m.visible_to == seen_by)]

    def create_message(
        self,
        channel: Channel,
        author: User,
        body: Json,
        uploads: Mapping[int, Upload],
        extra: Json,
        *,
        visible_to: User | None = None,
    ) -> StoredMessage:
        """Store a new message; `extra` adds interaction and webhook fields."""
        blank: Json = {
            **{"id": str(self.new_id()), "channel_id": str(channel.id), "author": author.payload()},
            **{"type": 0, "content": "", "mentions": [], "mention_roles": [], "mention_everyone": False},
            **{"attachments": [], "embeds": [], "components": [], "timestamp": now_iso()},
            **{"edited_timestamp": None, "pinned": False, "tts": body.get("tts") is True},
            "flags": number(body.get("flags")),
        }
        changes = self._render(channel, body, uploads, [])
        message = StoredMessage(channel, {**blank, **extra, **changes}, visible_to=visible_to)
        self.stored[channel.id][message.id] = message
        self.changes.notify()
        return message

    def edit_message(self, message: StoredMessage, body: Json, uploads: Mapping[int, Upload]) -> None:
        """Change what `body` names; a loading message becomes an ordinary one."""
        changes = self._render(message.channel, body, uploads, message.attachments)
        changes["flags"] = number(message.payload["flags"]) & ~limits.LOADING
        changes["edited_timestamp"] = None if message.is_loading else now_iso()
        message.versions.append(Version(time.monotonic(), {**message.payload, **changes}))
        self.changes.notify()

    def add_file(self, channel: Channel, upload: Upload) -> Json:
        """Store a file and describe it as an attachment."""
        name = cleaned(upload.filename)
        file_id = self.new_id()
        self.files[file_id] = upload._replace(filename=name)
        url = f"{self.cdn_base_url}/attachments/{channel.id}/{file_id}/{quote(name)}"
        attachment: Json = {
            **{"id": str(file_id), "filename": name, "size": len(upload.data), "url": url, "proxy_url": url},
            "content_type": upload.content_type,
        }
        if name != upload.filename:
            attachment["title"] = PurePosixPath(upload.filename).stem
        return attachment

    def _render(self, channel: Channel, body: Json, uploads: Mapping[int, Upload], existing: list[Json]) -> Json:
        """Return the message fields that `body` sets, as Discord returns them."""
        changes: Json = {}
        if uploads or body.get("attachments") is not None:
            existing = self._attachments(channel, body, uploads, existing)
            changes["attachments"] = [*existing]
        if "content" in body:
            changes["content"] = text(body["content"])
        if "embeds" in body:
            urls = {f"attachment://{text(file['filename'])}": text(file["url"]) for file in existing}
            embeds = enumerate(rows(without_nulls(body["embeds"])))
            changes["embeds"] = [_embed(embed, urls, index) for index, embed in embeds]
        if "components" in body:
            changes["components"] = tree = items(without_nulls(body["components"]))
            for index, (_, component) in enumerate(limits.walk(tree), 1):
                component.setdefault("id", index)
                if component["type"] == limits.SELECT:
                    component.setdefault("min_values", 1)
                    component.setdefault("max_values", 1)
        return changes

    def _attachments(
        self, channel: Channel, body: Json, uploads: Mapping[int, Upload], existing: list[Json]
    ) -> list[Json]:
        """Return the attachments after an edit: a list keeps only its own ids, no list keeps all."""
        listed = {number(row["id"]): row for row in rows(body.get("attachments"))}
        known = {number(file["id"]): file for file in existing}
        for index, file_id in enumerate(listed):
            if file_id not in {*uploads, *known}:
                message = "No file and no attachment with this id."
                raise invalid_form([Problem(("attachments", index, "id"), "ATTACHMENT_NOT_FOUND", message)])
        remaining = [file for file_id, file in known.items() if body.get("attachments") is None or file_id in listed]
        for index, upload in sorted(uploads.items()):
            row = listed.get(index, {})
            named = upload._replace(filename=text(row.get("filename")) or upload.filename)
            added = self.add_file(channel, named)
            remaining.append({**added, **({"description": row["description"]} if row.get("description") else {})})
        return remaining


def cleaned(filename: str) -> str:
    """Return the name under which Discord stores a file, as werkzeug's `secure_filename` does: ASCII, spaces as `_`.

    `мәтін.txt` becomes `txt`, `мәтін 2.txt` becomes `2.txt` (discord-api-docs issue 7754, pull request 6945).
    """
    ascii_only = unicodedata.normalize("NFKD", filename).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.-]", "", "_".join(ascii_only.replace("/", " ").split())).strip("._") or "unknown"


def _embed(embed: Json, urls: dict[str, str], index: int) -> Json:
    """Return an embed with its default type, and with its attachment:// link resolved."""
    shown: Json = {"type": "rich", **embed}
    link = text(mapping(embed.get("image")).get("url"))
    if link.startswith("attachment://"):
        if link not in urls:
            problem = Problem(("embeds", index, "image", "url"), "ATTACHMENT_NOT_FOUND", f"No file for {link}")
            raise invalid_form([problem])
        shown["image"] = {"url": urls[link], "proxy_url": urls[link]}
    return shown
