"""Work on many items that a second process shares: a fork of this one, which has all that the work reads."""

import fcntl
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from io import BufferedReader, BufferedWriter
from itertools import islice
from typing import TypeAlias

from trainer.system.hardware import default_threads

Work: TypeAlias = "Callable[[int, int], Iterator[Sequence[bytes]]]"
"""work(first, step) does the items number first, first + step, … and yields the result of each one."""

MIN_SHARED_BYTES = 16 << 20
"""Text that takes a quarter of a second; to start the second process takes about 20 ms."""
_PIPE_BYTES = 1 << 20
_NUMBER_BYTES = 8
_END = (1 << 64) - 1


def all_results(work: Work, text_bytes: int) -> Generator[Sequence[bytes], None, None]:
    """Yield the results of all items of a text in order; of a long one, a second process does every second item.

    If the second process does not start, fails or is killed, this one does its items, and raises what they raise. The
    work may use no threads and no library that has started some.
    """
    if text_bytes < MIN_SHARED_BYTES or default_threads() == 1:
        yield from work(0, 1)
        return
    read_end, write_end = os.pipe()
    with suppress(AttributeError, OSError):  # not Linux; the user has no more room for pipes
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    pid: int | None = None
    with suppress(OSError):  # no memory or no number for another process: this one reads an empty pipe
        pid = os.fork()
    if pid == 0:
        _run_fork(work, read_end, write_end)
    os.close(write_end)
    try:
        with os.fdopen(read_end, "rb") as stream:
            yield from alternated(work, stream)
    finally:
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def alternated(work: Work, stream: BufferedReader) -> Iterator[Sequence[bytes]]:
    """Yield the results of all items in order: this process works, and reads every second result from a stream."""
    others = _results_of_fork(work, stream)
    for own in work(0, 2):
        yield own
        other = next(others, None)
        if other is not None:
            yield other


def write_results(results: Iterator[Sequence[bytes]], stream: BufferedWriter) -> None:
    """Write results as `alternated` reads them: the number of parts, then the size and the content of each part."""
    for parts in results:
        stream.write(len(parts).to_bytes(_NUMBER_BYTES))
        for part in parts:
            stream.write(len(part).to_bytes(_NUMBER_BYTES))
            stream.write(part)
        stream.flush()
    stream.write(_END.to_bytes(_NUMBER_BYTES))


def _results_of_fork(work: Work, stream: BufferedReader) -> Iterator[Sequence[bytes]]:
    """Yield the results in the stream; if it ends early, do the items that are missing."""
    received = 0
    try:
        while (parts := _number(stream)) != _END:
            yield [_read(stream, _number(stream)) for _ in range(parts)]
            received += 1
    except EOFError:
        yield from islice(work(1, 2), received, None)


def _number(stream: BufferedReader) -> int:
    return int.from_bytes(_read(stream, _NUMBER_BYTES))


def _read(stream: BufferedReader, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content


def _run_fork(work: Work, read_end: int, write_end: int) -> None:
    """Do the second process's items, and end it without the clean-up of the process that it was forked from."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(read_end)  # so that writing fails when the reader has ended
        with os.fdopen(write_end, "wb") as stream:
            write_results(work(1, 2), stream)
    finally:
        os._exit(0)
