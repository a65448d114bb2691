"""The run folder: an accepted run is on disk, its end is written once, and the newest runs come first."""

import os
import random
import secrets
import shutil
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path

import pytest
from arq.connections import ArqRedis
from pydantic import TypeAdapter
from pydantic_core import to_json

from tests.support import add_corpus, settings_in, some_text, tiny_request
from tests.support.refusals import refused
from tests.support.runs import ended, record
from tests.support.waiting import captured_logs
from trainer.artifacts.event_log import EventReader
from trainer.artifacts.run_ids import Named, default_label, new_run_id, one_run_id, short_name
from trainer.artifacts.runs import (
    RunDirectory,
    RunStore,
    cancel_idle_run,
    complete_end,
    manifest_of,
    pause_idle_run,
    unpause_run,
)
from trainer.config.validation import set_path
from trainer.contracts.base import RunState, changed, now
from trainer.contracts.cost import Cost
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.events import JobFailed, JobStarted, MetricsConfig, stamp
from trainer.contracts.runs import AnnotationChange, RunManifest, RunRecord, TrainRequest
from trainer.queue.queue import JobQueue
from trainer.store.store import Store
from trainer.system.files import read_record

RUNS = 30


@pytest.fixture(name="store")
def store_fixture(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path)


@pytest.fixture(name="run")
def run_fixture(store: RunStore) -> RunDirectory:
    return store.create(record())


def ids(runs: Iterable[RunDirectory]) -> list[str]:
    return [run.run_id for run in runs]


def queue_without_redis(folder: Path) -> JobQueue:
    return JobQueue(settings_in(folder), Store(ArqRedis(unix_socket_path=str(folder / "no.sock"))))


def test_accepted_run__is_found_again_with_its_request_and_first_event(store: RunStore) -> None:
    """Asked again, a field that was not given takes its family's default, and one that was given keeps its value."""
    accepted = record(request=tiny_request(learning_rate=5e-4))
    store.create(accepted)
    run = store.get("char_lstm-1")
    kept = run.record()
    assert kept == accepted
    assert kept.request.model_fields_set == accepted.request.model_fields_set
    assert (record(request=kept.request).effective.learning_rate, record().effective.learning_rate) == (5e-4, 0.01)
    assert [event.type for event in run.reader().read_new()] == ["trainer.job.queued.v1"]
    assert ids(store.unfinished()) == ["char_lstm-1"]


def test_beginning_of_several_ids__is_refused_with_some_of_them() -> None:
    several = "'a' names 6 runs: a0, a1, a2, a3, a4, …. Give one of these ids; the newest is a0 (`last`)."
    with refused(ErrorCode.INVALID_INPUT, several):
        one_run_id("a", [Named(f"a{number}") for number in range(6)])


RUNS_OF_A_LAB = (
    Named("gru-20261127-00000004", "gru-20261126-00000001"),
    Named("gru-20261126-00000003", "lstm", resumes="gru-20261126-00000002"),
    Named("gru-20261126-00000002", "lstm"),
    Named("gru-20261126-00000001", "a@b"),
    Named("lstm-20261126-00000001", "two"),
    Named("lstm-20261126-00000000", "two"),
)


LABELS = ("түн.2+1_b", "my run", "-x", "$HOME")


