"""A run whose model is counted: its records, and attempts that ended before it."""

import threading
from pathlib import Path

import pytest

from tests.support import add_corpus, settings_in
from tests.support.runs import record
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.config.train_request import train_request
from trainer.contracts.base import changed
from trainer.contracts.events import Event, JobProgress, JobStarted, MetricsConfig, MetricsProgress, stamp
from trainer.contracts.models import NgramConfig
from trainer.contracts.runs import RunManifest
from trainer.data.corpora import CorpusStore
from trainer.inference.model_files import load_run
from trainer.models.ngram import NgramModel
from trainer.queue.resolve import resolve_request
from trainer.worker.children.train_run import TrainingAttempt

TEXT = "a b\nb a\na b a\n"
"""Fewer tokens than a row has by default, in three lines for three splits."""


async def accepted(folder: Path) -> RunDirectory:
    add_corpus(folder, TEXT)
    settings = settings_in(folder)
    request = train_request({"model_family": "ngram", "corpus": "text", "model_size": "trigram"})
    effective = await resolve_request(request, CorpusStore(settings), settings)
    return RunStore(settings.app.artifacts_root).create(record("counted", None, request=request, effective=effective))


def attempt(run: RunDirectory, folder: Path, number: int = 1, *, pauses: bool = False) -> RunManifest | None:
    """Run an attempt in this process and return the end of the run, if it has one."""
    pause = threading.Event()
    if pauses:
        pause.set()
    with run.open_log() as events:
        started = JobStarted(**stamp(run.run_id, None, f"started:{number}"), queue="training", attempt=number)
        events.append(started)
        TrainingAttempt(settings_in(folder), run, events, [started] * number, pause).run()
    return run.manifest()


def events_of(run: RunDirectory) -> list[Event]:
    return [*run.reader().read_new()]


@pytest.mark.process
async def test_run__of_a_text_shorter_than_a_row_has_the_records_of_one_step(tmp_path: Path) -> None:
    run = await accepted(tmp_path)
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
    run = await accepted(tmp_path)
    assert attempt(run, tmp_path, pauses=True) is None
    manifest = attempt(run, tmp_path, 2)
    assert manifest is not None and manifest.status == "completed"
    assert len(run.loss_curve.read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.process
async def test_cancelled_run__has_no_model(tmp_path: Path) -> None:
    run = await accepted(tmp_path)
    run.request_cancel()
    manifest = attempt(run, tmp_path)
    assert manifest is not None
    assert (manifest.status, manifest.steps, manifest.metrics.test) == ("cancelled", 0, None)
    assert not run.weights.exists()
