"""Machines with folders of their own share runs, tokenizers, corpora and experiments by an object store."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from arq import Retry
from arq.connections import ArqRedis

from tests.support import add_corpus, ended, environment_in, some_text, tiny_request
from tests.support.cross_language import WITH_BATTERIES, add_batteries, add_languages, built_manifest, plan
from tests.support.inference import RUN, InstantChild, any_record, finished_run
from tests.support.object_stores import Bucket, S3Server, machine, s3_server, worker_of
from tests.support.redis_servers import served
from tests.support.refusals import refused
from tests.support.runs import record
from tests.support.started_jobs import started_battery, started_experiment
from tests.support.waiting import PATIENCE_SECONDS, captured_logs, until
from tests.support.worker_runs import LONG, events_of, log_of_worker, losses, with_redis
from trainer.artifacts.command_jobs import (
    ExportDirectory,
    ExportRecord,
    ExportStore,
    VerificationRecord,
    VerificationStore,
)
from trainer.artifacts.corpus_builds import BuildRecord, BuildStore
from trainer.artifacts.kinds import EXPORTS, VERIFICATIONS
from trainer.artifacts.looks import LookLedger
from trainer.artifacts.object_store import ObjectStore, Stored
from trainer.artifacts.replication import Replication, complete_run, full_run_id, remove_kept_checkpoints
from trainer.artifacts.run_files import run_files
from trainer.artifacts.runs import RunStore
from trainer.config.settings import Settings
from trainer.contracts.base import FileRecord, KindName, RunState, changed, now
from trainer.contracts.batteries import BatteryFile, BatteryRequest
from trainer.contracts.corpora import BuildRequest
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.evaluations import EvalRequest
from trainer.contracts.events import JobStarted, stamp
from trainer.contracts.exports import ExportFormat, ExportRequest
from trainer.contracts.inference_fields import InferenceRequest
from trainer.contracts.items import ItemsRequest
from trainer.contracts.looks import LookCount, UnlockRequest
from trainer.contracts.parameters import ModelPath, RunPath, WaitQuery
from trainer.contracts.runs import AnnotationChange, RunStatus
from trainer.contracts.scores import ScoreRequest
from trainer.contracts.tokenizer_jobs import TokenizerTrainRequest
from trainer.export.verification import verify_run
from trainer.lab.calls import GET_FILES, GET_RUN, JOB_CALLS, UNLOCK
from trainer.lab.here import Here
from trainer.queue.queue import JobQueue
from trainer.services.embedded import die_with_parent, find_server
from trainer.store import keys
from trainer.store.store import Store, connect
from trainer.system.files import changed_files
from trainer.worker.inference_jobs import InferenceJobs
from trainer.worker.jobs import Jobs
from trainer.worker.steps import Steps


class Site:
    """The machine of the bot, and another one with a worker, that share a server and an object store."""

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        self.folder, self.bucket = folder, bucket
        self.url = f"unix://{folder / 'valkey.sock'}"
        self.here: Settings = machine(folder / "bot", bucket, self.url)
        self.there: Settings = machine(folder / "gpu", bucket, self.url)
        add_corpus(folder / "bot", some_text())
        add_corpus(folder / "bot", "abc ab", "short")

    @asynccontextmanager
    async def queue(self) -> AsyncIterator[JobQueue]:
        queue = await JobQueue.connect(self.here, self.url)
        try:
            yield queue
        finally:
            await queue.close()


class Machines(NamedTuple):
    """The machine of the bot, and another one; they share servers of their own."""

    s3: S3Server
    bucket: Bucket
    redis_url: str
    here: Settings
    there: Settings
    queue: JobQueue
    store: Store


@asynccontextmanager
async def machines(folder: Path) -> AsyncIterator[Machines]:
    with s3_server() as s3:
        bucket = s3.bucket()
        async with served(folder) as redis:
            here, there = (machine(folder / name, bucket, redis.url) for name in ("bot", "gpu"))
            add_corpus(folder / "bot", some_text())
            queue, store = await JobQueue.connect(here, redis.url), await connect(redis.url)
            yield Machines(s3, bucket, redis.url, here, there, queue, store)
            await store.close()
            await queue.close()


@pytest.fixture(scope="module", name="site")
def site_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    options = ("--port", "0", "--unixsocket", str(folder / "valkey.sock"), "--save", "")
    log = folder / "worker.log"
    with s3_server() as server, log.open("wb") as lines:
        site = Site(folder, server.bucket())
        environment = environment_in(folder / "gpu", REDIS__URL=site.url, **site.bucket.environment)
        valkey = subprocess.Popen([*die_with_parent(), find_server(), *options], stdout=subprocess.DEVNULL)
        worker = subprocess.Popen(
            [*die_with_parent(), sys.executable, "-m", "trainer", "worker"], env=environment, stderr=lines
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "worker_ready" not in (written := log.read_text(encoding="utf-8")):
            assert time.monotonic() < deadline, written
            time.sleep(0.05)
        try:
            yield site
        finally:
            for process in (worker, valkey):
                process.terminate()
                process.wait(PATIENCE_SECONDS)


def without_store(site: Site) -> Settings:
    """The settings of the worker's machine with an object store that does not answer."""
    with s3_server() as server:
        return changed(site.there, object_store=server.bucket().settings)


