"""Ids of runs: new ones, and the one that is meant by its beginning."""

import secrets
from collections.abc import Collection

from trainer.config.validation import did_you_mean, safe_name
from trainer.contracts.base import Timestamp
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import RunRecord
from trainer.contracts.seeds import group_id_of, is_group

_SHOWN_RUNS = 5


def one_run_id(given: str, run_ids: Collection[str], place: str = "", *, or_group: bool = False) -> str:
    """Return the id that is given, or the only one that begins with the given text; `place` says where they are.

    With `or_group`, also the id of a group of runs. Raises INVALID_INPUT for a checkpoint and the beginning of several
    ids, and RUN_NOT_FOUND with an id that is near.
    """
    if "@" in given:
        run_id = safe_name(given.partition("@")[0])
        raise AppError(ErrorCode.INVALID_INPUT, f"'{safe_name(given)}' is a checkpoint: name its run here, '{run_id}'.")
    found = [given] if given in run_ids else sorted(one for one in run_ids if given and one.startswith(given))
    groups = {group_id_of(one) or "" for one in found}
    group_id = groups.pop() if len(groups) == 1 else ""
    if group_id.startswith(given) and (len(found) > 1 or given == group_id) and group_id:
        if or_group:
            return group_id
        raise AppError(ErrorCode.INVALID_INPUT, is_group(group_id, found))
    if not found:
        near = did_you_mean(given, sorted(run_ids)) or ": check its id, or list the runs."
        raise AppError(ErrorCode.RUN_NOT_FOUND, f"There is no run '{safe_name(given)}'{place}{near}")
    if len(found) > 1:
        shown = ", ".join(found[:_SHOWN_RUNS]) + (", …" if len(found) > _SHOWN_RUNS else "")
        message = f"'{safe_name(given)}' is the beginning of {len(found)} run ids: {shown}. Give more of the id."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    return found[0]


def new_run_id(family: str, created_at: Timestamp) -> str:
    """Return a new id of a run or a group: family, day and eight random hex digits."""
    return f"{family}-{created_at:%Y%m%d}-{secrets.token_hex(4)}"


def id_of_resumed(record: RunRecord, created_at: Timestamp) -> str:
    """Return a new id for a run that resumes another; that of a member of a group begins with the member's id."""
    if record.group is None or group_id_of(record.run_id) is None:
        return new_run_id(record.effective.model_family, created_at)
    return f"{record.group.member_id(record.effective.seed)}-{secrets.token_hex(2)}"
