"""Answers of the inference server for a completed run, and the manifest after an evaluation."""

import math
from collections import Counter
from hashlib import sha256
from pathlib import Path
from threading import Timer
from typing import NamedTuple, TypeVar

import pytest
import torch

from tests.support import settings_in
from tests.support.baselines import UNCLEAR
from tests.support.measured_runs import SUMMARY
from tests.support.reference import ReferenceModel, losses_by_hand
from tests.support.refusals import refused
from tests.support.runs import ended, record
from tests.support.tiny_models import NFC, POEM, Run, lines_in, make_run, reference, write
from tests.support.waiting import PATIENCE_SECONDS
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.config.settings import Settings
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.chats import ChatRecord
from trainer.contracts.completions import CompletionRecord
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.evaluations import EvalMetrics, EvalRecord, EvalSplit
from trainer.contracts.generations import GenerateChunk, GenerateRecord, Sample
from trainer.contracts.inference_fields import InferenceRecord
from trainer.contracts.items import ItemsRecord
from trainer.contracts.predictions import PredictRecord
from trainer.contracts.runs import EvalSummary
from trainer.contracts.scores import ScoreRecord
from trainer.contracts.segmentation import SegmentRecord
from trainer.data.corpora import CorpusStore
from trainer.data.corpus import SPLITS, SplitCorpus, SplitRule
from trainer.data.run_corpora import split_rule
from trainer.inference.model_files import save_model
from trainer.models.base import LanguageModel
from trainer.reports.report_text import ENGLISH
from trainer.system.files import changed_files, file_records
from trainer.system.hardware import memory_held_bytes
from trainer.worker.children.inference_server import answer, limit_memory
from trainer.worker.children.model_cache import ModelCache

OTHER = ["a text that nobody has seen", "the end"]
R = TypeVar(
    "R",
    ScoreRecord,
    ItemsRecord,
    SegmentRecord,
    GenerateRecord,
    CompletionRecord,
    PredictRecord,
    ChatRecord,
    EvalRecord,
)


def asked(kind: type[R], request: dict[str, object], request_id: str = "q", **fields: object) -> R:
    """A record of a request that waits."""
    session = {name: value for name, value in request.items() if name == "session_id"}
    waiting = {"request_id": request_id, "run_id": "r", "status": "queued", **session}
    return parse(kind, {"request": request, "response": waiting, **fields})


class Finished(NamedTuple):
    """A completed run as its training leaves it."""

    settings: Settings
    made: Run
    run: RunDirectory
    model: LanguageModel
    models: ModelCache

    def answers(self, *records: InferenceRecord, gone: tuple[str, ...] = ()) -> list[InferenceRecord | GenerateChunk]:
        """All that comes for these requests, of which some ids are gone: nobody waits for their answer."""
        return list(answer(records, self.models, self.settings, withdrawn=lambda: gone))

    def answered(self, waiting: R, *gone: str) -> R:
        last = self.answers(waiting, gone=gone)[-1]
        assert isinstance(last, type(waiting)) and last.request == waiting.request
        return last

    def measure(self, split: str = "validation", path: str | None = None) -> EvalMetrics:
        response = self.answered(asked(EvalRecord, {"split": split, "path_override": path})).response
        assert response.metrics is not None, response.error
        return response.metrics

    @property
    def store(self) -> RunStore:
        return RunStore(self.settings.app.artifacts_root)

    def with_parent(self, name: str) -> "Finished":
        """The run as it would be if it had started from the weights of another one."""
        with self.run.wait_for_lock(PATIENCE_SECONDS):
            manifest = self.run.completed_manifest()
            effective = changed(manifest.effective, init_from_run_id=name)
            self.run.replace_manifest(changed(manifest, effective=effective))
        return self._replace(models=_models(self.store, self.settings))

    def losses(self, lines: list[str]) -> list[float]:
        """The loss of every predicted token of these lines, each read whole, by hand."""
        model = ReferenceModel(self.model, "lstm")
        ids = [self.made.tokenizer.encode(line) for line in lines]
        return [loss for line in ids for loss in losses_by_hand(model, [line], len(line) + 1)]

    def lines(self, split: str) -> list[str]:
        """The lines of a split, read anew."""
        effective = self.made.effective
        rule = SplitRule(effective.holdout_fraction, effective.test_fraction, effective.split_seed)
        corpus = SplitCorpus(self.made.folder / "corpus.txt", self.made.tokenizer.normalization, rule)
        return lines_in(lines for label, lines in corpus.blocks(SPLITS) if label == split)

    def broken_seals(self) -> list[str]:
        """The names of the files that are not as the seal says."""
        lines = [line.split("  ") for line in self.run.seal.read_text(encoding="ascii").splitlines()]
        return [name for digest, name in lines if sha256((self.run.path / name).read_bytes()).hexdigest() != digest]