async def followed(queue: JobQueue, run_id: str) -> RunStatus:
    """Follow a run as the bot does, until it has ended on the bot's disk."""
    if not ended(await queue.states.status(run_id)):
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for woken in queue.states.next_run_ids():
                if woken == run_id and ended(await queue.states.status(run_id)):
                    break
    return await queue.states.status(run_id)


@pytest.mark.slow
async def test_test_split__is_unlocked_here_and_read_on_another_machine(site: Site, tmp_path: Path) -> None:
    """Both machines know each look, whichever of them has counted it; so does a third one, later."""
    async with site.queue() as queue:
        opened = (await queue.train(tiny_request(), user_id=7)).run_id
        locked = (await queue.train(tiny_request(test="locked"), user_id=7)).run_id
        assert [(await followed(queue, run_id)).status for run_id in (opened, locked)] == ["completed"] * 2
        effective = queue.runs.get(locked).record().effective
        counted = [LookLedger.of(settings).count(effective) for settings in (site.here, site.there)]
        assert counted == [LookCount(test_id=effective.test_id or "", looks=1, runs=2)] * 2
        here = Here(site.here)
        unlocked = await here.call(UNLOCK, query=WaitQuery(wait=60), body=UnlockRequest(runs=(locked,)))
        await here.close()
        [run], [looks] = unlocked.runs, unlocked.looks
        assert run.test_loss == queue.runs.get(opened).completed_manifest().metrics.test and looks.looks == 2
        third = changed(site.here, app=changed(site.here.app, artifacts_root=tmp_path / "third"))
        await Replication(third).share_looks()
        assert [LookLedger.of(one).count(effective) for one in (site.here, site.there, third)] == [looks] * 3
        site.bucket.objects.put("looks/a/.hidden.json", b"{}")
        await Replication(third).share_looks()
        assert not (third.app.artifacts_root / "looks" / "a").exists(), "no look has such a name"


