"""Child processes, forked from a server process that has torch and the training modules loaded."""

import asyncio
import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from socket import socket, socketpair
from typing import Literal, assert_never

import structlog

from trainer.config.settings import DiscordSettings, ObjectStoreSettings, RedisSettings, Settings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.system.child_environment import set_oom_score, tuned_environment
from trainer.system.signals import heed_warnings
from trainer.system.sockets import shorten_process_sockets

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

Job = Literal["train-child", "train-tokenizer", "experiment", "battery", "reading", "answer-requests"]
"""Task of a child, and the name of its process; Linux shows 15 characters of it."""

_PRELOADED = [
    "trainer.worker.children.fork_server",
    "trainer.worker.children.train_child",
    "trainer.worker.children.tokenizer_child",
    "trainer.worker.children.inference_server",
    "trainer.worker.child_process",
    "trainer.worker.children.built_records",
]
_UNKNOWN_EXIT_CODE = 255
"""The exit code that multiprocessing reports for a child whose fork server was killed."""
_MAX_LAST_LINES = 120
_MAX_LINE_BYTES = 1 << 30
"""An answer is one line, and so is a traceback in the log."""

_calls = ThreadPoolExecutor(1, thread_name_prefix="children")
"""The only thread that starts and joins processes of the worker: multiprocessing does not take several."""


@contextlib.contextmanager
def child_server(settings: Settings) -> Iterator[None]:
    """Start the server process, and keep the environment of children, which has no secrets, until the end."""
    before, environment = dict(os.environ), tuned_environment(settings)
    os.environ.clear()
    os.environ.update(environment)
    try:
        multiprocessing.set_forkserver_preload(_PRELOADED)
        shorten_process_sockets()
        forkserver.ensure_running()
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def new_process(job: Job, settings: Settings, arguments: Sequence[str], streams: Sequence[socket]) -> BaseProcess:
    """Return a process that does a job once it is started; `streams` become its input, output and error output."""
    without_secrets = changed(
        settings, redis=RedisSettings(), discord=DiscordSettings(), object_store=ObjectStoreSettings()
    )
    multiprocessing.set_forkserver_preload(_PRELOADED)
    args: tuple[object, ...] = (job, without_secrets, tuple(arguments), tuple(streams))
    return multiprocessing.get_context("forkserver").Process(target=_run, args=args, daemon=True)


class ChildProcess:
    """A running child: its input, its output, and the last lines of its error output, which is passed on."""

    def __init__(
        self,
        process: BaseProcess,
        pid: int,
        stdin: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        stdout: asyncio.StreamReader,
        stderr: asyncio.StreamReader,
    ) -> None:
        self.pid = pid
        self.stdout = stdout
        self.last_lines: deque[str] = deque(maxlen=_MAX_LAST_LINES)
        self._process = process
        self._until_exit, self.stdin = stdin
        self._exit = asyncio.create_task(self._join(stderr))

    @property
    def is_running(self) -> bool:
        return not self._exit.done()

    async def wait(self) -> int:
        """Return the exit code after the end of the process; the negative signal number if a signal ended it."""
        return await asyncio.shield(self._exit)

    async def end(self, seconds: float) -> None:
        """Ask the child to end, by SIGTERM and by closing its input; kill it after some seconds."""
        self.stdin.write_eof()
        self._send(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                await self.wait()
        except TimeoutError:
            log.warning("child_killed", pid=self.pid)
            self._send(signal.SIGKILL)
            await self.wait()

    def _send(self, number: signal.Signals) -> None:
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def _join(self, stderr: asyncio.StreamReader) -> int:
        async for line in stderr:
            text = line.decode(errors="replace")
            self.last_lines.append(text)
            sys.stderr.write(text)
        with contextlib.suppress(ConnectionError):
            await self._until_exit.read()  # nothing is sent: its end is the child's end, even without the server
        code = await asyncio.get_running_loop().run_in_executor(_calls, _exit_code, self._process)
        self.stdin.close()
        return code


async def start_child(job: Job, settings: Settings, *arguments: str) -> ChildProcess:
    """Start a child in the worker; raises SERVICE_UNAVAILABLE if the server process cannot start it."""
    pairs = [socketpair() for _ in range(3)]
    streams: list[socket] = [theirs for _, theirs in pairs]
    process = new_process(job, settings, arguments, streams)
    with contextlib.ExitStack() as undo:
        for ours, _ in pairs:
            undo.enter_context(ours)
        try:
            pid = await asyncio.get_running_loop().run_in_executor(_calls, _start, process, streams)
        except (OSError, EOFError) as error:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, "The worker cannot start a process. Try again.") from error
        undo.pop_all()
    stdin, stdout, stderr = (ours for ours, _ in pairs)
    return ChildProcess(
        process, pid, await asyncio.open_connection(sock=stdin), await _reader(stdout), await _reader(stderr)
    )


async def _reader(stream: socket) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_MAX_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), stream)
    return reader


def _start(process: BaseProcess, streams: Sequence[socket]) -> int:
    with contextlib.ExitStack() as closing:
        for stream in streams:
            closing.enter_context(stream)
        process.start()
    return process.pid or 0


def _exit_code(process: BaseProcess) -> int:
    process.join()
    code = process.exitcode
    process.close()
    return -signal.SIGKILL if code is None or code == _UNKNOWN_EXIT_CODE else code


def _run(job: Job, settings: Settings, arguments: tuple[str, ...], streams: tuple[socket, ...]) -> None:
    """Do the job in the child, and end when the parent closes the input or sends a signal to stop."""
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    gc.freeze()  # the collector leaves the memory that is shared with the server alone
    gc.enable()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    heed_warnings()
    set_oom_score()
    with contextlib.suppress(OSError):  # not Linux
        Path("/proc/self/comm").write_text(job, encoding="ascii")
    if job != "answer-requests":
        threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(_job(job, settings, *arguments))


def _end_with_parent() -> None:
    with contextlib.suppress(ConnectionError):
        os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _job(job: Job, settings: Settings, *arguments: str) -> int:
    """Do the job and return the exit code. The modules import torch, which the worker itself does without."""
    from trainer.worker.children.inference_server import answer_requests
    from trainer.worker.children.tokenizer_child import run_tokenizer_child
    from trainer.worker.children.train_child import train_run

    match job:
        case "train-child":
            return train_run(settings, *arguments)
        case "train-tokenizer":
            return run_tokenizer_child(settings, *arguments)
        case "experiment":
            from trainer.worker.children.experiment_child import run_experiment_child  # its figures need matplotlib

            return run_experiment_child(settings, *arguments)
        case "battery":
            from trainer.worker.children.battery_child import run_battery_child  # its figures need matplotlib

            return run_battery_child(settings, *arguments)
        case "reading":
            from trainer.worker.children.reading_child import run_reading_child  # its figures need matplotlib

            return run_reading_child(settings, *arguments)
        case "answer-requests":
            return answer_requests(settings)
        case _:
            assert_never(job)
