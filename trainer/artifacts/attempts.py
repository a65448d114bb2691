"""Consequences of an unexpected end of a training child: another attempt, or the end of the run."""

import signal
from collections.abc import Iterable
from typing import NamedTuple

from trainer.artifacts.runs import RunDirectory, finish_run, manifest_of
from trainer.config.settings import QueueSettings
from trainer.contracts.base import StopCause, changed
from trainer.contracts.errors import AppError, ErrorClass, ErrorCode, RunError
from trainer.contracts.events import CheckpointSaved, Event, JobProgress, JobStarted, stamp
from trainer.contracts.wording import STOP_MESSAGES
from trainer.system.signals import WARNINGS

LOCKED_EXIT_CODE = 75
"""EX_TEMPFAIL: another child has the run."""
DISK_FULL_EXIT_CODE, DISK_FAILED_EXIT_CODE = 73, 74
"""EX_CANTCREAT, EX_IOERR: the run resumes when the disk works again."""

SIGNAL_EXIT_CODE = 128
"""Plus the number of the signal that killed a process of a training, as in a shell."""
_DAY_SECONDS = 86400
_DEFAULTS = QueueSettings()
_KILLS = tuple(-number for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, *WARNINGS))

_FAULTS: tuple[StopCause, ...] = ("crashed", "stalled", "starved")
_WAITS: tuple[StopCause, ...] = ("disk_full", "disk_unwritable")
_LAST: dict[StopCause, tuple[ErrorCode, str]] = {
    "crashed": (ErrorCode.CRASH_LOOP, "The training crashed {faults} times without progress."),
    "stalled": (
        ErrorCode.CRASH_LOOP,
        "The training failed {faults} times without progress, the last time because it stalled. If a step can"
        " take that long, raise QUEUE__STALL_SECONDS.",
    ),
    "starved": (
        ErrorCode.CRASH_LOOP,
        "The training failed {faults} times without progress, the last time because memory ran out. Make"
        " `batch_size`, `max_seq_len` or the model smaller.",
    ),
    "disk_full": (ErrorCode.INSUFFICIENT_STORAGE, "The disk was full for a day: free some space."),
    "disk_unwritable": (
        ErrorCode.SERVICE_UNAVAILABLE,
        "The disk could not be written to for a day: check it, then resume the run.",
    ),
}


class ChildEnd(NamedTuple):
    """The end of a child process."""

    exit_code: int
    last_lines: tuple[str, ...]
    """The last lines of the error output."""
    cause: StopCause | None
    """None for a regular end."""
    has_begun: bool = True
    """False if the child ended before its first step."""

    @property
    def died_at_start(self) -> bool:
        """True for a child that crashed, stalled or was killed before its first step."""
        return not self.has_begun and self.cause is not None and self.cause not in _WAITS

    def description(self) -> dict[str, object]:
        return {"exit_code": self.exit_code, "reason": self.cause, "last_lines": "".join(self.last_lines)}


def cause_of(exit_code: int, *, stalled: bool = False, starved: bool = False) -> StopCause | None:
    """Return the cause of an exit code; `starved` says that Linux killed processes meanwhile because memory ran out."""
    if stalled:
        return "stalled"
    if exit_code > SIGNAL_EXIT_CODE:
        exit_code = SIGNAL_EXIT_CODE - exit_code
    if exit_code in _KILLS:
        return "starved" if starved and exit_code == -signal.SIGKILL else "killed"
    return _CAUSES.get(exit_code, "crashed")


_CAUSES: dict[int, StopCause | None] = {
    0: None,
    LOCKED_EXIT_CODE: None,
    DISK_FULL_EXIT_CODE: "disk_full",
    DISK_FAILED_EXIT_CODE: "disk_unwritable",
}


def record_end(
    run: RunDirectory, cause: StopCause, last_lines: tuple[str, ...], queue: QueueSettings = _DEFAULTS
) -> float | None:
    """Record the end of an attempt in the event log; return the seconds until the next attempt, None if there is none.

    `max_attempts` attempts in a row that crash, stall or run out of memory without a new checkpoint end the run. A kill
    from outside, the death of the worker, and an end before the first step for which another worker tries the run
    (`not_started`) do not count. If the disk fails, the run waits about a day, twice as long
    each time.

    An end does not count while another child has the run's lock. Raises OSError if the record cannot be written.
    """
    lock = run.lock()
    if lock is None:
        return queue.retry_seconds
    with lock, run.open_log() as events:
        history = run.reader().read_new(has_progress=False)
        record = run.record()
        same = sum(_cause(event) == cause for event in history)
        stamped = stamp(record.run_id, record.user_id, f"{cause}:{same + 1}")
        events.append(ended := JobProgress(**stamped, progress=0.0, message=STOP_MESSAGES[cause], cause=cause))
        history.append(ended)
        faults, waits = _in_vain(history, _FAULTS), _in_vain(history, _WAITS)
        max_waits = _DAY_SECONDS / queue.max_retry_seconds  # nearly all waits are the longest
        if cause in _LAST and (faults >= queue.max_attempts or waits >= max_waits):
            code, message = _LAST[cause]
            error = RunError.of(AppError(code, message.format(faults=faults)))
            finish_run(run, events, changed(manifest_of(record, "failed", error=error), last_lines=last_lines))
            return None
    if cause not in _WAITS:
        return queue.retry_seconds
    return min(queue.retry_seconds * 2.0 ** min(max(0, waits - 1), 20), queue.max_retry_seconds)


def was_never_trained(run: RunDirectory) -> bool:
    """Return True for a run that failed before its first step by no fault of its setting, which is not measured then.

    Its processes crashed, or what it needed did not work. A refusal or a lack of memory is the setting's own.
    """
    end = run.manifest()
    if end is None or end.error is None:
        return False
    is_trouble = end.error.code in _TROUBLES or end.error.error_class is ErrorClass.TRANSIENT
    return is_trouble and run.follow().refresh().step == 0


_TROUBLES = (ErrorCode.CRASH_LOOP, ErrorCode.INTERNAL_ERROR)


def record_timeout(run: RunDirectory, seconds: float) -> None:
    """End a run whose training took too long, unless it has ended or another child has its lock."""
    lock = run.lock()
    if lock is None:
        return
    with lock, run.open_log() as events:
        if run.manifest() is None:
            message = (
                f"The training took longer than {seconds:g} s (QUEUE__TRAINING_TIMEOUT_SECONDS). Resume it from its"
                " last checkpoint, or raise the limit."
            )
            error = RunError.of(AppError(ErrorCode.MODEL_TRAIN_FAILED, message))
            finish_run(run, events, manifest_of(run.record(), "failed", error=error))


def _in_vain(history: Iterable[Event], causes: tuple[StopCause, ...]) -> int:
    """Count the attempts since the last checkpoint that ended with one of the causes and saved nothing."""
    count, saved = 0, False
    for event in history:
        if isinstance(event, CheckpointSaved):
            count, saved = 0, True
        elif isinstance(event, JobStarted):
            saved = False
        elif _cause(event) is not None:
            count += _cause(event) in causes and not saved
            saved = False
    return count


def _cause(event: Event) -> StopCause | None:
    """Return the cause that an event of `record_end` names; the end of the worker is none."""
    cause = event.cause if isinstance(event, JobProgress) else None
    return None if cause == "worker_ended" else cause
