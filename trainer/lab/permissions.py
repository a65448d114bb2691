"""Permissions by numeric Discord user id; everybody without a permission is refused."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal, NamedTuple

from trainer.config.settings import DiscordSettings
from trainer.contracts.base import Frozen, JobRecord
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference_fields import InferenceRecord
from trainer.contracts.operations import CHAT_COMMANDS, Role
from trainer.lab.language import _
from trainer.queue.run_index import RunEntry, owner_number, owner_of
from trainer.system.files import BrokenFile, read_record, write_atomically

AccessLevel = Literal["none", "user"]


class _Member(Frozen):
    user_id: int
    level: AccessLevel


class _StoredAccess(Frozen):
    schema_version: Literal[1] = 1
    members: tuple[_Member, ...] = ()


Owned = JobRecord | RunEntry
"""Records of jobs, each with the person who has started it."""


class AccessList:
    """The levels of Discord users that replace those of the settings; changes are durable and apply at once."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises CONFIG_INVALID if it is damaged."""
        self._path = path
        self._lock = asyncio.Lock()
        self._levels: dict[int, AccessLevel] = {}
        try:
            stored = read_record(path, _StoredAccess)
        except FileNotFoundError:
            return
        except BrokenFile as error:
            message = f"`{path.name}` in the artifacts folder is damaged. Restore or delete it."
            raise AppError(ErrorCode.CONFIG_INVALID, message) from error
        self._levels = {member.user_id: member.level for member in stored.members}

    def of(self, user_id: int) -> AccessLevel | None:
        """Return the stored level of a user; None if the settings decide."""
        return self._levels.get(user_id)

    async def set(self, user_id: int, level: AccessLevel) -> None:
        """Store the level of a user; durable on return."""
        async with self._lock:
            levels = {**self._levels, user_id: level}
            members = tuple(_Member(user_id=user, level=one) for user, one in sorted(levels.items()))
            data = _StoredAccess(members=members).model_dump_json(indent=1).encode()
            await asyncio.to_thread(write_atomically, self._path, data)
            self._levels = levels


_MEMBERSHIP_SECONDS = 300.0


def command_of(rule: str) -> str:
    """Return the command of a rule, without the option that it is about."""
    return " ".join(word for word in rule.split() if ":" not in word)


def typed_command(command: str) -> str:
    """Return a command as people type it: those of `/mt` have their names in it, others begin with their own group."""
    return f"/{command}" if command.startswith("mt-") else f"/mt {command}"


def bare_command(typed: str) -> str:
    """Return the name of a typed command, with or without its slash and `mt`."""
    return typed.removeprefix("/").removeprefix("mt ")


class Caller(NamedTuple):
    """A person, or a program with an API key, who asks for something."""

    user_id: int
    """Id in Discord; negative for an API key that names no user, and 0 for the operator of this machine."""
    is_admin: bool = False
    key_name: str | None = None
    """Name of the API key."""
    is_counted: bool = False
    """The request of the caller counts towards the limits already."""

    @property
    def discord_id(self) -> int | None:
        """The Discord user; None for somebody else."""
        return self.user_id if self.user_id > 0 else None

    def is_owner(self, owner: int | str) -> bool:
        """Return True if an owner is the caller; a key that is named after a Discord user is that user's."""
        return self.user_id == (owner_number(owner) if isinstance(owner, str) else owner)

    def is_requester(self, record: InferenceRecord) -> bool:
        """Return True if the caller may read a result: an own one, as an admin, or one that has no requester."""
        return self.is_admin or record.owner is None or self.is_owner(record.owner)

    @property
    def owner(self) -> int | str | None:
        """The Discord user, or else the name of the API key, as in the records of jobs; None for the operator."""
        return self.key_name if self.discord_id is None else self.discord_id


class Refused(AppError):
    """A refusal for want of a role, which `Permissions.worded` says for a command of the bot."""

    def __init__(
        self, message: str, role: Role, owned: Owned | None = None, word: str = "run", *, is_private: bool = False
    ) -> None:
        super().__init__(ErrorCode.FORBIDDEN, message)
        self.word = word
        """The noun for what is owned."""
        self.role = role
        self.owned = owned
        self.is_private = is_private
        """The caller may not even see what is owned."""