def _models(store: RunStore, settings: Settings) -> ModelCache:
    return ModelCache(store, CorpusStore(settings), settings.app.corpus_cache, max_bytes=1 << 30)


@pytest.fixture(name="finished")
def _finished(tmp_path: Path) -> Finished:
    settings = settings_in(tmp_path)
    folder = settings.app.data_root / "corpus"
    folder.mkdir(parents=True)
    made = make_run(folder, POEM, holdout_fraction=0.2, test_fraction=0.3)
    (folder / "other.txt").write_text("\n".join(OTHER), encoding="utf-8")
    model = made.fresh_model()
    for weight in model.parameters():
        weight.detach().uniform_(-1, 1)
    store = RunStore(settings.app.artifacts_root)
    run = store.create(record("r", None, effective=made.effective))
    made.tokenizer.save(run.tokenizer)
    save_model(run.path, model, made.effective.model)
    run.metrics.parent.mkdir()
    run.metrics.write_text("{}", encoding="utf-8")
    run.samples.write_text("", encoding="utf-8")
    weights = [run.path / "model.safetensors", run.path / "config.json"]
    files = file_records(run.path, [*weights, *run.tokenizer.iterdir(), run.metrics, run.samples])
    ended(run, "completed", eval=(SUMMARY,), files=files)
    return Finished(settings, made, run, model, _models(store, settings))


def test_evaluation__gives_the_brute_force_mean_of_each_split_each_time(finished: Finished) -> None:
    finished.run.metrics.unlink()
    with refused(ErrorCode.EVAL_NOT_FOUND):
        finished.run.evaluation()
    assert ErrorCode.EVAL_NOT_FOUND.http_status == 404
    samples: list[bytes] = []
    for split in ("validation", "validation", "test"):
        expected, metrics = finished.losses(finished.lines(split)), finished.measure(split)
        assert (metrics.n_tokens, metrics.split, metrics.dataset) == (len(expected), split, "corpus.txt")
        assert metrics.loss == pytest.approx(sum(expected) / len(expected), abs=1e-5)
        assert math.isclose(metrics.perplexity, math.exp(metrics.loss), abs_tol=1e-6)
        assert EvalMetrics.model_validate_json(finished.run.metrics.read_bytes()) == metrics
        assert finished.run.evaluation() == metrics, "the latest can be read"
        samples.append(finished.run.samples.read_bytes())
    assert len(set(samples)) == 1
    drawn = Counter(Sample.model_validate_json(line).prompt for line in samples[0].splitlines())
    assert drawn == {"": 4, "the": 4}
    assert finished.measure("validation").loss == finished.measure("validation").loss != finished.measure("test").loss


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_of_another_text__measures_all_of_it_and_needs_no_other(finished: Finished, split: str) -> None:
    (finished.made.folder / "corpus.txt").unlink()
    expected, metrics = finished.losses(OTHER), finished.measure(split, "other")
    assert (metrics.dataset, metrics.n_tokens, metrics.n_chars) == ("other", len(expected), sum(map(len, OTHER)))
    assert [*map(ENGLISH.note, metrics.notes)] == [
        "The training text of `r` is deleted or has changed, so this text was not searched for in it."
    ]
    assert metrics.loss == pytest.approx(sum(expected) / len(expected), abs=1e-5)
    error = finished.answered(asked(EvalRecord, {})).response.error
    assert error is not None and error.code is ErrorCode.DATA_NOT_FOUND


