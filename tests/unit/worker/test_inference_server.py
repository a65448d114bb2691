"""Answers of the inference server for a completed run, and the manifest after an evaluation."""

import math
from collections import Counter
from hashlib import sha256
from itertools import chain
from pathlib import Path
from threading import Timer
from typing import NamedTuple

import pytest
import torch

from tests.support import settings_in, tiny_request
from tests.support.reference import ReferenceModel, losses_by_hand
from tests.support.tiny_models import POEM, Run, lines_in, make_run
from trainer.artifacts.runs import RunDirectory, RunStore, finish_run, manifest_of
from trainer.config.presets import request_hash
from trainer.config.settings import Settings
from trainer.contracts.base import now
from trainer.contracts.completions import CompletionRecord, CompletionRequest, CompletionResponse
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.inference import (
    ChatRecord,
    ChatRequest,
    ChatResponse,
    ChatTurn,
    EvalMetrics,
    EvalRecord,
    EvalRequest,
    EvalResponse,
    EvalSplit,
    GenerateChunk,
    GenerateRecord,
    GenerateRequest,
    GenerateResponse,
    InferenceRecord,
    PredictRecord,
    PredictRequest,
    PredictResponse,
    Sample,
    ScoreRecord,
    ScoreRequest,
    ScoreResponse,
)
from trainer.contracts.runs import EvalSummary, RunManifest, RunRecord
from trainer.data.corpus import SPLITS, SplitCorpus, SplitRule
from trainer.inference.model_files import save_model
from trainer.models.base import LanguageModel
from trainer.system.files import changed_files, file_records
from trainer.system.hardware import memory_held_bytes
from trainer.worker.children.inference_server import answer, limit_memory
from trainer.worker.children.model_cache import ModelCache

OTHER = ["a text that nobody has seen", "the end"]


class Finished(NamedTuple):
    """A completed run as its training leaves it."""

    settings: Settings
    made: Run
    run: RunDirectory
    model: LanguageModel
    models: ModelCache

    def measure(self, split: EvalSplit = "validation", path: str | None = None) -> EvalMetrics:
        response = self.evaluate(EvalRequest(split=split, path_override=path))
        assert response.metrics is not None, response.error
        return response.metrics

    def evaluate(self, request: EvalRequest) -> EvalResponse:
        response = EvalResponse(request_id="q", run_id="r", status="queued")
        [answered] = answer([EvalRecord(request=request, response=response)], self.models, self.settings)
        assert isinstance(answered, EvalRecord)
        return answered.response

    def score(self, request: ScoreRequest) -> ScoreResponse:
        response = ScoreResponse(request_id="q", run_id="r", status="queued")
        [answered] = answer([ScoreRecord(request=request, response=response)], self.models, self.settings)
        assert isinstance(answered, ScoreRecord)
        assert answered.request == request
        return answered.response

    def generate(self, request: GenerateRequest) -> GenerateResponse:
        response = GenerateResponse(request_id="q", run_id="r", status="queued")
        [answered] = answer([GenerateRecord(request=request, response=response)], self.models, self.settings)
        assert isinstance(answered, GenerateRecord)
        return answered.response

    def told(self, record: InferenceRecord, *gone: str) -> list[InferenceRecord | GenerateChunk]:
        """All that is told of a request; of those that are gone nobody waits for an answer."""
        return list(answer([record], self.models, self.settings, withdrawn=lambda: gone))

    def losses(self, lines: list[str]) -> list[float]:
        """The loss of every predicted token of these lines, each read whole, by hand."""
        model = ReferenceModel(self.model, "lstm")
        ids = [self.made.tokenizer.encode(line) for line in lines]
        return [loss for line in ids for loss in losses_by_hand(model, [line], len(line) + 1)]


@pytest.fixture(name="finished")
def _finished(tmp_path: Path) -> Finished:
    settings = settings_in(tmp_path)
    folder = settings.app.data_root / "corpus"
    folder.mkdir(parents=True)
    made = make_run(folder, POEM, holdout_fraction=0.2, test_fraction=0.3)
    (folder / "other.txt").write_text("\n".join(OTHER), encoding="utf-8")
    model = made.fresh_model()
    with torch.no_grad():
        for weight in model.parameters():
            weight.uniform_(-1, 1)
    store = RunStore(settings.app.artifacts_root)
    record = RunRecord(
        run_id="r",
        user_id=None,
        created_at=now(),
        request=tiny_request(),
        effective=made.effective,
        request_hash=request_hash(made.effective),
    )
    run = store.create(record)
    made.tokenizer.save(run.tokenizer)
    save_model(run.path, model, made.effective.model)
    run.metrics.parent.mkdir()
    run.metrics.write_text("{}", encoding="utf-8")
    run.samples.write_text("", encoding="utf-8")
    left: dict[str, object] = {
        "eval": (EvalSummary(split="test", loss=9.0, perplexity=8103.0),),
        "files": file_records(run.path, vouched_for(run)),
    }
    with run.open_log() as events:
        finish_run(run, events, manifest_of(record, "completed").model_copy(update=left))
    return Finished(settings, made, run, model, ModelCache(store, max_bytes=1 << 30))


