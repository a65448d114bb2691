"""The model cache: recently used models stay loaded, the least recently used one is dropped."""

import os
from pathlib import Path

import pytest

from tests.support.runs import completed, record
from tests.support.tiny_models import POEM, make_run
from trainer.artifacts.runs import RunStore, finish_run
from trainer.contracts.errors import AppError, ErrorCode
from trainer.inference.model_files import WEIGHTS_FILE, save_model
from trainer.worker.children.model_cache import ModelCache


def test_warm_models__the_least_recently_used_goes_first(tmp_path: Path) -> None:
    made = make_run(tmp_path, POEM)
    store = RunStore(tmp_path)
    for name in "abcde":
        run = store.create(record(name))
        made.tokenizer.save(run.tokenizer)
        save_model(run.path, made.fresh_model(), made.effective.model)
        with run.open_log() as events:
            finish_run(run, events, completed(run))
    one_bytes = ModelCache(store, 0).get("a").memory_bytes()
    models = ModelCache(store, 4 * one_bytes)

    first = {name: models.get(name) for name in "abcd"}
    assert models.get("a") is first["a"]
    models.get("e")  # the fifth: b has been idle longest

    assert models.get("a") is first["a"]
    assert models.get("b") is not first["b"]


def test_warm_models__one_that_is_alone_stays_whatever_its_size_and_is_loaded_anew_once_its_files_change(
    tmp_path: Path,
) -> None:
    made = make_run(tmp_path, POEM)
    run = RunStore(tmp_path).create(record("a"))
    made.tokenizer.save(run.tokenizer)
    save_model(run.path, made.fresh_model(), made.effective.model)
    with run.open_log() as events:
        finish_run(run, events, completed(run))
    models = ModelCache(RunStore(tmp_path), 0)
    first = models.get("a")
    assert models.get("a") is first
    os.utime(run.path / WEIGHTS_FILE, ns=(1, 1))
    assert models.get("a") is not first


def test_warm_models__an_unfinished_run_has_none(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.create(record("a"))
    with pytest.raises(AppError) as caught:
        ModelCache(store, 0).get("a")
    assert caught.value.code is ErrorCode.RUN_NOT_READY
