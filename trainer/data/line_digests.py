"""Keyed digests of lines: 64 bits of BLAKE2b of each line, with a seed as the key.

A long text is digested by two processes, because no thread of one process can digest short lines beside another. Run as
a program, this module is the second process: it reads blocks of lines and writes their digests to the first one's file.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from itertools import chain, islice
from socket import MSG_DONTWAIT, SO_SNDBUF, SOL_SOCKET, socket, socketpair
from typing import IO

DIGEST_BYTES = 8
_NUMBER_BYTES = 8
_STDIN, _STDOUT = 0, 1
_BLOCKS_ALONE = 64
"""Blocks that are digested before the second process is started."""
_BUFFER_BYTES = 1 << 20
"""Wanted size of the buffer from which the second process reads; the system may make it smaller."""


def write_digests(blocks: Iterable[bytes], seed: int, file: IO[bytes]) -> None:
    """Write the digests of all lines to a file, in their order; newlines separate the lines of a block."""
    remaining, offset = iter(blocks), 0
    for lines in islice(remaining, _BLOCKS_ALONE):
        offset += _write_at(file.fileno(), offset, line_digests(lines, seed))
    if (lines_after := next(remaining, None)) is None:
        return
    ours, theirs = socketpair()
    ours.setsockopt(SOL_SOCKET, SO_SNDBUF, _BUFFER_BYTES)
    command = [sys.executable, "-m", __name__, str(seed)]
    # `ours` is closed before the end of the process is waited for, and also if the process cannot start
    with ours, theirs, subprocess.Popen(command, stdin=theirs.fileno(), stdout=file) as process, ours:
        theirs.close()
        with suppress(ConnectionError):
            unsent = b""
            for lines in chain([lines_after], remaining):
                unsent = _send_some(ours, unsent)
                if unsent:
                    offset += _write_at(file.fileno(), offset, line_digests(lines, seed))
                else:
                    unsent = _send_some(ours, b"".join((_number(offset), _number(len(lines)), lines)))
                    offset += DIGEST_BYTES * (1 + lines.count(b"\n"))
            ours.sendall(unsent)
    if process.returncode:
        raise ChildProcessError(f"The process that digests lines ended with exit code {process.returncode}.")


def line_digests(lines: bytes, seed: int) -> bytes:
    """Return the digests of lines between newlines, in their order."""
    copy = blake2b(key=seed.to_bytes(8, "little"), digest_size=DIGEST_BYTES).copy
    digests: list[bytes] = []
    for line in lines.split(b"\n"):
        digest = copy()
        digest.update(line)
        digests.append(digest.digest())
    return b"".join(digests)


def _number(number: int) -> bytes:
    return number.to_bytes(_NUMBER_BYTES, "little")


def _send_some(receiver: socket, data: bytes) -> bytes:
    """Send the bytes for which the receiver has room now, and return the others."""
    with suppress(BlockingIOError):
        data = data[receiver.send(data, MSG_DONTWAIT) :]
    return data


def _write_at(descriptor: int, offset: int, data: bytes) -> int:
    """Write all data at an offset and return its size."""
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], offset + written)
    return written


def _digest_input(seed: int) -> None:
    """Write the digests of the blocks in standard input to standard output, until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process decides when to end
    with open(_STDIN, "rb") as blocks:
        while offset := blocks.read(_NUMBER_BYTES):
            lines = blocks.read(int.from_bytes(blocks.read(_NUMBER_BYTES), "little"))
            _write_at(_STDOUT, int.from_bytes(offset, "little"), line_digests(lines, seed))


if __name__ == "__main__":
    _digest_input(int(sys.argv[1]))