def vouched_for(run: RunDirectory) -> list[Path]:
    return [
        *run.path.glob("*.safetensors"),
        run.path / "config.json",
        *run.tokenizer.iterdir(),
        run.metrics,
        run.samples,
    ]


def lines_of(made: Run, split: str) -> list[str]:
    """The lines of a split, read anew."""
    effective = made.effective
    rule = SplitRule(effective.holdout_fraction, effective.test_fraction, effective.split_seed)
    corpus = SplitCorpus(made.folder / "corpus.txt", made.tokenizer.normalization, rule)
    return lines_in(lines for label, lines in chain.from_iterable(corpus.block_groups(SPLITS)) if label == split)


def manifest_of_run(run: RunDirectory) -> RunManifest:
    manifest = run.manifest()
    assert manifest is not None
    return manifest


def broken_seals(run: RunDirectory) -> list[str]:
    """The names of the files that are not as the seal says."""
    lines = [line.split("  ") for line in run.seal.read_text(encoding="ascii").splitlines()]
    return [name for digest, name in lines if sha256((run.path / name).read_bytes()).hexdigest() != digest]


def test_evaluation__three_times_gives_the_brute_force_mean_each_time(finished: Finished) -> None:
    expected = finished.losses(lines_of(finished.made, "validation"))
    measured = [finished.measure() for _ in range(3)]
    for metrics in measured:
        assert metrics.n_tokens == len(expected)
        assert metrics.loss == measured[0].loss == pytest.approx(sum(expected) / len(expected), abs=1e-5)
        assert math.isclose(metrics.perplexity, math.exp(metrics.loss), abs_tol=1e-6)
        assert metrics.split == "validation"
        assert metrics.dataset == "corpus.txt"
    samples = [Sample.model_validate_json(line) for line in finished.run.samples.read_text("utf-8").splitlines()]
    assert Counter(sample.prompt for sample in samples) == {"": 4, "the": 4}
    assert EvalMetrics.model_validate_json(finished.run.metrics.read_bytes()) == measured[-1]


def test_evaluation__again_leaves_the_same_samples_byte_for_byte_and_the_latest_can_be_read(finished: Finished) -> None:
    finished.measure()
    first = sha256(finished.run.samples.read_bytes()).hexdigest()
    again = finished.measure("test")
    assert sha256(finished.run.samples.read_bytes()).hexdigest() == first
    assert finished.run.evaluation() == again


def test_evaluation__of_a_run_that_was_not_measured_is_not_found(finished: Finished) -> None:
    finished.run.metrics.unlink()
    with pytest.raises(AppError, match="has no evaluation yet") as caught:
        finished.run.evaluation()
    assert caught.value.code is ErrorCode.EVAL_NOT_FOUND
    assert caught.value.code.http_status == 404


def test_evaluation__validation_and_test_are_different_texts(finished: Finished) -> None:
    validation, test = finished.measure("validation"), finished.measure("test")
    expected = finished.losses(lines_of(finished.made, "test"))
    assert test.loss == pytest.approx(sum(expected) / len(expected), abs=1e-5)
    assert test.loss != validation.loss


def test_evaluation__of_another_text_measures_all_of_it(finished: Finished) -> None:
    expected = finished.losses(OTHER)
    splits: tuple[EvalSplit, ...] = ("validation", "test")
    for split in splits:
        metrics = finished.measure(split, "other")
        assert metrics.dataset == "other"
        assert metrics.n_tokens == len(expected)
        assert metrics.n_chars == sum(map(len, OTHER))
        assert metrics.loss == pytest.approx(sum(expected) / len(expected), abs=1e-5)


def test_evaluation__needs_no_text_but_the_one_that_it_measures(finished: Finished) -> None:
    (finished.made.folder / "corpus.txt").unlink()
    assert finished.measure(path="other").dataset == "other"
    error = finished.evaluate(EvalRequest()).error
    assert error is not None and error.code is ErrorCode.DATA_NOT_FOUND