@pytest.mark.slow
async def test_run__trains_on_another_machine_and_is_read_here(site: Site, tmp_path: Path) -> None:
    attached = tmp_path / "attached.txt"
    attached.write_text(some_text(80), encoding="utf-8")
    async with site.queue() as queue:
        name = await queue.corpora.offer(attached)
        run_id = (await queue.train(tiny_request(corpus=name, checkpoint_schedule=[1]), user_id=7)).run_id
        status = await followed(queue, run_id)
        run = queue.runs.get(run_id)
        had_weights = run.weights.exists()
        measured = (await queue.inference.ask(run_id, EvalRequest(split="validation"))).measured()
        scored = await queue.inference.ask(run_id, ScoreRequest(path="short"))
        early = [
            await queue.inference.ask(f"{run_id}@1", request) for request in (EvalRequest(), ScoreRequest(text="a"))
        ]
        items = await queue.inference.ask(run_id, ItemsRequest(table={"t": ("the sun",)}, text_column="t"))
        assert items.has_frequencies
        elsewhere = (await queue.inference.ask(run_id, EvalRequest(path_override="text"))).measured()
        new_machine = changed(site.here, app=changed(site.here.app, artifacts_root=tmp_path / "new"))
        assert await asyncio.to_thread(full_run_id, new_machine, run_id[:-1]) == run_id
        light = await asyncio.to_thread(partial(complete_run, new_machine, run_id, with_weights=False))
        assert light.loss_curve.exists() and not light.weights.exists()
        whole = await asyncio.to_thread(complete_run, site.here, run_id)
        report = await asyncio.to_thread(verify_run, whole, site.here)
        assert (status.status, had_weights, scored.status) == ("completed", False, "completed")
        assert report.ok, report
        assert {measured.loss, elsewhere.loss} <= {summary.loss for summary in run.completed_manifest().eval}
        assert run.evaluation() == elsewhere
        assert [one.model for one in early] == [f"{run_id}@1"] * 2
        async with asyncio.timeout(PATIENCE_SECONDS):
            while status.tokenizer_id not in [one.tokenizer_id for one in queue.tokenizers.all()]:
                await queue.replication.refresh()  # files of the end may be here before the end is stored
        continued = tiny_request(corpus=name, init_from_run_id=run_id, learning_rate=0.01)
        parent = await followed(queue, (await queue.train(continued, user_id=7)).run_id)
        await queue.states.delete(parent.run_id)
        assert parent.status == "completed"
        assert {(leak.ancestors, leak.unsearched) for leak in parent.leaks.values()} == {((run_id,), ())}
        assert not any(parent.run_id in key for key in site.bucket.objects.tags("files/models/"))


@pytest.mark.slow
async def test_running_run__is_cancelled_from_another_machine_and_resumes(site: Site) -> None:
    async with site.queue() as queue:
        run_id = (await queue.train(tiny_request(**LONG), user_id=7)).run_id
        while (await queue.states.status(run_id)).last_checkpoint_step is None:
            await queue.replication.refresh()
        with refused(ErrorCode.SERVICE_UNAVAILABLE):
            await queue.states.annotate(run_id, AnnotationChange(note="trains elsewhere"))
        assert not await queue.states.cancel(run_id)
        cancelled = await followed(queue, run_id)
        resumed = (await queue.resume(run_id, user_id=7)).run_id
        while (await queue.states.status(resumed)).status == "queued":
            await queue.replication.refresh()
        without_redis = Here(changed(site.here, **with_redis("redis://127.0.0.1:1/0")))
        asked = await without_redis.cancel(resumed)
        statuses = [status.status async for status in without_redis.follow(GET_RUN, RunPath(run_id=resumed))]
        last = await followed(queue, resumed)
        await without_redis.close()
    assert (cancelled.status, asked.status, statuses[-1], last.status) == ("cancelled", "running", *["cancelled"] * 2)
    assert cancelled.last_checkpoint_step is not None and last.step >= cancelled.last_checkpoint_step


async def test_waiting_run__is_cancelled_at_once(site: Site) -> None:
    async with site.queue() as queue:
        await queue.workers.pause(is_paused=True)
        run_id = (await queue.train(tiny_request(), user_id=7)).run_id
        await queue.states.annotate(run_id, AnnotationChange(note="waits"))
        cancelled = await queue.states.cancel(run_id)
        await queue.workers.pause(is_paused=False)
        status = await queue.states.status(run_id)
    assert (cancelled, status.status, status.note) == (True, "cancelled", "waits")
    elsewhere = await asyncio.to_thread(complete_run, site.there, run_id)
    assert elsewhere.annotations().note == "waits" and RunStore(elsewhere.path.parents[1]).annotated_ns() is not None
    assert f"ended/models/{run_id}" in site.bucket.objects.tags("ended/")


