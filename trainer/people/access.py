"""Access that admins give and take in Discord, stored in `access.json` of the artifacts folder."""

import asyncio
from pathlib import Path
from typing import Literal

from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.system.files import BrokenFile, read_record, write_atomically

AccessLevel = Literal["none", "user"]


class _Member(Frozen):
    user_id: int
    level: AccessLevel


class _StoredAccess(Frozen):
    schema_version: Literal[1] = 1
    members: tuple[_Member, ...] = ()


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
