"""A folder whose path is short enough for the addresses of Unix sockets, which have at most 104 bytes."""

import os
import tempfile
from multiprocessing import util
from pathlib import Path

from trainer.contracts.errors import AppError, ErrorCode

MAX_SOCKET_PATH_BYTES = 100
_MAX_FOLDER_BYTES = MAX_SOCKET_PATH_BYTES // 2  # multiprocessing adds 32 bytes, the embedded server's link 54 at most
_OTHERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
_TOO_LONG = (
    f"The path of the folder for temporary files is longer than the {_MAX_FOLDER_BYTES} bytes that sockets allow, and"
    f" {', '.join(_OTHERS)} cannot be written. Set TMPDIR to a folder with a shorter path."
)


def socket_folder() -> Path:
    """Return the folder for temporary files, or another one if its path is too long for sockets.

    Raises CONFIG_INVALID if no folder with a short path can be written.
    """
    for folder in map(Path, (tempfile.gettempdir(), *_OTHERS)):
        if len(bytes(folder)) <= _MAX_FOLDER_BYTES and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise AppError(ErrorCode.CONFIG_INVALID, _TOO_LONG)


def shorten_process_sockets() -> None:
    """Let multiprocessing have the sockets of this process and its children in the `socket_folder`.

    Call it before the first process is started: multiprocessing chooses its folder once.
    """
    before, tempfile.tempdir = tempfile.tempdir, str(socket_folder())
    try:
        util.get_temp_dir()
    finally:
        tempfile.tempdir = before
