"""State of the local Discord: people, guilds, channels, messages with all versions, interactions."""

import asyncio
import mimetypes
import re
import secrets
import time
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Literal, NamedTuple, TypeVar
from urllib.parse import quote

from pydantic import JsonValue

from local_discord import limits
from local_discord.validation import Description, Problem
from local_discord.wire import Json, Snowflakes, copy, items, mapping, now_iso, number, rows, text

T = TypeVar("T")

ViolationKind = Literal["request", "answer", "payload", "unanswered", "unresolved", "interaction", "gateway"]

# View, send, embed, attach, read history, mention everyone, use commands: the usual @everyone rights.
MEMBER_PERMISSIONS = 1 << 10 | 1 << 11 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 31


class Violation(NamedTuple):
    """A violation of Discord's API description, limits or deadlines by the bot or by local_discord.

    `request`: bad path, query, body or limit; `answer`, `payload`: a fault of local_discord itself; `unanswered`: no
    first answer in time; `unresolved`: a deferred answer that never came; `interaction`: a second answer or an expired
    token; `gateway`: an invalid frame.
    """

    kind: ViolationKind
    where: str
    detail: str


class Refusal(Exception):
    """An HTTP error of Discord, recorded as a violation of the kind `violation`, if any."""

    def __init__(
        self,
        status: int,
        code: int,
        message: str,
        *,
        problems: list[Problem] | None = None,
        violation: ViolationKind | None = None,
    ) -> None:
        super().__init__(f"{status} {code} {message}")
        self.status, self.code, self.message = status, code, message
        self.problems, self.violation = problems or [], violation


def invalid_form(problems: list[Problem]) -> Refusal:
    return Refusal(400, 50035, "Invalid Form Body", problems=problems, violation="request")


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


class Guild:
    """A server; `bot_present` is false where people only use the app they installed for themselves."""

    def __init__(self, id: int, name: str, owner: User, *, bot_present: bool) -> None:
        self.id, self.name, self.owner, self.bot_present = id, name, owner, bot_present
        self.members: list[User] = []
        self.channels: list[Channel] = []
        self.joined_at = now_iso()

    def member_payload(self, user: User) -> Json:
        return {
            **{"user": user.payload(), "roles": [], "joined_at": self.joined_at, "nick": None, "flags": 0},
            **{"avatar": None, "banner": None, "communication_disabled_until": None, "pending": False},
            **{"premium_since": None, "mute": False, "deaf": False},
        }

    def payload(self) -> Json:
        return {"id": str(self.id), "name": self.name, "owner_id": str(self.owner.id), "features": [], "roles": []}


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

    def revise(self, changes: Json) -> None:
        self.versions.append(Version(time.monotonic(), {**copy(self.payload), **changes}))