class Permissions:
    """Decides who may run a command; results of `is_member(guild_id, user_id)` are cached for five minutes.

    The levels of the access list replace the settings, except for admins.
    """

    def __init__(
        self,
        settings: DiscordSettings,
        is_member: Callable[[int, int], Awaitable[bool]],
        access: AccessList | None = None,
    ) -> None:
        owner: tuple[int, ...] = () if settings.owner_id is None else (settings.owner_id,)
        self._admins: tuple[int, ...] = owner + settings.admin_ids
        self._users: tuple[int, ...] = settings.allowed_user_ids
        self._guilds: tuple[int, ...] = settings.allowed_guild_ids
        self._private_runs = settings.private_runs
        self._access = access
        self._is_member = is_member
        self._memberships: dict[int, tuple[float, bool]] = {}

    async def caller(self, user_id: int, guild_id: int | None) -> Caller:
        """Return the caller in a guild or (None) in direct messages; raises FORBIDDEN for a stranger."""
        if self.is_admin(user_id):
            return Caller(user_id, is_admin=True)
        level = self._level(user_id)
        if level == "user" or (level is None and await self._is_user(user_id, guild_id)):
            return Caller(user_id)
        raise AppError(
            ErrorCode.FORBIDDEN, _("You may not use this bot. Ask {contact} to add you.", contact=self._contact)
        )

    def may_see(self, caller: Caller, run: Owned) -> bool:
        return not self._private_runs or _owns(caller, run)

    def sees_unreadable(self, caller: Caller) -> bool:
        """Return whether a caller may see jobs whose owner cannot be read."""
        return caller.is_admin or not self._private_runs

    def seen(self, caller: Caller) -> Callable[[JobRecord | None], bool]:
        """Return a test of records of jobs: whether the caller may see the job; None is that of an unreadable one."""
        return lambda record: self.sees_unreadable(caller) if record is None else self.may_see(caller, record)

    def can_receive(self, user_id: int, run: Owned) -> bool:
        """Return whether a watcher may see a run or an experiment; without access, only an own one."""
        caller = Caller(user_id, self.is_admin(user_id))
        return self.may_see(caller, run) and (self._level(user_id) != "none" or _owns(caller, run))

    def _level(self, user_id: int) -> AccessLevel | None:
        return None if self._access is None else self._access.of(user_id)

    def is_admin(self, user_id: int) -> bool:
        return user_id in self._admins

    def check(self, role: Role, caller: Caller, owned: Owned | None = None, word: str = "run") -> None:
        """Raise FORBIDDEN if the caller may not do what needs a role, or not to a job, for which there is a noun."""
        if owned is not None and role is not Role.ADMIN and not self.permits(role, caller, owned):
            message = f"Only the owner of this {word} and admins may do this."
            raise Refused(message, role, owned, word, is_private=not self.may_see(caller, owned))
        if role is Role.ADMIN and not caller.is_admin:
            raise Refused("Only admins may do this.", role)

    def check_experiments(self, caller: Caller) -> None:
        """Raise FORBIDDEN if runs are private, for others than admins: an experiment shows many runs."""
        if self._private_runs and not caller.is_admin:
            raise AppError(ErrorCode.FORBIDDEN, _("Runs are private here: only admins may see experiments."))

    def owns(self, caller: Caller, owned: Owned) -> bool:
        """Return whether a job is the caller's, or the caller an admin."""
        return _owns(caller, owned)

    def permits(self, role: Role, caller: Caller, owned: Owned) -> bool:
        """Return whether the caller may do to a job what needs a role."""
        if role is Role.ADMIN:
            return caller.is_admin
        return _owns(caller, owned) or (role in (Role.USER, Role.WEIGHTS) and not self._private_runs)

    def worded(self, error: AppError, command: str) -> AppError:
        """Return a refusal in the words for a command: whom it is for, and whom to ask; other errors as they are."""
        if not isinstance(error, Refused):
            return error
        if error.is_private and error.word == "battery":
            message = _("This battery is private. Ask its owner or {contact}.", contact=self._contact)
        elif error.is_private:
            message = _("This run is private. Ask its owner or {contact}.", contact=self._contact)
        else:
            owner = None if error.owned is None or error.role is Role.ADMIN else _owner(error.owned)
            contact = self._contact if owner is None or owner < 0 else _mention(owner)
            role = _(error.role)
            message = _("This is only for {role}. Ask {contact}.", role=role, contact=contact)
            if command in CHAT_COMMANDS:
                message = _(
                    "`{command}` is only for {role}. Ask {contact}.",
                    command=typed_command(command),
                    role=role,
                    contact=contact,
                )
        return AppError(error.code, message)

    async def _is_user(self, user_id: int, guild_id: int | None) -> bool:
        """Return whether the settings make somebody a user."""
        return user_id in self._users or guild_id in self._guilds or await self._is_guild_member(user_id)

    async def _is_guild_member(self, user_id: int) -> bool:
        known = self._memberships.get(user_id)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        is_member = False
        for guild_id in self._guilds:
            is_member = is_member or await self._is_member(guild_id, user_id)
        self._memberships[user_id] = (time.monotonic() + _MEMBERSHIP_SECONDS, is_member)
        return is_member

    @property
    def _contact(self) -> str:
        return _mention(self._admins[0]) if self._admins else _("the operator of this bot")


async def no_member(guild_id: int, user_id: int) -> bool:
    """Return False: without Discord, nobody is known to be a member of a guild."""
    return False


def _owns(caller: Caller, run: Owned) -> bool:
    return caller.is_admin or _owner(run) == caller.user_id


def _owner(run: Owned) -> int | None:
    return run.user_id if isinstance(run, RunEntry) else owner_of(run)


def _mention(user_id: int) -> str:
    return f"<@{user_id}>"