def test_evaluation__reports_how_much_of_a_text_the_run_and_its_ancestors_have_read(finished: Finished) -> None:
    made, folder = finished.made, finished.made.folder
    first = write(folder, [f"a line of the first run {n}" for n in range(10)], "first.txt")
    effective = changed(made.effective, corpus=reference(first), init_from_run_id="twin")
    finished.store.create(record("twin", None, effective=changed(made.effective, init_from_run_id="deleted")))
    finished.store.create(record("parent", None, effective=effective))
    [of_parent] = SplitCorpus(first, NFC, split_rule(effective)).lines("train")
    training, validation = finished.lines("train")[0], finished.lines("validation")[0]
    read = [training, training, validation, of_parent.split("\n")[0]]
    write(folder, [*read, "a line that nobody has seen"], "mixed.txt")
    own, inherited = finished.measure("test", "mixed"), finished.with_parent("parent@7").measure("test", "mixed")
    assert own.leak is not None and inherited.leak is not None and inherited.leak.validation is not None
    assert (own.leak.lines, own.leak.ancestors, own.leak.unsearched) == (0.4, (), ())
    assert (inherited.leak.lines, inherited.leak.validation.lines) == (0.6, 0.2)
    assert (inherited.leak.ancestors, inherited.leak.unsearched) == (("parent", "twin"), ("deleted",))
    notes = [*map(ENGLISH.note, inherited.notes)]
    assert notes[0].startswith("60.0% of the lines")
    assert "stand in the training text of `r` or in the training text of `parent`" in notes[0]
    assert "of `deleted` is deleted or has changed, so this text was not searched for in it." in notes[-1]
    [summary] = [one for one in finished.run.completed_manifest().eval if one.dataset == "mixed"]
    assert summary.leak == inherited.leak


def test_scored_text__is_searched_in_what_the_run_has_read(finished: Finished) -> None:
    known, new = finished.lines("train"), [f"unseen {number}" for number in range(10)]
    finished.store.create(record("parent", None, effective=changed(finished.made.effective, init_from_run_id="gone")))
    child = finished.with_parent("parent")
    for lines, share in ((known * 20, 1.0), (new * 20, 0.0), ([*known, *new * 9] * 9, len(known) / (len(known) + 90))):
        text, spaced = "\n".join(lines), "\n".join(f"{line.upper()} ." for line in lines)
        for asks_counts in (None, False):
            counts: dict[str, object] = {} if asks_counts is None else {"has_counts": asks_counts}
            table = {"table": {"text": lines}, "text_column": "text"}
            score = child.answered(asked(ScoreRecord, {"text": text, **counts})).response
            items = child.answered(asked(ItemsRecord, {**table, **counts})).response
            found = child.answered(asked(SegmentRecord, {"text": spaced, **counts})).response.segmentation
            assert found is not None
            if asks_counts is False:
                assert (score.leak, items.leak, found.leak, score.notes, items.notes) == (None, None, None, (), ())
                continue
            assert score.leak is not None and items.leak is not None and found.leak is not None
            assert score.leak.lines == items.leak.lines == pytest.approx(share)
            assert found.leak.lines == 0.0
            assert found.leak.plain_lines == pytest.approx(share)
            assert score.leak.n_lines == items.leak.n_lines == len(lines)
            for leak in (score.leak, items.leak, found.leak):
                assert (leak.ancestors, leak.unsearched) == (("parent",), ("gone",))
            notes = [*map(ENGLISH.note, score.notes)]
            assert any("of this text stand in the training text of `r` or in" in one for one in notes) == (share > 0)
            assert any(
                "of the text of the table stand in the training text of `r` or in" in one for one in items.notes
            ) == (share > 0)
            gone = "The training text of `gone` is deleted or has changed, so the text of the table was not searched"
            assert items.notes[-1].startswith(gone)
    short = child.answered(asked(ScoreRecord, {"text": "\n".join(known)[:999]})).response
    assert (short.leak, short.notes) == (None, ())


def test_evaluation_of_a_split__looks_for_it_in_the_text_of_ancestors(finished: Finished) -> None:
    """The parent has trained on all lines of the corpus, and the child holds some of them out."""
    own = reference(finished.made.folder / "other.txt")
    everything = changed(finished.made.effective, validation_corpus=own, test_fraction=0.0)
    finished.store.create(record("parent", None, effective=everything))
    child = finished.with_parent("parent")
    for split in ("validation", "test"):
        metrics = child.measure(split)
        assert metrics.leak is not None and (metrics.leak.lines, metrics.leak.ancestors) == (1.0, ("parent",))
        assert f"of the {split} split stand in the training text of `r`" in ENGLISH.note(metrics.notes[0])
        (finished.made.folder / "other.txt").unlink(missing_ok=True)  # its training text is still here


