"""Processes that are started again, results to compare, a verdict and a command line, for all campaigns of faults."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from tests.support import ROOT, add_corpus, kill, processes, settings_in, some_text
from tests.support.waiting import PATIENCE_SECONDS, until
from tests.support.worker_runs import with_redis
from trainer.artifacts.runs import RunDirectory
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.events import JobCompleted, JobStarted
from trainer.contracts.runs import RunMetrics
from trainer.queue.queue import JobQueue
from trainer.services.embedded import die_with_parent, find_server

LEASE_SECONDS = 3.0
_RESTART_SECONDS = 0.3
_row_adapter: TypeAdapter[dict[str, float | None]] = TypeAdapter(dict[str, float | None])


class Exit(NamedTuple):
    """The end of a process."""

    code: int
    at_seconds: float
    """On the monotonic clock."""
    is_by_itself: bool
    """No signal was sent to it before."""


class Supervised:
    """One process after the other, of one command, as by a service manager; all their output goes to one log."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self.name, self.log = name, folder / f"{name}.log"
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

    async def freeze(self, seconds: float) -> bool:
        if not self.send(signal.SIGSTOP):
            return False
        await asyncio.sleep(seconds)
        return self.send(signal.SIGCONT)

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
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await process.wait()
        except TimeoutError:
            process.kill()
            return await process.wait()

    async def _keep(self) -> None:
        with self.log.open("ab") as log:
            while True:
                if self._before_start is not None:
                    self._before_start()
                self._before_start, self._is_signalled = None, False
                self._process = await asyncio.create_subprocess_exec(
                    *(*die_with_parent(), *self._command),
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


class System:
    """A Valkey that loses nothing when it is killed, and other processes in a folder; none outlives the block."""

    def __init__(self, folder: Path, lines: int, valkey: Mapping[str, str] | None = None) -> None:
        """Without options `valkey` it listens at a socket in the folder; the corpus has so many lines."""
        self.folder, self._data, socket = folder, folder / "valkey", folder / "valkey.sock"
        self._data.mkdir(parents=True)
        add_corpus(folder, some_text(lines))
        self.url = f"unix://{socket}"
        self.undo = contextlib.AsyncExitStack()
        options = {"dir": str(self._data), "save": "", "appendonly": "yes", "appendfsync": "always"}
        options |= valkey or {"port": "0", "unixsocket": str(socket), "maxmemory-policy": "noeviction"}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self.valkey = self.process("valkey", find_server(), *words)
        self._is_ready: Callable[[], bool] = socket.exists

    @property
    def settings(self) -> Settings:
        plain = settings_in(self.folder, embedded_workers=0, lease_seconds=LEASE_SECONDS)
        return changed(plain, **with_redis(self.url))

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process, without settings of this program that the user has."""
        out = ("DISCORD", "COVERAGE_")
        kept = {name: value for name, value in os.environ.items() if "__" not in name and not name.startswith(out)}
        return {
            **kept,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "APP__DATA_ROOT": str(self.folder / "data"),
            "APP__ARTIFACTS_ROOT": str(self.folder / "artifacts"),
            "HTTP__PORT": "",
            "REDIS__URL": self.url,
            "QUEUE__EMBEDDED_WORKERS": "0",
            "QUEUE__LEASE_SECONDS": str(LEASE_SECONDS),
            "QUEUE__STALL_SECONDS": "3600",  # a busy machine may give a training no time for minutes
        }

    def process(self, name: str, *command: str, **environment: str) -> Supervised:
        """Return a process that `start` starts; it is started no more after the block."""
        made = Supervised(name, command, self.environment | environment, self.folder)
        self.undo.push_async_callback(made.abandon)
        return made

    def python(self, name: str, *words: str, **environment: str) -> Supervised:
        return self.process(name, sys.executable, "-m", *words, **environment)

    async def connect(self) -> JobQueue:
        """Start Valkey and return a queue to it."""
        self.valkey.start()
        await until(self._is_ready)
        queue = await JobQueue.connect(self.settings, self.url)
        self.undo.push_async_callback(queue.close)
        return queue

    def wipe_valkey(self) -> bool:
        """Kill the server and start the next one with an empty folder."""

        def empty() -> None:
            shutil.rmtree(self._data)
            self._data.mkdir()

        return self.valkey.send(signal.SIGKILL, before_start=empty)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.undo.aclose()
        await asyncio.to_thread(kill_all, self.folder)


def kill_all(folder: Path) -> None:
    """Kill the processes of a folder until there are none."""
    while left := processes(folder):
        for one in left:
            with contextlib.suppress(ProcessLookupError):
                kill(one.pid)
        time.sleep(0.05)


@contextlib.asynccontextmanager
async def undisturbed(folder: Path, lines: int) -> AsyncIterator[JobQueue]:
    """A queue with one worker and without faults."""
    async with System(folder, lines) as system:
        worker = system.python("worker", "trainer", "worker", QUEUE__TRAINING_SLOTS="2")
        queue = await system.connect()
        worker.start()
        yield queue
        await worker.stop()


class Campaign(ABC):
    """Faults in a system, and the time after which everything had ended."""

    def __init__(self) -> None:
        self.faults: Counter[str] = Counter()
        self.settled_seconds: float | None = None
        """After the last fault; None: it did not settle."""

    @abstractmethod
    def left(self) -> int:
        """Return how much is still to end."""

    async def carry_out(self, steps: Iterable[tuple[float, Callable[[], Coroutine[None, None, None]]]]) -> None:
        """Begin each step at its second."""
        begin = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for at_seconds, do in sorted(steps, key=_second):
                await asyncio.sleep(begin + at_seconds - time.monotonic())
                group.create_task(do())

    async def settle(self) -> None:
        """Wait until nothing is left; give up where nothing ends for minutes."""
        begin = last_moved = time.monotonic()
        before = -1
        while (left := self.left()) and time.monotonic() - last_moved < PATIENCE_SECONDS:
            if left != before:
                before, last_moved = left, time.monotonic()
            await asyncio.sleep(0.25)
        self.settled_seconds = None if left else time.monotonic() - begin


def _second(step: tuple[float, object]) -> float:
    return step[0]


class Result(NamedTuple):
    """The result of a training, to the last bit."""

    curve: list[dict[str, str | None]]
    """Numbers as hex, without times."""
    files: dict[str, str]
    """The SHA-256 of weights, samples and tokenizer."""
    metrics: RunMetrics


def result_of(run: RunDirectory) -> Result:
    rows = [_row_adapter.validate_json(line) for line in run.loss_curve.read_text(encoding="utf-8").splitlines()]
    curve = [
        {name: None if value is None else value.hex() for name, value in row.items() if name != "elapsed_seconds"}
        for row in rows
    ]
    manifest = run.completed_manifest()
    same = ("model.safetensors", "eval/samples.jsonl", "tokenizer/tokenizer.json")
    files = {file.path: file.sha256 for file in manifest.files if file.path in same}
    return Result(curve, files, manifest.metrics)


def attempts_at(run: RunDirectory) -> int:
    return sum(isinstance(event, JobStarted) for event in run.reader().read_new())


def event_faults(run: RunDirectory) -> list[str]:
    """Return the faults of an event log: what cannot be read, gaps and repetitions."""
    try:
        data = (run.path / "events.jsonl").read_bytes()
        events = run.reader().read_new()
    except (FileNotFoundError, ValidationError) as error:
        return [f"its event log cannot be read: {error}"]
    numbers = [event.seq for event in events]
    if numbers != list(range(1, data.count(b"\n") + 1)) or not data.endswith(b"\n"):
        return [f"events with a gap: {numbers}"]
    ids = Counter(event.event_id for event in events)
    return [f"event {event_id} {times} times" for event_id, times in ids.items() if times > 1]


def completed_faults(run: RunDirectory, reference: Result) -> list[str]:
    """Return why a run has not completed exactly once with the result of the same training undisturbed."""
    manifest = run.manifest()
    if manifest is None or manifest.status != "completed":
        return [f"ended as {manifest and (manifest.status, manifest.error)}"]
    pairs = zip(Result._fields, result_of(run), reference, strict=True)
    faults = [f"its {name} differ from the undisturbed run" for name, found, wanted in pairs if found != wanted]
    ends = [isinstance(event, JobCompleted) for event in run.reader().read_new()]
    if ends.count(True) != 1 or not ends[-1]:
        faults.append(f"{ends.count(True)} events of its end")
    return faults


class Verdict(NamedTuple):
    """The broken promises by kind, in words, and the figures of a campaign."""

    broken: Mapping[str, Collection[str]]
    figures: Mapping[str, object] = {}
    faults: Mapping[str, int] = {}

    @property
    def holds(self) -> bool:
        return not any(self.broken.values())

    def show(self, console: Console, kinds: Iterable[str] = ()) -> None:
        """Print the faults by kind, the figures, and every broken promise."""
        tables = {
            "fault": {kind: self.faults.get(kind, 0) for kind in kinds},
            "figure": self.figures,
            "must be 0": {name: len(found) for name, found in self.broken.items()},
        }
        for title, rows in tables.items():
            table = Table(title, "")
            for name, value in rows.items():
                table.add_row(name, str(value))
            if rows:
                console.print(table)
        for name, found in self.broken.items():
            for fault in found:
                console.print(f"{name}: {fault}", style="red", markup=False, highlight=False, soft_wrap=True)


class Kit(NamedTuple):
    """A campaign of the command line."""

    hold: Callable[[Path, Mapping[str, float], Console], bool]
    """Hold it in a folder, with its numbers; return whether every promise was kept."""
    numbers: Mapping[str, float] = {}
    """Numbers of the command line or of the environment, with their defaults."""


def seed() -> int:
    return random.randrange(10**6)


def run_kit(name: str, kit: Kit, words: Sequence[str]) -> int:
    """Hold a campaign in a folder of its own, which is kept where a promise is broken; return the exit code."""
    given = {**os.environ, **dict(word.split("=", 1) for word in words)}
    numbers = {key: float(given.get(key) or default) for key, default in kit.numbers.items()}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # asyncio then cancels the campaign
    console = Console(width=160)
    folder = Path(tempfile.mkdtemp(prefix=f"mt-{name}-"))
    console.print(name, *(f"{key}={value:g}" for key, value in numbers.items()), f"in {folder}", soft_wrap=True)
    try:
        holds = kit.hold(folder, numbers, console)
    except BaseException as error:
        if not _is_interruption(error):
            raise
        kill_all(folder)
        console.print(f"Interrupted; nothing is left running. What there was is in {folder}", soft_wrap=True)
        return 130
    if not holds:
        console.print(f"Something does not hold; what there was is in {folder}", style="bold red", soft_wrap=True)
        return 1
    shutil.rmtree(folder)
    console.print("Everything held.", style="bold green")
    return 0


def _is_interruption(error: BaseException | None) -> bool:
    """Return True for Ctrl-C and SIGTERM, and for an error of what they ended."""
    while error is not None and not isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        error = error.__context__
    return error is not None
