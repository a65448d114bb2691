"""`mt runs` and `mt queue`: the list of runs, and that of the runs that have not ended."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import get_args

from rich.text import Text

from trainer.commands.arguments import Argument, Commands, Options, option
from trainer.commands.connection import Installation, settings_for_any, with_installation
from trainer.commands.terminal import Terminal, columns, duration, local_time
from trainer.contracts.base import RunState
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import RunStatus, has_unknown_text

_STATES: tuple[str, ...] = get_args(RunState)
_START_ONE = "Start one with: mt train --corpus demo"


class _RunsOptions(Options):
    status = Argument[RunState | None](f"--status {'|'.join(_STATES)}", choices=_STATES, help="only runs in this state")
    limit = option("--limit N", int, "list at most N runs; default: 20", 20)


def add_to(commands: Commands) -> None:
    commands.add("runs", _RunsOptions, _runs)
    commands.add("queue", Options, _queue)


def _runs(options: _RunsOptions, terminal: Terminal) -> int:
    if options.limit < 1:
        raise AppError(ErrorCode.INVALID_INPUT, f"`--limit` must be at least 1, you gave {options.limit}.")

    async def read(installation: Installation) -> tuple[Sequence[RunStatus], bool]:
        listed = await installation.runs(options.status, options.limit)
        return listed, bool(listed or (options.status is not None and await installation.runs(None, 1)))

    settings = settings_for_any()
    listed, has_runs = with_installation(settings, read)
    place = f"in '{settings.app.artifacts_root.absolute()}'" if settings.client.url is None else "on this server"
    titles = ("run", "status", "family", "progress", "best validation", "created", "label")
    rows = [_row(status) for status in listed]
    table = (
        columns([titles, *rows])
        if rows
        else Text("No run has this status." if has_runs else f"No runs yet {place}. {_START_ONE}")
    )
    terminal.show({"runs": listed}, table)
    return 0


def _queue(options: Options, terminal: Terminal) -> int:
    unfinished = with_installation(settings_for_any(), lambda installation: installation.unfinished())
    listed = sorted(unfinished, key=_turn)
    rows = [(status.run_id, status.status, next_of(status), status.label or "") for status in listed]
    table = columns([("run", "status", "next", "label"), *rows]) if rows else Text("No run trains or waits.")
    terminal.show({"runs": listed}, table)
    return 0


def _turn(status: RunStatus) -> tuple[int, int | float, datetime]:
    """Return the sort key of an unfinished run: running ones, then waiting ones by their turns, then paused ones."""
    place = math.inf if status.queue_position is None else status.queue_position
    return ("running", "queued", "paused").index(status.status), place, status.created_at


def next_of(status: RunStatus) -> str:
    """Return what happens next to an unfinished run."""
    if status.status == "paused":
        return f"paused at step {status.step:,}; continues with: mt resume {status.run_id}"
    if status.status == "running":
        left = "" if status.eta_seconds is None else f", {duration(status.eta_seconds)} left"
        return f"{status.progress:.0f} %{left}" + ("" if status.reachable else "; the worker is not responding")
    return status.message


def _row(status: RunStatus) -> tuple[str, ...]:
    best, bits = status.best_val_loss, status.best_val_bits_per_char
    mark = " (!)" if has_unknown_text(status.unknown_char_share) else ""
    return (
        status.run_id,
        status.status,
        status.model_family,
        f"{status.progress:.0f} %",
        ("" if best is None else f"{best:.3f} nats") + ("" if bits is None else f", {bits:.3f} bits/char{mark}"),
        local_time(status.created_at),
        status.label or "",
    )
