"""Every kind of job that workers run keeps the same promises: on disk, in Redis and in the object store."""

import asyncio
import shutil
import socket
import sys
from functools import partial
from pathlib import Path

import pytest
from arq import Retry

from tests.support.cleanups import contents, make_old, settings_of
from tests.support.job_kinds import FAILURE, KINDS
from tests.support.object_stores import Bucket, bucket_fixture, server_fixture
from tests.support.redis_servers import embedded
from tests.support.refusals import refused
from tests.support.waiting import captured_logs
from trainer.artifacts import job_folder
from trainer.artifacts.artifacts_id import artifacts_id
from trainer.artifacts.batteries import BatteryStore
from trainer.artifacts.cleanup import clean_up
from trainer.artifacts.job_folder import JobFolder
from trainer.artifacts.kinds import JOB_KINDS, KINDS_BY_NAME
from trainer.artifacts.replicas import Replica
from trainer.config.settings import Settings, TokenizerCleanupSettings
from trainer.contracts.base import JobRecord, KindName, changed
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.jobs import FolderJobPayload
from trainer.queue.queue import JobQueue
from trainer.store.connection import open_redis
from trainer.store.store import Store
from trainer.system.files import Disk
from trainer.system.hardware import process_name
from trainer.worker.jobs import Jobs
from trainer.worker.reconciler import reconcile

__all__ = ["bucket_fixture", "server_fixture"]

NAMES = pytest.mark.parametrize("name", KINDS)
REPEATED = pytest.mark.parametrize("name", [name for name in KINDS if name != "models"])
"""Kinds whose jobs may have the id of an earlier one; each request for a run gives another run."""


def test_table__has_each_kind_of_job() -> None:
    assert [kind.name for kind in JOB_KINDS] == [*KINDS]
    assert len({kind.function for kind in JOB_KINDS}) == len(JOB_KINDS)


@NAMES
def test_jobs__are_listed_newest_first_without_damaged_ones(tmp_path: Path, name: KindName) -> None:
    first, broken, last = (KINDS[name].create(tmp_path, number) for number in range(3))
    (broken.path / "request.json").write_text("{", encoding="utf-8")
    store = KINDS_BY_NAME[name].store(tmp_path)
    with captured_logs() as logs:
        assert [job.job_id for job in store.all()] == [last.job_id, first.job_id]
        assert [job.job_id for job in store.unfinished()] == [first.job_id, last.job_id]
        assert [job.job_id for job in store.unreadable()] == [broken.job_id]
    assert {(line["event"], line[f"{broken.word}_id"]) for line in logs} == {
        (f"{broken.word}_unreadable", broken.job_id)
    }
    assert store.find("../" + first.job_id) is None and store.get(first.job_id).record() == first.record()


@NAMES
@pytest.mark.parametrize("job_id", ["nope", "../models", "", "A", "a/b", "x" * 65, "a\n"])
def test_unknown_job__is_refused_without_the_servers_path(tmp_path: Path, name: KindName, job_id: str) -> None:
    KINDS[name].create(tmp_path, 1)
    store = KINDS_BY_NAME[name].store(tmp_path)
    with pytest.raises(AppError, match=f"There is no {store.folder_type.word}.*: check its id, or list") as caught:
        store.get(job_id)
    assert (caught.value.code, caught.value.code.http_status) == (store.not_found, 404)
    assert str(tmp_path) not in caught.value.message


@REPEATED
def test_job__is_created_once_and_begins_again_after_a_failure(tmp_path: Path, name: KindName) -> None:
    create = partial(KINDS[name].create, tmp_path, 1)
    job = create()
    job.logs.touch()
    begun = contents(job.path)
    assert contents(create().path) == begun
    assert (job.state(), job.is_unfinished()) == ("queued", True)
    job.fail(FAILURE)
    assert (job.state(), job.is_unfinished(), job.failure()) == ("failed", False, RunError.of(FAILURE))
    again = create()
    assert (again.is_unfinished(), again.failure(), again.ended_at()) == (True, None, None)


