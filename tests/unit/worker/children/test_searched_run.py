"""A run with a search: it trains what it has chosen as a run does that was given these values."""

import random
from pathlib import Path

import pytest

from tests.support.attempts import EndedAfter, accepted, attempt
from tests.support.trainings import TEXT
from trainer.config.search import rounds
from trainer.contracts.base import changed
from trainer.contracts.events import JobProgress, MetricsConfig
from trainer.contracts.runs import RunManifest
from trainer.contracts.search import Search

SIZES: dict[str, object] = {"embedding_size": 8, "hidden_size": 16, "num_layers": 1}
FIELDS: dict[str, object] = {
    "model_family": "lstm",
    "tokenizer": {"method": "char"},
    "max_seq_len": 16,
    "batch_size": 2,
}
CORPUS = "\n".join(TEXT)
OPEN: dict[str, object] = FIELDS | {"model": SIZES, "search": 4, "num_epochs": 3}
TRIALS = sum(each.variants for each in rounds(4))


def search_of(manifest: RunManifest | None) -> Search:
    assert manifest is not None and manifest.search is not None
    return manifest.search


@pytest.mark.slow
@pytest.mark.process
async def test_searched_run__has_the_numbers_of_one_that_was_given_its_choice(tmp_path: Path) -> None:
    run = await accepted(tmp_path / "searched", CORPUS, OPEN)
    manifest = attempt(run, tmp_path / "searched")
    best = search_of(manifest).best
    assert manifest is not None and best is not None
    fields = FIELDS | {"num_epochs": 3, "model": SIZES | {"dropout": best.dropout}, "learning_rate": best.learning_rate}
    given = await accepted(tmp_path / "given", CORPUS, fields)
    alone = attempt(given, tmp_path / "given")
    assert alone is not None
    assert (manifest.metrics, manifest.steps, manifest.baselines) == (alone.metrics, alone.steps, alone.baselines)
    assert changed(manifest.effective, search=None, searched=()) == alone.effective
    assert manifest.request_hash == run.record().request_hash != alone.request_hash
    events = [*run.reader().read_new()]
    ended = [event for event in events if isinstance(event, JobProgress) and event.phase == "searching"][1:]
    assert [event.payload for event in ended] == [{"trial": n, "trials": TRIALS} for n in range(1, TRIALS + 1)]
    [config] = [event for event in events if isinstance(event, MetricsConfig)]
    assert (config.learning_rate, config.search) == (best.learning_rate, manifest.search)
    assert run.follow().refresh().search == manifest.search
    assert not run.trials.exists()


@pytest.mark.process
async def test_searched_run__that_is_interrupted_anywhere_has_the_same_result(tmp_path: Path) -> None:
    whole = await accepted(tmp_path / "whole", CORPUS, OPEN)
    parts = await accepted(tmp_path / "parts", CORPUS, OPEN)
    expected, moments = attempt(whole, tmp_path / "whole"), random.Random(20261127)
    manifest, number = None, 0
    while manifest is None:
        number += 1
        manifest = attempt(parts, tmp_path / "parts", number, pause=EndedAfter(moments.randrange(1, 80)))
    assert expected is not None and number > 3
    assert (manifest.search, manifest.metrics) == (expected.search, expected.metrics)


@pytest.mark.process
async def test_searched_run__that_is_cancelled_in_its_search_has_no_model(tmp_path: Path) -> None:
    run = await accepted(tmp_path, CORPUS, OPEN)
    assert attempt(run, tmp_path, pause=EndedAfter(10)) is None
    run.request_cancel()
    manifest = attempt(run, tmp_path, 2)
    assert manifest is not None
    assert (manifest.status, manifest.steps, manifest.search) == ("cancelled", 0, None)
    assert not run.weights.exists()


@pytest.mark.slow
@pytest.mark.process
async def test_warm_start__is_searched_from_the_weights_of_its_parent(tmp_path: Path) -> None:
    parent = await accepted(tmp_path, CORPUS, FIELDS | {"num_epochs": 4, "model": SIZES}, "parent")
    taught = attempt(parent, tmp_path)
    fields = FIELDS | {"num_epochs": 1, "init_from_run_id": "parent", "search": 2}
    child = await accepted(tmp_path, CORPUS, fields)
    manifest = attempt(child, tmp_path)
    assert taught is not None and manifest is not None and taught.metrics.best is not None
    assert manifest.metrics.initial == pytest.approx(taught.metrics.best, abs=1e-6)
    initial = manifest.metrics.initial
    for trial in search_of(manifest).trials:  # the weights of the parent are the best until a validation is better
        assert trial.val_loss is not None and initial is not None and trial.val_loss <= initial