def test_evaluation__is_written_into_the_manifest_the_latest_of_each_split_and_text(finished: Finished) -> None:
    before = manifest_of_run(finished.run)

    test = finished.measure("test")
    finished.measure("validation", "other")
    validation = finished.measure("validation")
    other = finished.measure("validation", "other")

    after = manifest_of_run(finished.run)
    assert after.eval == tuple(
        EvalSummary(
            split=metrics.split,
            dataset=dataset,
            loss=metrics.loss,
            perplexity=metrics.perplexity,
            bits_per_char=metrics.bits_per_char,
            top1_accuracy=metrics.top1_accuracy,
            top5_accuracy=metrics.top5_accuracy,
            unknown_share=metrics.unknown_share,
            unknown_char_share=metrics.unknown_char_share,
            lines=metrics.lines,
        )
        for metrics, dataset in ((test, None), (validation, None), (other, "other"))
    )
    assert [file.path for file in after.files] == [file.path for file in before.files]
    assert changed_files(finished.run.path, after.files) == []
    assert broken_seals(finished.run) == []
    unchanged: dict[str, object] = {"eval": before.eval, "files": before.files}
    assert after.model_copy(update=unchanged) == before


def test_evaluation__does_not_mend_a_seal_that_was_broken(finished: Finished) -> None:
    with finished.run.path.joinpath("manifest.json").open("a", encoding="utf-8") as file:
        file.write(" ")
    finished.measure()
    assert broken_seals(finished.run) == ["manifest.json"]


def test_evaluation__of_a_run_from_before_there_were_seals(finished: Finished) -> None:
    finished.run.seal.unlink()
    finished.measure()
    assert not finished.run.seal.exists()
    assert len(manifest_of_run(finished.run).eval) == 2


def test_manifest__from_before_evaluations_named_their_text_is_read(finished: Finished) -> None:
    text = finished.run.path.joinpath("manifest.json").read_text(encoding="utf-8")
    old = text.replace('   "dataset": null,\n', "")
    assert old != text
    assert RunManifest.model_validate_json(old).eval == (EvalSummary(split="test", loss=9.0, perplexity=8103.0),)


def test_evaluation__waits_for_the_runs_other_writer(finished: Finished) -> None:
    lock = finished.run.lock()
    assert lock is not None
    release = Timer(0.3, lock.close)
    release.start()
    finished.measure("test")
    release.join()
    assert manifest_of_run(finished.run).eval[0].loss != 9.0


def test_lock__is_waited_for_so_long_and_no_longer(finished: Finished) -> None:
    lock = finished.run.lock()
    assert lock is not None
    with pytest.raises(AppError) as caught:
        finished.run.wait_for_lock(0.1)
    lock.close()
    assert caught.value.code is ErrorCode.SERVICE_UNAVAILABLE


def test_named_texts__are_scored_and_continued_as_if_they_had_been_typed(finished: Finished) -> None:
    typed = "\n".join(OTHER)
    to_score = (ScoreRequest(text=typed, detail_level="per_char"), ScoreRequest(path="other", detail_level="per_char"))
    to_continue = (GenerateRequest(prompt_text=typed, seed=1), GenerateRequest(prompt_path="other", seed=1))
    scores = [finished.score(request) for request in to_score]
    made = [finished.generate(request) for request in to_continue]
    assert scores[0] == scores[1]
    assert scores[0].n_scored == len("".join(OTHER))
    assert made[0] == made[1]
    assert made[0].prompt_tokens == len("".join(OTHER))


