"""Requests with `minutes`: their speed is measured in a child process, once, before they are accepted."""

import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import add_corpus, settings_in, some_text, tiny_request
from tests.support.refusals import refused
from trainer.config.presets import request_hash
from trainer.contracts.base import changed, now
from trainer.contracts.errors import ErrorCode
from trainer.contracts.models import ModelBlock
from trainer.contracts.runs import RunRecord, TrainRequest
from trainer.data.corpora import CorpusStore
from trainer.queue.resolve import TrainingPreview, preview_training, resolve_again

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


class Disk(NamedTuple):
    free: int


def disk_usage(path: Path) -> Disk:
    """A nearly full disk."""
    return Disk(free=60_000_000)


@pytest.mark.slow
@pytest.mark.process
async def test_minutes__choose_by_a_measurement_and_stay_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time, the child process cannot start, and the rules alone choose another size."""
    add_corpus(tmp_path, some_text(2000))
    with monkeypatch.context() as nearly_full:
        nearly_full.setattr(shutil, "disk_usage", disk_usage)
        first = await previewed(tmp_path, MINUTES)
    assert first.effective.model_size in ("tiny", "small"), "4 million weights do not fit on the disk"
    reasons = {choice.field: choice.reason for choice in first.chosen}
    assert "ms a step here" in reasons["model_size"] and "ms a step here" in reasons["num_epochs"]
    assert (first.cost.seconds, first.cost.is_given_time) == (180, True)
    assert "takes the given 3 minutes, or less" in first.checked().cost[0]
    record = record_of(first)
    monkeypatch.setattr(sys, "executable", "/none")
    second = await previewed(tmp_path, MINUTES)
    assert not any("ms a step here" in choice.reason for choice in second.chosen)
    other = changed(second.effective, model=changed(second.effective.model, hidden_size=4), model_size="tiny")
    assert second._replace(effective=other).is_of(record)
    assert not second._replace(effective=changed(second.effective, test="locked")).is_of(record)
    assert not (await previewed(tmp_path, changed(MINUTES, minutes=4.0))).is_of(record)
    given = changed(MINUTES, learning_rate=0.5)
    assert not (await previewed(tmp_path, given)).is_of(record)
    assert not second.is_of(changed(record, request=given))
    assert not (await previewed(tmp_path, changed(MINUTES, model_family="lstm"))).is_of(record)
    again = await resolve_again(record, CorpusStore(settings_in(tmp_path)), settings_in(tmp_path))
    assert request_hash(again) == record.request_hash


@pytest.mark.slow
@pytest.mark.process
async def test_minutes__of_a_given_model_are_measured_with_it(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text(200))
    found = await previewed(tmp_path, tiny_request(minutes=3.0, num_epochs=None))
    assert "model_size" not in {choice.field for choice in found.chosen}
    assert 1 <= found.cost.steps <= found.effective.num_epochs * 1000


async def test_minutes__of_a_model_that_does_not_fit_are_refused_before_it_is_measured(tmp_path: Path) -> None:
    """The measurement would take the memory that the machine lacks; a unit test that starts a process fails."""
    add_corpus(tmp_path, some_text(200))
    large = ModelBlock(num_layers=500, hidden_size=30_000)
    with refused(ErrorCode.MODEL_INCOMPATIBLE, "needs at least"):
        await previewed(tmp_path, changed(MINUTES, model=large))
