"""The index of runs, corpora and tokenizers: read once, updated, and searched as a user types."""

import asyncio
import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from arq.connections import ArqRedis
from hypothesis import strategies as st

from tests.support import ROOT, add_corpus, settings_in
from tests.support.properties import for_all_pairs
from tests.support.stories import BEGIN, Story, run_record
from tests.support.waiting import captured_logs, until
from trainer.artifacts.runs import manifest_of
from trainer.artifacts.tokenizers import resolve_tokenizer
from trainer.contracts.base import changed
from trainer.contracts.runs import RunManifest, RunMetrics, Timings, TokenizerFacts
from trainer.contracts.tokenizer_jobs import TokenizerTrainRequest
from trainer.queue.queue import JobQueue
from trainer.queue.run_feeds import RunFeeds
from trainer.queue.run_index import RunIndex, RunNumbers, matching
from trainer.store.store import Store


class Counted(RunIndex):
    """Counts how often it reads the disk."""

    looks = 0

    def _read(self) -> None:
        self.looks += 1
        super()._read()


def index_of(folder: Path) -> Counted:
    queue = JobQueue(settings_in(folder), Store(ArqRedis()))
    return Counted(queue.stores, RunFeeds(queue.states), folder / "artifacts")


def story(folder: Path, name: str, *, minutes: int = 0) -> Story:
    return Story(folder / "artifacts", changed(run_record(name), created_at=BEGIN + timedelta(minutes=minutes)))


def completed(one: Story) -> RunManifest:
    metrics = RunMetrics(test=1.25, bits_per_char=1.8)
    tokenizer = TokenizerFacts(id="char-0123456789abcdef", sha256="a" * 64)
    return changed(manifest_of(one.record, "completed"), metrics=metrics, tokenizer=tokenizer)


async def test_runs__are_listed_newest_first_with_their_states(tmp_path: Path) -> None:
    index = index_of(tmp_path)
    await index.refresh()
    assert not index.runs
    old, new = story(tmp_path, "lstm-1"), story(tmp_path, "lstm-2", minutes=5)
    new.start().step(40, 2.5)
    await index.refresh()
    found = [(run.run_id, run.state, run.progress, run.loss_nats) for run in index.runs]
    assert found == [("lstm-2", "running", 40.0, 2.5), ("lstm-1", "queued", 0.0, None)]
    assert index.runs[0].ends_at == BEGIN.timestamp() + 5 * 60 + 60, "a run does not start before it is accepted"
    new.run.write_manifest(completed(new))
    old.start()
    await index.refresh()
    done, running = index.runs
    assert (done.state, done.loss_nats, done.bits_per_char, done.ends_at) == ("completed", 1.25, 1.8, None)
    assert done.tokenizer_id == "char-0123456789abcdef"
    assert running.state == "running" and running.is_unfinished and not done.is_unfinished


async def test_training_time__is_from_the_first_start_to_the_end_of_any_kind(tmp_path: Path) -> None:
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
    records = [changed(run_record(f"lstm-{number}"), created_at=begin) for number in range(3)]
    one, other, waiting = (Story(tmp_path / "artifacts", record, begin) for record in records)
    for told in (one, other):
        told.wait(60).start().wait(120).step(40, 2.5)
    index = index_of(tmp_path)
    await index.refresh()
    assert [run.train_seconds for run in index.runs] == [0.0, 120.0, 120.0]
    ended = begin + timedelta(minutes=5)
    timings = Timings(created=begin, started=begin + timedelta(minutes=1), finished=ended)
    one.run.write_manifest(changed(completed(one), timings=timings))
    cancelled = manifest_of(other.record, "cancelled")
    other.run.write_manifest(changed(cancelled, timings=changed(cancelled.timings, finished=ended)))
    await index.refresh()
    assert [run.train_seconds for run in index.runs] == [0.0, 240.0, 240.0]
    assert [run.ended_at for run in index.runs] == [None, ended.timestamp(), ended.timestamp()]
    for told in (waiting, one):
        shutil.rmtree(told.run.path)
    old = Story(tmp_path / "artifacts", changed(run_record("lstm-3"), created_at=begin - timedelta(days=2)))
    await index.refresh()
    old.run.write_manifest(
        changed(manifest_of(old.record, "failed"), timings=changed(timings, finished=old.record.created_at))
    )
    await index.refresh()
    shutil.rmtree(old.run.path)
    await index.refresh()
    assert {run.run_id: run.train_seconds for run in index.deleted} == {"lstm-0": 240.0, "lstm-2": 0.0}


