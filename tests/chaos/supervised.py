"""Processes that are started again whenever they end, as a service manager would."""

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from trainer.services.embedded import die_with_parent

_RESTART_SECONDS = 0.3
_STOP_SECONDS = 120.0


class Exit(NamedTuple):
    """The end of a process."""

    code: int
    at_seconds: float
    """On the monotonic clock."""
    is_by_itself: bool
    """No signal was sent to it before."""


class Supervised:
    """One process after the other, of one command; all their output goes to one log."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.exits: list[Exit] = []
        self._command, self._environment, self._folder = command, environment, folder
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_signalled = False
        self._before_start: Callable[[], None] | None = None

    @property
    def pid(self) -> int | None:
        """None while no process runs."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep())

    def send(self, number: signal.Signals, *, before_start: Callable[[], None] | None = None) -> bool:
        """Signal the process, if there is one; `before_start` is called before the next one starts."""
        pid = self.pid
        if pid is None:
            return False
        self._before_start = before_start or self._before_start
        self._is_signalled = self._is_signalled or number not in (signal.SIGSTOP, signal.SIGCONT)
        try:
            os.kill(pid, number)
        except ProcessLookupError:  # it has just ended
            return False
        return True

    async def abandon(self) -> None:
        """Start no process any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def stop(self) -> int | None:
        """End the process by SIGTERM, or by SIGKILL where that takes too long; return its exit code."""
        await self.abandon()
        process = self._process
        if process is None:
            return None
        for number in (signal.SIGCONT, signal.SIGTERM):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                return await process.wait()
        except TimeoutError:
            process.kill()
            return await process.wait()

    async def _keep(self) -> None:
        with (self._folder / f"{self.name}.log").open("ab") as log:
            while True:
                if self._before_start is not None:
                    self._before_start()
                self._before_start, self._is_signalled = None, False
                self._process = await asyncio.create_subprocess_exec(
                    *die_with_parent(),
                    *self._command,
                    cwd=self._folder,
                    env=self._environment,
                    stdin=DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C reaches the campaign, which ends them all
                )
                code = await self._process.wait()
                self.exits.append(Exit(code, time.monotonic(), not self._is_signalled))
                await asyncio.sleep(_RESTART_SECONDS)
