"""Keyed digests of lines: 64 bits of BLAKE2b of each line, with a seed as the key.

A long text is digested by two processes, because no thread of one process can digest short lines beside another. Run as
a program, this module is the second process: it reads blocks of lines and writes their digests to the first one's file.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from itertools import chain, islice
from typing import IO

DIGEST_BYTES = 8
_NUMBER_BYTES = 8
_STDIN, _STDOUT = 0, 1
_BLOCKS_ALONE = 64
"""Blocks that are digested before the second process is started."""
_BLOCKS_SENT = 4
"""Blocks that wait for the second process, so that it never waits for the first one."""


def write_digests(blocks: Iterable[bytes], seed: int, file: IO[bytes]) -> None:
    """Write the digests of all lines to a file, in their order; newlines separate the lines of a block."""
    remaining, offset = iter(blocks), 0
    for lines in islice(remaining, _BLOCKS_ALONE):
        offset += _write_at(file.fileno(), offset, line_digests(lines, seed))
    if (lines_after := next(remaining, None)) is None:
        return
    command = [sys.executable, "-m", __name__, str(seed)]
    with (
        suppress(BrokenPipeError),
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file) as process,
        ThreadPoolExecutor(1) as sender,
    ):
        sent: list[Future[None]] = []
        for lines in chain([lines_after], remaining):
            sent = [block for block in sent if not block.done()]
            if process.stdin is not None and len(sent) < _BLOCKS_SENT:
                sent.append(sender.submit(_send, process.stdin, offset, lines))
                offset += DIGEST_BYTES * (1 + lines.count(b"\n"))
            else:
                offset += _write_at(file.fileno(), offset, line_digests(lines, seed))
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


def _send(pipe: IO[bytes], offset: int, lines: bytes) -> None:
    for number in (offset, len(lines)):
        pipe.write(number.to_bytes(_NUMBER_BYTES, "little"))
    pipe.write(lines)
    pipe.flush()


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
