"""Tokenizers on disk: found by id, trained once, stored complete; broken ones are named."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.support import add_corpus, settings_in, some_text, tiny_request
from tests.support.runs import record as run_record
from tests.support.tiny_models import char_tokenizer
from trainer.artifacts.tokenizers import TokenizerStore, resolve_tokenizer
from trainer.config.tokenizer_request import record_of_run, run_source
from trainer.config.validation import parse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizer_jobs import TokenizerRecord, TokenizerTrainRequest
from trainer.data.corpora import CorpusStore
from trainer.queue.resolve import with_labelled_tokenizer
from trainer.tokenizers import load_tokenizer
from trainer.worker.children.tokenizer_child import make

STORED = Path(__file__).parents[2] / "fixtures" / "tokenizers"
STORED_ID = "char-222eba1359b17193"


async def record_of(folder: Path, **fields: object) -> TokenizerRecord:
    add_corpus(folder, some_text())
    request: dict[str, object] = {"method": "char", "corpora": ["text"], "label": "mine", **fields}
    return await resolve_tokenizer(parse(TokenizerTrainRequest, request), CorpusStore(settings_in(folder)))


def finish(folder: Path, record: TokenizerRecord) -> None:
    """Do the child's work."""
    make(record, CorpusStore(settings_in(folder)), folder).save(
        folder / "artifacts" / "tokenizers" / record.tokenizer_id
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_tokenizer__is_queued_then_running_then_completed(tmp_path: Path) -> None:
    store = TokenizerStore(tmp_path / "artifacts")
    record = await record_of(tmp_path)
    tokenizer = store.create(record)

    queued = store.get(record.tokenizer_id).status()
    assert (queued.status, queued.message, queued.label, queued.method) == (
        "queued",
        "Waiting for a worker.",
        "mine",
        "char",
    )
    assert (queued.vocab_size, queued.stats, queued.error) == (None, None, None)
    assert queued.created_at == record.created_at
    with pytest.raises(AppError, match="is still being trained") as caught:
        store.get(record.tokenizer_id).completed_manifest()
    assert caught.value.code is ErrorCode.CONFLICT
    tokenizer.logs.touch()
    assert store.get(record.tokenizer_id).status().status == "running"
    assert [t.tokenizer_id for t in store.unfinished()] == [record.tokenizer_id]

    finish(tmp_path, record)
    completed = store.get(record.tokenizer_id).status()
    manifest = store.get(record.tokenizer_id).completed_manifest()
    assert (completed.status, completed.stats, completed.vocab_size) == (
        "completed",
        manifest.stats,
        manifest.vocab_size,
    )
    assert completed.artifact == f"tokenizers/{record.tokenizer_id}"
    assert str(tmp_path) not in completed.model_dump_json()
    assert load_tokenizer(store.get(record.tokenizer_id).path).manifest == manifest
    assert store.unfinished() == []


async def test_asked_again__a_finished_or_begun_one_stays_as_it_is(tmp_path: Path) -> None:
    store = TokenizerStore(tmp_path / "artifacts")
    record = await record_of(tmp_path)
    tokenizer = store.create(record)
    tokenizer.logs.touch()
    begun = contents(tokenizer.path)
    store.create(await record_of(tmp_path, label="another"))
    assert contents(tokenizer.path) == begun
    finish(tmp_path, record)
    finished = contents(tokenizer.path)
    store.create(await record_of(tmp_path, label="another"))
    assert contents(tokenizer.path) == finished


async def test_asked_again__a_failed_one_begins_anew_when_its_child_has_ended(tmp_path: Path) -> None:
    store = TokenizerStore(tmp_path / "artifacts")
    record = await record_of(tmp_path)
    tokenizer = store.create(record)
    tokenizer.logs.touch()
    tokenizer.fail(AppError(ErrorCode.DATA_NOT_FOUND, "There is no text."))

    failed = store.get(record.tokenizer_id).status()
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.message) == (
        "failed",
        ErrorCode.DATA_NOT_FOUND,
        "There is no text.",
    )
    assert store.unfinished() == []
    with pytest.raises(AppError, match=r"its training failed\. There is no text\.") as caught:
        store.get(record.tokenizer_id).completed_manifest()
    assert caught.value.code is ErrorCode.TOKENIZER_NOT_FOUND

    again = await record_of(tmp_path, label="again")
    lock = tokenizer.lock()
    assert lock is not None
    with lock:  # as the child does until it ends
        asking = asyncio.create_task(asyncio.to_thread(store.create, again))
        await asyncio.sleep(0.2)
        assert store.get(record.tokenizer_id).status().status == "failed"
    await asking
    status = store.get(record.tokenizer_id).status()
    assert (status.status, status.error, status.label) == ("queued", None, "again")


