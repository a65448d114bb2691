"""A search trains the variants of its plan on two splits, and continues where it was stopped."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.support.refusals import refused
from tests.support.tiny_models import Run, make_run
from tests.support.trainings import TEXT, Bad, after
from trainer.config.search import of_variant, variants
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.runs import EffectiveRequest
from trainer.contracts.search import Search, Trial
from trainer.models import build
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import vocabulary_of
from trainer.training.device import seed_everything
from trainer.training.loop import StopReason, TrainingCallbacks, train
from trainer.training.search import SearchCallbacks, SearchPlaces, search
from trainer.training.selftest import NoCheckpoints

SIZES: dict[str, object] = {"embedding_size": 8, "hidden_size": 16, "num_layers": 1}


def run_in(folder: Path, **fields: object) -> Run:
    folder.mkdir()
    values: dict[str, object] = {"learning_rate": None, "model": SIZES, "search": 4, "num_epochs": 4}
    return make_run(folder, TEXT, **(values | fields))


def new_model(run: Run, request: EffectiveRequest) -> LanguageModel:
    seed_everything(request.seed)
    return build(request.model, vocabulary_of(run.tokenizer), request.objective)


def searched(
    run: Run,
    should_stop: Callable[[], StopReason | None] = lambda: None,
    *,
    build_model: Callable[[Run, EffectiveRequest], LanguageModel] = new_model,
) -> Search | StopReason:
    ended: list[tuple[int, int]] = []
    in_all = {2: 2, 4: 6}[run.effective.search or 0]
    callbacks = SearchCallbacks(
        new_model=partial(build_model, run),
        of_training=TrainingCallbacks(should_stop=should_stop),
        on_trial=lambda known, of: ended.append((len(known.trials), of)),
    )
    places = SearchPlaces(run.folder / "search.json", run.folder / "trials")
    found = search(run.corpus, run.effective, run.compute, places, callbacks)
    if ended:
        assert ended == [(number, in_all) for number in range(ended[0][0], ended[-1][0] + 1)]
    return found


def trained_alone(run: Run, trial: Trial) -> float:
    """The lowest validation loss of a training that was given the values and the steps of a trial."""
    given = changed(of_variant(run.effective, trial), max_steps=trial.steps, search=None, searched=())
    seed_everything(given.seed)
    model = build(given.model, vocabulary_of(run.tokenizer), given.objective)
    result = train(model, run.corpus, given, run.compute, NoCheckpoints(run.folder))
    assert result.state.history.best_loss_nats is not None
    return result.state.history.best_loss_nats


def test_search__compares_trainings_of_its_variants_and_keeps_the_better_half(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    unread = dict(run.corpus.ids)
    unread["test"] = np.full(99, 250, dtype=np.uint8)  # ids outside the vocabulary: reading them fails
    found = searched(run._replace(corpus=run.corpus._replace(ids=unread)))
    assert isinstance(found, Search)
    first, last = found.trials[:4], found.trials[4:]
    plan = variants(run.effective)
    assert [one.number for one in first] == [1, 2, 3, 4]
    assert [(one.learning_rate, one.dropout) for one in first] == [(one.learning_rate, one.dropout) for one in plan]
    rows = len(run.corpus.rows("train", 16))
    steps = -(-rows // 4) * 4
    assert [(one.round, one.steps) for one in found.trials] == [(1, round(steps / 4))] * 4 + [(2, round(steps / 2))] * 2
    for trial in found.trials:
        assert trial.val_loss == trained_alone(run, trial)
    better = sorted((one.val_loss or 0.0, one.number) for one in first)[:2]
    assert sorted(number for _, number in better) == [one.number for one in last]
    assert found.best is not None and found.best.val_loss == min(one.val_loss or 0.0 for one in last)
    assert not (run.folder / "trials").exists()
    assert searched(run, after(0, "pause")) == found, "an ended search is read, and nothing is trained"


@pytest.mark.slow
def test_search__that_is_stopped_anywhere_continues_to_the_same_numbers(tmp_path: Path) -> None:
    whole, parts = searched(run_in(tmp_path / "whole")), run_in(tmp_path / "parts")
    moments = random.Random(20261127)
    found, attempts = searched(parts, after(1, "pause")), 1
    while not isinstance(found, Search):
        assert found == "pause"
        found, attempts = searched(parts, after(moments.randrange(1, 60), "pause")), attempts + 1
    assert found == whole
    assert attempts > 3


def test_trial__that_diverges_loses_and_ends_nothing(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run", search=2)
    usual = variants(run.effective)[0].learning_rate

    def diverging(run: Run, request: EffectiveRequest) -> LanguageModel:
        return Bad("nan") if request.learning_rate == usual else new_model(run, request)

    found = searched(run, build_model=diverging)
    assert isinstance(found, Search)
    assert [trial.val_loss is None for trial in found.trials] == [True, False]
    assert found.best == found.trials[1]
    with pytest.raises(RuntimeError, match="bug"):
        searched(run_in(tmp_path / "other", search=2), build_model=lambda run, request: Bad("bug"))
    with refused(ErrorCode.OUT_OF_MEMORY):
        searched(run_in(tmp_path / "large", search=2), build_model=lambda run, request: Bad("memory"))
