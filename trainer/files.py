"""The doorway to the disk for whatever must survive a crash: write, fsync, rename, fsync of the folder."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterable
from hashlib import file_digest
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from trainer.contracts.base import FileRecord


def write_atomically(path: Path, data: bytes | BinaryIO) -> None:
    """Put data under a name so that a reader, or a machine that lost its power, finds the old or the new whole."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            shutil.copyfileobj(BytesIO(data) if isinstance(data, bytes) else data, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def file_records(folder: Path, paths: Iterable[Path]) -> tuple[FileRecord, ...]:
    """Size and SHA-256 of files, named relative to a folder, in order of name."""
    return tuple(
        FileRecord(path=str(path.relative_to(folder)), bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(paths)
    )


def try_lock(path: Path) -> BinaryIO | None:
    """Take a kernel lock that ends with whoever holds the open file; None where somebody else has it."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
