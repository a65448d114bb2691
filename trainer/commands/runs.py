"""`mt status`, `logs`, `cancel`, `resume`, `config`, `files` and `verify`: the runs of the artifacts folder."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from time import sleep

from rich.table import Table
from rich.text import Text

from trainer.artifacts.run_files import run_files
from trainer.artifacts.runs import RunDirectory, RunStore, cancel_idle_run
from trainer.commands.arguments import Commands, RunOptions, flag, option
from trainer.commands.connection import connected, settings_for, with_queue
from trainer.commands.terminal import EXIT_FAILED, Terminal, columns, duration, local_time, loss_figures, summary
from trainer.commands.training import FOLLOW_SECONDS, follow_to_end, recovery_hint
from trainer.config.experiment_file import experiment_yaml
from trainer.config.settings import Settings
from trainer.contracts.base import changed, now
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import RunStatus
from trainer.data.corpora import CorpusStore
from trainer.jobs.queue import JobQueue
from trainer.jobs.resolve import resolve_origin
from trainer.jobs.services import answering_server
from trainer.system.logs import LogReader, readable_line


class _LogsOptions(RunOptions):
    tail = option("--tail N", int, "show the last N lines; default: 200", 200)
    follow = flag("--follow", "keep printing new lines until the run ends")
    as_stored = flag("--json", "print the lines as stored, one JSON object each")


def add_to(commands: Commands) -> None:
    commands.add("status", RunOptions, _status)
    commands.add("logs", _LogsOptions, _logs, with_json=False)
    commands.add("cancel", RunOptions, _cancel)
    commands.add("resume", RunOptions, _resume)
    commands.add("config", RunOptions, _config)
    commands.add("files", RunOptions, _files)
    commands.add("verify", RunOptions, _verify)


def _status(options: RunOptions, terminal: Terminal) -> int:
    settings = settings_for()
    run = RunStore(settings.app.artifacts_root).get(options.run)

    async def read() -> RunStatus:
        async with _running_queue(settings) as queue:
            return _stored_status(run) if queue is None else await queue.status(run.run_id)

    status = asyncio.run(read())
    terminal.show(status, _status_table(status), *map(Text, recovery_hint(status, run)))
    return 0


def _cancel(options: RunOptions, terminal: Terminal) -> int:
    settings = settings_for()
    run = RunStore(settings.app.artifacts_root).get(options.run)

    async def cancel() -> RunStatus:
        async with _running_queue(settings) as queue:
            if queue is not None:
                await queue.cancel(run.run_id)
                return await queue.status(run.run_id)
        if run.manifest() is not None:
            raise AppError(ErrorCode.RUN_FINISHED, f"The run '{run.run_id}' has already ended.")
        run.request_cancel()
        cancel_idle_run(run)
        return _stored_status(run)

    status = asyncio.run(cancel())
    result = "is cancelled" if status.status == "cancelled" else "stops after its current step"
    terminal.show(status, Text(f"{run.run_id} {result}."))
    return 0


def _resume(options: RunOptions, terminal: Terminal) -> int:
    settings = settings_for()
    run = RunStore(settings.app.artifacts_root).get(options.run)
    if run.manifest() is None:
        return with_queue(settings, terminal, lambda queue: follow_to_end(run.run_id, terminal, queue))
    origin = asyncio.run(resolve_origin(run, CorpusStore(settings), settings))

    async def resume(queue: JobQueue) -> int:
        accepted = await queue.accept_resumed(origin, user_id=None)
        return await follow_to_end(accepted.run_id, terminal, queue)

    return with_queue(settings, terminal, resume)


@contextlib.asynccontextmanager
async def _running_queue(settings: Settings) -> AsyncIterator[JobQueue | None]:
    """Connect to the queue if its server is running; starts nothing."""
    url = await answering_server(settings)
    if url is None:
        yield None
    else:
        async with connected(settings, url) as queue:
            yield queue


def _stored_status(run: RunDirectory) -> RunStatus:
    """Return the status on disk; without a queue no worker of a running run can be reached."""
    status = run.follow().refresh()
    return changed(status, reachable=status.status != "running")


def _status_table(status: RunStatus) -> Table:
    def losses(loss_nats: float | None, bits_per_char: float | None) -> str | None:
        return loss_figures(loss_nats, bits_per_char, status.objective)

    position = "" if status.queue_position is None else f" (position {status.queue_position} in the queue)"
    of_steps = "" if status.total_steps is None else f" of {status.total_steps:,}"
    speed, step = status.tokens_per_second, status.last_checkpoint_step
    age: str | None = None
    if status.status == "running" and status.last_heartbeat_ts is not None:
        age = f"{duration(max(0.0, now().timestamp() - status.last_heartbeat_ts))} ago"
        if not status.reachable:
            age += "; the worker is not responding"
    rows = {
        "label": status.label,
        "family": " ".join(part for part in (status.model_family, status.model_size) if part),
        "message": status.message + position,
        "progress": f"{status.progress:.0f} %",
        "epoch, step": f"{status.epoch} of {status.total_epochs}, {status.step:,}{of_steps}",
        "training": losses(status.train_loss, status.train_bits_per_char),
        "validation": losses(status.val_loss, status.val_bits_per_char),
        "best validation": losses(status.best_val_loss, status.best_val_bits_per_char),
        "test": losses(status.test_loss, status.bits_per_char),
        "speed": f"{speed:,.0f} tokens/s, {status.chars_per_second or 0.0:,.0f} characters/s" if speed else None,
        "time left": None if status.eta_seconds is None else duration(status.eta_seconds),
        "last checkpoint": None if step is None else f"step {step:,}",
        "last heartbeat": age,
        "attempt": str(status.attempt) if status.attempt > 1 else None,
        "device": None if status.device is None else f"{status.device}, {status.precision}",
        "tokenizer": status.tokenizer_id,
        "created": local_time(status.created_at),
        "started": None if status.started_at is None else local_time(status.started_at),
        "finished": None if status.finished_at is None else local_time(status.finished_at),
        "error": None if status.error is None else status.error.code,
    }
    return summary(f"{status.run_id}: {status.status}", rows)


def _logs(options: _LogsOptions, terminal: Terminal) -> int:
    if options.tail < 0:
        raise AppError(ErrorCode.INVALID_INPUT, f"`--tail` must be at least 0, you gave {options.tail}.")
    run = RunStore(settings_for().app.artifacts_root).get(options.run)
    reader = LogReader(run.logs)

    def show(lines: list[str]) -> None:
        for line in lines:
            terminal.line(line if options.as_stored else readable_line(line))

    show(reader.last(options.tail))
    if not run.logs.exists():
        terminal.note("The run has no log yet: its training has not started.")
    follower = run.follow()
    while options.follow and not follower.ended:
        follower.refresh()
        sleep(FOLLOW_SECONDS)  # the last lines come just after the end
        show(reader.read_new())
    manifest = run.manifest()
    if manifest is not None and manifest.last_lines and not options.as_stored:
        terminal.line("The last lines of its error output:")
        show([line.rstrip("\n") for line in manifest.last_lines])
    return 0


def _config(options: RunOptions, terminal: Terminal) -> int:
    text = experiment_yaml(RunStore(settings_for().app.artifacts_root).get(options.run).record())
    if options.json:
        terminal.show({"yaml": text})
    else:
        terminal.line(text.rstrip())
    return 0


def _files(options: RunOptions, terminal: Terminal) -> int:
    found = run_files(RunStore(settings_for().app.artifacts_root).get(options.run))
    rows = [
        (file.path, f"{file.bytes:,}", "" if file.step is None else str(file.step), file.sha256 or "")
        for file in found.files
    ]
    terminal.show(found, columns([("file", "bytes", "step", "sha256"), *rows]))
    return 0


def _verify(options: RunOptions, terminal: Terminal) -> int:
    settings = settings_for()
    run = RunStore(settings.app.artifacts_root).get(options.run)
    from trainer.export.verification import verify_run  # torch, for the model

    report = verify_run(run, settings)
    rows = [("ok" if check.ok else "WRONG", check.name, check.message) for check in report.checks]
    verdict = Text("Everything is as recorded." if report.ok else "Some checks failed: see WRONG above.")
    terminal.show(report, columns(rows), verdict)
    return 0 if report.ok else EXIT_FAILED
