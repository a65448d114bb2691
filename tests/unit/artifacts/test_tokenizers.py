"""Tokenizers on disk: found by id, trained once, stored complete; broken ones are named."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.support import ROOT, add_corpus, settings_in, some_text, tiny_request
from tests.support.cleanups import contents
from tests.support.refusals import refused
from tests.support.runs import record as run_record
from tests.support.tiny_models import char_tokenizer
from trainer.artifacts.tokenizers import TokenizerDirectory, TokenizerStore, resolve_tokenizer
from trainer.config.tokenizer_request import record_of_run, run_source
from trainer.config.validation import parse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizer_jobs import TokenizerRecord, TokenizerStatus, TokenizerTrainRequest
from trainer.data.corpora import CorpusStore
from trainer.queue.resolve import with_labelled_tokenizer
from trainer.tokenizers import load_tokenizer
from trainer.worker.children.tokenizer_child import make

STORED_ID = "char-222eba1359b17193"
FOLDERS = ("tokenizers/mine", "models/mine", "logs")
BROKE = AppError(ErrorCode.DATA_NOT_FOUND, "There is no text.")


class Lab:
    """A store of tokenizers beside a corpus."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.settings = folder, settings_in(folder)
        self.store = TokenizerStore(folder / "artifacts")
        add_corpus(folder, some_text())

    def record(self, **fields: object) -> TokenizerRecord:
        request: dict[str, object] = {"method": "char", "corpora": ["text"], "label": "mine", **fields}
        return asyncio.run(resolve_tokenizer(parse(TokenizerTrainRequest, request), CorpusStore(self.settings)))

    def finish(self, record: TokenizerRecord) -> None:
        """Do the child's work."""
        path = self.folder / "artifacts" / "tokenizers" / record.tokenizer_id
        make(record, CorpusStore(self.settings), self.folder).save(path)

    def finished(self, **fields: object) -> TokenizerDirectory:
        record = self.record(**fields)
        self.store.create(record)
        self.finish(record)
        return self.store.get(record.tokenizer_id)

    def status(self, tokenizer_id: str) -> TokenizerStatus:
        return self.store.get(tokenizer_id).status()

    def unfinished(self) -> list[str]:
        return [tokenizer.tokenizer_id for tokenizer in self.store.unfinished()]

    def refused(self, tokenizer_id: str, code: ErrorCode, sentence: str) -> None:
        with pytest.raises(AppError, match=sentence) as caught:
            self.store.get(tokenizer_id).completed_manifest()
        assert caught.value.code is code
        assert str(self.folder) not in caught.value.message