def test_manifest__has_the_latest_evaluation_of_each_split_and_text(finished: Finished) -> None:
    before = finished.run.completed_manifest()
    test = finished.measure("test")
    finished.measure("validation", "other")
    validation, other = finished.measure("validation"), finished.measure("validation", "other")
    after = finished.run.completed_manifest()
    latest = ((test, None), (validation, None), (other, "other"))
    assert [(one.split, one.dataset) for one in after.eval] == [(one.split, dataset) for one, dataset in latest]
    drawn = [one.lines.is_drawn for one in after.eval]
    assert drawn == [True, True, False], "all lines of the other text are neighbours"
    fields = {name for name in EvalSummary.model_fields if name != "dataset"}
    for summary, (metrics, _) in zip(after.eval, latest, strict=True):
        expected: dict[str, object] = dict(metrics)
        found: dict[str, object] = dict(summary)
        assert all(found[name] == expected[name] for name in fields)
    assert [file.path for file in after.files] == [file.path for file in before.files]
    assert changed_files(finished.run.path, after.files) == []
    assert finished.broken_seals() == []
    assert changed(after, eval=before.eval, files=before.files) == before


@pytest.mark.parametrize("split", ["test", "validation"])
def test_evaluation__is_compared_with_what_the_training_counted(finished: Finished, split: EvalSplit) -> None:
    assert finished.measure(split).baseline is None
    manifest = finished.run.completed_manifest()
    [earlier] = [one for one in manifest.eval if one.split == split]
    ngram_nats = tuple(nats / 2 for nats in earlier.lines.nats) if split == "test" else None
    lines = changed(earlier.lines, ngram_nats=ngram_nats)
    with finished.run.wait_for_lock(PATIENCE_SECONDS):
        counted = changed(manifest, baselines={split: UNCLEAR}, eval=(changed(earlier, lines=lines),))
        finished.run.replace_manifest(counted)
    metrics = finished.measure(split)
    baseline = metrics.baseline
    assert metrics.lines == lines and baseline is not None
    assert baseline.bits_per_char == pytest.approx(metrics.bits_per_char)
    assert baseline == changed(UNCLEAR, bits_per_char=baseline.bits_per_char, margin=None), "of too few lines"
    assert finished.measure(split, "other").baseline is None


def test_evaluation__does_not_repair_a_broken_or_missing_seal(finished: Finished) -> None:
    with finished.run.path.joinpath("manifest.json").open("a", encoding="utf-8") as file:
        file.write(" ")
    finished.measure()
    assert finished.broken_seals() == ["manifest.json"]
    finished.run.seal.unlink()
    finished.measure()
    assert not finished.run.seal.exists() and len(finished.run.completed_manifest().eval) == 2


def test_evaluation__waits_for_the_runs_other_writer(finished: Finished) -> None:
    lock = finished.run.lock()
    assert lock is not None
    with refused(ErrorCode.SERVICE_UNAVAILABLE):
        finished.run.wait_for_lock(0.1)  # so long and no longer
    release = Timer(0.3, lock.close)
    release.start()
    finished.measure("test")
    release.join()
    assert finished.run.completed_manifest().eval != (SUMMARY,)


def test_named_texts__are_scored_and_continued_as_if_they_had_been_typed(finished: Finished) -> None:
    typed, characters = "\n".join(OTHER), len("".join(OTHER))
    of_text: tuple[dict[str, object], ...] = ({"text": typed}, {"path": "other"})
    of_prompt: tuple[dict[str, object], ...] = ({"prompt_text": typed}, {"prompt_path": "other"})
    scores = [finished.answered(asked(ScoreRecord, text | {"detail_level": "per_char"})).response for text in of_text]
    texts = [finished.answered(asked(GenerateRecord, prompt | {"seed": 1})).response for prompt in of_prompt]
    assert scores[0] == scores[1] and scores[0].n_scored == characters
    assert texts[0] == texts[1] and texts[0].prompt_tokens == characters


@pytest.mark.parametrize("path", ["../../secret.txt", "../../nothing.txt"])
def test_path_that_leads_out__is_refused_by_the_child_too(finished: Finished, tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.txt").write_text("a secret", encoding="utf-8")
    errors = {
        "path": finished.answered(asked(ScoreRecord, {"path": path})).response.error,
        "prompt_path": finished.answered(asked(GenerateRecord, {"prompt_path": path})).response.error,
        "path_override": finished.answered(asked(EvalRecord, {"path_override": path})).response.error,
    }
    for field, error in errors.items():
        sentence = f"`{field}` must be a name inside the corpus folder: no absolute path and no `..`."
        assert error == RunError.of(AppError(ErrorCode.INVALID_INPUT, sentence))
    assert finished.run.completed_manifest().eval == (SUMMARY,)


def text_of(pieces: list[InferenceRecord | GenerateChunk], index: int = 0) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, GenerateChunk) and piece.index == index)


