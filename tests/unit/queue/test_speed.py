"""Requests with `minutes`: where they are accepted, the size for the text is expected, and the worker chooses."""

import sys
from pathlib import Path

import pytest

from tests.support import add_corpus, settings_in, some_text, tiny_request
from tests.support.refusals import refused
from trainer.config.presets import request_hash
from trainer.contracts.base import changed, now
from trainer.contracts.errors import ErrorCode
from trainer.contracts.models import ModelBlock, NgramConfig
from trainer.contracts.runs import RunRecord, TrainRequest
from trainer.data.corpora import CorpusStore
from trainer.queue.resolution import gather
from trainer.queue.resolve import TrainingPreview, preview_training, resolve_again
from trainer.queue.speed import measure_pace, with_measured_time

MINUTES = TrainRequest(model_family="char_lstm", corpus="text", minutes=3.0)


async def previewed(folder: Path, request: TrainRequest) -> TrainingPreview:
    settings = settings_in(folder)
    return await preview_training(request, CorpusStore(settings), settings)


def record_of(preview: TrainingPreview) -> RunRecord:
    fields: dict[str, object] = {"run_id": "first", "user_id": None, "created_at": now()}
    return RunRecord.model_validate(
        fields
        | {"request": preview.request, "effective": preview.effective, "chosen": preview.chosen}
        | {"request_hash": request_hash(preview.effective)}
    )


async def test_preview__has_the_given_time_and_leaves_the_size_to_the_worker(tmp_path: Path) -> None:
    """It starts no process: the machine of the bot says nothing of the worker's, and may have no torch."""
    add_corpus(tmp_path, some_text(2000))
    first = await previewed(tmp_path, MINUTES)
    reasons = {choice.field: choice.reason for choice in first.chosen}
    assert reasons["model_size"] == "until the worker has measured its speed"
    assert (first.cost.seconds, first.cost.is_given_time) == (180, True)
    assert "It takes the given 3 minutes, or less" in first.checked().cost[0]


async def test_request__is_that_of_a_run_whose_worker_has_chosen(tmp_path: Path) -> None:
    """Another time, text, lock or given value makes another run; a size that the worker has chosen does not."""
    add_corpus(tmp_path, some_text(2000))
    found = await previewed(tmp_path, MINUTES)
    record = record_of(found)
    other = changed(found.effective, model=changed(found.effective.model, hidden_size=4), model_size="tiny")
    assert found._replace(effective=other).is_of(record)
    assert not found._replace(effective=changed(found.effective, test="locked")).is_of(record)
    assert not (await previewed(tmp_path, changed(MINUTES, minutes=4.0))).is_of(record)
    given = changed(MINUTES, learning_rate=0.5)
    assert not (await previewed(tmp_path, given)).is_of(record)
    assert not found.is_of(changed(record, request=given))
    assert not (await previewed(tmp_path, changed(MINUTES, model_family="lstm"))).is_of(record)
    chosen = changed(record, effective=other, request_hash=request_hash(other))
    again = await resolve_again(chosen, CorpusStore(settings_in(tmp_path)), settings_in(tmp_path))
    assert request_hash(again) == chosen.request_hash


@pytest.mark.slow
@pytest.mark.process
async def test_study__measures_the_sizes_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one that can start, the study trains the sizes for the text."""
    add_corpus(tmp_path, some_text(200))
    request, settings = changed(MINUTES, minutes=0.2), settings_in(tmp_path)
    facts = await gather(request, CorpusStore(settings), settings)
    pace = measure_pace(request, facts, settings)
    assert pace is not None and (pace.minutes, pace.size) == (0.2, "tiny") and pace.step_seconds > 0
    monkeypatch.setattr(sys, "executable", "/none")
    assert measure_pace(request, facts, settings) is None


@pytest.mark.process
async def test_first_training_of_a_machine__is_measured_where_its_time_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_corpus(tmp_path, some_text(200))
    settings = settings_in(tmp_path)
    found = await previewed(tmp_path, tiny_request(max_steps=1000, num_epochs=None))
    measured = with_measured_time(found, settings).cost
    assert found.cost.seconds is None and measured.seconds is not None
    assert 0 < measured.seconds < 1000 and measured.is_measured
    assert "judged by a measurement of two seconds" in measured.lines()[0]
    known = found._replace(cost=changed(found.cost, seconds=7.0))
    assert with_measured_time(known, settings) is known
    limited = found._replace(effective=changed(found.effective, max_seconds=0.001))
    assert with_measured_time(limited, settings).cost.seconds == 0.001
    counted = found._replace(effective=changed(found.effective, model=NgramConfig(max_order=3)))
    assert with_measured_time(counted, settings) is counted
    monkeypatch.setattr(sys, "executable", "/none")
    assert with_measured_time(found, settings) is found


async def test_minutes__of_a_model_that_does_not_fit_are_refused(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text(200))
    large = ModelBlock(num_layers=500, hidden_size=30_000)
    with refused(ErrorCode.MODEL_INCOMPATIBLE, "needs at least"):
        await previewed(tmp_path, changed(MINUTES, model=large))
