"""Settings under a temporary folder, tiny requests, texts with known statistics, and processes."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, get_args

from tests.support.waiting import PATIENCE_SECONDS
from trainer.artifacts.runs import RunDirectory
from trainer.config.settings import AppSettings, QueueSettings, Settings
from trainer.config.validation import parse
from trainer.contracts.runs import RunStatus, TrainRequest
from trainer.queue.queue import JobQueue
from trainer.services.embedded import Services
from trainer.worker.child_process import Job

ROOT = Path(__file__).parents[2]


def settings_in(folder: Path, *, embedded_workers: int = 1, lease_seconds: float = 3) -> Settings:
    """Settings whose data and artifacts lie in a temporary folder."""
    return Settings(
        app=AppSettings(data_root=folder / "data", artifacts_root=folder / "artifacts"),
        queue=QueueSettings(embedded_workers=embedded_workers, lease_seconds=lease_seconds),
    )


def environment_in(folder: Path, **more: str) -> dict[str, str]:
    """The same for a child process."""
    return {
        **os.environ,
        "APP__DATA_ROOT": str(folder / "data"),
        "APP__ARTIFACTS_ROOT": str(folder / "artifacts"),
        "QUEUE__LEASE_SECONDS": "3",
        **more,
    }


def add_corpus(folder: Path, text: str, name: str = "text") -> str:
    """Put a text where corpora are looked up; return its name."""
    corpora = folder / "data" / "corpus"
    corpora.mkdir(parents=True, exist_ok=True)
    (corpora / f"{name}.txt").write_text(text, encoding="utf-8")
    return name


def some_text(lines: int = 60) -> str:
    """Lines that all differ, of a few letters."""
    return "\n".join(f"abc {'ab' * (i % 7)} c{'abc'[i % 3]} {i % 10}{i % 7}{i % 3}{i}" for i in range(lines))


def tiny_request(**fields: object) -> TrainRequest:
    """A training that takes a second."""
    sizes: dict[str, object] = {"embedding_size": 8, "hidden_size": 8, "num_layers": 1, "dropout": 0.0}
    tiny: dict[str, object] = {
        "model_family": "char_lstm",
        "corpus": "text",
        "model": sizes,
        "max_seq_len": 16,
        "batch_size": 4,
        "num_epochs": 1,
        "threads": 1,
        "device": "cpu",
    }
    return parse(TrainRequest, tiny | steady(fields) | fields)


def steady(fields: Mapping[str, object]) -> dict[str, object]:
    """Request fields of a training by AdamW with a constant rate to its last epoch, whatever rules would choose."""
    has_warmup = not fields.keys().isdisjoint(("warmup_steps", "warmup_ratio"))
    warmup: dict[str, object] = {} if has_warmup else {"warmup_steps": 0}
    optimizer: dict[str, object] = {"name": "adamw", "weight_decay": 0.01}
    return {"optimizer": optimizer, "lr_schedule": "constant", "early_stopping": {"enabled": False}, **warmup}


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[JobQueue]:
    """A queue with its embedded services."""
    services = Services(settings)
    queue = await JobQueue.connect(settings, await services.start())
    try:
        yield queue
    finally:
        await queue.close()
        await services.stop()


async def wait_for_status(
    queue: JobQueue, run_id: str, wanted: Callable[[RunStatus], bool], seconds: float = PATIENCE_SECONDS
) -> RunStatus:
    """Wait until a run stands as wanted."""
    async with asyncio.timeout(seconds):
        while not wanted(status := await queue.states.status(run_id)):
            await asyncio.sleep(0.1)
    return status


def ended(status: RunStatus) -> bool:
    return status.status in ("completed", "failed", "cancelled")


class Process(NamedTuple):
    pid: int
    command: str
    """Its name and its command line; a forked child has a name of its own and the command line of its server."""


SERVER = "multiprocessing.forkserver"


def servers_of_this_test() -> list[int]:
    """Return the process ids of the servers that fork the children of this process."""
    children = children_of_this_test()
    return [child for child in children if SERVER in Path(f"/proc/{child}/cmdline").read_text(encoding="utf-8")]


def children_of_this_test() -> set[int]:
    """Return the process ids of the children of this process, with those that have ended and were not waited for."""
    lists = [children.read_text(encoding="ascii") for children in Path("/proc/self/task").glob("*/children")]
    return {int(child) for child in " ".join(lists).split()}


def processes(folder: Path, word: str = "") -> list[Process]:
    """List living processes that name a folder in command line or environment, and children that this test forked.

    A child that has neither a name nor a command line of its own yet is left out: it counts as its parent.
    """
    found: list[Process] = []
    parents: dict[int, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            command = (process / "comm").read_text(encoding="utf-8", errors="replace").strip() + " " + command.strip()
            environment = (process / "environ").read_bytes().decode(errors="replace")
            state, parent = _state(process)
            is_forked_here = command.startswith(_JOBS) and _state(process.with_name(parent))[1] == str(os.getpid())
        except OSError:
            continue
        ours = (is_forked_here or str(folder) in command + environment) and word in command
        if ours and state != "Z" and int(process.name) != os.getpid():
            found.append(Process(int(process.name), command))
            parents[int(process.name)] = int(parent)
    return [one for one in found if Process(parents[one.pid], one.command) not in found]


def is_running(pid: int) -> bool:
    """True until the process has ended, though it may not have been waited for."""
    try:
        return _state(Path(f"/proc/{pid}"))[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _state(process: Path) -> list[str]:
    """Return the state of a process and the id of its parent."""
    return (process / "stat").read_text(encoding="ascii", errors="replace").rsplit(") ", 1)[1].split()[:2]


_JOBS: tuple[str, ...] = get_args(Job)


def child_of(folder: Path, run_id: str) -> Process:
    """Return the child that trains a run, or a tokenizer: the one that has opened files of it."""
    [child] = [child for child in processes(folder, "train-") if _has_open(child, run_id)]
    return child


def _has_open(process: Process, word: str) -> bool:
    with contextlib.suppress(OSError):  # it has just ended
        return any(word in path for path in _open_files(process))
    return False


def run_of(child: Process) -> str | None:
    """Return the id of the run that a child trains, None if the child has opened none; raises OSError if it is gone."""
    return next((path.split("/models/")[1].split("/")[0] for path in _open_files(child) if "/models/" in path), None)


def _open_files(process: Process) -> list[str]:
    """Return the paths that a process has open; those that it closes meanwhile are left out."""
    paths: list[str] = []
    for file in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            paths.append(str(file.readlink()))
    return paths


def parent_of(pid: int) -> int:
    """Return the process that has started another one; raises OSError."""
    return int(_state(Path(f"/proc/{pid}"))[1])


async def gone(folder: Path, seconds: float = PATIENCE_SECONDS) -> bool:
    """Wait until all processes of a folder have ended; return False after a timeout."""
    try:
        async with asyncio.timeout(seconds):
            while processes(folder):
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False
    return True


def twin(run: RunDirectory, run_id: str) -> RunDirectory:
    """A copy of a run under another id."""
    folder = run.path.with_name(run_id)
    shutil.copytree(run.path, folder)
    for name in ("request.json", "manifest.json", "events.jsonl", "eval/metrics.json"):
        text = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_text(text.replace(run.run_id, run_id), encoding="utf-8")
    return RunDirectory(folder)


def mt(
    folder: Path, *words: str, timeout: float = PATIENCE_SECONDS, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the `mt` command in a folder of its own."""
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "trainer", *words],
        cwd=folder,
        env=environment_in(folder, **environment),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
