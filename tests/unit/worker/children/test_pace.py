"""Runs that have `minutes`: the worker that takes one measures its speed, and writes what follows into its record."""

import os
from pathlib import Path

import pytest

from tests.support import settings_in, some_text
from tests.support.attempts import accepted, attempt
from tests.support.refusals import refused
from trainer.artifacts.runs import RunDirectory
from trainer.config.presets import request_hash
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.events import JobProgress
from trainer.contracts.seeds import RunGroup
from trainer.contracts.training_options import Pace
from trainer.worker.children.pace import choose_by_speed

MINUTES: dict[str, object] = {"model_family": "char_lstm", "minutes": 0.04, "threads": 1}
TEXT = some_text(400)
MEMBERS = RunGroup(group_id="seeds", seeds=(1, 2))
FASTER = Pace(minutes=0.04, size="small", tokens=50_000.0, step_seconds=0.01)


async def test_worker__writes_what_it_measured_into_the_record(tmp_path: Path) -> None:
    """The list is sorted by the time of the file, which is that of the acceptance."""
    run = await accepted(tmp_path, TEXT, MINUTES)
    file = run.path / "request.json"
    os.utime(file, (1e9, 1e9))
    before = run.record()
    choose_by_speed(settings_in(tmp_path), run)
    record = run.record()
    reasons = {choice.field: choice.reason for choice in record.chosen}
    assert before.pace is None and record.pace is not None and record.pace.minutes == 0.04
    assert " ms a step: " in reasons["model_size"] and " ms a step: " in reasons["num_epochs"]
    assert record.request_hash == request_hash(record.effective)
    assert record.cost is not None and abs(record.cost.params - record.effective.model.parameter_count(19)) < 2000
    assert (record.request, record.effective.corpus) == (before.request, before.effective.corpus)
    assert file.stat().st_mtime == 1e9


async def test_runs_of_a_group__take_what_one_of_them_has_measured(tmp_path: Path) -> None:
    """Else a group over seeds would compare two sizes."""
    first, second = [
        await accepted(tmp_path, TEXT, MINUTES | {"seed": seed}, MEMBERS.member_id(seed)) for seed in (1, 2)
    ]
    for run in (first, second):
        run.replace_record(changed(run.record(), group=MEMBERS))
    second.replace_record(changed(second.record(), pace=FASTER))
    choose_by_speed(settings_in(tmp_path), first)
    assert first.record().pace == FASTER
    assert {choice.field: choice.reason for choice in first.record().chosen}["model_size"].startswith(
        "0.04 minutes at 10 ms a step"
    )


async def test_run_of_a_group_without_its_first__measures_by_itself(tmp_path: Path) -> None:
    run = await accepted(tmp_path, TEXT, MINUTES | {"seed": 2}, MEMBERS.member_id(2))
    run.replace_record(changed(run.record(), group=MEMBERS))
    choose_by_speed(settings_in(tmp_path), run)
    assert run.record().pace is not None


async def test_model_that_does_not_fit_here__is_refused_before_it_is_measured(tmp_path: Path) -> None:
    """The machine that accepted it may have more memory."""
    run = await accepted(tmp_path, TEXT, MINUTES)
    large: dict[str, object] = {"num_layers": 500, "hidden_size": 30_000}
    request = type(run.record().request).model_validate(MINUTES | {"corpus": "text", "model": large})
    run.replace_record(changed(run.record(), request=request))
    with refused(ErrorCode.MODEL_INCOMPATIBLE, "needs at least"):
        choose_by_speed(settings_in(tmp_path), run)


@pytest.mark.process
async def test_attempt__measures_once_and_another_attempt_not_again(tmp_path: Path) -> None:
    run = await accepted(tmp_path, TEXT, MINUTES)
    manifest = attempt(run, tmp_path)
    assert manifest is not None and manifest.status == "completed"
    pace = run.record().pace
    assert pace is not None and phases(run)[:2] == ["measuring", "reading"]
    run.result.unlink()
    attempt(run, tmp_path, 2)
    assert run.record().pace == pace and phases(run).count("measuring") == 1


def phases(run: RunDirectory) -> list[str]:
    """The phases of all attempts."""
    return [str(event.phase) for event in run.reader().read_new() if isinstance(event, JobProgress)]