async def test_numbers__are_those_of_the_status_while_a_run_trains_and_after_each_end(tmp_path: Path) -> None:
    one, other = story(tmp_path, "lstm-1"), story(tmp_path, "lstm-2", minutes=5)
    for told in (one.start().step(40, 2.5, 3.0), other.start().step(20, 1.5)):
        index = index_of(tmp_path)
        await index.refresh()
        found = next(run.numbers for run in index.runs if run.run_id == told.record.run_id)
        status: dict[str, object] = told.follower().status.model_dump()
        assert [*found] == [status[name] for name in RunNumbers._fields]
    one.run.write_manifest(completed(one))
    other.fail().run.write_manifest(manifest_of(other.record, "failed"))
    index = index_of(tmp_path)
    await index.refresh()
    assert [(run.state, run.progress, run.numbers.train_loss, run.numbers.test_loss) for run in index.runs] == [
        ("failed", 20.0, 1.5, None),
        ("completed", 100.0, None, 1.25),
    ]


async def test_runs__are_there_from_their_acceptance_until_their_deletion(tmp_path: Path) -> None:
    """Also those of a folder that has not changed for long."""
    index, models = index_of(tmp_path), tmp_path / "artifacts" / "models"
    gone, late = story(tmp_path, "lstm-1"), story(tmp_path, "lstm-3")
    story(tmp_path, "lstm-2")
    request = late.run.path / "request.json"
    request.rename(tmp_path / "request.json")
    os.utime(models, (BEGIN.timestamp(), BEGIN.timestamp()))
    await index.refresh()
    assert {run.run_id for run in index.runs} == {"lstm-1", "lstm-2"}
    (tmp_path / "request.json").rename(request)
    await index.refresh()
    before = index.runs
    assert {run.run_id for run in before} == {"lstm-1", "lstm-2", "lstm-3"}
    await index.refresh()
    assert index.runs is before, "pages of a list share its runs"
    shutil.rmtree(gone.run.path)
    story(tmp_path, "lstm-4")
    await index.refresh()
    assert {run.run_id for run in index.runs} == {"lstm-2", "lstm-3", "lstm-4"}


async def test_runs__that_cannot_be_read_are_logged_once_and_hide_no_other(tmp_path: Path) -> None:
    index = index_of(tmp_path)
    story(tmp_path, "lstm-1")
    broken = story(tmp_path, "lstm-2")
    (broken.run.path / "request.json").write_bytes(b"{}")
    with captured_logs() as logs:
        await index.refresh()
        await index.refresh()
    assert [run.run_id for run in index.runs] == ["lstm-1"]
    assert [line["run_id"] for line in logs] == ["lstm-2"]


async def test_attached_text__differs_from_a_named_corpus(tmp_path: Path) -> None:
    record = run_record("lstm-1")
    attached = changed(record.effective, corpus=changed(record.effective.corpus, name="c" * 64))
    Story(tmp_path / "artifacts", changed(record, effective=attached))
    story(tmp_path, "lstm-2", minutes=1)
    index = index_of(tmp_path)
    await index.refresh()
    assert [(run.corpus, run.has_attached_text) for run in index.runs] == [("kk_ipa", False), ("c" * 64, True)]


async def test_tokenizers__appear_when_they_are_done_and_corpora_at_once(tmp_path: Path) -> None:
    add_corpus(tmp_path, "ab\nba\nabba\n")
    index, queue = index_of(tmp_path), JobQueue(settings_in(tmp_path), Store(ArqRedis()))
    request = TokenizerTrainRequest(method="char", corpora=("text",), label="letters")
    made = queue.tokenizers.create(await resolve_tokenizer(request, queue.corpora))
    (tmp_path / "artifacts" / "tokenizers" / "char-nothing").mkdir()
    await index.refresh()
    assert not index.tokenizers and {"text", "demo"} <= set(index.corpora)
    name, other = "char-222eba1359b17193", tmp_path / "artifacts" / "tokenizers" / "char-222eba1359b17193"
    shutil.copytree(ROOT / "tests" / "fixtures" / "tokenizers" / name, other)
    await index.refresh()
    assert [one.tokenizer_id for one in index.tokenizers] == [name]
    assert (index.tokenizers[0].vocab_size or 0) > 4
    shutil.rmtree(other)
    (made.path / "request.json").write_bytes(b"{}")
    with captured_logs() as logs:
        await index.refresh()
        await index.refresh()
    assert not index.tokenizers
    assert [line["tokenizer_id"] for line in logs] == [made.tokenizer_id]


