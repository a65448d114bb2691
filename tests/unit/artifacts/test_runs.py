"""The run folder: an accepted run is on disk, events are complete and published once, an end is written once."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all_pairs
from tests.support.runs import phase, record
from tests.support.stories import Story, run_record
from trainer.artifacts.event_log import EventLog, EventReader
from trainer.artifacts.runs import (
    RunDirectory,
    RunStore,
    finish_run,
    manifest_of,
    new_run_id,
    one_run_id,
    pause_idle_run,
    unpause_run,
)
from trainer.contracts.base import now
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.events import CheckpointSaved, JobFailed, JobProgress, JobStarted, MetricsProgress, stamp


def test_accepted_run__is_found_again_with_its_request_and_first_event(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    accepted = record()
    store.create(accepted)
    run = RunStore(tmp_path).get("char_lstm-1")
    assert run.record() == accepted
    assert [event.type for event in run.reader().read_new()] == ["trainer.job.queued.v1"]
    assert [found.run_id for found in store.unfinished()] == ["char_lstm-1"]


def test_half_made_run__was_never_accepted(tmp_path: Path) -> None:
    (tmp_path / "models" / "char_lstm-2").mkdir(parents=True)
    assert RunStore(tmp_path).all() == []


@pytest.mark.parametrize("run_id", ["nope", "../etc", "", "A", "a/b", "x" * 65, "a\n"])
def test_unknown_run__is_refused_in_one_sentence(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(AppError) as caught:
        RunStore(tmp_path).get(run_id)
    assert caught.value.code is ErrorCode.RUN_NOT_FOUND
    assert str(tmp_path) not in caught.value.message


def test_beginning_of_many_ids__is_refused_with_five_of_them() -> None:
    with pytest.raises(AppError) as refused:
        one_run_id("a", [f"a{number}" for number in range(6)])
    shown = "'a' is the beginning of 6 run ids: a0, a1, a2, a3, a4, …. Give more of the id."
    assert (refused.value.code, refused.value.message) == (ErrorCode.INVALID_INPUT, shown)


def test_run_ids__are_unique_and_readable() -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: new_run_id("char_lstm", now()), range(100)))
    assert len(set(ids)) == 100
    assert all(run_id.startswith("char_lstm-20") for run_id in ids)


def test_newest_run__comes_first(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    for name in ("a", "b", "c"):
        store.create(record(name))
    assert [run.run_id for run in store.all()] == ["c", "b", "a"]
    assert [run.run_id for run in store.unfinished()] == ["a", "b", "c"]


def test_lock__has_one_holder_and_ends_with_it(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create(record())
    first = run.lock()
    second = run.lock()
    assert first is not None and second is None
    first.close()
    third = run.lock()
    assert third is not None
    third.close()


def test_event_log__the_same_event_is_written_once_also_after_reopening(tmp_path: Path) -> None:
    for _ in range(2):
        with EventLog(tmp_path / "log") as log:
            log.append(phase(1))
            log.append(phase(1))
            log.append(phase(2))
    events = EventReader(tmp_path / "log").read_new()
    assert [(event.seq, event.event_id) for event in events] == [(1, "r:phase:1"), (2, "r:phase:2")]


def test_event_log__torn_at_every_byte_loses_only_the_torn_event(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    with EventLog(whole) as log:
        log.append(phase(1))
        log.append(phase(2))
    data = whole.read_bytes()
    first = data.index(b"\n") + 1

    long_event = b'{"type": "' + b"x" * 5000
    for cut, left in [*((cut, data[:cut]) for cut in range(first, len(data))), (0, data[:first] + long_event)]:
        torn = tmp_path / f"torn{cut}"
        torn.write_bytes(left)
        assert [event.seq for event in EventReader(torn).read_new()] == [1]
        with EventLog(torn) as log:
            log.append(phase(3))
        assert [(event.seq, event.event_id) for event in EventReader(torn).read_new()] == [
            (1, "r:phase:1"),
            (2, "r:phase:3"),
        ]
        assert torn.read_bytes().endswith(b"}\n")


@for_all_pairs(st.lists(st.integers(0, 20), max_size=30), st.integers(1, 5))
def test_event_reader__sees_each_event_once_in_order_however_often_it_looks(numbers: list[int], every: int) -> None:
    with tempfile.TemporaryDirectory() as folder, EventLog(Path(folder) / "log") as log:
        reader = EventReader(Path(folder) / "log")
        seen: list[int] = []
        for place, number in enumerate(numbers):
            log.append(phase(number))
            if place % every == 0:
                seen += [event.seq for event in reader.read_new()]
        seen += [event.seq for event in reader.read_new()]
        assert seen == list(range(1, len(set(numbers)) + 1))


def test_end__is_written_once_and_told_again_from_the_manifest(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create(record())
    error = RunError.of(AppError(ErrorCode.CRASH_LOOP, "It crashed."))
    with run.open_log() as events:
        finish_run(run, events, manifest_of(run.record(), "failed", error=error))
        finish_run(run, events, manifest_of(run.record(), "cancelled"))
    follower = run.follow()
    status = follower.refresh()
    assert follower.ended
    assert (status.status, status.error, status.message) == ("failed", error, "It crashed.")
    assert [event.type for event in run.reader().read_new()] == ["trainer.job.queued.v1", "trainer.job.failed.v1"]
    assert RunStore(tmp_path).unfinished() == []


def test_end__user_and_system_errors_are_told_apart(tmp_path: Path) -> None:
    kinds: dict[ErrorCode, str] = {}
    for code in (ErrorCode.CORPUS_EMPTY, ErrorCode.CRASH_LOOP):
        run = RunStore(tmp_path).create(record(code.value.lower()))
        with run.open_log() as events:
            finish_run(run, events, manifest_of(run.record(), "failed", error=RunError.of(AppError(code, "x"))))
        last = run.reader().read_new()[-1]
        assert isinstance(last, JobFailed)
        kinds[code] = last.error_kind
    assert kinds == {ErrorCode.CORPUS_EMPTY: "user", ErrorCode.CRASH_LOOP: "system"}


def test_completed_manifest__is_refused_where_there_is_no_model(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create(record())
    with pytest.raises(AppError, match="has not finished training yet"):
        run.completed_manifest()
    with run.open_log() as events:
        finish_run(run, events, manifest_of(run.record(), "cancelled"))
    with pytest.raises(AppError, match="has been cancelled: it has no model"):
        run.completed_manifest()


def test_status__follows_the_events(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create(record())
    follower = run.follow()
    assert (follower.refresh().status, follower.refresh().user_id) == ("queued", 7)

    def progress(step: int, val_loss: float | None) -> MetricsProgress:
        return MetricsProgress(
            **stamp(run.run_id, 7, f"progress:{step}"),
            epoch=1,
            total_epochs=2,
            step=step,
            total_steps=4,
            progress=25.0 * step,
            train_loss=3.0 - step,
            train_perplexity=1.0,
            learning_rate=0.1,
            grad_norm=1.0,
            tokens_per_second=10.0,
            chars_per_second=9.0,
            eta_seconds=5.0,
            val_loss=val_loss,
            best_val_loss=val_loss,
            best_val_margin=None if val_loss is None else val_loss / 10,
        )

    with run.open_log() as events:
        events.append(JobStarted(**stamp(run.run_id, 7, "started:1"), queue="training", attempt=1))
        events.append(progress(1, 2.5))
        events.append(progress(2, None))
        events.append(CheckpointSaved(**stamp(run.run_id, 7, "checkpoint:2"), step=2, val_loss=None, is_best=False))
        events.append(JobProgress(**stamp(run.run_id, 7, "reading:2"), progress=0.0, message="Reading the corpus."))
    status = follower.refresh()

    assert (status.status, status.attempt, status.step, status.progress) == ("running", 1, 2, 50.0)
    assert (status.train_loss, status.val_loss, status.best_val_loss) == (1.0, 2.5, 2.5)
    assert status.best_val_margin == 0.25
    assert status.last_checkpoint_step == 2
    assert follower.train_losses == [(1, 2.0), (2, 1.0)]
    assert follower.val_losses == [(1, 2.5)]


@for_all_pairs(st.lists(st.sampled_from(["train", "validate", "read", "checkpoint"]), max_size=12), st.integers(0, 88))
def test_status__is_the_same_whether_the_log_was_read_at_once_or_event_by_event(kinds: list[str], first: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        story = Story(Path(folder), run_record()).start()
        often = story.follower()
        for step, kind in enumerate(kinds, start=first):
            match kind:
                case "train":
                    story.step(step, 3.0 - step / 200)
                case "validate":
                    story.step(step, 3.0 - step / 200, val_loss=2.0 + step / 200)
                case "read":
                    story.read_corpus()
                case _:
                    story.checkpoint(step)
            often.refresh()
        once = story.follower()

    assert once.status == often.status
    assert (once.train_losses, once.val_losses) == (often.train_losses, often.val_losses)


def test_run_that_nobody_pauses__is_left_as_it_is(tmp_path: Path) -> None:
    run = Story(tmp_path, run_record()).run
    before = run.reader().read_new()
    assert pause_idle_run(run)
    unpause_run(run)
    assert (run.reader().read_new(), run.is_paused) == (before, False)


def test_cancel_wish__is_durable(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create(record())
    run.request_cancel()
    assert RunDirectory(run.path).cancel_requested()
