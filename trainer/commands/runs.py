"""`mt runs`, `status`, `logs`, `cancel`, `files`, `verify`: runs as they are on disk; and `mt resume`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from itertools import islice
from time import sleep
from typing import get_args

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from rich.table import Table
from rich.text import Text

from trainer.artifacts.run_files import run_files
from trainer.artifacts.runs import RunDirectory, RunStore, cancel_idle_run
from trainer.commands.arguments import Arguments, Commands
from trainer.commands.connection import settings_for, with_queue
from trainer.commands.terminal import Terminal, add_loss, columns, duration, summary_table
from trainer.commands.training import follow_to_end, recovery
from trainer.config.settings import Settings
from trainer.contracts.base import Frozen, RunState, now
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import RunStatus
from trainer.data.corpora import CorpusStore
from trainer.jobs.queue import JobQueue
from trainer.jobs.resolve import resolve_origin
from trainer.jobs.services import answering_server
from trainer.system.logs import LogReader

EXIT_FAILED = 1
_STATES: tuple[RunState, ...] = get_args(RunState)
_FOLLOW_SECONDS = 0.2
_LEFT_OUT = {"timestamp", "level", "message", "logger", "service", "instance_id", "run_id", "exception"}
"""Of a log line: what stands at its beginning or is the same in every line of a run, and the lines of a traceback."""


class RunList(Frozen):
    """The answer of `mt runs --json`."""

    runs: tuple[RunStatus, ...]


def add_to(commands: Commands) -> None:
    runs = commands.add("runs", _runs, "list the runs, newest first")
    runs.add_argument("--status", choices=_STATES, metavar="|".join(_STATES), help="only runs that stand so")
    runs.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (20)")
    status = commands.add("status", _status, "show how a run stands")
    status.add_argument("run", metavar="RUN")
    logs = commands.add("logs", _logs, "show the log of a run", with_json=False)
    logs.add_argument("run", metavar="RUN")
    logs.add_argument("--tail", type=int, default=200, metavar="N", help="at most so many of its last lines (200)")
    logs.add_argument("--follow", action="store_true", help="go on with what is added until the run ends")
    logs.add_argument("--json", action="store_true", help="print the lines as they are: one JSON object each")
    cancel = commands.add("cancel", _cancel, "end a run that waits or trains; what it has saved is kept")
    cancel.add_argument("run", metavar="RUN")
    resume = commands.add("resume", _resume, "go on with a failed or cancelled run, as a new run, and wait for it")
    resume.add_argument("run", metavar="RUN")
    files = commands.add("files", _files, "list a run's files and checkpoints, with their sizes and hashes")
    files.add_argument("run", metavar="RUN")
    verify = commands.add("verify", _verify, "check every file of a run, and that its request still means the same")
    verify.add_argument("run", metavar="RUN")


def _runs(arguments: Arguments, terminal: Terminal) -> int:
    if arguments.limit < 1:
        raise AppError(ErrorCode.INVALID_INPUT, f"`--limit` must be at least 1, you gave {arguments.limit}.")
    runs = RunStore(settings_for().app.artifacts_root).all()
    found = (run.follow().refresh() for run in runs)
    wanted = (status for status in found if arguments.status in (None, status.status))
    listed = RunList(runs=tuple(islice(wanted, arguments.limit)))
    head = ("run", "status", "family", "progress", "best validation", "created", "label")
    rows = [_row(status) for status in listed.runs]
    terminal.show(listed, columns([head, *rows]) if rows else Text("There is no such run." if runs else _NO_RUN))
    return 0


_NO_RUN = "There is no run yet: `mt train --corpus demo` makes one."


def _row(status: RunStatus) -> tuple[str, ...]:
    best = status.best_val_loss
    bits = status.best_val_bits_per_char
    validation = "" if best is None else f"{best:.3f} nats"
    return (
        status.run_id,
        status.status,
        status.model_family,
        f"{status.progress:.0f} %",
        validation + ("" if bits is None else f", {bits:.3f} bits/char"),
        _local(status.created_at),
        status.label or "",
    )


def _status(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for()
    run = RunStore(settings.app.artifacts_root).get(arguments.run)

    async def ask() -> RunStatus:
        async with _queue_if_there(settings) as queue:
            return _status_on_disk(run) if queue is None else await queue.status(run.run_id)

    status = asyncio.run(ask())
    terminal.show(status, _status_table(status), *map(Text, recovery(status, run)))
    return 0


def _cancel(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for()
    run = RunStore(settings.app.artifacts_root).get(arguments.run)

    async def cancel() -> RunStatus:
        async with _queue_if_there(settings) as queue:
            if queue is not None:
                await queue.cancel(run.run_id)
                return await queue.status(run.run_id)
        if run.manifest() is not None:
            raise AppError(ErrorCode.RUN_FINISHED, f"The run '{run.run_id}' has already ended.")
        run.request_cancel()
        cancel_idle_run(run)
        return _status_on_disk(run)

    status = asyncio.run(cancel())
    ended = status.status == "cancelled"
    terminal.show(status, Text(f"{run.run_id} is cancelled." if ended else f"{run.run_id} ends at its next step."))
    return 0


def _resume(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for()
    run = RunStore(settings.app.artifacts_root).get(arguments.run)
    origin = asyncio.run(resolve_origin(run, CorpusStore(settings), settings))

    async def resume(queue: JobQueue) -> int:
        accepted = await queue.accept_resumed(origin, user_id=None)
        return await follow_to_end(accepted.run_id, terminal, queue)

    return with_queue(settings, terminal, resume)


@contextlib.asynccontextmanager
async def _queue_if_there(settings: Settings) -> AsyncIterator[JobQueue | None]:
    """The queue, where its server answers already."""
    url = await answering_server(settings)
    if url is None:
        yield None
        return
    queue = await JobQueue.connect(settings, url)
    try:
        yield queue
    finally:
        await queue.close()


def _status_on_disk(run: RunDirectory) -> RunStatus:
    """How a run stands where no queue can be asked: one that should be running has nobody who is seen to run it."""
    status = run.follow().refresh()
    reached: dict[str, object] = {"reachable": status.status != "running"}
    return status.model_copy(update=reached)


def _status_table(status: RunStatus) -> Table:
    table = summary_table(f"{status.run_id}: {status.status}")
    place = "" if status.queue_position is None else f" (position {status.queue_position} in the queue)"
    family = " ".join(part for part in (status.model_family, status.model_size) if part)
    of_steps = "" if status.total_steps is None else f" of {status.total_steps:,}"
    rows: list[tuple[str, str | None]] = [
        ("label", status.label),
        ("family", family),
        ("message", status.message + place),
        ("progress", f"{status.progress:.0f} %"),
        ("epoch, step", f"{status.epoch} of {status.total_epochs}, {status.step:,}{of_steps}"),
    ]
    for name, value in rows:
        if value is not None:
            table.add_row(name, Text(value))
    for name, loss, bits in (
        ("training", status.train_loss, status.train_bits_per_char),
        ("validation", status.val_loss, status.val_bits_per_char),
        ("best validation", status.best_val_loss, status.best_val_bits_per_char),
        ("test", status.test_loss, status.bits_per_char),
    ):
        add_loss(table, name, loss, bits, status.objective)
    for name, value in _circumstances(status):
        if value is not None:
            table.add_row(name, Text(value))
    return table


def _circumstances(status: RunStatus) -> list[tuple[str, str | None]]:
    speed = status.tokens_per_second
    running = status.status == "running"
    beat = status.last_heartbeat_ts if running else None
    age = None if beat is None else f"{duration(max(0.0, now().timestamp() - beat))} ago"
    error = status.error
    return [
        ("speed", f"{speed:,.0f} tokens/s, {status.chars_per_second or 0.0:,.0f} characters/s" if speed else None),
        ("time left", None if status.eta_seconds is None else duration(status.eta_seconds)),
        ("last checkpoint", None if status.last_checkpoint_step is None else f"step {status.last_checkpoint_step:,}"),
        ("last sign of life", age if age is None or status.reachable else f"{age}; no worker is seen to run it"),
        ("attempt", str(status.attempt) if status.attempt > 1 else None),
        ("device", None if status.device is None else f"{status.device}, {status.precision}"),
        ("tokenizer", status.tokenizer_id),
        ("created", _local(status.created_at)),
        ("started", None if status.started_at is None else _local(status.started_at)),
        ("finished", None if status.finished_at is None else _local(status.finished_at)),
        ("error", None if error is None else error.code),
    ]


def _local(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def _logs(arguments: Arguments, terminal: Terminal) -> int:
    if arguments.tail < 0:
        raise AppError(ErrorCode.INVALID_INPUT, f"`--tail` must be at least 0, you gave {arguments.tail}.")
    run = RunStore(settings_for().app.artifacts_root).get(arguments.run)
    reader = LogReader(run.logs)
    _show_lines(reader.last(arguments.tail), arguments, terminal)
    if not run.logs.exists():
        terminal.note("The run has no log yet: it begins with its training.")
    follower = run.follow()
    going_on = arguments.follow
    while going_on:
        follower.refresh()
        going_on = not follower.ended
        sleep(_FOLLOW_SECONDS)  # the last lines come just after the end
        _show_lines(reader.read_new(), arguments, terminal)
    manifest = run.manifest()
    if manifest is not None and manifest.last_lines and not arguments.json:
        terminal.line("The last lines of its error output:")
        for line in manifest.last_lines:
            terminal.line(_text(line.rstrip("\n")))
    return 0


def _show_lines(lines: list[str], arguments: Arguments, terminal: Terminal) -> None:
    for line in lines:
        terminal.line(line if arguments.json else _readable(line))


def _readable(line: str) -> str:
    """A log line as people read it: when, how grave, what, with which values; a traceback below it."""
    try:
        record = _record_adapter.validate_json(line)
    except ValidationError:
        return line
    time = _text(record.get("timestamp"))[:19].replace("T", " ")
    values = "".join(f" {name}={_text(value)}" for name, value in record.items() if name not in _LEFT_OUT)
    exception = record.get("exception")
    below = f"\n{exception}" if isinstance(exception, str) else ""
    return f"{time} {_text(record.get('level')):<8} {_text(record.get('message'))}{values}{below}"


_record_adapter = TypeAdapter(dict[str, object])


def _text(value: object) -> str:
    """A value as it is where that is one printable piece, else as JSON."""
    return value if isinstance(value, str) and value.isprintable() else to_json(value).decode()


def _files(arguments: Arguments, terminal: Terminal) -> int:
    found = run_files(RunStore(settings_for().app.artifacts_root).get(arguments.run))
    rows = [
        (file.path, f"{file.bytes:,}", "" if file.step is None else str(file.step), file.sha256 or "")
        for file in found.files
    ]
    terminal.show(found, columns([("file", "bytes", "step", "sha256"), *rows]))
    return 0


def _verify(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for()
    run = RunStore(settings.app.artifacts_root).get(arguments.run)
    from trainer.export.verification import verify_run  # torch, for the model

    found = verify_run(run, settings)
    rows = [("ok" if check.ok else "WRONG", check.name, check.message) for check in found.checks]
    verdict = "All is as it was left." if found.ok else "Something is not as it was left: see WRONG above."
    terminal.show(found, columns(rows), Text(verdict))
    return 0 if found.ok else EXIT_FAILED
