"""Commands of `mt` in child processes of the worker."""

import asyncio
from asyncio.subprocess import PIPE
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from trainer.services.embedded import die_with_parent, end, pipe
from trainer.system.heartbeat import StallDetector, processor_ticks
from trainer.system.python import python_command

_END_SECONDS = 5.0
_WATCH_SECONDS = 1.0
_LINE_BYTES = 1 << 22
_MAX_LAST_LINES = 20


class CommandResult(NamedTuple):
    """The end of a command that prints JSON."""

    exit_code: int
    output: bytes
    last_lines: Sequence[str]
    """The last lines of its error output."""


async def run_command(
    words: Sequence[str], environment: Mapping[str, str], on_line: Callable[[bytes], None], stall_seconds: float
) -> CommandResult:
    """Run a command of `mt` with `--json`; `on_line` receives each line of its error output in a thread.

    A command that uses no processor time for `stall_seconds` is ended.
    """
    child = await asyncio.create_subprocess_exec(
        *(*die_with_parent(), *python_command("-m", "trainer", *words, "--json")),
        env=environment,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        limit=_LINE_BYTES,
    )
    last_lines: deque[str] = deque(maxlen=_MAX_LAST_LINES)
    output = asyncio.create_task(pipe(child.stdout).read())
    watching = asyncio.create_task(_end_when_stalled(child, stall_seconds))
    try:
        async for line in pipe(child.stderr):
            last_lines.append(line.decode(errors="replace"))
            await asyncio.to_thread(on_line, line)
        return CommandResult(await child.wait(), await output, tuple(last_lines))
    except asyncio.CancelledError:
        await end(child, _END_SECONDS)
        raise
    finally:
        watching.cancel()
        output.cancel()


async def _end_when_stalled(child: asyncio.subprocess.Process, stall_seconds: float) -> None:
    watch = StallDetector(stall_seconds, partial(processor_ticks, child.pid))
    while not watch.is_stalled(_WATCH_SECONDS):
        await asyncio.sleep(_WATCH_SECONDS)
    await end(child, _END_SECONDS)
