"""Id of an artifacts folder. A job carries the id of the folder with its run; only workers of that folder take it."""

import fcntl
import re
import secrets
from pathlib import Path

from trainer.system.files import DISK, BrokenFile, open_regular, take_lock

_NAME = "installation"
_ID = re.compile(rb"[0-9a-f]{16}")


def artifacts_id(artifacts_root: Path, name: str = _NAME) -> str:
    """Return the id of a folder; "" if the folder is new, missing or unreadable."""
    try:
        with open_regular(artifacts_root / name) as file:
            return _read(file.read(64))
    except (OSError, BrokenFile):
        return ""


def own_artifacts_id(artifacts_root: Path, name: str = _NAME, *, new_id: str | None = None) -> str:
    """Return the id of a folder, after writing `new_id` if it has none; raises OSError if it cannot be written."""
    if found := artifacts_id(artifacts_root, name):
        return found
    DISK.make_folder(artifacts_root)
    with open_regular(artifacts_root / name, "a+b") as file:
        take_lock(file.fileno(), fcntl.LOCK_EX)  # only one of several processes writes the id
        file.seek(0)
        found = _read(file.read(64))
        if not found:
            found = new_id or secrets.token_hex(8)
            DISK.cut(file, 0)
            DISK.write_at(file, 0, found.encode())
            DISK.sync(artifacts_root)
    return found


def _read(content: bytes) -> str:
    return content.decode() if _ID.fullmatch(content) else ""
