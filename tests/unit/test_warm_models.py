"""Models that were asked a moment ago stay loaded, the others make room."""

from pathlib import Path

import pytest

from tests.unit.data.support import POEM, make_run
from tests.unit.test_runs import record
from trainer.contracts.errors import AppError, ErrorCode
from trainer.model_artifact import save_model
from trainer.runs import RunStore, finish_run, manifest_of
from trainer.worker.models import WarmModels


def test_warm_models__the_least_recently_used_goes_first(tmp_path: Path) -> None:
    made = make_run(tmp_path, POEM)
    store = RunStore(tmp_path)
    for name in "abcde":
        run = store.create(record(name))
        made.tokenizer.save(run.tokenizer)
        save_model(run.path, made.fresh_model(), made.effective.model)
        with run.open_log() as events:
            finish_run(run, events, manifest_of(run.record(), "completed"))
    models = WarmModels(store)

    first = {name: models.get(name) for name in "abcd"}
    assert models.get("a") is first["a"]
    models.get("e")  # the fifth: b has been idle longest

    assert models.get("a") is first["a"]
    assert models.get("b") is not first["b"]


def test_warm_models__an_unfinished_run_has_none(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.create(record("a"))

    with pytest.raises(AppError) as caught:
        WarmModels(store).get("a")

    assert caught.value.code is ErrorCode.RUN_NOT_READY
