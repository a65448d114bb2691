"""Disks that fail at a chosen call, and folders that a process may not use."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from trainer.contracts.errors import ErrorCode
from trainer.system.files import Disk

CODES = {
    errno.ENOSPC: ErrorCode.INSUFFICIENT_STORAGE,
    errno.EDQUOT: ErrorCode.INSUFFICIENT_STORAGE,
    errno.EIO: ErrorCode.SERVICE_UNAVAILABLE,
}


class FailingDisk(Disk):
    """A disk whose n-th operation fails, a write after half of the data."""

    def __init__(self, number: int, code: int) -> None:
        self._left = number
        self._code = code
        self.has_failed = False

    def make_folder(self, folder: Path, *, exist_ok: bool = True) -> None:
        self._count()
        super().make_folder(folder, exist_ok=exist_ok)

    def write(self, path: Path, data: bytes | BinaryIO) -> None:
        whole = data if isinstance(data, bytes) else data.read()
        if self._left == 1:
            path.write_bytes(whole[: len(whole) // 2])
        self._count()
        super().write(path, whole)

    def write_at(self, file: FileIO, offset: int, data: bytes) -> None:
        if self._left == 1:
            super().write_at(file, offset, data[: len(data) // 2])
        self._count()
        super().write_at(file, offset, data)

    def cut(self, file: FileIO, length: int) -> None:
        self._count()
        super().cut(file, length)

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        self._count()
        super().remove(path)

    def remove_folder(self, folder: Path) -> None:
        self._count()
        super().remove_folder(folder)

    def flush(self, descriptor: int) -> None:
        self._count()

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.has_failed = True
            raise OSError(self._code, "the disk failed")


def failing(code: int, at_least: int) -> Iterator[FailingDisk]:
    """Disks that fail at their first, second, ... operation, up to the one that has nothing left to fail at."""
    for number in range(1, 60):
        disk = FailingDisk(number, code)
        yield disk
        if not disk.has_failed:
            assert number > at_least
            return
    raise AssertionError("the work has no end")


@contextmanager
def allowing(mode: int, folder: Path) -> Iterator[None]:
    """Give a folder a mode for a block; root, whom no mode stops, is another user as long."""
    user = os.geteuid()
    folder.chmod(mode)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o700)