def test_path_that_leads_out__is_refused_by_the_child_too(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("a secret", encoding="utf-8")
    errors: list[RunError | None] = []
    expected: list[RunError] = []
    for name in ("../../secret.txt", "../../nothing.txt"):
        errors.append(finished.score(ScoreRequest(path=name)).error)
        errors.append(finished.generate(GenerateRequest(prompt_path=name)).error)
        errors.append(finished.evaluate(EvalRequest(path_override=name)).error)
        for field in ("path", "prompt_path", "path_override"):
            sentence = f"`{field}` must be a name inside the corpus folder: no absolute path and no `..`."
            expected.append(RunError.of(AppError(ErrorCode.INVALID_INPUT, sentence)))
    assert errors == expected
    assert manifest_of_run(finished.run).eval[0].loss == 9.0


def to_write(*, is_streamed: bool, **values: object) -> GenerateRecord:
    given: dict[str, object] = {"prompt_text": "the s", "seed": 5, "stop_on_eos": False, **values}
    request = GenerateRequest.model_validate(given)
    response = GenerateResponse(request_id="q", run_id="r", status="queued")
    return GenerateRecord(request=request, response=response, is_streamed=is_streamed)


def test_streamed_text__is_told_before_its_answer(finished: Finished) -> None:
    [whole] = finished.told(to_write(is_streamed=False))
    *pieces, last = finished.told(to_write(is_streamed=True))
    assert isinstance(last, GenerateRecord) and isinstance(whole, GenerateRecord)
    assert last.response == whole.response
    assert (
        "".join(piece.text for piece in pieces if isinstance(piece, GenerateChunk)) == (whole.response.outputs or "")[0]
    )


def test_text_that_nobody_waits_for__is_not_written_to_its_end(finished: Finished) -> None:
    first, last = finished.told(to_write(is_streamed=True), "other", "q")
    assert isinstance(first, GenerateChunk) and isinstance(last, GenerateRecord)
    assert last.response.error is not None and last.response.error.code is ErrorCode.CANCELLED


def to_complete(request_id: str, prompts: tuple[str | tuple[int, ...], ...]) -> CompletionRecord:
    response = CompletionResponse(request_id=request_id, run_id="r", status="queued")
    return CompletionRecord(request=CompletionRequest(prompts=prompts, seed=5), response=response, is_streamed=True)


def test_completion__is_answered_with_its_chunks_and_an_error_is_that_of_its_request(finished: Finished) -> None:
    records = [to_complete("good", ("the s", (5, 6))), to_complete("bad", ("the s", (5, 10**6)))]
    told = list(answer(records, finished.models, finished.settings))
    answers = {one.response.request_id: one.response for one in told if isinstance(one, CompletionRecord)}
    chunks = [one for one in told if isinstance(one, GenerateChunk)]
    assert {chunk.request_id for chunk in chunks} == {"good"}
    for choice in answers["good"].choices or ():
        assert "".join(chunk.text for chunk in chunks if chunk.index == choice.index) == choice.text
    assert len(answers["good"].choices or ()) == 2
    assert (answers["bad"].status, answers["bad"].choices) == ("failed", None)
    assert answers["bad"].error is not None and answers["bad"].error.code is ErrorCode.INVALID_INPUT


def test_prediction__is_the_likeliest_by_hand(finished: Finished) -> None:
    response = PredictResponse(request_id="q", run_id="r", status="queued")
    [told] = finished.told(PredictRecord(request=PredictRequest(text="the s", k=3), response=response))
    ids = [2, *finished.made.tokenizer.encode("the s")]
    by_hand = ReferenceModel(finished.model, "lstm").log_probabilities(ids)[-1]
    best = sorted(range(4, len(by_hand)), key=by_hand.__getitem__, reverse=True)[:3]
    assert isinstance(told, PredictRecord) and told.response.suggestions is not None
    assert [s.token for s in told.response.suggestions] == finished.made.tokenizer.tokens(best)
    assert [s.logp for s in told.response.suggestions] == pytest.approx([by_hand[i] for i in best], abs=1e-4)


def test_chat__goes_on_from_all_that_was_said(finished: Finished) -> None:
    response = ChatResponse(request_id="q", run_id="r", session_id="s", status="queued")
    turns = (ChatTurn(request_id="p", message="the sun", answer="was shining"),)
    request = ChatRequest(message="on the sea", session_id="s", seed=5, max_new_tokens=9)
    [told] = finished.told(ChatRecord(request=request, response=response, turns=turns))
    written = finished.generate(
        GenerateRequest(prompt_text="the sun\nwas shining\non the sea\n", seed=5, max_new_tokens=9)
    )
    [cancelled] = finished.told(ChatRecord(request=request, response=response), "q")
    assert isinstance(told, ChatRecord) and isinstance(cancelled, ChatRecord)
    assert (told.response.answer,) == written.outputs
    assert (told.response.turns_dropped, told.response.prompt_tokens) == (0, written.prompt_tokens)
    assert cancelled.response.error is not None and cancelled.response.error.code is ErrorCode.CANCELLED


def test_memory_of_earlier_requests__goes_back_to_the_system_when_it_has_become_much() -> None:
    held = limit_memory(0)  # what earlier tests have freed goes back first
    small = [torch.ones(1000) for _ in range(50_000)]  # 200 MB
    last = small.pop()  # behind the others, so that freeing them alone gives nothing back
    assert limit_memory(memory_held_bytes()) > held + 150e6
    del small
    after = limit_memory(held)
    assert after < held + 100e6 and last.sum() == 1000
