"""`mt runs` and `mt queue`: the list of runs, and that of the runs that have not ended."""

import math
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from datetime import datetime
from statistics import fmean
from typing import get_args

from rich.text import Text

from trainer.artifacts.run_ids import short_name
from trainer.commands.arguments import Argument, Commands, Options, flag, option
from trainer.commands.connection import Installation, settings_for_any, with_installation
from trainer.commands.groups import short_spread
from trainer.commands.terminal import Listing, Terminal, unknown_mark
from trainer.contracts.base import RunState
from trainer.contracts.baselines import Baseline
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.groups import GroupStatus, RunRows
from trainer.contracts.job_status import UnreadableJob
from trainer.contracts.parameters import GroupPath
from trainer.contracts.runs import RunStatus
from trainer.contracts.units import Unit, loss_number, per_char_number
from trainer.contracts.wording import counted, duration, local_time
from trainer.lab.calls import GET_GROUP
from trainer.reports.report_text import ENGLISH
from trainer.reports.run_notes import stronger_note

_STATES: tuple[str, ...] = get_args(RunState)
_START_ONE = "Start one with: mt train --corpus demo"


class _RunsOptions(Options):
    status = Argument[RunState | None](f"--status {'|'.join(_STATES)}", choices=_STATES, help="only runs in this state")
    limit = option("--limit N", int, "list at most N runs, or groups of runs; default: 20", 20)
    members = flag("--members", "list each run of a group in a row of its own")


def add_to(commands: Commands) -> None:
    commands.add("runs", _RunsOptions, _runs, with_unit=True)
    commands.add("queue", Options, _queue)


def _runs(options: _RunsOptions, terminal: Terminal) -> int:
    if options.limit < 1:
        raise AppError(ErrorCode.INVALID_INPUT, f"`--limit` must be at least 1, you gave {options.limit}.")

    async def read(installation: Installation) -> tuple[Sequence[RunStatus], Sequence[GroupStatus], bool]:
        listed = await _newest(installation, options.status, RunRows(options.limit, by_group=not options.members))
        names = {} if options.members else {one.group.group_id: None for one in listed if one.group is not None}
        groups = [await installation.call(GET_GROUP, GroupPath(group_id=name)) for name in names]
        has_runs = bool(listed or (options.status and await _newest(installation, None, RunRows(1, by_group=False))))
        unreadable.extend(installation.unreadable)
        return listed, groups, has_runs

    unreadable: list[UnreadableJob] = []
    settings = settings_for_any()
    listed, groups, has_runs = with_installation(settings, read)
    place = f"in '{settings.app.artifacts_root.absolute()}'" if settings.client.url is None else "on this server"
    titles = ("run", "status", "family", "progress", "best validation", "against counting", "created", "label")
    rows = [*_rows(listed, groups, terminal.unit)]
    table = (
        Listing([titles, *rows])
        if rows
        else Text("No run has this status." if has_runs or unreadable else f"No runs yet {place}. {_START_ONE}")
    )
    shown: dict[str, object] = {"runs": listed, "groups": groups, "unreadable": unreadable}
    terminal.show(shown, table, *unreadable_lines(unreadable, "run", "runs"))
    return 0


def unreadable_lines(jobs: Sequence[UnreadableJob], word: str, words: str) -> Iterator[Text]:
    """Yield what a list says of the jobs that cannot be read."""
    if jobs:
        yield Text(f"{len(jobs):,} {word if len(jobs) == 1 else words} cannot be read; the files stay as they are:")
        yield from (Text(f"  {job.job_id}  {job.reason}") for job in jobs)


async def _newest(installation: Installation, state: RunState | None, rows: RunRows) -> Sequence[RunStatus]:
    """Return the newest runs, as many as there is room for."""
    async with aclosing(installation.newest(state)) as runs:
        async for run in runs:
            if not rows.take(run):
                break
    return rows.runs