@pytest.mark.parametrize("broken", [b"", b"{}", b"[]", b"not json", b'{"tokenizer_id": "\xff"}'])
async def test_broken_manifest__is_a_named_failure_and_can_be_made_anew(tmp_path: Path, broken: bytes) -> None:
    store = TokenizerStore(tmp_path / "artifacts")
    record = await record_of(tmp_path)
    folder = store.create(record).path
    finish(tmp_path, record)
    (folder / "manifest.json").write_bytes(broken)

    with pytest.raises(AppError, match=f"manifest of the tokenizer '{record.tokenizer_id}' is damaged") as caught:
        store.get(record.tokenizer_id).completed_manifest()
    assert caught.value.code is ErrorCode.TOKENIZER_LOAD_FAILED
    status = store.get(record.tokenizer_id).status()
    assert status.error is not None
    assert (status.status, status.error.code) == ("failed", ErrorCode.TOKENIZER_LOAD_FAILED)
    assert (status.stats, status.vocab_size) == (None, None)
    with pytest.raises(AppError) as loading:
        load_tokenizer(folder)
    assert loading.value.code is ErrorCode.TOKENIZER_LOAD_FAILED

    store.create(record)
    assert store.get(record.tokenizer_id).status().status == "queued"


async def test_manifest__with_a_figure_missing_is_broken(tmp_path: Path) -> None:
    store = TokenizerStore(tmp_path / "artifacts")
    record = await record_of(tmp_path)
    folder = store.create(record).path
    finish(tmp_path, record)
    manifest = folder / "manifest.json"
    whole: dict[str, dict[str, float]] = json.loads(manifest.read_bytes())
    required = [name for name in whole["stats"] if name != "unknown_char_share"]  # which older manifests do not have
    for figure in required:
        stats = {name: value for name, value in whole["stats"].items() if name != figure}
        changed: dict[str, object] = {**whole, "stats": stats}
        manifest.write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(AppError, match=f"`stats.{figure}` is required"):
            store.get(record.tokenizer_id).completed_manifest()


@pytest.mark.parametrize(
    "tokenizer_id",
    ["", "char-0123456789abcdef", "../models", "char-0123456789abcde/", "x\n", "a" * 99, "CHAR-" + "0" * 16],
)
def test_unknown_id__is_not_found(tmp_path: Path, tokenizer_id: str) -> None:
    store = TokenizerStore(tmp_path / "artifacts")
    (tmp_path / "artifacts" / "models").mkdir(parents=True)
    (tmp_path / "artifacts" / "models" / "manifest.json").touch()
    with pytest.raises(AppError, match="There is no tokenizer") as caught:
        store.get(tokenizer_id)
    assert (caught.value.code, caught.value.code.http_status) == (ErrorCode.TOKENIZER_NOT_FOUND, 404)
    assert str(tmp_path) not in caught.value.message


def test_tokenizer_of_a_run__is_kept_by_its_id(tmp_path: Path) -> None:
    store = TokenizerStore(tmp_path / "artifacts")
    own = char_tokenizer(["ab", "c"])
    own.save(tmp_path / "run" / "tokenizer")
    tokenizer_id = own.manifest.tokenizer_id

    store.keep(tmp_path / "run" / "tokenizer", own.manifest)

    assert store.get(tokenizer_id).completed_manifest() == own.manifest
    assert contents(store.get(tokenizer_id).path) == contents(tmp_path / "run" / "tokenizer")
    status = store.get(tokenizer_id).status()
    assert (status.status, status.label, status.vocab_size) == ("completed", None, 7)
    assert abs((status.created_at - own.manifest.created_at).total_seconds()) < 60
    assert store.unfinished() == []

    before = contents(store.get(tokenizer_id).path)
    char_tokenizer(["ab", "c"]).save(tmp_path / "other")  # of equal content, but made at another time
    store.keep(tmp_path / "other", own.manifest)
    assert contents(store.get(tokenizer_id).path) == before


