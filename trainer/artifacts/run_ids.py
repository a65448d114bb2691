"""Ids of runs and of other jobs: new ones, and the one that is meant by a name."""

import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import PurePath
from typing import NamedTuple

from trainer.config.validation import did_you_mean, safe_name
from trainer.contracts.base import Timestamp
from trainer.contracts.errors import AppError, ErrorCode, field_error
from trainer.contracts.runs import RunRecord
from trainer.contracts.seeds import group_id_of, is_group
from trainer.contracts.training_options import MAX_LABEL_CHARACTERS

LAST = "last"
"""The name of the newest run, tokenizer, battery or experiment; no label may be equal to it."""
_SHOWN_NAMES = 5
_UNQUOTED = re.compile(r"\w[\w.+-]*")
"""A label that a shell reads as one word."""


class Named(NamedTuple):
    """The names of a run or another job."""

    run_id: str
    label: str | None = None
    group_id: str | None = None
    """The group of runs over seeds that a run belongs to."""
    resumes: str | None = None
    """The failed or cancelled run that a run resumes."""
    is_part: bool = False
    """True for a run that an experiment or a study has started: `last` is another one, if there is one."""


def one_run_id(
    given: str, runs: Sequence[Named], place: str = "", *, or_group: bool = False, or_checkpoint: bool = False
) -> str:
    """Return the id of the run that a name is meant for.

    `runs` are sorted from new to old; `place` says where they are. A name is an id, `last`, a label, or the beginning
    of an id, in this order. With `or_group`, also the id of a group of runs; with `or_checkpoint`, also the name of a
    checkpoint, `RUN@1200`. Raises INVALID_INPUT for the name of several runs and of what is not wanted, and
    RUN_NOT_FOUND with a name that is near.
    """
    found = _found(given, runs)
    groups = {run.group_id for run in found}
    group_id = next(iter(groups)) if len(groups) == 1 else None
    is_named = given == group_id or len(found) > 1 or (given == LAST and or_group)
    if group_id is not None and is_named and (group_id.startswith(given) or given in (LAST, found[0].label)):
        if or_group:
            return group_id
        raise AppError(ErrorCode.RUN_NOT_FOUND, is_group(group_id, sorted(run.run_id for run in found)))
    if "@" in given and not found:
        name, _, checkpoint = given.rpartition("@")
        if or_checkpoint:
            return f"{one_run_id(name, runs, place)}@{checkpoint}"
        message = f"'{safe_name(given)}' is a checkpoint: name its run here, '{safe_name(name)}'."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    return _one(given, found, runs, place, ("run", "runs", ErrorCode.RUN_NOT_FOUND))


def one_job_id(given: str, jobs: Sequence[Named], word: str, words: str, not_found: ErrorCode) -> str:
    """Return the id of the tokenizer, battery or experiment that a name is meant for, as `one_run_id` does."""
    return _one(given, _found(given, jobs), jobs, "", (word, words, not_found))


def _found(given: str, named: Sequence[Named]) -> list[Named]:
    """Return what a name can be meant for, from new to old."""
    if exact := [one for one in named if given in (one.run_id, one.group_id)]:
        return [one for one in exact if one.run_id == given] or exact
    if given == LAST:
        return [one for one in named if not one.is_part][:1] or [*named[:1]]
    labelled = [one for one in named if one.label == given]
    resumed = {one.resumes for one in labelled}
    labelled = [one for one in labelled if one.run_id not in resumed]
    return labelled or [one for one in named if given and one.run_id.startswith(given)]


def _one(
    given: str, found: Sequence[Named], named: Sequence[Named], place: str, kind: tuple[str, str, ErrorCode]
) -> str:
    word, words, not_found = kind
    if len(found) == 1:
        return found[0].run_id
    if found:
        shown = ", ".join(one.run_id for one in found[:_SHOWN_NAMES]) + (", …" if len(found) > _SHOWN_NAMES else "")
        last = f" (`{LAST}`)" if [found[0]] == _found(LAST, named) else ""
        message = (
            f"'{safe_name(given)}' names {len(found)} {words}: {shown}. Give one of these ids;"
            f" the newest is {found[0].run_id}{last}."
        )
        raise AppError(ErrorCode.INVALID_INPUT, message)
    if given == LAST:
        raise AppError(not_found, f"There is no {word} yet{place}.")
    known = {name for one in named for name in (one.run_id, one.label) if name is not None}
    near = did_you_mean(given, sorted(known)) or f": check its name, or list the {words}."
    raise AppError(not_found, f"There is no {word} '{safe_name(given)}'{place}{near}")


async def short_name(item_id: str, label: str | None, find: Callable[[str], Awaitable[str]]) -> str:
    """Return the label of a run or another job if it names exactly this one and needs no quotes, else its id.

    `find` returns the id that a name is meant for, or raises AppError. A checkpoint has the label of its run.
    """
    named, at, checkpoint = item_id.partition("@")
    if label is not None and _UNQUOTED.fullmatch(label):
        with suppress(AppError):
            if await find(label) == named:
                return f"{label}{at}{checkpoint}"
    return item_id


def check_label(label: str | None) -> None:
    """Raise INVALID_INPUT for the label that names the newest run."""
    if label == LAST:
        message = f"must not be '{LAST}', which names the newest one: give another name"
        raise field_error(ErrorCode.INVALID_INPUT, "label", message)


def default_label(corpus: str, family: object, runs: Iterable[Named], *, resumes: bool = False) -> str:
    """Return the label of a run without one: corpus and family, with the next number where another run has it.

    That of a request that `resumes` an earlier run has no number.
    """
    taken = set[str | None]() if resumes else {run.label for run in runs}
    stem = "".join(sign for sign in PurePath(corpus).stem if sign.isprintable()).strip()
    ends = (f"{family}" if number == 1 else f"{family}-{number}" for number in count(1))
    labels = (f"{stem[: MAX_LABEL_CHARACTERS - len(end) - 1]}-{end}".removeprefix("-") for end in ends)
    return next(label for label in labels if label not in taken)


def without_model(label: str, family: str) -> str:
    """Return the name of the corpus in a default label; earlier versions called a char_lstm lstm."""
    return re.sub(f"-({family}|{family.removeprefix('char_')})(-[0-9]+)?$", "", label)


def new_run_id(family: str, created_at: Timestamp) -> str:
    """Return a new id of a run or a group: family, day and eight random hex digits."""
    return f"{family}-{created_at:%Y%m%d}-{secrets.token_hex(4)}"


def id_of_resumed(record: RunRecord, created_at: Timestamp) -> str:
    """Return a new id for a run that resumes another; that of a member of a group begins with the member's id."""
    if record.group is None or group_id_of(record.run_id) is None:
        return new_run_id(record.effective.model_family, created_at)
    return f"{record.group.member_id(record.effective.seed)}-{secrets.token_hex(2)}"
