"""Groups of runs over seeds on disk: a group is nothing but its runs, of which each names all seeds."""

from contextlib import suppress

import structlog

from trainer.artifacts.run_ids import id_of_resumed, new_run_id
from trainer.artifacts.runs import OPEN_GROUP_FILE, Origin, RunDirectory, RunStore
from trainer.config.presets import request_hash
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import RunRecord
from trainer.contracts.seeds import group_id_of
from trainer.system.files import folder_time, storage_errors

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_INTERRUPTED_SECONDS = 60.0
"""Whoever accepts a group writes its runs in less time."""


def member(record: RunRecord, seed: int) -> RunRecord:
    """Return the record of another seed's run in a group; its hash is that of the same run started alone."""
    if record.group is None:
        return record
    effective = changed(record.effective, seed=seed)
    return changed(
        record,
        run_id=record.group.member_id(seed),
        request=record.request.with_seed(seed),
        effective=effective,
        request_hash=request_hash(effective),
    )


def create_runs(runs: RunStore, record: RunRecord, origin: Origin | None = None) -> list[RunDirectory]:
    """Write an accepted run to disk, or all runs of a group given the record of its first.

    Raises OSError or AppError, having removed what was written.
    """
    try:
        first = runs.create(record, origin)
    except FileExistsError:
        if record.study_id is not None:  # whose runs have ids that are given
            return [_written(runs, record.run_id)]
        # another run has drawn the same id
        return create_runs(runs, _with_new_id(record), origin)
    try:
        return write_members(runs, first) if first.has_open_group() else [first]
    except (AppError, OSError):
        remove_runs(runs, record)
        raise


def remove_runs(runs: RunStore, record: RunRecord) -> None:
    """Remove what `create_runs` has written of a run or a group that could not be accepted; the first run last."""
    group = record.group
    names = [record.run_id] if group is None else [group.member_id(seed) for seed in group.seeds]
    for run in [run for name in reversed(names) if (run := runs.find(name)) is not None]:
        runs.disk.remove_folder(run.path)


def write_members(runs: RunStore, first: RunDirectory) -> list[RunDirectory]:
    """Write the runs of a group that are not on disk yet, given the run of its first seed; return all of them.

    Several processes may do so at once: each run is written once. Raises OSError, and SERVICE_UNAVAILABLE for a run
    that another process still writes.
    """
    record, written = first.record(), [first]
    for seed in () if record.group is None else record.group.seeds[1:]:
        other = member(record, seed)
        if runs.find(other.run_id) is None:
            with suppress(FileExistsError):
                runs.create(other)
        written.append(_written(runs, other.run_id))
    with storage_errors("the runs of the group could not be completed"):
        first.close_group()
    return written


def _written(runs: RunStore, run_id: str) -> RunDirectory:
    """Return a run that another process has written; raises SERVICE_UNAVAILABLE while it still writes it."""
    run = runs.find(run_id)
    if run is None:
        message = f"The run '{run_id}' is just being written; try again in a minute."
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, message)
    return run


def _with_new_id(record: RunRecord) -> RunRecord:
    """Return the record with another id; the first run of a group with that of another group."""
    created_at, group = record.created_at, record.group
    if group is None or record.run_id != group.first_id:
        return changed(record, run_id=id_of_resumed(record, created_at))
    group = changed(group, group_id=new_run_id(record.effective.model_family, created_at))
    return changed(record, run_id=group.first_id, group=group)


def complete_groups(runs: RunStore) -> None:
    """Write what is missing of the groups whose acceptance was interrupted."""
    for run_id in runs.ids():
        mark = runs.directory(run_id).path / OPEN_GROUP_FILE
        if group_id_of(run_id) is None or not mark.exists():
            continue
        try:
            if folder_time(mark.parent) - mark.stat().st_mtime > _INTERRUPTED_SECONDS:
                write_members(runs, runs.directory(run_id))
                log.info("group_completed", run_id=run_id)
        except (AppError, OSError) as error:  # the next call tries again
            log.warning("group_incomplete", run_id=run_id, error=str(error))


def runs_of_group(runs: RunStore, group_id: str) -> list[RunDirectory]:
    """Return the runs of a group, also those that resume others, in the order of their ids; raises RUN_NOT_FOUND.

    The ids of a group's runs begin with the group's id; an experiment's runs name their group in their requests only.
    """
    found = [runs.directory(run_id) for run_id in sorted(runs.ids()) if group_id_of(run_id) == group_id]
    if not found:
        found = [run for run in runs.all() if (group := run.record().group) is not None and group.group_id == group_id]
    if not found:
        raise AppError(
            ErrorCode.RUN_NOT_FOUND, f"There is no run or group '{group_id}': check its id, or list the runs."
        )
    return found