@pytest.mark.slow
async def test_run__is_exported_and_verified_on_another_machine(site: Site) -> None:
    """That one has the weights; the file and the result come here."""
    exports_folder = site.here.app.artifacts_root / "exports" / "an-export"
    async with site.queue() as queue:
        run_id = (await queue.train(tiny_request(), user_id=7)).run_id
        await followed(queue, run_id)
        exports = ExportStore(site.here.app.artifacts_root)

        async def exporting(export_id: str, model: str, to: ExportFormat) -> ExportDirectory:
            record = ExportRecord(created_at=now(), model=model, request=ExportRequest(format=to))
            return await queue.jobs.accept(EXPORTS, lambda: exports.create(export_id, record))

        verifications = VerificationStore(site.here.app.artifacts_root)
        wanted = VerificationRecord(created_at=now(), run_id=run_id)
        export = await exporting("an-export", run_id, "hf")
        check = await queue.jobs.accept(VERIFICATIONS, lambda: verifications.create("a-check", wanted))
        while not ((exported := export.status()).has_ended and (checked := check.status()).has_ended):
            await queue.replication.refresh()
        assert not queue.runs.get(run_id).weights.exists()
        assert exported.file is not None and checked.verification is not None, (exported, checked)
        assert checked.verification.ok, checked
        written = FileRecord(path=exported.file.name, bytes=exported.file.bytes, sha256=exported.file.sha256)
        assert changed_files(exports_folder, [written]) == []
        laptop = machine(site.folder / "laptop", site.bucket, site.url)
        await is_found_by_a_command(laptop, "exports", "an-export")
        await is_found_by_a_command(laptop, "verifications", "a-check")
        os.utime(exports_folder, (0, 0))
        another = await exporting("another", "nowhere", "csv")
        while not (failed := another.status()).has_ended:
            await queue.replication.refresh()
        assert failed.error is not None and failed.error.code is ErrorCode.RUN_NOT_FOUND
    assert not exports_folder.exists()
    assert not any("an-export" in key for key in site.bucket.objects.tags("files/exports/"))


async def is_found_by_a_command(settings: Settings, kind: KindName, job_id: str) -> None:
    """The command of a third machine knows a job by its complete id."""
    installation, calls = Here(settings), JOB_CALLS[kind]
    assert await installation.job_id(kind, job_id) == job_id
    assert (await installation.call(calls.get, calls.named(job_id))).status == "completed"
    await installation.close()


async def test_corpora__that_another_machine_has_built_are_found_here(site: Site, tmp_path: Path) -> None:
    builder = machine(tmp_path, site.bucket, site.url)
    text = "beda\n"
    add_corpus(tmp_path, text, "local_kk_ipa")
    build = BuildStore(builder.app.artifacts_root).create(
        BuildRecord(created_at=now(), request=BuildRequest(source="local", languages=("kk",)))
    )
    async with site.queue() as queue:
        await Replication(builder).publish("corpus_builds", build.job_id)
        build.complete(built_manifest("local", text, "kk").model_dump_json().encode())
        store = await connect(site.url)
        await Jobs(JobQueue(builder, store), builder, store).functions()["build_corpora"]({}, {"job_id": build.job_id})
        await store.close()
        while not queue.corpora.has("local_kk_ipa"):
            await queue.replication.refresh(with_ended=True)
        assert "local_kk_ipa" in queue.corpora.names()
        assert queue.corpora.find("local_kk_ipa").read_text(encoding="utf-8") == text


