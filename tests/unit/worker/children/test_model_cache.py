"""The model cache: recently used models stay loaded, the least recently used one is dropped; requests share a model."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.support import settings_in
from tests.support.finished_runs import finished_run
from tests.support.refusals import refused
from tests.support.run_shell import FINISHED_RUN
from tests.support.runs import record
from trainer.artifacts.runs import RunStore
from trainer.contracts.errors import ErrorCode
from trainer.contracts.generations import GenerateRecord, GenerateRequest, GenerateResponse, GenerationPrecision
from trainer.data.corpora import CorpusStore
from trainer.inference.model_files import WEIGHTS_FILE
from trainer.worker.children.inference_server import answer
from trainer.worker.children.model_cache import ModelCache


def cache_in(folder: Path, max_bytes: int = 0) -> ModelCache:
    corpora = CorpusStore(settings_in(folder))
    return ModelCache(RunStore(folder / "artifacts"), corpora, folder / "cache", max_bytes)


def test_warm_models__the_least_recently_used_goes_first(tmp_path: Path) -> None:
    for method in ("a", "b", "c", "d", "e"):
        finished_run(tmp_path, "gru").path.rename(tmp_path / "artifacts" / "models" / method)
    models = cache_in(tmp_path, 4 * cache_in(tmp_path).get("a").memory_bytes())
    first = {name: models.get(name) for name in "abcd"}
    assert models.get("a") is first["a"]
    models.get("e")  # the fifth: b has been idle longest
    assert models.get("a") is first["a"]
    assert models.get("b") is not first["b"]


def test_warm_model_alone__stays_until_its_files_change(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "gru")
    models = cache_in(tmp_path)
    first = models.get(run.run_id)
    assert models.get(run.run_id) is first
    os.utime(run.path / WEIGHTS_FILE, ns=(1, 1))
    assert models.get(run.run_id) is not first


def test_counts_of_the_training_text__are_kept_while_it_is_there_and_count_as_memory(tmp_path: Path) -> None:
    shutil.copytree(FINISHED_RUN, tmp_path, dirs_exist_ok=True)  # with its text
    [run] = RunStore(tmp_path / "artifacts").all()
    loaded = cache_in(tmp_path).get(run.run_id)
    before = loaded.memory_bytes()
    counted = loaded.count_text()
    assert loaded.count_text() is counted
    assert loaded.memory_bytes() - before == counted.unigram.memory_bytes() + counted.ngram.memory_bytes() > 0
    for text in (tmp_path / "data").rglob("*.txt"):
        text.unlink()
    with refused(ErrorCode.DATA_NOT_FOUND):
        loaded.count_text()
    assert loaded.memory_bytes() == before, "not kept longer than the text"


def test_unfinished_run__has_no_model(tmp_path: Path) -> None:
    RunStore(tmp_path / "artifacts").create(record("a"))
    with refused(ErrorCode.RUN_NOT_READY):
        cache_in(tmp_path).get("a")


def test_requests__of_both_precisions_are_each_answered_as_if_alone(tmp_path: Path) -> None:
    causal, recurrent = (finished_run(tmp_path, family).run_id for family in ("gpt2", "lstm"))
    models, settings = cache_in(tmp_path), settings_in(tmp_path)

    def record_of(run_id: str, seed: int, precision: GenerationPrecision) -> GenerateRecord:
        request = GenerateRequest(prompt_text="the s", seed=seed, precision=precision, logprobs=True, max_new_tokens=8)
        queued = GenerateResponse(request_id=f"q{seed}", run_id=run_id, status="queued")
        return GenerateRecord(request=request, response=queued)

    def answers(*records: GenerateRecord) -> Sequence[GenerateRecord]:
        return [one for one in answer(records, models, settings) if isinstance(one, GenerateRecord)]

    records = [record_of(causal, 1, "bf16"), record_of(causal, 2, "fp32")]
    fp32, bf16 = answers(*records)
    assert [bf16, fp32] == [one for record in records for one in answers(record)]
    assert [one.response.status for one in (fp32, bf16)] == ["completed"] * 2
    mixed = answers(record_of(recurrent, 3, "bf16"), record_of(recurrent, 4, "fp32"))
    assert [one.response.status for one in mixed] == ["completed", "completed"]
