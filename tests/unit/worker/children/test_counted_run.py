"""A run whose model is counted: its records, and attempts that ended before it."""

from pathlib import Path

import pytest

from tests.support.attempts import EndedAfter, accepted, attempt
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import changed
from trainer.contracts.events import Event, JobProgress, MetricsConfig, MetricsProgress
from trainer.contracts.models import NgramConfig
from trainer.inference.model_files import load_run
from trainer.models.ngram import NgramModel

TEXT = "a b\nb a\na b a\n"
"""Fewer tokens than a row has by default, in three lines for three splits."""


async def counted(folder: Path) -> RunDirectory:
    return await accepted(folder, TEXT, {"model_family": "ngram", "model_size": "trigram"})


def events_of(run: RunDirectory) -> list[Event]:
    return [*run.reader().read_new()]


@pytest.mark.process
async def test_run__of_a_text_shorter_than_a_row_has_the_records_of_one_step(tmp_path: Path) -> None:
    run = await counted(tmp_path)
    manifest = attempt(run, tmp_path)
    assert manifest is not None and manifest.model is not None and manifest.data is not None
    dims, metrics = manifest.model.dims, manifest.metrics
    assert isinstance(dims, NgramConfig) and isinstance(manifest.effective.model, NgramConfig)
    assert (dims.max_order, dims.order) == (3, len(dims.ngrams))
    assert (manifest.model.params, manifest.model.tied) == (sum(dims.ngrams), False)
    assert manifest.effective.model == changed(dims, order=None, ngrams=(), discounts=())
    assert (manifest.status, manifest.steps, manifest.best_epoch, manifest.determinism) == (
        *("completed", 1),
        *(1, "bit_exact"),
    )
    assert None not in (metrics.train, metrics.val, metrics.test, metrics.bits_per_char)
    assert (metrics.val, metrics.auc) == (metrics.best, None)
    assert [one.split for one in manifest.eval] == ["test"]
    assert len(run.loss_curve.read_text(encoding="utf-8").splitlines()) == 1
    model, _ = load_run(run)
    assert isinstance(model, NgramModel) and model.config == dims
    [config] = [event for event in events_of(run) if isinstance(event, MetricsConfig)]
    assert (config.params, config.total_steps, config.total_epochs) == (manifest.model.params, 1, 1)
    assert [event.step for event in events_of(run) if isinstance(event, MetricsProgress)] == [1]
    phases = [event.phase for event in events_of(run) if isinstance(event, JobProgress)]
    assert phases == ["reading", "training", "evaluating"]
    status = run.follow().refresh()
    assert (status.status, status.params, status.step) == ("completed", manifest.model.params, 1)
    assert (status.learning_rate, status.grad_norm, status.last_checkpoint_step) == (None, None, None)


@pytest.mark.process
async def test_interrupted_run__counts_again(tmp_path: Path) -> None:
    run = await counted(tmp_path)
    assert attempt(run, tmp_path, pause=EndedAfter(0)) is None
    manifest = attempt(run, tmp_path, 2)
    assert manifest is not None and manifest.status == "completed"
    assert len(run.loss_curve.read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.process
async def test_cancelled_run__has_no_model(tmp_path: Path) -> None:
    run = await counted(tmp_path)
    run.request_cancel()
    manifest = attempt(run, tmp_path)
    assert manifest is not None
    assert (manifest.status, manifest.steps, manifest.metrics.test) == ("cancelled", 0, None)
    assert not run.weights.exists()