def test_tokenizer_of_a_run__has_label_request_and_log_and_is_for_those_of_the_run(tmp_path: Path) -> None:
    store, run, own = TokenizerStore(tmp_path / "artifacts"), run_record(), char_tokenizer(["ab", "c"])
    own.save(tmp_path / "run")
    kept = store.keep(tmp_path / "run", own.manifest)
    assert not kept.has_request() and not kept.is_shared()
    described = record_of_run(run, own.manifest)
    kept.describe(described, ["one", "two"])

    assert set(contents(kept.path)) == {"tokenizer.json", "manifest.json", "request.json", "logs.jsonl"}
    assert kept.record() == described and kept.logs.read_text() == "one\ntwo\n"
    status = store.get(own.manifest.tokenizer_id).status()
    assert (status.status, status.label, status.is_of_run) == ("completed", "text", True)
    assert status.created_at == own.manifest.created_at
    assert not kept.is_shared() and store.unfinished() == []
    assert store.labelled("text") is None, "only an equal run takes it"
    source = run_source(run.effective)
    found = store.of_equal_run(source)
    assert found is not None and found.path == kept.path
    assert store.of_equal_run("0" * 64) is None


def test_tokenizer_that_was_half_kept__is_not_there_and_is_kept_whole_the_next_time(tmp_path: Path) -> None:
    store = TokenizerStore(tmp_path / "artifacts")
    own = char_tokenizer(["ab", "c"])
    own.save(tmp_path / "run")
    half = tmp_path / "artifacts" / "tokenizers" / own.manifest.tokenizer_id
    half.mkdir(parents=True)
    (half / "tokenizer.json").write_bytes((tmp_path / "run" / "tokenizer.json").read_bytes())
    assert store.all() == []
    with pytest.raises(AppError, match="There is no tokenizer"):
        store.get(own.manifest.tokenizer_id)
    store.keep(tmp_path / "run", own.manifest)
    assert store.get(own.manifest.tokenizer_id).completed_manifest() == own.manifest


async def test_all__are_listed_newest_first_broken_ones_too(tmp_path: Path) -> None:
    store = TokenizerStore(tmp_path / "artifacts")
    assert store.all() == []
    records = [await record_of(tmp_path, seed=seed) for seed in (1, 2)]
    for record in records:
        store.create(record)
    own = char_tokenizer(["ab"])
    own.save(tmp_path / "run")
    store.keep(tmp_path / "run", own.manifest)
    kept = store.get(own.manifest.tokenizer_id).path / "manifest.json"
    kept.write_bytes(b"{}")
    os.utime(kept, (1, 1))

    found = store.all()
    ids = [records[1].tokenizer_id, records[0].tokenizer_id, own.manifest.tokenizer_id]
    assert [tokenizer.tokenizer_id for tokenizer in found] == ids
    assert [tokenizer.status().status for tokenizer in found] == ["queued", "queued", "failed"]
    assert [t.tokenizer_id for t in store.unfinished()] == [records[0].tokenizer_id, records[1].tokenizer_id]


def test_stored_form__of_this_release_stays_readable() -> None:
    store = TokenizerStore(STORED.parent)
    status = store.get(STORED_ID).status()
    assert (status.status, status.label, status.vocab_size) == ("completed", "kazakh, turkish", 29)
    assert load_tokenizer(store.get(STORED_ID).path).encode("ˈʃɑː") == [27, 26, 21, 28]
    record = store.get(STORED_ID).record()
    assert record.request.corpora == ("kazakh", "turkish")


FOLDERS = ("tokenizers/mine", "models/mine", "logs")


