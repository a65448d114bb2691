"""Scores of many requests in their order, and the file that they are written to."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import TypeVar

from trainer.commands.terminal import Terminal
from trainer.contracts.errors import AppError, ErrorCode, transient_code
from trainer.system.files import storage_errors

T = TypeVar("T")
Write = Callable[[str], None]
"""Writes complete lines of the result; the text has no final newline."""

_MAX_REQUESTS = 4
"""Requests under way at a time, which bounds the memory for a file of any size."""


def check_output(file: Path, source: Path | None, *, overwrites: bool) -> None:
    """Refuse an output file that cannot be written, that is the input, or that would be overwritten."""
    if not os.path.isdir(file.parent):
        raise AppError(ErrorCode.INVALID_INPUT, f"There is no folder '{file.parent}' to write '{file.name}' to.")
    if os.path.isdir(file):
        raise AppError(ErrorCode.INVALID_INPUT, f"'{file}' is a folder: name a file to write to.")
    if source is not None and os.path.exists(source) and os.path.exists(file) and file.samefile(source):
        raise AppError(ErrorCode.INVALID_INPUT, f"'{file}' is the input: name another file to write to.")
    if os.path.isfile(file) and not overwrites:
        message = f"'{file}' already exists: name another file, or overwrite it with `--force`."
        raise AppError(ErrorCode.CONFLICT, message)


async def in_order(requests: Iterable[Coroutine[object, object, T]]) -> AsyncGenerator[T, None]:
    """Yield the answers to requests in their order, while the next requests are under way."""
    waiting: deque[asyncio.Task[T]] = deque()
    try:
        for request in requests:
            waiting.append(asyncio.create_task(request))
            if len(waiting) == _MAX_REQUESTS:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        # wait until each has withdrawn its request; further errors add nothing to the first
        await asyncio.gather(*waiting, return_exceptions=True)


@contextmanager
def output_to(out: Path | None, terminal: Terminal) -> Iterator[Write]:
    """Yield a function that writes to standard output, or to a file that is created with the first line."""
    if out is None:
        yield terminal.line
        return
    with ExitStack() as opened:
        files: list[FileIO] = []

        def write(lines: str) -> None:
            data = memoryview(f"{lines}\n".encode())
            with write_errors(out):
                if not files:
                    files.append(opened.enter_context(FileIO(out, "wb")))
                while data:  # unbuffered: a buffer would be written again at exit when the disk is full
                    data = data[files[0].write(data) :]

        yield write


@contextmanager
def write_errors(file: Path) -> Iterator[None]:
    """Raise an AppError with the reason if the block cannot write the file."""
    with storage_errors(f"`{file.name}` could not be written"):
        try:
            yield
        except OSError as error:
            if transient_code(error) is not None:
                raise
            raise AppError(ErrorCode.INVALID_INPUT, f"'{file}' cannot be written to: {error.strerror}.") from None
