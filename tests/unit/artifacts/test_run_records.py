"""Records of a run: its identity, and the stored reason of a failure."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest
from arq.connections import ArqRedis
from pydantic import TypeAdapter

from tests.support import add_corpus, settings_in, some_text, tiny_request
from tests.support.runs import record
from tests.support.waiting import captured_logs
from trainer.artifacts.runs import RunStore, complete_end, finish_run, manifest_of, new_run_id
from trainer.config.presets import resolve
from trainer.contracts.base import now
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.runs import CorpusRef, EffectiveRequest, TrainRequest
from trainer.queue.queue import JobQueue
from trainer.store.store import Store

_manifest = TypeAdapter(dict[str, object])


def test_hundred_runs_created_at_once__have_a_hundred_ids(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with ThreadPoolExecutor(16) as pool:
        runs = list(pool.map(lambda _: store.create(record(new_run_id("char_lstm", now()))), range(100)))
    assert len({run.run_id for run in runs}) == 100
    assert {run.run_id for run in store.all()} == {run.run_id for run in runs}


def test_failed_run__keeps_code_class_and_message_in_its_manifest(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create(record())
    error = RunError.of(AppError(ErrorCode.OUT_OF_MEMORY, "There was not enough memory."))
    with run.open_log() as events:
        finish_run(run, events, manifest_of(run.record(), "failed", error=error))
    kept = _manifest.validate_json((run.path / "manifest.json").read_bytes())
    assert (kept["status"], kept["error"]) == (
        "failed",
        {"code": "OUT_OF_MEMORY", "class": "FATAL", "message": "There was not enough memory."},
    )


def test_seal__names_the_records_of_an_ended_run_once_and_for_all(tmp_path: Path) -> None:
    """In the form that `sha256sum --check` reads."""
    run = RunStore(tmp_path).create(record())
    with run.open_log() as events:
        finish_run(run, events, manifest_of(run.record(), "cancelled"))
    sealed = run.seal.read_text(encoding="ascii")
    names = ("request.json", "manifest.json", "events.jsonl")
    assert sealed == "".join(f"{sha256((run.path / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    with (run.path / "events.jsonl").open("ab") as file:
        file.write(b" ")
    with run.open_log() as events:
        finish_run(run, events, manifest_of(run.record(), "cancelled"))
    assert run.seal.read_text(encoding="ascii") == sealed


def test_end__that_a_process_died_over_is_completed_by_the_next(tmp_path: Path) -> None:
    """Killed right after the manifest, it has left neither the last event nor the seal."""
    store = RunStore(tmp_path)
    run = store.create(record())
    run.write_manifest(manifest_of(run.record(), "cancelled"))
    assert run.follow().refresh().status == "queued"
    assert [found.run_id for found in store.unfinished()] == [run.run_id]
    with run.wait_for_lock(0):
        complete_end(run)
        assert not run.seal.exists(), "another process is writing it"
    complete_end(run)
    complete_end(run)
    assert run.follow().refresh().status == "cancelled"
    assert store.unfinished() == []
    assert len(run.reader().read_new()) == 2


def test_end__of_a_run_that_has_not_ended_is_left_alone(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create(record())
    complete_end(run)
    assert run.follow().refresh().status == "queued"


def test_request__is_kept_as_it_was_sent(tmp_path: Path) -> None:
    """Asked again, a field that was not given takes its family's default, and one that was given keeps its value."""
    request = tiny_request(learning_rate=5e-4)
    asked: dict[str, object] = {"request": request}
    run = RunStore(tmp_path).create(record().model_copy(update=asked))
    kept = run.record().request
    assert kept == request
    assert kept.model_fields_set == request.model_fields_set
    assert resolve_with(kept).learning_rate == 5e-4
    assert resolve_with(tiny_request()).learning_rate == 2e-3


def resolve_with(request: TrainRequest) -> EffectiveRequest:
    corpus = CorpusRef(name="text", sha256="a" * 64, bytes=1)
    return resolve(request, corpus=corpus, validation_corpus=None, test_corpus=None)


def test_run_whose_request_is_broken__hides_no_other(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    for name in ("a", "b"):
        store.create(record(name))
    (tmp_path / "models" / "a" / "request.json").write_bytes(b"{")
    with captured_logs() as lines:
        found = store.all()
    assert [run.run_id for run in found] == ["b"]
    assert [(line["event"], line["run_id"]) for line in lines] == [("run_unreadable", "a")]


async def test_id_that_another_run_has__is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files draw their names too: those of the two requests stand between the ids."""
    drawn = iter(["aaaaaaaa", "file-1", "aaaaaaaa", "bbbbbbbb", "file-2"])

    def next_drawn(_bytes: int) -> str:
        return next(drawn)

    monkeypatch.setattr(secrets, "token_hex", next_drawn)
    add_corpus(tmp_path, some_text())
    settings = settings_in(tmp_path)
    queue = JobQueue(settings, Store(ArqRedis(unix_socket_path=str(tmp_path / "no.sock"))))
    accepted = [await queue.train(tiny_request(), user_id=None) for _ in range(2)]
    assert [run.run_id[-8:] for run in accepted] == ["aaaaaaaa", "bbbbbbbb"]
