"""The id of an artifacts folder: a job carries that of the folder which has its run, and only its workers take it."""

import fcntl
import re
import secrets
from pathlib import Path

from trainer.system.files import DISK, BrokenFile, open_regular

_NAME = "installation"
_ID = re.compile(rb"[0-9a-f]{16}")


def artifacts_id(artifacts_root: Path) -> str:
    """Return the id of a folder, "" for one that was not used yet, is not there or cannot be read."""
    try:
        with open_regular(artifacts_root / _NAME) as file:
            return _read(file.read(64))
    except (OSError, BrokenFile):
        return ""


def own_artifacts_id(artifacts_root: Path) -> str:
    """Return the id of a folder, and give it one if it has none; raises OSError where it cannot be written."""
    if found := artifacts_id(artifacts_root):
        return found
    DISK.make_folder(artifacts_root)
    with open_regular(artifacts_root / _NAME, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # of several who are first, one writes
        file.seek(0)
        found = _read(file.read(64))
        if not found:
            found = secrets.token_hex(8)
            DISK.cut(file, 0)
            DISK.write_at(file, 0, found.encode())
            DISK.sync(artifacts_root)
    return found


def _read(content: bytes) -> str:
    return content.decode() if _ID.fullmatch(content) else ""
