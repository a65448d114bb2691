"""Who may do what, by numeric user id (DEC D12); everybody else is refused."""

import time
from collections.abc import Awaitable, Callable
from enum import IntEnum, StrEnum
from typing import NamedTuple, Protocol

from trainer.config.settings import DiscordSettings
from trainer.contracts.errors import AppError, ErrorCode

_MEMBERSHIP_SECONDS = 300.0


class Level(IntEnum):
    NONE = 0
    USER = 1
    ADMIN = 2


class Who(StrEnum):
    USER = "users"
    STARTER = "the one who started the run, and admins"
    ADMIN = "admins"


class Rule(NamedTuple):
    """What a command asks of the one who gives it, and whether only that one sees the answer."""

    who: Who
    ephemeral: bool
    is_limited: bool = False
    """Whether it counts as a question to a model, of which nobody may ask too many at once."""


RULES = {
    "train": Rule(Who.USER, ephemeral=True),
    "status": Rule(Who.USER, ephemeral=True),
    "runs": Rule(Who.USER, ephemeral=True),
    "compare": Rule(Who.USER, ephemeral=True),
    "watch": Rule(Who.USER, ephemeral=True),
    "unwatch": Rule(Who.USER, ephemeral=True),
    "cancel": Rule(Who.STARTER, ephemeral=True),
    "resume": Rule(Who.STARTER, ephemeral=True),
    "logs": Rule(Who.STARTER, ephemeral=True),
    "generate": Rule(Who.USER, ephemeral=False, is_limited=True),
    "chat": Rule(Who.USER, ephemeral=True, is_limited=True),
    "score": Rule(Who.USER, ephemeral=True, is_limited=True),
    "score detail:per_char": Rule(Who.ADMIN, ephemeral=True, is_limited=True),
    "help": Rule(Who.USER, ephemeral=True),
}
"""Who may do what, in the order in which it is told."""


class Button(NamedTuple):
    """A button by what it says, and the command whose rule it has."""

    label: str
    command: str


BUTTONS = {
    "status": Button("Refresh, and the list of `/mt runs`", "status"),
    "runs": Button("« Back, Next »", "runs"),
    "watch": Button("Watch", "watch"),
    "unwatch": Button("Unwatch", "unwatch"),
    "cancel": Button("Cancel, Cancel it", "cancel"),
    "logs": Button("Logs", "logs"),
    "resume": Button("Resume", "resume"),
    "generate": Button("Generate", "generate"),
    "again": Button("Again", "generate"),
    "edit": Button("Edit…", "generate"),
    "hotter": Button("Hotter", "generate"),
    "cooler": Button("Cooler", "generate"),
    "chat": Button("Reply…", "chat"),
    "scorethis": Button("Score this", "score"),
    "score": Button("Score…", "score"),
    "detail": Button("Detail", "score detail:per_char"),
}
"""The buttons by their actions."""


class Caller(NamedTuple):
    """Somebody who gave a command or pressed a button."""

    user_id: int
    level: Level


class Started(Protocol):
    """A run, as far as rights go: the one who started it, or None for one of the command line."""

    @property
    def user_id(self) -> int | None: ...


class Permissions:
    """Decides for each command; `is_member(guild_id, user_id)` asks Discord and is remembered for some minutes."""

    def __init__(self, settings: DiscordSettings, is_member: Callable[[int, int], Awaitable[bool]]) -> None:
        owner: tuple[int, ...] = () if settings.owner_id is None else (settings.owner_id,)
        self._admins: tuple[int, ...] = owner + settings.admin_ids
        self._users: tuple[int, ...] = settings.allowed_user_ids
        self._guilds: tuple[int, ...] = settings.allowed_guild_ids
        self._private_runs = settings.private_runs
        self._is_member = is_member
        self._memberships: dict[int, tuple[float, bool]] = {}

    async def caller(self, user_id: int, guild_id: int | None) -> Caller:
        """Who is calling, from which guild (None: a direct message); raises FORBIDDEN for a stranger."""
        level = await self._level(user_id, guild_id)
        if level is Level.NONE:
            raise AppError(ErrorCode.FORBIDDEN, f"You may not use this bot yet: ask {self._whom_to_ask} to add you.")
        return Caller(user_id, level)

    def may_see(self, caller: Caller, run: Started) -> bool:
        return not self._private_runs or _owns(caller, run)

    def may_be_told(self, user_id: int, run: Started) -> bool:
        """Whether somebody who watches a run, and is not calling, may see it."""
        return self.may_see(Caller(user_id, Level.ADMIN if user_id in self._admins else Level.USER), run)

    def may_give(self, command: str, caller: Caller, run: Started) -> bool:
        """Whether a run is the caller's to give this command on."""
        who = RULES[command].who
        if who is Who.ADMIN:
            return caller.level is Level.ADMIN
        return _owns(caller, run) or (who is Who.USER and not self._private_runs)

    def check_run(self, command: str, caller: Caller, run: Started) -> None:
        """Refuse, with FORBIDDEN, a command on a run that is not the caller's to give it on."""
        if not self.may_see(caller, run):
            raise AppError(ErrorCode.FORBIDDEN, f"This run is private: ask its starter or {self._whom_to_ask}.")
        if not self.may_give(command, caller, run):
            who = RULES[command].who
            whom = self._whom_to_ask if run.user_id is None or who is Who.ADMIN else _mention(run.user_id)
            raise AppError(ErrorCode.FORBIDDEN, f"`/mt {command}` is for {who}: ask {whom}.")

    async def _level(self, user_id: int, guild_id: int | None) -> Level:
        if user_id in self._admins:
            return Level.ADMIN
        if user_id in self._users or guild_id in self._guilds or await self._in_a_guild(user_id):
            return Level.USER
        return Level.NONE

    async def _in_a_guild(self, user_id: int) -> bool:
        known = self._memberships.get(user_id)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        found = False
        for guild_id in self._guilds:
            found = found or await self._is_member(guild_id, user_id)
        self._memberships[user_id] = (time.monotonic() + _MEMBERSHIP_SECONDS, found)
        return found

    @property
    def _whom_to_ask(self) -> str:
        return _mention(self._admins[0]) if self._admins else "whoever runs it"


def _owns(caller: Caller, run: Started) -> bool:
    """Whether a run is the caller's own; admins stand in for everybody."""
    return caller.level is Level.ADMIN or run.user_id == caller.user_id


def _mention(user_id: int) -> str:
    return f"<@{user_id}>"