class Changes:
    """Wakes the tasks that wait for a state."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def until(self, look: Callable[[], T | None], timeout: float, what: str) -> T:
        """Return the first value of `look` that is not None; raises TimeoutError with `what` was awaited."""
        try:
            async with asyncio.timeout(timeout):
                while (found := look()) is None:
                    await self._event.wait()
                return found
        except TimeoutError:
            raise TimeoutError(f"{what} did not happen within {timeout} s.") from None


class Call:
    """An interaction of a person, and the answers so far."""

    def __init__(
        self, id: int, type: int, user: User, channel: Channel, guild: Guild | None, data: Json, changes: Changes
    ) -> None:
        self.id, self.type, self.user, self.channel, self.guild = id, type, user, channel, guild
        self.data, self._changes = data, changes
        self.token = secrets.token_urlsafe(96)
        self.created_seconds = time.monotonic()
        self.answered_seconds: float | None = None
        self.callback_type = 0
        self.expired = False
        self.is_submitted = False
        self.source: StoredMessage | None = None
        self.original: StoredMessage | None = None
        self.followups: list[StoredMessage] = []
        self.callback_data: Json = {}
        self.focused_type = 0

    @property
    def name(self) -> str:
        """Return the command (`/mt train`), or the custom_id of the component or modal."""
        names = [text(self.data.get("name", self.data.get("custom_id")))]
        level = rows(self.data.get("options"))
        while level and level[0].get("type") in (1, 2):
            names.append(text(level[0]["name"]))
            level = rows(level[0].get("options"))
        return f"/{' '.join(names)}" if self.type in (2, 4) else names[0]

    @property
    def is_unresolved(self) -> bool:
        return self.original is not None and self.original.is_loading and not self.original.deleted

    async def answered(self, timeout: float = limits.PATIENCE_SECONDS) -> float:
        """Wait for the first answer and return its seconds."""
        return await self._changes.until(lambda: self.answered_seconds, timeout, f"An answer to {self.name}")

    async def reply(self, timeout: float = limits.PATIENCE_SECONDS) -> StoredMessage:
        """Wait for the answer that a person reads: the message, after a defer the filled one, or the changed one."""
        return await self._changes.until(self._resolved, timeout, f"A reply to {self.name}")

    async def followup(self, index: int = 0, timeout: float = limits.PATIENCE_SECONDS) -> StoredMessage:
        def look() -> StoredMessage | None:
            return self.followups[index] if index < len(self.followups) else None

        return await self._changes.until(look, timeout, f"Follow-up {index} of {self.name}")

    async def form(self, timeout: float = limits.PATIENCE_SECONDS) -> Json:
        """Wait for a modal and return it: title, custom_id, components."""
        await self._changes.until(lambda: self.answered_seconds, timeout, f"A modal of {self.name}")
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

    def __init__(self, token: str, application_id: int | None, description: Description) -> None:
        self.token, self.description = token, description
        self.snowflakes = Snowflakes()
        self.changes = Changes()
        self.violations: list[Violation] = []
        self.application_id = application_id or self.snowflakes.next()
        self.bot = User(self.application_id, "model-trainer", is_bot=True)
        self.users: dict[int, User] = {self.bot.id: self.bot}
        self.guilds: dict[int, Guild] = {}
        self.channels: dict[int, Channel] = {}
        self.messages: dict[int, dict[int, StoredMessage]] = {}
        self.files: dict[int, Upload] = {}
        self.commands: list[Json] = []
        self.calls: dict[str, Call] = {}
        self.closed_dms: set[int] = set()
        self.nonces: dict[tuple[int, str], tuple[float, StoredMessage]] = {}
        self.base_url = ""

    def violate(self, kind: ViolationKind, where: str, detail: str) -> None:
        self.violations.append(Violation(kind, where, detail))
        self.changes.notify()

    def check(self, schema: str, value: JsonValue) -> None:
        """Record differences between an object and its schema in the API description."""
        for problem in self.description.object_problems(schema, value):
            self.violate("payload", schema, f"{problem.path}: {problem.message}")

    def guild_of(self, channel: Channel) -> Guild | None:
        return None if channel.guild_id is None else self.guilds[channel.guild_id]

    def dm_channel(self, user: User) -> Channel:
        for channel in self.channels.values():
            if channel.recipient == user:
                return channel
        return self.add_channel(Channel(self.snowflakes.next(), user.name, recipient=user))

    def add_channel(self, channel: Channel) -> Channel:
        self.channels[channel.id] = channel
        self.messages[channel.id] = {}
        return channel

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
        flags = number(body.get("flags")) | (limits.EPHEMERAL if visible_to else 0)
        blank: Json = {
            **{"id": str(self.snowflakes.next()), "channel_id": str(channel.id), "author": author.payload()},
            **{"type": 0, "content": "", "mentions": [], "mention_roles": [], "mention_everyone": False},
            **{"attachments": [], "embeds": [], "components": [], "timestamp": now_iso(), "flags": flags},
            **{"edited_timestamp": None, "pinned": False, "tts": body.get("tts") is True},
        }
        changes = self._render(channel, body, uploads, [], ephemeral=visible_to is not None)
        message = StoredMessage(channel, {**blank, **extra, **changes}, visible_to=visible_to)
        self.messages[channel.id][message.id] = message
        self.changes.notify()
        return message

    def edit_message(self, message: StoredMessage, body: Json, uploads: Mapping[int, Upload]) -> None:
        """Change what `body` names; a loading message becomes an ordinary one."""
        ephemeral = message.visible_to is not None
        changes = self._render(message.channel, body, uploads, message.attachments, ephemeral=ephemeral)
        flags = number(message.payload["flags"])
        edited = None if message.is_loading else now_iso()
        message.revise({**changes, "flags": flags & ~limits.LOADING, "edited_timestamp": edited})
        self.changes.notify()

    def add_file(self, channel: Channel, upload: Upload, *, ephemeral: bool) -> Json:
        """Store a file and describe it as an attachment."""
        name = cleaned(upload.filename)
        file_id = self.snowflakes.next()
        self.files[file_id] = upload._replace(filename=name)
        folder = "ephemeral-attachments" if ephemeral else "attachments"
        url = f"{self.base_url}/{folder}/{channel.id}/{file_id}/{quote(name)}"
        attachment: Json = {
            **{"id": str(file_id), "filename": name, "size": len(upload.data), "url": url, "proxy_url": url},
            "content_type": upload.content_type,
        }
        if name != upload.filename:
            attachment["title"] = PurePosixPath(upload.filename).stem
        if upload.data.startswith(b"\x89PNG") and len(upload.data) >= 24:
            attachment["width"] = int.from_bytes(upload.data[16:20])
            attachment["height"] = int.from_bytes(upload.data[20:24])
        return {**attachment, "ephemeral": True} if ephemeral else attachment

    def _render(
        self, channel: Channel, body: Json, uploads: Mapping[int, Upload], existing: list[Json], *, ephemeral: bool
    ) -> Json:
        """Return the message fields that `body` sets, as Discord returns them."""
        changes: Json = {}
        if uploads or body.get("attachments") is not None:
            remaining = self._attachments(channel, body, uploads, existing, ephemeral=ephemeral)
            changes["attachments"] = [*remaining]
            existing = remaining
        if "content" in body:
            changes["content"] = text(body["content"])
            changes |= self._mentions(text(body["content"]), body.get("allowed_mentions"))
        if "embeds" in body:
            files = {f"attachment://{text(file['filename'])}": file for file in existing}
            changes["embeds"] = [_embed(embed, files, index) for index, embed in enumerate(rows(body["embeds"]))]
        if "components" in body:
            tree = items(copy({"tree": body["components"]})["tree"])
            for index, (_, component) in enumerate(limits.walk(tree)):
                _complete(component, index + 1)
            changes["components"] = tree
        return changes

    def _attachments(
        self, channel: Channel, body: Json, uploads: Mapping[int, Upload], existing: list[Json], *, ephemeral: bool
    ) -> list[Json]:
        """Return the attachments after an edit: a list keeps only its own ids, no list keeps all."""
        listed = rows(body.get("attachments"))
        wanted = {number(row["id"]) for row in listed}
        for index, row in enumerate(listed):
            if number(row["id"]) not in {*uploads, *(number(file["id"]) for file in existing)}:
                message = "No file and no attachment with this id."
                raise invalid_form([Problem(("attachments", index, "id"), "ATTACHMENT_NOT_FOUND", message)])
        remaining = [file for file in existing if body.get("attachments") is None or number(file["id"]) in wanted]
        for index, upload in sorted(uploads.items()):
            row = next((row for row in listed if number(row["id"]) == index), {})
            named = upload._replace(filename=text(row.get("filename")) or upload.filename)
            added = self.add_file(channel, named, ephemeral=ephemeral)
            remaining.append({**added, **({"description": row["description"]} if row.get("description") else {})})
        return remaining

    def _mentions(self, content: str, allowed: JsonValue) -> Json:
        rules = mapping(allowed)
        parse = items(rules.get("parse")) if allowed is not None else ["users", "roles", "everyone"]
        found: list[str] = re.findall(r"<@!?(\d+)>", content)
        named = [self.users[int(user)] for user in found if int(user) in self.users]
        wanted = {number(user) for user in items(rules.get("users"))}
        pinged: list[JsonValue] = [user.payload() for user in named if "users" in parse or user.id in wanted]
        everyone = "everyone" in parse and re.search("@(everyone|here)", content) is not None
        return {"mentions": pinged, "mention_everyone": everyone}


def cleaned(filename: str) -> str:
    """Return the name under which Discord stores a file, as werkzeug's `secure_filename` does: ASCII, spaces as `_`.

    `мәтін.txt` becomes `txt`, `мәтін 2.txt` becomes `2.txt` (discord-api-docs issue 7754, pull request 6945).
    """
    ascii_only = unicodedata.normalize("NFKD", filename).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.-]", "", "_".join(ascii_only.replace("/", " ").split())).strip("._") or "unknown"


def _embed(embed: Json, files: dict[str, Json], index: int) -> Json:
    """Return an embed with its defaults, without nulls, with attachment:// links resolved."""
    shown: Json = {"type": "rich", **{key: value for key, value in embed.items() if value is not None}}
    link = text(mapping(shown.get("image")).get("url"))
    if link.startswith("attachment://"):
        file = files.get(link)
        if file is None:
            problem = Problem(("embeds", index, "image", "url"), "ATTACHMENT_NOT_FOUND", f"No file for {link}")
            raise invalid_form([problem])
        shown["image"] = {"url": file["url"], "proxy_url": file["url"]}
    return shown


def _complete(component: Json, id: int) -> None:
    """Give a component its id and the defaults that Discord adds; drop nulls."""
    for key in [key for key, value in component.items() if value is None]:
        del component[key]
    component.setdefault("id", id)
    if component["type"] in limits.SELECTS:
        component.setdefault("min_values", 1)
        component.setdefault("max_values", 1)
    for option in rows(component.get("options")):
        for key in [key for key, value in option.items() if value is None]:
            del option[key]