def _queue(options: Options, terminal: Terminal) -> int:
    async def read(installation: Installation) -> tuple[list[RunStatus], dict[str, str]]:
        listed = sorted(await installation.unfinished(), key=_turn)
        paused = [one for one in listed if one.status == "paused"]
        find = await installation.run_finder() if paused else None
        names = {} if find is None else {one.run_id: await short_name(one.run_id, one.label, find) for one in paused}
        return listed, names

    listed, names = with_installation(settings_for_any(), read)
    rows = [(one.run_id, one.status, next_of(one, names.get(one.run_id)), one.label or "") for one in listed]
    table = Listing([("run", "status", "next", "label"), *rows]) if rows else Text("No run trains or waits.")
    terminal.show({"runs": listed}, table)
    return 0


def _turn(status: RunStatus) -> tuple[int, int | float, datetime]:
    """Return the sort key of an unfinished run: running ones, then waiting ones by their turns, then paused ones."""
    place = math.inf if status.queue_position is None else status.queue_position
    return ("running", "queued", "paused").index(status.status), place, status.created_at


def next_of(status: RunStatus, name: str | None = None) -> str:
    """Return what happens next to an unfinished run; `name` is the one for its command, else its id."""
    if status.status == "paused":
        return f"paused at step {status.step:,}; continues with: mt resume {name or status.run_id}"
    if status.status == "running":
        left = "" if status.eta_seconds is None else f", {duration(status.eta_seconds)} left"
        return f"{status.progress:.0f} %{left if status.reachable else '; the worker is not responding'}"
    return status.message


def _rows(listed: Sequence[RunStatus], groups: Sequence[GroupStatus], unit: Unit) -> Iterator[tuple[str, ...]]:
    """Yield a row for each run; the runs of one of the groups have one row, where the newest of them would be."""
    unlisted, by_id = {group.group_id for group in groups}, {group.group_id: group for group in groups}
    for run in listed:
        name = "" if run.group is None else run.group.group_id
        if name not in by_id:
            yield _row(run, unit)
        elif name in unlisted:
            unlisted.remove(name)
            yield _group_row(by_id[name], unit)


def _group_row(group: GroupStatus, unit: Unit) -> tuple[str, ...]:
    best = short_spread("best_val_loss", group.numbers.get("best_val_loss"), unit)
    per_char = short_spread("best_val_bits_per_char", group.numbers.get("best_val_bits_per_char"), unit)
    mark = unknown_mark(group.unknown_char_share)
    return (
        group.group_id,
        f"{group.status}, {group.n_completed} of {counted(len(group.members), 'run')}",
        group.model_family,
        f"{group.progress:.0f} %",
        (f"{best} {unit}{mark}" if best else "") + (f", {per_char} {unit}/char{mark}" if per_char else ""),
        _counting([one.baseline for one in group.members], unit),
        local_time(group.created_at),
        group.label or "",
    )


def _row(status: RunStatus, unit: Unit) -> tuple[str, ...]:
    loss, bits = status.best_val_loss, status.best_val_bits_per_char
    mark = unknown_mark(status.unknown_char_share)
    best = "" if loss is None else f"{loss_number(loss, unit)} {unit}{mark}"
    return (
        status.run_id,
        status.status,
        f"{status.model_family}{' (masked)' if status.objective == 'masked_lm' else ''}",
        f"{status.progress:.0f} %",
        best + ("" if bits is None else f", {per_char_number(bits, unit)} {unit}/char{mark}"),
        _counting([status.baseline], unit),
        local_time(status.created_at),
        status.label or "",
    )


def _counting(baselines: Sequence[Baseline | None], unit: Unit) -> str:
    """Return the mean difference of models from the best n-grams of their texts."""
    known = [one for one in baselines if one is not None]
    if not known:
        return ""
    names = ", ".join(sorted({ENGLISH.note(stronger_note(one)) for one in known}))
    difference = per_char_number(fmean(one.difference for one in known), unit, "+")
    return f"{difference} {unit}/char ({names})"
