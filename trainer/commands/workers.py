"""`mt workers`: the workers of all machines; pause the queue, drain workers."""

from collections.abc import Awaitable, Sequence
from typing import get_args

from rich.text import Text

from trainer.commands.arguments import Argument, Commands, Options
from trainer.commands.connection import Installation, settings_for_any, with_installation
from trainer.commands.terminal import Terminal, columns
from trainer.config.validation import parse
from trainer.contracts.jobs import WorkerAction, WorkerInfo, WorkerOrder, WorkersState
from trainer.contracts.wording import duration
from trainer.lab.calls import LIST_WORKERS, ORDER_WORKERS

_ACTIONS: tuple[str, ...] = get_args(WorkerAction)


class _WorkersOptions(Options):
    action = Argument[WorkerAction | None](
        "ACTION",
        nargs="?",
        choices=_ACTIONS,
        help="pause or resume the start of runs on all workers; drain or undrain one worker; default: list the workers",
    )
    name = Argument[str | None]("NAME", nargs="?", help="the worker, as HOST:PID, or HOST for all its workers")


def add_to(commands: Commands) -> None:
    commands.add("workers", _WorkersOptions, _workers)


def _workers(options: _WorkersOptions, terminal: Terminal) -> int:
    order: WorkerOrder | None = None
    if options.action is not None:
        order = parse(WorkerOrder, {"action": options.action, "name": options.name})

    def ask(here: Installation) -> Awaitable[WorkersState]:
        return here.call(LIST_WORKERS) if order is None else here.call(ORDER_WORKERS, body=order)

    return _show(with_installation(settings_for_any(), ask), terminal)


def _show(state: WorkersState, terminal: Terminal) -> int:
    rows = [_row(worker, state) for worker in state.workers]
    titles = ("worker", "pid", "version", "devices", "memory", "slots", "runs", "state", "up")
    nobody = state.problem or "No worker is running. Start one with: mt worker"
    nobody = "A worker is starting." if state.is_starting else nobody
    table = columns([titles, *rows]) if rows else Text(nobody)
    notes = [Text(f"{worker.name} takes no job: {worker.reason}") for worker in state.workers if worker.reason]
    if state.is_paused:
        notes.append(Text("The queue is paused: no further run starts until `mt workers resume`."))
    record = {"paused": state.is_paused, "workers": state.workers, "runs": state.runs, "problem": state.problem}
    terminal.show(record, table, *notes)
    return 0


def _row(worker: WorkerInfo, state: WorkersState) -> Sequence[str]:
    return (
        worker.host,
        worker.pid,
        worker.version,
        ", ".join(worker.devices) + ("" if worker.takes == "any" else f" ({worker.takes} runs only)"),
        worker.memory_text(),
        str(worker.slots),
        ", ".join(state.runs_of(worker)) or "none",
        worker.state,
        "" if worker.started_at is None else duration(worker.seen_at - worker.started_at),
    )