async def test_tokenizer_whose_label_is_the_folder_of_a_file__is_taken_where_it_fits(tmp_path: Path) -> None:
    settings, store = settings_in(tmp_path), TokenizerStore(tmp_path / "artifacts")

    def used(folders: tuple[str, ...] | None = FOLDERS, **tokenizer: object) -> str | None:
        asked = tiny_request(tokenizer={"method": "char", "vocab_size": 1000, **tokenizer})
        request = with_labelled_tokenizer(asked, folders, settings)
        assert (request.tokenizer is None) == (request.tokenizer_id is not None)
        return request.tokenizer_id

    assert used() is None, "there is none: the run makes its own"

    async def made(**fields: object) -> TokenizerRecord:
        record = await record_of(tmp_path, **fields)
        store.create(record)
        finish(tmp_path, record)
        return record

    await made(label="other", seed=1)
    assert used() is None, "it has another label"
    record = await record_of(tmp_path, label=FOLDERS[0])
    store.create(record)
    with pytest.raises(AppError, match="is still being trained"):
        used()
    finish(tmp_path, record)
    assert used() == record.tokenizer_id, "it has all characters, and they are fewer than the cap"
    assert used(vocab_size=store.get(record.tokenizer_id).completed_manifest().vocab_size) == record.tokenizer_id
    assert used(None) is None, "no file names a folder"
    taken = tiny_request(tokenizer_id=record.tokenizer_id)
    assert with_labelled_tokenizer(taken, FOLDERS, settings) == taken

    newer = await made(label=FOLDERS[0], vocab_size=9)
    assert used(vocab_size=9) == newer.tokenizer_id
    tokenizer = store.get(newer.tokenizer_id)
    tokenizer.begin(newer)
    tokenizer.fail(AppError(ErrorCode.CORPUS_EMPTY, "Nothing there."))
    assert used() == record.tokenizer_id, "one that failed counts for nothing"


async def test_tokenizer_whose_label_is_the_folder_of_a_file__is_refused_where_it_is_another(tmp_path: Path) -> None:
    record = await record_of(tmp_path, label=FOLDERS[0], vocab_size=9)
    TokenizerStore(tmp_path / "artifacts").create(record)
    finish(tmp_path, record)
    said = f"the tokenizer '{record.tokenizer_id}', which has the label 'tokenizers/mine', was trained with"
    contradictions: list[tuple[dict[str, object], str]] = [
        (
            {"method": "bpe", "vocab_size": 9},
            f'`tokenizer.method` is "bpe", but {said} "char"',
        ),
        ({"method": "char", "vocab_size": 8}, f"`tokenizer.vocab_size` is 8, but {said} 9"),
        (
            {"method": "char", "min_frequency": 2},
            f"`tokenizer.min_frequency` is 2, but {said} 1",
        ),
    ]
    for tokenizer, sentence in contradictions:
        with pytest.raises(AppError) as caught:
            with_labelled_tokenizer(tiny_request(tokenizer=tokenizer), FOLDERS, settings_in(tmp_path))

        assert caught.value.code is ErrorCode.MODEL_INCOMPATIBLE
        assert caught.value.message == f"{sentence}: give the same value, or name another tokenizer folder."


async def test_request__is_checked_whole_before_anything_is_written(tmp_path: Path) -> None:
    add_corpus(tmp_path, "one line", "short")
    add_corpus(tmp_path, "one line\n\n", "copy")
    add_corpus(tmp_path, "a\nb\nc", "two")
    (tmp_path / "data" / "corpus" / "bad.txt").write_bytes(b"ab\n\xff")
    refused: list[tuple[dict[str, object], ErrorCode, str]] = [
        ({"corpora": ["nix"]}, ErrorCode.DATA_NOT_FOUND, "There is no corpus 'nix'"),
        ({"corpora": ["two", "../up"]}, ErrorCode.INVALID_INPUT, "corpus"),
        ({"corpora": ["two", "bad"]}, ErrorCode.INVALID_INPUT, "UTF-8"),
        ({"corpora": ["short"]}, ErrorCode.CORPUS_EMPTY, "at least 3"),
        ({"corpora": ["two", "two"]}, ErrorCode.INVALID_INPUT, "two of them are the same"),
        ({"corpora": ["two"], "method": "morse"}, ErrorCode.UNSUPPORTED_BACKEND, "must be one of char"),
    ]
    for fields, code, sentence in refused:
        with pytest.raises(AppError, match=sentence) as caught:
            await record_of(tmp_path, **fields)
        assert caught.value.code is code
    assert not (tmp_path / "artifacts").exists()

    record = await record_of(tmp_path, corpora=["two"])
    assert [(corpus.name, corpus.bytes) for corpus in record.corpora] == [("two", 5)]