@pytest.mark.parametrize(
    ("given", "run_id"),
    [
        ("gru-20261126-00000001", "gru-20261126-00000001"),  # an id comes before a label
        (
            "lstm",
            "gru-20261126-00000003",
        ),  # a label before beginnings of ids; of an interrupted run the one that went on
        ("lstm@best", "gru-20261126-00000003@best"),
        ("last", "gru-20261127-00000004"),
        ("last@1200", "gru-20261127-00000004@1200"),
        ("gru-20261127", "gru-20261127-00000004"),
        ("a@b", "gru-20261126-00000001"),
        ("a@b@words:1M", "gru-20261126-00000001@words:1M"),
    ],
)
def test_name_of_a_run__is_an_id_then_last_then_a_label_then_the_beginning_of_an_id(given: str, run_id: str) -> None:
    assert one_run_id(given, RUNS_OF_A_LAB, or_checkpoint=True) == run_id


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (
            "two",
            ErrorCode.INVALID_INPUT,
            "'two' names 2 runs: lstm-20261126-00000001, lstm-20261126-00000000. Give one",
        ),
        ("gru", ErrorCode.INVALID_INPUT, "'gru' names 4 runs: gru-20261127-00000004, gru"),
        ("gru", ErrorCode.INVALID_INPUT, "the newest is gru-20261127-00000004 (`last`)."),
        ("tow", ErrorCode.RUN_NOT_FOUND, "There is no run 'tow'; did you mean `two`?"),
        ("", ErrorCode.RUN_NOT_FOUND, "There is no run ''"),
        ("last@5", ErrorCode.INVALID_INPUT, "'last@5' is a checkpoint: name its run here, 'last'."),
    ],
)
def test_name_of_no_run_or_of_several__is_refused_with_what_is_near(given: str, code: ErrorCode, message: str) -> None:
    with refused(code, message):
        one_run_id(given, RUNS_OF_A_LAB)


@pytest.mark.parametrize(
    ("run_id", "label", "shown"),
    [
        ("gru-20261126-00000003", "lstm", "lstm"),
        ("gru-20261126-00000003@1200", "lstm", "lstm@1200"),
        ("gru-20261126-00000002", "lstm", "gru-20261126-00000002"),  # its label names the run that resumed it
        ("lstm-20261126-00000001", "two", "lstm-20261126-00000001"),
        ("gru-20261126-00000001", "a@b", "gru-20261126-00000001"),  # it reads like a checkpoint
        ("gru-20261127-00000004", "gru-20261126-00000001", "gru-20261127-00000004"),  # the id of another run
        ("gru-20261127-00000004", None, "gru-20261127-00000004"),
        ("bert-20261127-00000001-s1", "seeds", "bert-20261127-00000001-s1"),
        ("bert-20261127-00000001", "seeds", "seeds"),
        ("bert-20261127-00000002", "түн.2+1_b", "түн.2+1_b"),
        ("bert-20261127-00000003", "my run", "bert-20261127-00000003"),
        ("bert-20261127-00000004", "-x", "bert-20261127-00000004"),
        ("bert-20261127-00000005", "$HOME", "bert-20261127-00000005"),
        ("bert-20261127-00000006", "new", "bert-20261127-00000006"),  # it is in no list
    ],
)
async def test_hint__names_a_run_by_the_label_that_names_only_it(run_id: str, label: str | None, shown: str) -> None:
    own = (Named(f"bert-20261127-0000000{number}", name) for number, name in enumerate(LABELS, 2))
    group = (Named(f"bert-20261127-00000001-s{seed}", "seeds", "bert-20261127-00000001") for seed in (1, 2))
    runs = (*RUNS_OF_A_LAB, *own, *group)

    async def find(given: str) -> str:
        return one_run_id(given, runs, or_group=True)

    assert await short_name(run_id, label, find) == shown


def test_last_of_no_runs__is_refused() -> None:
    with refused(ErrorCode.RUN_NOT_FOUND, "There is no run yet here."):
        one_run_id("last", [], " here")