@NAMES
async def test_job__runs_until_the_process_that_does_it_stops_or_is_killed(tmp_path: Path, name: KindName) -> None:
    job = KINDS[name].create(tmp_path, 1)
    states = [job.unfinished_state()]
    with job.running():
        states.append(job.unfinished_state())
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    job.logs.touch()
    states.append(job.unfinished_state())
    for process in (f"{socket.gethostname()}:{gone.pid}", "another-host:1"):
        (job.path / "process").write_text(process, encoding="utf-8")
        states.append(job.unfinished_state())
    with job.running():
        shutil.rmtree(job.path)  # as a run that is deleted while it trains
    assert job.lock() is None
    with captured_logs() as logs, job.running():
        states.append(job.unfinished_state())
    assert states == ["queued", "running", "queued", "queued", "running", "queued"]
    assert [line["event"] for line in logs] == ["process_unnamed"]


@REPEATED
def test_cancelled_job__begins_again_when_its_process_has_noticed_the_end(
    tmp_path: Path, name: KindName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_folder, "_ENDING_SECONDS", 0.05)
    job = KINDS[name].create(tmp_path, 1)
    job.request_cancel()
    assert (job.state(), job.is_unfinished(), job.has_work()) == ("cancelled", False, True)
    lock = job.lock()
    assert lock is not None
    with lock, refused(ErrorCode.SERVICE_UNAVAILABLE, "is just ending; try again"):
        KINDS[name].create(tmp_path, 1)
    assert KINDS[name].create(tmp_path, 1).is_unfinished()
    assert not job.cancel_requested()


class CancellingDisk(Disk):
    """A disk on which a job is cancelled as soon as an operation has made that possible."""

    def __init__(self, job: JobFolder[JobRecord]) -> None:
        self._job = job

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._cancel()

    def remove(self, path: Path) -> None:
        super().remove(path)
        self._cancel()

    def sync(self, folder: Path) -> bool:
        synced = super().sync(folder)
        self._cancel()
        return synced

    def _cancel(self) -> None:
        if self._job.is_unfinished():
            self._job.request_cancel()


@pytest.mark.parametrize("earlier", [[], ["error.json"], ["cancel"], ["error.json", "cancel"]])
@REPEATED
def test_job__that_is_cancelled_while_it_is_accepted_stays_cancelled(
    tmp_path: Path, name: KindName, earlier: list[str]
) -> None:
    accepted = KINDS[name].create(tmp_path / "accepted", 1)
    store = KINDS_BY_NAME[name].store(tmp_path)
    job = store.directory(accepted.job_id)
    if earlier:
        shutil.copytree(accepted.path, job.path)
    for end in earlier:
        (job.path / end).write_text(RunError.of(FAILURE).model_dump_json(), encoding="utf-8")
    store.disk = CancellingDisk(job)
    begun = store.create_or_continue(job.job_id, accepted.record())
    assert (begun.state(), begun.record()) == ("cancelled", accepted.record())


def test_outdated_job__begins_again_in_one_of_two_processes(tmp_path: Path) -> None:
    job = KINDS["batteries"].create(tmp_path, 1)
    job.result.touch()
    renewed_by_another = iter([True, False])
    BatteryStore(tmp_path).create_or_continue(job.job_id, job.record(), renewed_by_another.__next__)
    assert job.has_completed()


@NAMES
def test_cleanup__leaves_a_job_that_has_not_ended(tmp_path: Path, name: KindName) -> None:
    settings = settings_of(tmp_path, tokenizer_cleanup=TokenizerCleanupSettings(enabled=True, min_unused_days=1))
    job = KINDS[name].create(settings.app.artifacts_root, 1)
    make_old(job.path, 30)
    before = contents(job.path)
    assert clean_up(settings).removals == ()
    assert contents(job.path) == before


@NAMES
async def test_job_of_a_dead_worker__starts_before_any_that_waits(tmp_path: Path, name: KindName) -> None:
    async with embedded(tmp_path) as (settings, _, store):
        root, queue = settings.app.artifacts_root, KINDS_BY_NAME[name].queue(settings.queue)
        first, _ = (KINDS[name].create(root, number) for number in range(2))
        gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
        await gone.wait()
        claimed: list[list[str]] = []
        for holder in (f"{socket.gethostname()}:{gone.pid}", process_name(), process_name()):
            await reconcile(settings, store)
            own = artifacts_id(root)
            claims = await store.claim_jobs(queue, 1, holder, lease_seconds=60, artifacts=own)  # with no lease yet
            claimed.append([job_id for job_id, _ in claims])
    assert claimed[:2] == [[first.job_id]] * 2 and claimed[2] not in ([], claimed[0])