def test_tokenizer__of_a_folder_of_splits_reads_the_file_for_training(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    folder = tmp_path / "data" / "corpus" / "bank"
    folder.mkdir()
    for name in ("train", "dev", "test"):
        (folder / f"{name}.txt").write_text(f"{name} a\nb\nc\nd\n", encoding="utf-8")
    assert [corpus.name for corpus in lab.record(corpora=["bank", "text"]).corpora] == ["bank/train.txt", "text"]
    assert [corpus.name for corpus in lab.record(corpora=["bank"], split_by="line").corpora] == ["bank"]
    begun = lab.record(corpora=["ba", "te"])
    assert [corpus.name for corpus in begun.corpora] == [*begun.request.corpora] == ["bank/train.txt", "text"]


@pytest.fixture(name="lab")
def _lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_tokenizer__is_queued_then_running_then_completed(lab: Lab) -> None:
    record = lab.record()
    tokenizer, name = lab.store.create(record), record.tokenizer_id
    queued = lab.status(name)
    assert (queued.status, queued.message, queued.label) == ("queued", "Waiting for a worker.", "mine")
    assert (queued.method, queued.created_at) == ("char", record.created_at)
    assert (queued.vocab_size, queued.stats, queued.error) == (None, None, None)
    lab.refused(name, ErrorCode.CONFLICT, "is still being trained")
    with tokenizer.running():
        assert lab.status(name).status == "running"
    assert lab.unfinished() == [name]
    lab.finish(record)
    completed, manifest = lab.status(name), lab.store.get(name).completed_manifest()
    assert (completed.status, completed.artifact) == ("completed", f"/artifacts/tokenizers/{name}")
    assert (completed.stats, completed.vocab_size) == (manifest.stats, manifest.vocab_size)
    assert str(lab.folder) not in completed.model_dump_json()
    assert load_tokenizer(tokenizer.path).manifest == manifest
    assert lab.unfinished() == []
    finished = contents(tokenizer.path)
    lab.store.create(lab.record(label="another"))
    assert contents(tokenizer.path) == finished


@pytest.mark.parametrize("broken", [b"", b"{}", b"[]", b"not json", b'{"tokenizer_id": "\xff"}'])
def test_broken_manifest__fails_and_the_tokenizer_can_be_trained_again(lab: Lab, broken: bytes) -> None:
    tokenizer = lab.finished()
    name = tokenizer.tokenizer_id
    (tokenizer.path / "manifest.json").write_bytes(broken)
    lab.refused(name, ErrorCode.TOKENIZER_LOAD_FAILED, f"manifest of the tokenizer '{name}' is damaged")
    status = lab.status(name)
    assert status.error is not None
    assert (status.status, status.error.code) == ("failed", ErrorCode.TOKENIZER_LOAD_FAILED)
    assert (status.stats, status.vocab_size) == (None, None)
    lab.store.create(lab.record())
    assert lab.status(name).status == "queued"


def test_manifest__with_a_figure_missing_is_broken(lab: Lab) -> None:
    tokenizer = lab.finished()
    manifest = tokenizer.path / "manifest.json"
    fields: dict[str, dict[str, float]] = json.loads(manifest.read_bytes())
    for figure in fields["stats"]:
        stats = {name: value for name, value in fields["stats"].items() if name != figure}
        changed: dict[str, object] = {**fields, "stats": stats}
        manifest.write_text(json.dumps(changed), encoding="utf-8")
        lab.refused(tokenizer.tokenizer_id, ErrorCode.TOKENIZER_LOAD_FAILED, f"`stats.{figure}` is required")


def test_tokenizer_of_a_run__is_stored_once_with_its_request_for_equal_runs(lab: Lab) -> None:
    run, own, store = run_record(), char_tokenizer(["ab", "c"]), lab.store
    own.save(lab.folder / "run")
    described = record_of_run(run, own.manifest)
    store.store_copy(described, lab.folder / "run", ["one", "two"])
    stored = store.get(own.manifest.tokenizer_id)
    assert set(contents(stored.path)) == {"tokenizer.json", "manifest.json", "request.json", "logs.jsonl"}
    assert contents(stored.path).items() >= contents(lab.folder / "run").items()
    assert stored.completed_manifest() == own.manifest
    assert stored.record() == described and stored.logs.read_text() == "one\ntwo\n"
    status = lab.status(own.manifest.tokenizer_id)
    assert (status.status, status.label, status.is_of_run, status.vocab_size) == ("completed", "text", True, 7)
    assert status.created_at == own.manifest.created_at
    assert not stored.is_shared and lab.unfinished() == []
    assert store.labelled("text") is None, "only an equal run takes it"
    found = store.of_equal_run(run_source(run.effective))
    assert found is not None and found.path == stored.path
    assert store.of_equal_run("0" * 64) is None
    before = contents(stored.path)
    char_tokenizer(["ab", "c"]).save(lab.folder / "other")  # equal content, trained at another time
    store.store_copy(described, lab.folder / "other", ["three"])
    assert contents(stored.path) == before


def test_stored_form__of_this_release_stays_readable() -> None:
    stored = TokenizerStore(ROOT / "tests" / "fixtures").get(STORED_ID)
    status = stored.status()
    assert (status.status, status.label, status.vocab_size) == ("completed", "kazakh, turkish", 29)
    assert load_tokenizer(stored.path).encode("ˈʃɑː") == [27, 26, 21, 28]
    assert stored.record().request.corpora == ("kazakh", "turkish")


def test_label_that_is_the_folder_of_a_file__names_a_tokenizer_with_equal_options(lab: Lab) -> None:
    def used(folders: tuple[str, ...] | None = FOLDERS, **tokenizer: object) -> str | None:
        request = tiny_request(tokenizer={"method": "char", "vocab_size": 1000, **tokenizer})
        resolved = with_labelled_tokenizer(request, folders, lab.settings)
        assert (resolved.tokenizer is None) == (resolved.tokenizer_id is not None)
        return resolved.tokenizer_id

    assert used() is None, "there is none: the run makes its own"
    lab.finished(label="other", seed=1)
    assert used() is None, "it has another label"
    record = lab.record(label=FOLDERS[0])
    lab.store.create(record)
    with pytest.raises(AppError, match="is still being trained"):
        used()
    lab.finish(record)
    first = lab.store.get(record.tokenizer_id)
    assert used() == first.tokenizer_id, "it has all characters, and they are fewer than the cap"
    assert used(vocab_size=first.completed_manifest().vocab_size) == first.tokenizer_id
    assert used(None) is None, "no file names a folder"
    taken = tiny_request(tokenizer_id=first.tokenizer_id)
    assert with_labelled_tokenizer(taken, FOLDERS, lab.settings) == taken
    newer = lab.finished(label=FOLDERS[0], vocab_size=9)
    assert used(vocab_size=9) == newer.tokenizer_id
    newer.begin(newer.record())
    newer.fail(BROKE)
    lab.refused(newer.tokenizer_id, ErrorCode.TOKENIZER_NOT_FOUND, rf"its training failed\. {BROKE.message}")
    assert used() == first.tokenizer_id, "one that failed counts for nothing"


@pytest.mark.parametrize(
    ("tokenizer", "field", "given", "trained"),
    [
        ({"method": "bpe", "vocab_size": 9}, "method", '"bpe"', '"char"'),
        ({"method": "char", "vocab_size": 8}, "vocab_size", "8", "9"),
        ({"method": "char", "min_frequency": 2}, "min_frequency", "2", "1"),
    ],
)
def test_label_that_is_the_folder_of_a_file__is_refused_if_another(
    lab: Lab, tokenizer: dict[str, object], field: str, given: str, trained: str
) -> None:
    name = lab.finished(label=FOLDERS[0], vocab_size=9).tokenizer_id
    with pytest.raises(AppError) as caught:
        with_labelled_tokenizer(tiny_request(tokenizer=tokenizer), FOLDERS, lab.settings)
    assert caught.value.code is ErrorCode.MODEL_INCOMPATIBLE
    assert caught.value.message == (
        f"`tokenizer.{field}` is {given}, but the tokenizer '{name}', which has the label 'tokenizers/mine', was"
        f" trained with {trained}: give the same value, or name another tokenizer folder."
    )


def test_request__is_checked_completely_before_anything_is_written(lab: Lab) -> None:
    for text, name in (("one line", "short"), ("a\nb\nc", "two")):
        add_corpus(lab.folder, text, name)
    (lab.folder / "data" / "corpus" / "bad.txt").write_bytes(b"ab\n\xff")
    mistakes: list[tuple[dict[str, object], ErrorCode, str]] = [
        ({"corpora": ["nix"]}, ErrorCode.DATA_NOT_FOUND, "There is no corpus 'nix'"),
        ({"corpora": ["two", "../up"]}, ErrorCode.INVALID_INPUT, "corpus"),
        ({"corpora": ["two", "bad"]}, ErrorCode.INVALID_INPUT, "UTF-8"),
        ({"corpora": ["short"]}, ErrorCode.CORPUS_EMPTY, "at least 3"),
        ({"corpora": ["two", "two"]}, ErrorCode.INVALID_INPUT, "two of them are the same"),
        ({"corpora": ["two"], "method": "morse"}, ErrorCode.UNSUPPORTED_BACKEND, "must be one of char"),
    ]
    for fields, code, sentence in mistakes:
        with refused(code, sentence):
            lab.record(**fields)
    assert not (lab.folder / "artifacts").exists()
    assert [(corpus.name, corpus.bytes) for corpus in lab.record(corpora=["two"]).corpora] == [("two", 5)]
