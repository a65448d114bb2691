"""Results of batteries on disk: scores that were cut off, damaged files, and the states of a job."""

from pathlib import Path

import pytest

from tests.support.batteries import battery_record
from tests.support.disk_failures import CODES, FailingDisk
from tests.support.refusals import refused
from tests.support.stored_jobs import begin
from trainer.artifacts.batteries import BatteryDirectory, BatteryStore
from trainer.contracts.batteries import ItemScores
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.job_status import StepProgress
from trainer.contracts.sequences import SequenceScore

RUN = "lstm-1"
SCORE = SequenceScore(nats=1.0, part_nats=(1.0,), n_tokens=1, n_chars=1, n_bytes=1, unk_count=0, is_cut=False)


@pytest.fixture(name="job")
def job_fixture(tmp_path: Path) -> BatteryDirectory:
    return BatteryStore(tmp_path).create(*battery_record("pairs-1", RUN))


def scores(*places: int) -> list[ItemScores]:
    return [ItemScores(item=place, scores=(SCORE, SCORE)) for place in places]


def test_scores__go_on_after_the_last_complete_line(job: BatteryDirectory) -> None:
    assert (job.count_scores(RUN, "trained"), job.scores(RUN, "trained")) == (0, [])
    job.add_scores(RUN, "trained", scores(0, 1))
    file = job.path / "scores" / f"{RUN}.trained.jsonl"
    complete = file.read_bytes()
    file.write_bytes(complete + complete[:20])
    assert job.count_scores(RUN, "trained") == 2
    assert file.read_bytes() == complete
    job.add_scores(RUN, "trained", scores(2))
    assert job.scores(RUN, "trained") == scores(0, 1, 2)
    assert job.scores(RUN, "untrained") == []


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_scores__that_a_failing_disk_refuses_are_written_by_another_try(
    job: BatteryDirectory, number: int, code: int
) -> None:
    failing = BatteryDirectory(job.path, FailingDisk(number, code))
    with refused(CODES[code], "so the scores could not be written"):
        failing.add_scores(RUN, "trained", scores(0, 1))
    failing.add_scores(RUN, "trained", scores(0, 1)[failing.count_scores(RUN, "trained") :])
    assert failing.scores(RUN, "trained") == scores(0, 1)


def test_status__counts_items_and_survives_a_damaged_count(job: BatteryDirectory) -> None:
    assert (job.status().status, job.status().done, job.status().total) == ("queued", 0, 4)
    begin(job)
    job.write_progress(StepProgress(done=5, total=12))
    assert (job.status().status, job.status().message) == ("running", "5 of 12 items scored.")
    job.write_progress(StepProgress(done=12, total=12))
    assert job.status().message == "Computing the results."
    (job.path / "progress.json").write_bytes(b"{")
    assert (job.status().status, job.status().done) == ("running", 0)
    job.fail(AppError(ErrorCode.OUT_OF_MEMORY, "Memory ran out."))
    failed = job.status()
    assert (failed.status, failed.message, failed.error and failed.error.code) == (
        *("failed", "Memory ran out."),
        ErrorCode.OUT_OF_MEMORY,
    )
    with refused(ErrorCode.CONFLICT, "The battery 'pairs-1' has no results yet"):
        job.summary()


def test_another_attempt__keeps_items_and_scores(job: BatteryDirectory, tmp_path: Path) -> None:
    job.add_scores(RUN, "trained", scores(0))
    job.write_progress(StepProgress(done=1, total=4))
    job.request_cancel()
    assert job.status().message == "Cancelled."
    record, items = battery_record("pairs-1", RUN)
    again = BatteryStore(tmp_path).create(record, ())
    assert (again.status().status, again.items()) == ("queued", [*items])
    assert again.scores(RUN, "trained") == scores(0)


def test_job__is_found_by_its_id_last_and_the_beginning_of_its_id_among_the_visible_ones(tmp_path: Path) -> None:
    store = BatteryStore(tmp_path)
    with refused(ErrorCode.DATA_NOT_FOUND, "There is no battery yet."):
        store.find_named("last")
    for battery_id in ("pairs-1", "pairs-12", "blimp-3"):
        store.create(*battery_record(battery_id, RUN))
    hidden = {"blimp-3"}
    names = {"pairs-1": "pairs-1", "pairs-12": "pairs-12", "blimp-3": "blimp-3", "last": "pairs-12"}
    found = {name: store.find_named(name, lambda one: one not in hidden).battery_id for name in names}
    assert found == names
    assert store.find_named("last").battery_id == store.find_named("bl").battery_id == "blimp-3"
    with refused(ErrorCode.INVALID_INPUT, "'pairs' names 2 batteries: pairs-12, pairs-1. Give one of these ids"):
        store.find_named("pairs")
    with refused(ErrorCode.DATA_NOT_FOUND, "There is no battery 'bl': check its name, or list the batteries."):
        store.find_named("bl", lambda one: one not in hidden)