def test_streamed_text__comes_before_its_answer_and_ends_without_a_reader(finished: Finished) -> None:
    request: dict[str, object] = {"prompt_text": "the s", "seed": 5, "stop_on_eos": False}
    streamed = asked(GenerateRecord, request, is_streamed=True)
    [whole] = finished.answers(asked(GenerateRecord, request))
    *pieces, last = finished.answers(streamed)
    assert isinstance(last, GenerateRecord) and isinstance(whole, GenerateRecord)
    assert last.response == whole.response
    assert text_of(pieces) == (whole.response.outputs or "")[0]
    first, last = finished.answers(streamed, gone=("other", "q"))
    assert isinstance(first, GenerateChunk) and isinstance(last, GenerateRecord)
    assert last.response.error is not None and last.response.error.code is ErrorCode.CANCELLED


def test_completion__has_its_chunks_or_the_error_of_its_request(finished: Finished) -> None:
    good, bad = (
        asked(CompletionRecord, {"prompts": ("the s", ids), "seed": 5}, name, is_streamed=True)
        for name, ids in (("good", (5, 6)), ("bad", (5, 10**6)))
    )
    pieces = finished.answers(good, bad)
    answers = {one.response.request_id: one.response for one in pieces if isinstance(one, CompletionRecord)}
    assert {piece.request_id for piece in pieces if isinstance(piece, GenerateChunk)} == {"good"}
    choices = answers["good"].choices or ()
    assert [text_of(pieces, choice.index) for choice in choices] == [choice.text for choice in choices]
    assert len(choices) == 2
    assert (answers["bad"].status, answers["bad"].choices) == ("failed", None)
    assert answers["bad"].error is not None and answers["bad"].error.code is ErrorCode.INVALID_INPUT


def test_prediction__is_the_likeliest_by_hand(finished: Finished) -> None:
    found = finished.answered(asked(PredictRecord, {"text": "the s", "k": 3})).response.suggestions
    ids = [2, *finished.made.tokenizer.encode("the s")]
    by_hand = ReferenceModel(finished.model, "lstm").log_probabilities(ids)[-1]
    best = sorted(range(4, len(by_hand)), key=by_hand.__getitem__, reverse=True)[:3]
    assert found is not None and [one.token for one in found] == finished.made.tokenizer.tokens(best)
    assert [one.logp for one in found] == pytest.approx([by_hand[i] for i in best], abs=1e-4)


def test_segmentation__has_the_ngram_of_the_training_text_as_long_as_it_is_there(finished: Finished) -> None:
    asked_for = asked(SegmentRecord, {"text": "\n".join(POEM)})
    with_text = finished.answered(asked_for).response.result()
    models = [one.model for one in with_text.scores]
    assert models[:4] == ["r"] * 4 and models[4].endswith("-gram") and len(models) == 8
    assert with_text.has_ngram and with_text.is_trained_with_spaces
    (finished.made.folder / "corpus.txt").unlink()
    without = finished.answered(asked_for).response.result()
    alone = [changed(one, f1_minus_ngram=None) for one in with_text.scores if one.model == "r"]
    assert alone == [*without.scores]
    assert not without.has_ngram and not without.is_trained_with_spaces


def test_chat__continues_from_all_earlier_turns(finished: Finished) -> None:
    options: dict[str, object] = {"seed": 5, "max_new_tokens": 9}
    turns = [{"request_id": "p", "message": "the sun", "answer": "was shining"}]
    chat = asked(ChatRecord, {"message": "on the sea", "session_id": "s", **options}, turns=turns)
    found = finished.answered(chat).response
    prompt: dict[str, object] = {"prompt_text": "the sun\nwas shining\non the sea\n", **options}
    written = finished.answered(asked(GenerateRecord, prompt)).response
    cancelled = finished.answered(chat, "q").response
    assert (found.answer,) == written.outputs
    assert (found.turns_dropped, found.prompt_tokens) == (0, written.prompt_tokens)
    assert cancelled.error is not None and cancelled.error.code is ErrorCode.CANCELLED


def test_freed_memory__is_returned_to_the_system() -> None:
    held = limit_memory(0)  # what earlier tests have freed goes back first
    small = [torch.ones(1000) for _ in range(50_000)]  # 200 MB
    last = small.pop()  # behind the others, so that freeing them alone gives nothing back
    assert limit_memory(memory_held_bytes()) > held + 150e6
    del small
    after = limit_memory(held)
    assert after < held + 100e6 and last.sum() == 1000
