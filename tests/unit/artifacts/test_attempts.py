"""Failed attempts: which ones count, the waiting time after each, and the limit."""

import errno
import signal
from pathlib import Path

import pytest

from tests.support.checkpoints import checkpoint
from tests.support.runs import ended, record
from trainer.artifacts.attempts import cause_of, record_end, record_timeout, was_never_trained
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.commands.training import recovery_hint
from trainer.config.settings import AppSettings, QueueSettings, Settings
from trainer.contracts.base import StopCause, changed
from trainer.contracts.errors import AppError, ErrorClass, ErrorCode, RunError, transient_code
from trainer.contracts.events import CheckpointSaved, JobProgress, JobStarted, stamp
from trainer.contracts.runs import FinalState, RunManifest
from trainer.lab.here import Here
from trainer.training.checkpoint import CheckpointStore

LINES = ("Fatal Python error: Aborted\n", "  File x\n")


@pytest.fixture(name="run")
def run_fixture(tmp_path: Path) -> RunDirectory:
    return RunStore(tmp_path).create(record())


def begin(run: RunDirectory, attempt: int) -> None:
    with run.open_log() as events:
        events.append(JobStarted(**stamp(run.run_id, 7, f"started:{attempt}"), queue="training", attempt=attempt))


def save(run: RunDirectory, step: int) -> None:
    saved = stamp(run.run_id, 7, f"checkpoint:{step}:None")
    with run.open_log() as events:
        events.append(CheckpointSaved(**saved, step=step, val_loss=None, is_best=False))


def attempts(run: RunDirectory, *ends: StopCause | int) -> list[float | None]:
    """Play attempts that end so; return the seconds until the next one.

    An integer is a checkpoint on the way.
    """
    waited: list[float | None] = []
    begin(run, 1)
    for number, end in enumerate(ends, 2):
        if isinstance(end, int):
            save(run, end)
        else:
            waited.append(record_end(run, end, LINES))
            begin(run, number)
    return waited


def failed_manifest(run: RunDirectory) -> tuple[RunManifest, RunError]:
    manifest = run.manifest()
    assert manifest is not None and manifest.error is not None and manifest.status == "failed"
    return manifest, manifest.error


NEWER: list[StopCause | int] = [1, "crashed", "crashed", "crashed", 2, "stalled", "starved", 3, "crashed", "crashed"]


@pytest.mark.parametrize(
    ("ends", "advice"),
    [
        (["crashed", "crashed", "crashed"], "crashed 3 times without progress"),
        (["crashed", "starved", "stalled"], "QUEUE__STALL_SECONDS"),
        (["stalled", "crashed", "starved"], "`batch_size`"),
        (["crashed", 10, "crashed", "crashed", "crashed", "crashed"], "crashed 3 times"),
        (["crashed", "killed", "crashed", "disk_full", "crashed"], "crashed 3 times"),
        ([*NEWER, "crashed", 4, "stalled", "starved"], None),
        (["crashed", "crashed", *["killed"] * 50], None),
    ],
)
def test_three_faults_in_a_row__end_the_run(run: RunDirectory, ends: list[StopCause | int], advice: str | None) -> None:
    """An attempt that reached a newer checkpoint is free, and kills from outside never count."""
    waited = attempts(run, *ends)
    assert waited[:-1] == [1.0] * (len(waited) - 1)
    assert (waited[-1], run.manifest() is None) == ((1.0, True) if advice is None else (None, False))
    if advice is None:
        assert run.follow().refresh().message == "Started."
    else:
        manifest, error = failed_manifest(run)
        assert (error.code, manifest.last_lines) == (ErrorCode.CRASH_LOOP, LINES)
        assert advice in error.message
        assert run.seal.exists()


@pytest.mark.parametrize(
    ("steps", "code", "advice"),
    [
        ((), ErrorCode.MODEL_TRAIN_FAILED, "start it again with `mt train`"),
        ((100, 120, 140), ErrorCode.MODEL_TRAIN_FAILED, "resume it from step 120 with `mt resume char_lstm-1`"),
        ((3, 5), ErrorCode.TRAINING_NAN_LOSS, None),  # it would lead there again
        ((3, 5), None, None),
    ],
)
async def test_failed_run__names_the_command_that_continues_it(
    run: RunDirectory, steps: tuple[int, ...], code: ErrorCode | None, advice: str | None
) -> None:
    for step in steps:
        CheckpointStore(run.checkpoints).save(checkpoint(step))
    if steps:
        (run.checkpoints / f"step-{steps[-1]}" / "optimizer.pt").unlink()
    installation = Here(Settings(app=AppSettings(artifacts_root=run.path.parents[1])))
    error = None if code is None else RunError.of(AppError(code, "It failed."))
    hint = await recovery_hint(changed(run.follow().refresh(), error=error), installation)
    assert hint == ([] if advice is None else [f"See its log with `mt logs char_lstm-1`; {advice}."])


def test_attempts__are_counted_by_the_settings_and_a_pause_frees_none(run: RunDirectory, tmp_path: Path) -> None:
    begin(run, 1)
    save(run, 10)  # and its worker ended
    begin(run, 2)
    assert [record_end(run, "crashed", ()) for _ in range(3)] == [1.0, 1.0, None]
    queue = QueueSettings(max_attempts=2, retry_seconds=3, max_retry_seconds=5)
    faulty, full = (RunStore(tmp_path / name).create(record()) for name in ("faulty", "full"))
    assert [record_end(faulty, "crashed", (), queue) for _ in range(2)] == [3.0, None]
    assert [record_end(full, "disk_full", (), queue) for _ in range(2)] == [3.0, 5.0]