async def test_refresh__by_many_at_once_reads_at_most_twice(tmp_path: Path) -> None:
    index = index_of(tmp_path)
    first = asyncio.create_task(index.refresh())
    await asyncio.sleep(0)
    story(tmp_path, "lstm-1")
    await asyncio.gather(*(index.refresh() for _ in range(50)))
    await first
    assert index.looks <= 2
    assert len(index.runs) == 1


async def test_catch_up__of_two_people_at_once_is_one_refresh(tmp_path: Path) -> None:
    index = index_of(tmp_path)
    await asyncio.gather(index.catch_up(), index.catch_up())
    await index.refresh()  # which ends after the one in the background
    assert index.looks == 2
    story(tmp_path, "lstm-1")
    await index.catch_up()
    await until(lambda: len(index.runs) == 1)


@pytest.mark.slow
async def test_suggestions__of_two_thousand_runs_come_in_time(tmp_path: Path) -> None:
    model = story(tmp_path, "lstm-0000")
    request = (model.run.path / "request.json").read_text(encoding="utf-8")
    manifest = completed(model).model_dump_json()
    for number in range(1, 2000):
        folder = model.run.path.with_name(f"lstm-{number:04}")
        folder.mkdir()
        (folder / "request.json").write_text(request.replace("lstm-0000", folder.name), encoding="utf-8")
        (folder / "manifest.json").write_text(manifest.replace("lstm-0000", folder.name), encoding="utf-8")
    index = index_of(tmp_path)
    await asyncio.gather(index.catch_up(), index.catch_up())
    before = len(index.runs)
    await until(lambda: len(index.runs) == 2000)
    started = time.process_time()
    await index.catch_up()
    found = matching("lstm-1999", index.runs, lambda run: (run.name, run.run_id, run.corpus))
    seconds = time.process_time() - started
    await index.stop()
    assert before == 0, "nobody waits until all of them are in memory"
    assert seconds < 0.3  # of the processor: the machine may be busy
    assert found[0].run_id == "lstm-1999"


async def test_stopped_index__reads_no_more(tmp_path: Path) -> None:
    index = index_of(tmp_path)
    await index.stop()
    index.start()
    await index.stop()
    story(tmp_path, "lstm-1")
    assert not index.runs


WORDS = ("kk-ipa small", "ky-ipa small", "Kazakh news", "lm")


def found(typed: str, *, exactly: bool = False) -> list[str]:
    return matching(typed, WORDS, lambda word: (word,), exactly=exactly)


def test_matching__prefers_beginnings_then_parts_then_letters_in_order() -> None:
    assert found("") == [*WORDS]
    assert found("kk") == ["kk-ipa small", "Kazakh news"]
    assert found("ipa") == ["kk-ipa small", "ky-ipa small"]
    assert found("small KY") == ["ky-ipa small"]
    assert found("kzh") == ["Kazakh news"]
    assert found("kzh", exactly=True) == []
    assert found("nothing like it") == []


@for_all_pairs(st.text(max_size=12), st.text(min_size=1, max_size=12))
def test_matching__finds_a_thing_by_each_part_of_its_name(before: str, part: str) -> None:
    if part.strip() == part and len(part.split()) == 1:
        assert before + part in matching(part, ["other", before + part], lambda name: (name,), exactly=True)


async def test_refresh_that_fails__is_logged_and_the_next_one_works(tmp_path: Path) -> None:
    index = index_of(tmp_path)
    models = tmp_path / "artifacts" / "models"
    models.parent.mkdir()
    models.write_bytes(b"no folder")
    with captured_logs() as logs:
        index.start()
        await until(lambda: len(logs) == 1)
    models.unlink()
    story(tmp_path, "lstm-1")
    index.start()
    await until(lambda: len(index.runs) == 1)
    assert isinstance(logs[0]["exc_info"], NotADirectoryError)