@NAMES
async def test_jobs_that_redis_has_lost__are_put_back_once_until_they_end(tmp_path: Path, name: KindName) -> None:
    async with embedded(tmp_path) as (settings, _, store):
        root = settings.app.artifacts_root
        jobs = [KINDS[name].create(root, number) for number in range(2)]
        kind, queue = KINDS_BY_NAME[name], KINDS_BY_NAME[name].queue(settings.queue)
        payload = FolderJobPayload(job_id=jobs[1].job_id)
        await store.enqueue(queue, kind.function, jobs[1].job_id, payload)  # the later one, without its folder
        with captured_logs() as logs:
            for _round in range(2):
                await reconcile(settings, store)
        assert await store.queue_order(queue) == [job.job_id for job in jobs]
        requeued = [line[f"{jobs[0].word}_id"] for line in logs if line["event"] == f"{jobs[0].word}_requeued"]
        assert requeued == [job.job_id for job in jobs]
        KINDS[name].end(root, jobs[0].job_id)
        await store.redis.flushall()
        await reconcile(settings, store)
        assert await store.queue_order(queue) == [jobs[1].job_id]


@REPEATED
async def test_full_disk__nothing_is_accepted(tmp_path: Path, name: KindName) -> None:
    async with embedded(tmp_path) as (settings, _, store):
        kind, root = KINDS_BY_NAME[name], settings.app.artifacts_root
        root.mkdir(exist_ok=True)
        (root / name).touch()  # no folder can be made in it
        with refused(ErrorCode.INSUFFICIENT_STORAGE, "nothing was queued"):
            await JobQueue(settings, store).jobs.accept(kind, lambda: KINDS[name].create(root, 1))


@REPEATED
async def test_job_accepted_without_redis__is_put_back_from_disk(tmp_path: Path, name: KindName) -> None:
    async with embedded(tmp_path) as (settings, queue, store):
        kind, root = KINDS_BY_NAME[name], settings.app.artifacts_root
        jobs = JobQueue(settings, Store(open_redis("redis://127.0.0.1:1/0", retries=0))).jobs
        for text in KINDS[name].create(tmp_path / "elsewhere", 1).needed_corpora():
            with refused(ErrorCode.DATA_NOT_FOUND, "has just been deleted or replaced: nothing was queued."):
                await jobs.accept(kind, lambda: KINDS[name].create(root, 1))
            assert kind.store(root).all() == []
            (queue.corpora.stored / text.sha256).parent.mkdir(exist_ok=True)
            (queue.corpora.stored / text.sha256).touch()
        with captured_logs() as logs:
            job = await jobs.accept(kind, lambda: KINDS[name].create(root, 1))
        assert [line["event"] for line in logs] == [f"{job.word}_accepted_without_redis"]
        await reconcile(settings, store)
        assert await store.queue_order(kind.queue(settings.queue)) == [job.job_id]


@REPEATED
async def test_job_of_another_process__is_retried(tmp_path: Path, name: KindName) -> None:
    async with embedded(tmp_path) as (settings, queue, store):
        job = KINDS[name].create(settings.app.artifacts_root, 1)
        function = Jobs(queue, settings, store).functions()[KINDS_BY_NAME[name].function]
        lock = job.lock()
        assert lock is not None
        with lock, pytest.raises(Retry):
            await function({}, {"job_id": job.job_id})
        assert job.is_unfinished()


@NAMES
async def test_end_that_could_not_be_stored__is_stored_by_the_next_job(
    tmp_path: Path, bucket: Bucket, name: KindName
) -> None:
    async with embedded(tmp_path) as (plain, _, store):
        settings: Settings = changed(plain, object_store=bucket.settings)
        root = settings.app.artifacts_root
        job = KINDS[name].create(root, 1)
        writer = Replica(bucket.objects, root, name, job.job_id)
        writer.publish()
        writer.claim()
        assert [*bucket.objects.tags("open/")] == [f"open/{name}/{job.job_id}"]
        KINDS[name].end(root, job.job_id)
        await Jobs(JobQueue(settings, store), settings, store).functions()[KINDS_BY_NAME[name].function](
            {}, {"job_id": job.job_id}
        )
    assert bucket.objects.tags("open/") == {}
    other = Replica(bucket.objects, tmp_path / "b", name, job.job_id)
    other.pull()
    copied = {path.name: path.read_bytes() for path in other.path.glob("[a-z]*.json")}
    assert copied == {path.name: path.read_bytes() for path in job.path.glob("[a-z]*.json")}
    assert not KINDS_BY_NAME[name].store(tmp_path / "b").get(job.job_id).is_unfinished()