async def test_request_without_a_storable_run__leaves_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object store fails after it has taken the corpus."""
    with s3_server() as server:
        bucket = server.bucket()
        settings = machine(tmp_path, bucket)
        add_corpus(tmp_path, some_text())
        queue = JobQueue(settings, Store(ArqRedis(unix_socket_path=str(tmp_path / "no.sock"))))
        get = ObjectStore.get

        def stop_and_get(self: ObjectStore, key: str) -> Stored | None:
            server.stop()
            return get(self, key)

        assert bucket.objects.tags("corpora/") == {}
        with monkeypatch.context() as patched, refused(ErrorCode.SERVICE_UNAVAILABLE):
            patched.setattr(ObjectStore, "get", stop_and_get)
            await queue.train(tiny_request(), user_id=7)
        assert queue.runs.all() == []
        server.start_again()
        assert bucket.objects.tags("corpora/") != {}
        assert bucket.objects.tags("open/") == {}


@pytest.mark.slow
async def test_training__outlives_its_machine_and_an_outage_of_the_object_store(tmp_path: Path) -> None:
    """So do the checkpoints that its schedule keeps, until they are removed on all machines."""
    request = tiny_request(num_epochs=40, checkpoint_every_steps=10, checkpoint_schedule={"words": "log2"})
    async with machines(tmp_path) as (s3, bucket, redis_url, here, _, queue, _):
        machine(tmp_path / "second", bucket, redis_url)
        async with worker_of(tmp_path / "gpu", bucket, redis_url) as first:
            run_id = (await queue.train(request, user_id=7)).run_id
            while (await queue.states.status(run_id)).last_checkpoint_step is None:
                await queue.replication.refresh()
            os.kill(first.pid, signal.SIGKILL)
        async with worker_of(tmp_path / "second", bucket, redis_url):
            moved = await followed(queue, run_id)
            undisturbed = (await queue.train(request, user_id=7)).run_id
            await followed(queue, undisturbed)
            offline = (await queue.train(tiny_request(**LONG), user_id=7)).run_id
            while (await queue.states.status(offline)).step == 0:
                await queue.replication.refresh()
            s3.stop()
            failures = {"push_failed", "refresh_failed"}
            await until(lambda: all(failure in log_of_worker(tmp_path / "second") for failure in failures))
            with captured_logs() as logs:
                following = asyncio.create_task(followed(queue, offline))
                await until(lambda: "refresh_failed" in [line["event"] for line in logs])
            s3.start_again()
            await queue.states.cancel(offline)
            cancelled = await following
        starts = [event for event in events_of(queue, run_id) if isinstance(event, JobStarted)]
        runs = [queue.runs.get(one) for one in (run_id, undisturbed)]
        whole = [await asyncio.to_thread(complete_run, here, run.run_id) for run in runs]
        weights = [run.weights.read_bytes() for run in whole]
        kept = [[(one.step, one.words, one.tokens, one.sha256) for one in run_files(run).kept] for run in whole]
        with whole[0].wait_for_lock(PATIENCE_SECONDS), refused(ErrorCode.SERVICE_UNAVAILABLE, "written by another"):
            await remove_kept_checkpoints(here, run_id)
        report = await remove_kept_checkpoints(here, run_id)
        there = await asyncio.to_thread(complete_run, machine(tmp_path / "third", bucket, redis_url), run_id)
    assert (moved.status, len(starts)) == ("completed", 2)
    assert (cancelled.status, cancelled.attempt) == ("cancelled", 1)
    assert losses(runs[0].loss_curve) == losses(runs[1].loss_curve)
    assert weights[0] == weights[1] and kept[0] == kept[1] and len(kept[0]) > 5
    assert len(report.removals) == len(kept[0]) and run_files(there).kept == ()
    assert not changed_files(there.path, there.completed_manifest().files)


@pytest.mark.slow
async def test_battery__finds_its_items_in_a_training_text_of_another_machine(site: Site) -> None:
    async with site.queue() as queue:
        run_id = (await queue.train(tiny_request(corpus="text"), user_id=7)).run_id
        await followed(queue, run_id)
        known = some_text().splitlines()[0]
        pairs = BatteryFile(name="pairs.tsv", content=f"{known}\t{known[::-1]}\n")
        battery = await started_battery(queue, BatteryRequest(runs=(run_id,), files=(pairs,)))
        while not (status := battery.status()).has_ended:
            await queue.replication.refresh()
        assert status.status == "completed", status.message
        [result] = battery.summary().runs
        assert [leak.n_items for leak in result.leaks] == [1]


@pytest.mark.slow
async def test_experiment__runs_on_another_machine_and_its_report_comes_back(site: Site) -> None:
    add_languages(site.folder / "bot")
    add_batteries(site.folder / "bot")
    async with site.queue() as queue:
        experiment = await started_experiment(queue, plan(languages=WITH_BATTERIES))
        while not (status := experiment.status()).has_ended:
            await queue.replication.refresh()
        folder = experiment.path
        assert status.status == "completed", status.message
        assert all((folder / name).stat().st_size > 0 for name in ("matrix.csv", "batteries.csv"))
        [battery] = experiment.batteries().values()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not queue.batteries.directory(battery.battery_id).has_completed():
                await queue.replication.refresh(with_ended=True)
    laptop = machine(site.folder / "laptop", site.bucket, site.url)
    await is_found_by_a_command(laptop, "experiments", experiment.job_id)
    await is_found_by_a_command(laptop, "batteries", battery.battery_id)


@pytest.mark.slow
async def test_mt_on_a_machine_without_the_run__shows_and_cancels_it(site: Site) -> None:
    laptop = machine(site.folder / "laptop", site.bucket, site.url)
    async with site.queue() as queue:
        ended_id = (await queue.train(tiny_request(), user_id=7)).run_id
        there = await followed(queue, ended_id)
        run_id = (await queue.train(tiny_request(**LONG), user_id=7)).run_id
        while (await queue.states.status(run_id)).step == 0:
            await queue.replication.refresh()
        installation = Here(laptop)
        with captured_logs():
            before = await all_lines(installation.log_lines(ended_id, 200, follow=False))
            status = await installation.call(GET_RUN, RunPath(run_id=ended_id))
            files = await installation.call(GET_FILES, ModelPath(run_id=ended_id))
            running = await installation.call(GET_RUN, RunPath(run_id=run_id))
            following = asyncio.create_task(all_lines(installation.log_lines(run_id, 200, follow=True)))
            asked = await installation.cancel(run_id)
            lines = await following
            await installation.close()
    assert (status.status, status.test_loss) == ("completed", there.test_loss)
    assert any("attempt_started" in line for line in before)
    assert "loss_curve.jsonl" in {file.path for file in files.files}
    assert (running.status, asked.status) == ("running", "running")
    assert "run_ended" in lines[-1]


async def all_lines(lines: AsyncIterator[str]) -> list[str]:
    return [line async for line in lines]


@pytest.mark.slow
async def test_mt__follows_a_run_while_the_object_store_is_down(tmp_path: Path) -> None:
    with s3_server() as server, captured_logs() as logs:
        here = machine(tmp_path / "bot", bucket := server.bucket())
        run = RunStore(here.app.artifacts_root).create(record("char_lstm-1"))

        async def start() -> None:
            with run.open_log() as log:
                log.append(JobStarted(**stamp(run.run_id, None, "started:1"), queue="training", attempt=1))

        await Replication(here).publish("models", run.run_id)
        installation = Here(machine(tmp_path / "laptop", bucket))
        path, statuses = RunPath(run_id=run.run_id), list[RunState]()
        async with aclosing(installation.follow(GET_RUN, path)) as following:
            async for status in following:
                statuses.append(status.status)
                if len(statuses) == 1:
                    server.stop()
                elif len(statuses) == 2:
                    with refused(ErrorCode.SERVICE_UNAVAILABLE, "object store"):
                        await installation.call(GET_RUN, path)
                    server.start_again()
                    await Replication(here).write("models", run.run_id, start)
                else:
                    break
        await installation.close()
    assert statuses == ["queued", "queued", "running"]
    assert {row["event"] for row in logs} == {"fetch_failed", "object_store_failed"}


async def test_job__is_retried_while_its_run_is_unavailable(site: Site) -> None:
    async with site.queue() as queue:
        store = await connect(site.url)
        await queue.workers.pause(is_paused=True)
        run_id = (await queue.train(tiny_request(), user_id=7)).run_id
        payload: dict[str, str] = {"job_id": run_id}
        await store.renew_lease(run_id, "other-host:1", seconds=60)
        with pytest.raises(Retry):
            await Jobs(JobQueue(site.there, store), site.there, store).functions()["train"]({}, payload)
        await store.release([run_id])
        with pytest.raises(Retry):
            await Jobs(JobQueue(without_store(site), store), without_store(site), store).functions()["train"](
                {}, payload
            )
        with RunStore(site.there.app.artifacts_root).get(run_id).wait_for_lock(1), pytest.raises(Retry):
            await Jobs(JobQueue(site.there, store), site.there, store).functions()["train"]({}, payload)
        with captured_logs() as logs:
            await Jobs(JobQueue(site.there, store), site.there, store).functions()["train"]({}, {"job_id": "unknown"})
        await store.close()
        await queue.states.cancel(run_id)
        await queue.workers.pause(is_paused=False)
    assert "run_job_rejected" in [line["event"] for line in logs]


async def test_end_that_the_store_does_not_take__is_stored_by_the_next_try(tmp_path: Path) -> None:
    async with machines(tmp_path) as (s3, bucket, _, here, _, queue, store):
        request = TokenizerTrainRequest(method="bpe", corpora=("text",), vocab_size=40)
        tokenizer_id = (await queue.train_tokenizer(request)).tokenizer_id
        payload: dict[str, str] = {"job_id": tokenizer_id}
        function = Jobs(JobQueue(here, store), here, store).functions()["train_tokenizer"]

        async def end_without_store(*_: object) -> None:
            s3.stop()
            queue.tokenizers.get(tokenizer_id).request_cancel()

        with pytest.MonkeyPatch.context() as patch, pytest.raises(Retry), captured_logs() as logs:
            patch.setattr(Steps, "run_child", end_without_store)
            await function({}, payload)
        s3.start_again()
        await function({}, payload)
        assert "job_postponed" in [line["event"] for line in logs]
        assert bucket.objects.tags("open/") == {}
        assert list(bucket.objects.tags("ended/")) == [f"ended/tokenizers/{tokenizer_id}"]


@pytest.mark.slow
async def test_job__without_its_folder_ends_and_a_request_fetches_its_weights(tmp_path: Path) -> None:
    async with machines(tmp_path) as (_, _, _, here, there, queue, store):
        run = RunStore(there.app.artifacts_root).create(record("char_lstm-2"))
        with pytest.raises(AppError, match="The object store has no 'char_lstm-2'"):
            await Jobs(JobQueue(there, store), there, store).functions()["train"]({}, {"job_id": run.run_id})
        finished_run(tmp_path / "bot")
        await Replication(here).publish("models", RUN)
        child = InstantChild(there)

        async def answer(request: InferenceRequest, kind: str) -> tuple[str, str]:
            request_id = (await queue.inference.submit(RUN, request)).request_id
            payload: dict[str, str] = {"kind": kind, "run_id": RUN, "request_id": request_id}
            await InferenceJobs(there, store, child, child).infer({}, payload)
            stored = await store.get(keys.inference(kind, RUN, request_id))
            response = any_record.validate_json(stored or b"").response
            return response.status, "" if response.error is None else response.error.message

        assert await answer(ScoreRequest(text="abc"), "score") == ("completed", "")
        run = RunStore(there.app.artifacts_root).get(RUN)
        assert run.weights.exists()
        with run.wait_for_lock(1):
            status, reason = await answer(EvalRequest(), "evaluate")
        assert (status, "Another machine adds an evaluation" in reason) == ("failed", True)