@pytest.mark.parametrize(
    ("corpus", "family", "taken", "label"),
    [
        ("demo", "char_lstm", [], "demo-char_lstm"),
        ("texts/kk.txt", "gru", ["kk-gru"], "kk-gru-2"),
        ("texts/kk.txt", "gru", ["kk-gru", "kk-gru-2", "kk-gru-4", None], "kk-gru-3"),
        ("Қазақ мәтіні.txt", "ngram", [], "Қазақ мәтіні-ngram"),
        ("a\u200cb\n.txt", "gpt2", [], "ab-gpt2"),  # a label has no invisible signs
        ("\n.txt", "gpt2", ["gpt2"], "gpt2-2"),
        ("क" * 100, "lstm", ["क" * 59 + "-lstm"], "क" * 57 + "-lstm-2"),
    ],
)
def test_default_label__says_corpus_and_model_and_is_new(
    corpus: str, family: str, taken: list[str | None], label: str
) -> None:
    runs = [Named(f"lstm-{number}", one) for number, one in enumerate(taken)]
    assert default_label(corpus, family, runs) == label
    assert TrainRequest(model_family="lstm", corpus="a", label=label).label == label


def test_default_label__of_a_request_that_resumes_has_no_number() -> None:
    assert default_label("demo", "gru", [Named("gru-1", "demo-gru")], resumes=True) == "demo-gru"


def test_hundred_runs_created_at_once__have_a_hundred_readable_ids(store: RunStore) -> None:
    with ThreadPoolExecutor(16) as pool:
        runs = list(pool.map(lambda _: store.create(record(new_run_id("char_lstm", now()))), range(100)))
    assert len(set(ids(runs))) == 100
    assert set(ids(runs)) == set(ids(store.all()))
    assert all(run.run_id.startswith("char_lstm-20") for run in runs)