def test_timeout__ends_a_run_that_no_other_process_has(run: RunDirectory) -> None:
    with run.wait_for_lock(0):
        record_timeout(run, 60)
    assert run.manifest() is None
    record_timeout(run, 60)
    manifest, error = failed_manifest(run)
    assert "60 s (QUEUE__TRAINING_TIMEOUT_SECONDS)" in error.message
    record_timeout(run, 90)
    assert run.manifest() == manifest


@pytest.mark.parametrize(
    ("cause", "code", "told"),
    [
        ("disk_full", ErrorCode.INSUFFICIENT_STORAGE, "The disk is full; the training continues when there is space."),
        ("disk_unwritable", ErrorCode.SERVICE_UNAVAILABLE, "The disk does not work; the training continues when it"),
    ],
)
def test_failing_disk__delays_the_next_attempt_longer_each_time_up_to_a_day(
    run: RunDirectory, cause: StopCause, code: ErrorCode, told: str
) -> None:
    assert attempts(run, 5, *[cause] * 9) == [1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert record_end(run, cause, ()) == 60.0
    assert run.follow().refresh().message.startswith(told)
    with (run.path / "events.jsonl").open("ab") as file:  # the 1430 that come next, as they would be written
        for number in range(11, 1441):
            waited = stamp(run.run_id, 7, f"{cause}:{number}")
            event = JobProgress(**waited, seq=number + 20, progress=0.0, message=told, cause=cause)
            file.write(event.model_dump_json().encode() + b"\n")
    assert record_end(run, cause, ()) is None
    _, error = failed_manifest(run)
    assert (error.code, error.error_class) == (code, ErrorClass.TRANSIENT)


CAUSES: dict[StopCause | None, list[tuple[int, bool, bool]]] = {
    None: [(0, False, True), (75, False, False)],
    "crashed": [(1, False, True), (-signal.SIGABRT, False, False), (-signal.SIGSEGV, False, True)],
    "killed": [(-number, False, False) for number in (signal.SIGKILL, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)]
    + [(-signal.SIGTERM, False, True)],
    "starved": [(-signal.SIGKILL, False, True)],
    "stalled": [(-signal.SIGKILL, True, False), (0, True, False)],
    "disk_full": [(73, False, False)],
    "disk_unwritable": [(74, False, False)],
}
"""Exit codes of a child, whether it stood still, and whether the system had no memory left."""


@pytest.mark.parametrize("cause", CAUSES)
def test_cause__follows_from_the_end_of_the_child(cause: StopCause | None) -> None:
    for exit_code, stalled, starved in CAUSES[cause]:
        assert cause_of(exit_code, stalled=stalled, starved=starved) == cause


@pytest.mark.parametrize(
    ("state", "code", "step", "is_trouble"),
    [
        ("failed", ErrorCode.CRASH_LOOP, 0, True),
        ("failed", ErrorCode.INTERNAL_ERROR, 0, True),
        ("failed", ErrorCode.SERVICE_UNAVAILABLE, 0, True),
        ("failed", ErrorCode.CRASH_LOOP, 3, False),
        ("failed", ErrorCode.OUT_OF_MEMORY, 0, False),
        ("failed", ErrorCode.TRAINING_NAN_LOSS, 0, False),
        ("cancelled", None, 0, False),
    ],
)
def test_run_without_a_step__was_never_trained_unless_its_setting_is_at_fault(
    run: RunDirectory, state: FinalState, code: ErrorCode | None, step: int, is_trouble: bool
) -> None:
    assert not was_never_trained(run)
    begin(run, 1)
    if step:
        save(run, step)
    assert was_never_trained(ended(run, state, code=code)) == is_trouble


def test_ends_for_which_other_workers_try_the_run__do_not_count(run: RunDirectory) -> None:
    moved: list[StopCause | int] = ["not_started"] * 9
    waited = attempts(run, *moved, "crashed", "not_started", "crashed")
    assert waited == [1.0] * 12 and run.manifest() is None
    assert record_end(run, "not_started", ()) == 1.0
    status = run.follow().refresh()
    assert (status.status, status.waits_for, status.stopped_by) == ("queued", "turn", "not_started")
    assert record_end(run, "crashed", ()) is None


FULL, AWAY = ErrorCode.INSUFFICIENT_STORAGE, ErrorCode.SERVICE_UNAVAILABLE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        *((OSError(number, "x"), FULL) for number in (errno.ENOSPC, errno.EDQUOT)),
        *((OSError(number, "x"), AWAY) for number in (errno.EIO, errno.EROFS)),
        (AppError(FULL, "x"), FULL),
        *((AppError(code, "x"), None) for code in (ErrorCode.TRAINING_NAN_LOSS, ErrorCode.DATA_NOT_FOUND)),
        *((error, None) for error in (OSError(errno.EISDIR, "x"), ValueError("x"))),
    ],
)
def test_transient_error__is_one_of_the_surroundings(error: Exception, code: ErrorCode | None) -> None:
    assert transient_code(error) == code