async def test_id_that_another_run_has__is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files draw their names too: those of the two requests stand between the ids."""
    drawn = iter(["aaaaaaaa", "file-1", "aaaaaaaa", "bbbbbbbb", "file-2"])

    def next_drawn(_bytes: int) -> str:
        return next(drawn)

    monkeypatch.setattr(secrets, "token_hex", next_drawn)
    add_corpus(tmp_path, some_text())
    queue = queue_without_redis(tmp_path)
    accepted = [await queue.train(tiny_request(), user_id=None) for _ in range(2)]
    assert [run.run_id[-8:] for run in accepted] == ["aaaaaaaa", "bbbbbbbb"]


def test_manifest_deleted_during_its_read__is_none(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    ended(run, "cancelled")

    def delete_and_read(path: Path, model: type[RunManifest]) -> RunManifest:
        shutil.rmtree(run.path)
        return read_record(path, model)

    monkeypatch.setattr("trainer.system.files.read_record", delete_and_read)
    assert run.manifest() is None


def test_cancel_request__is_durable_and_an_unrequested_pause_does_nothing(run: RunDirectory) -> None:
    before = run.reader().read_new()
    assert pause_idle_run(run)
    unpause_run(run)
    assert (run.reader().read_new(), run.is_paused) == (before, False)
    run.request_cancel()
    assert RunDirectory(run.path).cancel_requested()


def test_note_and_tags__changed_at_one_moment_are_both_stored(run: RunDirectory, store: RunStore) -> None:
    changes = (AnnotationChange(note="slow"), AnnotationChange(tags=("pilot",)))
    with ThreadPoolExecutor(2) as pool:
        for _ in range(50):
            store.annotate(run, AnnotationChange(note="", tags=()))
            deque(pool.map(partial(store.annotate, run), changes), maxlen=0)
            assert (run.annotations().note, run.annotations().tags) == ("slow", ("pilot",))


def test_end__is_written_once_with_its_error_and_sealed(run: RunDirectory, store: RunStore) -> None:
    """The seal has the form that `sha256sum --check` reads."""
    complete_end(run)
    assert run.follow().refresh().status == "queued", "a run that has not ended is left alone"
    assert run.ended_at() is None
    ended(run, "failed", code=ErrorCode.CRASH_LOOP)
    sealed = run.seal.read_text(encoding="ascii")
    names = ("request.json", "manifest.json", "events.jsonl")
    assert sealed == "".join(f"{sha256((run.path / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    assert [event.type for event in run.reader().read_new()] == ["trainer.job.queued.v1", "trainer.job.failed.v1"]
    with (run.path / "events.jsonl").open("ab") as file:
        file.write(b" ")
    ended(run, "cancelled")
    follower = run.follow()
    status, manifest = follower.refresh(), run.manifest()
    assert run.seal.read_text(encoding="ascii") == sealed
    assert manifest is not None and manifest.error is not None and follower.ended
    assert (manifest.error.code, manifest.error.error_class) == (ErrorCode.CRASH_LOOP, "FATAL")
    assert (status.status, status.error, status.message) == ("failed", manifest.error, "It failed.")
    assert store.unfinished() == []


@pytest.mark.parametrize(("code", "kind"), [(ErrorCode.CORPUS_EMPTY, "user"), (ErrorCode.CRASH_LOOP, "system")])
def test_end__distinguishes_errors_of_users_and_of_the_system(run: RunDirectory, code: ErrorCode, kind: str) -> None:
    last = ended(run, "failed", code=code).reader().read_new()[-1]
    assert isinstance(last, JobFailed) and last.error_kind == kind


def test_end_that_a_process_died_over__is_completed_by_the_next(run: RunDirectory, store: RunStore) -> None:
    """Killed right after the manifest, it has left neither the last event nor the seal."""
    run.write_manifest(manifest_of(run.record(), "cancelled"))
    assert run.follow().refresh().status == "queued"
    assert ids(store.unfinished()) == [run.run_id]
    with run.wait_for_lock(0):
        complete_end(run)
        assert run.lock() is None and not run.seal.exists(), "another process is writing it"
    complete_end(run)
    complete_end(run)
    assert run.follow().refresh().status == "cancelled"
    assert store.unfinished() == []
    assert len(run.reader().read_new()) == 2


def test_completed_manifest__is_refused_where_there_is_no_model(run: RunDirectory) -> None:
    with pytest.raises(AppError, match="has not finished training yet"):
        run.completed_manifest()
    ended(run, "cancelled")
    with pytest.raises(AppError, match="has been cancelled: it has no model"):
        run.completed_manifest()


def add_runs(store: RunStore, names: list[str], created: list[datetime], written: list[float]) -> None:
    """Create runs; the file of each was written so many seconds after its run was created."""
    for name, created_at, late in zip(names, created, written, strict=True):
        run = store.create(changed(record(name), created_at=created_at))
        moment = created_at.timestamp() + late
        os.utime(run.path / "request.json", (moment, moment))


HOURS, FINELY = timedelta(hours=1), timedelta(milliseconds=130)


@pytest.mark.parametrize(
    ("apart", "most_hours_late", "kept_seconds"),
    [(HOURS, 0, 0), (HOURS, 3, 0), (HOURS, 500, 0), (FINELY, 0, 1), (FINELY, 0, 2)],
)
def test_newest_runs__keep_their_order_when_copied_or_in_whole_seconds(
    store: RunStore, apart: timedelta, most_hours_late: int, kept_seconds: int
) -> None:
    draw, begin = random.Random(most_hours_late + kept_seconds), now() - timedelta(days=9)
    names = [f"run-{number}" for number in draw.sample(range(1000), RUNS)]
    times = [begin + number * apart for number in range(RUNS)]
    late = [draw.uniform(0, 3600 * most_hours_late) for _ in names]
    if kept_seconds:
        late = [-(time.timestamp() % kept_seconds) for time in times]
    add_runs(store, names, times, late)
    assert ids(store.newest()) == ids(store.all()) == names[::-1]
    assert ids(store.unfinished()) == names


def test_newest_runs__are_found_without_reading_older_ones(store: RunStore, tmp_path: Path) -> None:
    names, begin = [f"run-{number}" for number in range(RUNS)], now()
    add_runs(store, names, [begin + timedelta(milliseconds=30 * number) for number in range(RUNS)], [0.0] * RUNS)
    for name in names[:-5]:
        request = tmp_path / "models" / name / "request.json"
        state = request.stat()
        request.write_bytes(b"unreadable")
        os.utime(request, (state.st_mtime, state.st_mtime))
    with captured_logs() as logs:
        assert ids(islice(store.newest(), 4)) == names[:-5:-1]
        assert len(logs) == 0
        assert ids(store.newest()) == ids(store.all()) == names[:-6:-1]
        found = [one.run_id for one in store.named()]
        assert found[:5] == names[:-6:-1] and {*found[5:]} == {*names[:-5]}
        assert {row["event"] for row in logs} == {"run_unreadable"}
        assert {row["run_id"] for row in logs} == set(names[:-5])


def test_newest_runs__of_a_state_are_all_that_can_have_it(store: RunStore) -> None:
    for name in ("waits", "trains", "ended", "end-not-sealed"):
        store.create(record(name))
    with store.get("trains").open_log() as log:
        log.append(JobStarted(**stamp("trains", None, "started"), queue="training", attempt=1))
    for name in ("ended", "end-not-sealed"):
        cancel_idle_run(store.get(name))
    store.get("end-not-sealed").seal.unlink()  # a process was killed just before

    def found(state: RunState) -> set[str]:
        return {run.run_id for run in store.newest(state) if run.follow().refresh().status == state}

    assert (found("queued"), found("running"), found("failed")) == ({"waits"}, {"trains"}, set())
    assert found("cancelled") == {"ended", "end-not-sealed"}
    assert store.ids_by_end() == (sorted(set(store.ids()) - {"ended"}, key=store.ids().index), ["ended"])


def test_folder_without_a_request__is_no_run(store: RunStore, run: RunDirectory, tmp_path: Path) -> None:
    for name in ("half-made", "Copy of run-1"):
        (tmp_path / "models" / name).mkdir()
    assert store.ids() == ids(store.newest()) == ids(store.all()) == [run.run_id]
    assert RunStore(tmp_path / "nothing").ids() == []


def test_run_of_a_version_that_searched_within_a_run__is_read_without_the_search(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create(changed(record(), cost=Cost(params=1, memory_bytes=2, disk_bytes=3, steps=4)))
    ended(run, "completed")
    of_now = run.record(), run.completed_manifest()
    trial: dict[str, object] = {"number": 1, "learning_rate": 0.1, "round": 1, "steps": 5, "val_loss": 2.0}
    searched: dict[str, object] = {"variants": 2, "trials": [trial]}
    for name in ("request.json", "manifest.json"):
        fields: dict[str, object] = TypeAdapter(dict[str, object]).validate_json((run.path / name).read_bytes())
        set_path(fields, "schema_version", 1)
        set_path(fields, "request.search", 2)
        set_path(fields, "effective.search", 2)
        set_path(fields, "effective.searched", ["learning_rate"])
        set_path(fields, "search" if name == "manifest.json" else "cost.search_steps", searched)
        (run.path / name).write_bytes(to_json(fields))
    config = MetricsConfig(
        **stamp(run.run_id, 7, "config:1"),
        model_family="lstm",
        model_size=None,
        total_epochs=1,
        total_steps=4,
        batch_size=2,
        learning_rate=0.1,
        params=1,
        vocab_size=9,
        device="cpu",
        precision="fp32",
        threads=1,
        tokenizer_id="char-1",
    )
    of_then = config.model_dump_json().removesuffix("}") + ',"search":null}'
    (run.path / "config.jsonl").write_text(of_then + "\n", encoding="utf-8")
    assert EventReader(run.path / "config.jsonl").read_new() == [config]
    stored, manifest = run.record(), run.completed_manifest()
    effective = changed(of_now[0].effective, has_earlier_hash=True)
    assert stored == changed(of_now[0], effective=effective)
    assert manifest == changed(of_now[1], effective=effective)
    assert RunRecord.model_validate_json(stored.model_dump_json()) == stored
