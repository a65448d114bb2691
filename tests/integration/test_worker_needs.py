"""Runs go to workers that have what the runs need; workers of another version, or drained ones, take none."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.support import add_corpus, ended, settings_in, some_text, tiny_request, wait_for_status
from tests.support.redis_servers import claiming_worker, embedded, served
from tests.support.refusals import refused
from tests.support.run_shell import Shell
from tests.support.stories import Story, run_record
from tests.support.waiting import PATIENCE_SECONDS, until
from tests.support.worker_runs import LONG, log_of_worker, training, worker_in
from trainer.artifacts.artifacts_id import artifacts_id, own_artifacts_id
from trainer.artifacts.runs import RunStore
from trainer.contracts.base import changed, now
from trainer.contracts.cost import Cost
from trainer.contracts.errors import ErrorCode
from trainer.contracts.jobs import FolderJobPayload, JobNeeds, WorkerInfo, WorkerState
from trainer.queue.cost import check_workers, needs_of, unmet, waiting_for
from trainer.services.health import check_data
from trainer.store import keys
from trainer.store.store import Store, connect
from trainer.system.child_environment import tuned_environment
from trainer.system.files import try_lock
from trainer.system.hardware import package_version
from trainer.worker.process import restore_pause, wait_until_idle

GIB = 1 << 30


def machine(name: str = "box:1", **fields: object) -> WorkerInfo:
    values: dict[str, object] = {"name": name, "version": "1", "slots": 1, "seen_at": 4e9, "memory_bytes": 8 * GIB}
    return WorkerInfo.model_validate(values | fields)


CPU = machine()
GPU = machine("gpu:1", devices=("cuda:0 H100",), gpu_memory_bytes=(80 * GIB,), memory_bytes=64 * GIB)
GPU_ONLY = changed(GPU, takes="gpu")
UNKNOWN_GPUS = machine("gpu:2", devices=("cuda:0 GPU", "cuda:1 GPU"), gpu_memory_bytes=(None, 40 * GIB))
NEEDS = {
    "cpu": JobNeeds(device="cpu", memory_bytes=GIB),
    "any": JobNeeds(device="any", memory_bytes=16 * GIB),
    "cuda": JobNeeds(device="cuda", gpus=1, memory_bytes=GIB),
    "two": JobNeeds(device="cuda", gpus=2),
    "huge": JobNeeds(device="cuda", gpus=1, memory_bytes=60 * GIB),
    "free": JobNeeds(),
}


@pytest.mark.parametrize(
    ("worker", "taken"),
    [
        (CPU, ["cpu", "free"]),
        (changed(CPU, takes="cpu"), ["cpu", "free"]),
        (GPU, ["cpu", "any", "cuda", "huge", "free"]),
        (GPU_ONLY, ["any", "cuda", "huge", "free"]),
        (UNKNOWN_GPUS, ["cpu", "any", "cuda", "two", "free"]),
        (changed(CPU, takes="gpu"), []),
    ],
)
async def test_worker__takes_the_runs_that_its_device_and_memory_fit(
    worker: WorkerInfo, taken: list[str], tmp_path: Path
) -> None:
    async with embedded(tmp_path) as (_, _, store):
        await put_all(store, owner=None)
        assert await claimed(store, worker) == taken
        assert [name for name, needs in NEEDS.items() if worker.can_take(needs)] == taken


async def test_runs_that_a_worker_cannot_take__block_nobody_and_keep_their_turn(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (_, _, store):
        await put_all(store, owner="ana")
        await store.enqueue("training", "train", "bob", FolderJobPayload(job_id="bob"), owner="bob")
        assert await claimed(store, CPU, 2) == ["cpu", "bob"]
        assert await claimed(store, GPU, 2) == ["any", "cuda"]
        assert await claimed(store, CPU, 9) == ["free"]
        assert (await store.queue_order("training"))[-2:] == ["two", "huge"]


async def put_all(store: Store, owner: str | None) -> None:
    for name, needs in NEEDS.items():
        await store.enqueue("training", "train", name, FolderJobPayload(job_id=name), needs=needs, owner=owner)


async def claimed(store: Store, worker: WorkerInfo, count: int = 9) -> list[str]:
    jobs = await store.claim_jobs("training", count, worker.name, lease_seconds=60, worker=worker)
    return [job_id for job_id, _ in jobs]


def test_needs__are_device_precision_and_two_thirds_of_the_memory_estimate(tmp_path: Path) -> None:
    effective = run_record("lstm-1", user_id=None).effective
    cost = Cost(params=1, memory_bytes=3 * GIB, disk_bytes=1, steps=1)
    expected = {
        ("cpu", "fp32"): JobNeeds(device="cpu", memory_bytes=2 * GIB),
        ("auto", "auto"): JobNeeds(device="any", memory_bytes=2 * GIB),
        ("auto", "fp16"): JobNeeds(device="cuda", gpus=1, memory_bytes=2 * GIB),
        ("cuda", "auto"): JobNeeds(device="cuda", gpus=1, memory_bytes=2 * GIB),
        ("cuda:2", "auto"): JobNeeds(device="cuda", gpus=3, memory_bytes=2 * GIB),
    }
    found = {key: needs_of(changed(effective, device=key[0], precision=key[1]), cost) for key in expected}
    assert found == expected
    assert needs_of(changed(effective, device="cuda", devices=4), None) == JobNeeds(device="cuda", gpus=4)


BROKEN = changed(CPU, state="refuses", refusals=("children_die_at_start",))


def test_reason__names_what_the_running_workers_lack() -> None:
    assert unmet(NEEDS["cuda"], [CPU]) == "gpu"
    assert unmet(NEEDS["two"], [CPU, GPU]) == "gpu"
    assert unmet(NEEDS["cpu"], [GPU_ONLY]) == "cpu"
    assert unmet(NEEDS["any"], [CPU]) == "memory"
    assert unmet(NEEDS["any"], [CPU, GPU]) is None
    assert unmet(NEEDS["cuda"], [changed(CPU, state="refuses")]) is None
    assert unmet(NEEDS["cpu"], [BROKEN]) == "broken"
    assert unmet(NEEDS["cuda"], [BROKEN]) is None
    assert unmet(NEEDS["cpu"], [BROKEN, CPU]) is None


@pytest.mark.parametrize(
    ("training", "ahead", "message"),
    [
        ([], 0, "Waiting for a worker."),
        (["a"], 1, "Waiting for a, which trains now."),
        (["a", "b"], 2, "Waiting for a and b, which train now."),
        (["a"], 2, "Waiting for a, which trains now; 1 other run before it."),
    ],
)
def test_waiting_run__names_what_it_waits_for(training: list[str], ahead: int, message: str) -> None:
    assert waiting_for(training, ahead) == message


async def test_waiting_run__names_the_run_that_trains_or_the_pause(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (_, queue, store):
        waits = Story(tmp_path / "artifacts", run_record("second")).follower().refresh()
        await store.renew_worker(seconds=60)
        await store.redis.zadd("training", {"first": 1, "second": 2})
        await store.redis.set(keys.in_progress("first"), "worker:1")
        assert (await queue.states.with_wait(waits)).message == "Waiting for first, which trains now."
        await queue.workers.pause(is_paused=True)
        assert (await queue.states.with_wait(waits)).waits_for == "queue"


async def test_run_that_no_worker_can_take__is_refused_or_says_what_it_waits_for(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with embedded(tmp_path) as (_, queue, store):
        run_id = (await queue.train(tiny_request(), user_id=None)).run_id
        assert (await queue.states.status(run_id)).waits_for == "worker"
        await store.renew_worker(seconds=60, worker=GPU_ONLY)
        assert (await queue.states.status(run_id)).waits_for == "cpu"
        await store.renew_worker(seconds=60, worker=machine(memory_bytes=1 << 20))
        assert (await queue.states.status(run_id)).waits_for == "memory"
        with refused(ErrorCode.MODEL_INCOMPATIBLE, "the largest running worker has 0.0"):
            await queue.train(tiny_request(seed=2), user_id=None)
        await store.renew_worker(seconds=60, worker=CPU)
        assert (await queue.states.status(run_id)).waits_for == "turn"
        await store.delete(keys.definition(run_id))
        assert (await queue.states.status(run_id)).waits_for == "turn"
    assert len(queue.runs.all()) == 1


def test_device_cuda__is_refused_where_a_worker_runs_and_none_has_a_gpu() -> None:
    for needs, sentence in ((NEEDS["cuda"], "needs 1 GPU, and"), (NEEDS["two"], "needs 2 GPUs, and")):
        with refused(ErrorCode.CUDA_NOT_AVAILABLE, sentence):
            check_workers(needs, [CPU])
    check_workers(NEEDS["cuda"], [])
    check_workers(NEEDS["cuda"], [CPU, GPU])
    check_workers(NEEDS["cpu"], [GPU_ONLY])


async def test_version__of_the_bot_binds_the_workers_of_its_folder(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (_, queue, store):
        async with queue.workers.version_published(replaces=False):
            for find_id in (artifacts_id, own_artifacts_id):  # the second one gives it an id
                key = keys.version(find_id(tmp_path / "artifacts"))
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while await store.get(key) != package_version("model-trainer").encode():
                        await asyncio.sleep(0.05)
        for version, replaces, expected in (("1", False, b"1"), ("3", False, b"1"), ("2", True, b"2")):
            await store.publish_version(version, "a1", seconds=60, replaces=replaces)
            assert await store.get(keys.version("a1")) == expected, "a command does not replace that of the bot"
        for name, folder in (("job-1", "a1"), ("job-2", "b2")):
            await store.enqueue("training", "train", name, FolderJobPayload(job_id=name), artifacts=folder)
        jobs = [
            await store.claim_jobs("training", 1, "me", lease_seconds=9, artifacts=folder, worker=worker)
            for folder, worker in (("a1", CPU), ("b2", CPU), ("a1", changed(CPU, version="2")))
        ]
    assert [[job_id for job_id, _ in claimed] for claimed in jobs] == [[], ["job-2"], ["job-1"]]


async def test_worker__takes_no_job_of_another_folder_or_version_or_once_drained(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    own = own_artifacts_id(tmp_path / "artifacts")
    (mount := tmp_path / "mount").mkdir()
    async with served(tmp_path) as server, server.queue(tmp_path) as queue:
        store = await connect(server.url)

        async def shown(state: WorkerState, reason: str = "") -> WorkerInfo:
            """Wait until the worker shows itself in a state, for a reason."""
            while True:
                for info in await store.workers():
                    if info.state == state and reason in (info.reason or ""):
                        return info
                await asyncio.sleep(0.05)

        await store.publish_version("0.0.1", own, seconds=600, replaces=True)
        run_id = (await queue.train(tiny_request(**LONG), user_id=None)).run_id
        worker = worker_in(tmp_path, REDIS__URL=server.url, APP__ARTIFACTS_ROOT=str(mount))
        async with worker, asyncio.timeout(PATIENCE_SECONDS):
            for refusal in ("artifacts_folder_mismatch", "version_mismatch"):
                while refusal not in log_of_worker(tmp_path):
                    await asyncio.sleep(0.05)
                await shown("refuses")
                waiting = await queue.states.status(run_id)
                assert (waiting.status, waiting.waits_for, waiting.queue_position) == ("queued", "worker", 1)
                assert not await queue.workers.exist()
                if not mount.is_symlink():
                    mount.rmdir()
                    mount.symlink_to(tmp_path / "artifacts")
            info = await shown("refuses", "version 0.0.1")
            await store.publish_version(package_version("model-trainer"), own, seconds=600, replaces=True)
            await wait_for_status(queue, run_id, training)
            await queue.workers.drain(info.name, is_draining=True)
            later = (await queue.train(tiny_request(), user_id=None)).run_id
            await shown("draining")
            await server.wipe()
            await shown("draining")
            assert (await queue.states.status(run_id)).status == "running"
            await queue.states.cancel(run_id)
            await shown("drained")
            assert (await queue.states.status(later)).status == "queued"
            await queue.workers.drain(info.host, is_draining=False)
            assert (await wait_for_status(queue, later, ended)).status == "completed"
        await store.close()
    said = log_of_worker(tmp_path)
    assert "version 0.0.1: install that version and" in said
    changes = ("artifacts_folder_matched", "version_matched", "worker_drains", "worker_drained", "worker_undrained")
    assert [change for change in changes if change not in said] == []
    assert said.count("artifacts_folder_mismatch") == 1 and "refused" not in said


async def test_experiment_of_a_drained_worker__returns_to_the_queue(tmp_path: Path) -> None:
    held: list[str] = []
    ended = asyncio.Event()

    async def wait_for_runs(ctx: dict[str, object], payload: object) -> None:
        held.append("started")
        try:
            await asyncio.Event().wait()
        finally:
            held.append("ending")
            await ended.wait()

    async with embedded(tmp_path) as (settings, _, store):
        await store.enqueue("training", "train", "job-1", FolderJobPayload(job_id="job-1"))
        async with claiming_worker(settings, store, wait_for_runs) as (worker, presence):
            await until(lambda: held == ["started"])
            await store.order_drain([presence.info.name], is_draining=True, seconds=60)
            showing = asyncio.create_task(presence.show(lambda: bool(worker.running), worker.hand_back))
            await until(lambda: held == ["started", "ending"])
            worker.hand_back()  # again, which leaves the end of its child alone
            ended.set()
            await until(lambda: not worker.running)
            await asyncio.wait_for(wait_until_idle([worker], 3600, presence), PATIENCE_SECONDS)  # at once
            showing.cancel()
            await asyncio.wait([showing])
        assert presence.is_draining
        assert await store.holders(["job-1"]) == {}
        assert await store.queue_order("training") == ["job-1"]


async def test_pause__outlasts_a_wipe_of_redis(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with embedded(tmp_path) as (settings, queue, store):
        await queue.workers.pause(is_paused=True)
        await store.redis.flushall()
        assert not await queue.workers.are_paused()
        await restore_pause(settings, store)
        assert await queue.workers.are_paused()
        await store.renew_worker(seconds=60, worker=CPU)
        assert [worker.state for worker in (await queue.workers.state([])).workers] == ["paused"]
        await queue.workers.pause(is_paused=False)
        await queue.workers.pause(is_paused=False)
        await restore_pause(settings, store)
        assert not await queue.workers.are_paused()


async def test_resume_at_the_moment_of_a_restored_pause__wins(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (settings, queue, store):

        class ResumedMeanwhile(Store):
            async def set_paused(self, queue: str, *, is_paused: bool) -> None:
                await super().set_paused(queue, is_paused=is_paused)
                RunStore(settings.app.artifacts_root).mark_paused(is_paused=False)

        await queue.workers.pause(is_paused=True)
        await restore_pause(settings, ResumedMeanwhile(store.redis))
        assert not await queue.workers.are_paused()


def test_worker_for_the_cpu__hides_gpus_from_its_trainings(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    only_cpu = changed(settings, queue=changed(settings.queue, devices="cpu"))
    assert tuned_environment(only_cpu)["CUDA_VISIBLE_DEVICES"] == ""
    assert tuned_environment(settings).get("CUDA_VISIBLE_DEVICES") == os.environ.get("CUDA_VISIBLE_DEVICES")


async def test_mt_workers__lists_pauses_and_drains(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE__EMBEDDED_WORKERS", "0")
    nobody = "mt: Neither a worker nor its Redis server is running: start both with `mt worker`.\n"
    assert await asyncio.to_thread(shell.refuse, "workers", code=1) == nobody
    story = Story(shell.artifacts, run_record("lstm-1", user_id=None), now())
    async with embedded(shell.folder) as (_, _, store):

        async def workers(*words: str) -> str:
            return await asyncio.to_thread(shell.type, "workers", *words)

        assert await workers() == "No worker is running. Start one with: mt worker\n"
        lock = try_lock(shell.folder / "data" / "services" / "worker.lock")
        assert lock is not None and await workers() == "A worker is starting.\n"
        lock.close()
        refusing = changed(CPU, name="old:2", state="refuses", reason="Its version differs.")
        for worker in (changed(GPU_ONLY, started_at=GPU_ONLY.seen_at - 3700), refusing):
            await store.renew_worker(seconds=60, worker=worker)
        await store.put(keys.in_progress(story.run.run_id), b"gpu:1", ttl_seconds=60)
        listed, paused = (await workers("drain", "gpu:1")).splitlines(), await workers("pause")
        as_json = await workers("resume", "--json")
        unknown = await asyncio.to_thread(shell.refuse, "workers", "drain")
    titles = "worker pid version devices memory slots runs state up"
    gpu = "gpu 1 1 cuda:0 H100 (gpu runs only) 64.0 GiB, GPU 80 GiB 1 lstm-1 draining 1 h 1 min"
    old = ["old 2 1 cpu 8.0 GiB 1 none refuses", "old:2 takes no job: Its version differs."]
    assert [" ".join(line.split()) for line in listed] == [titles, gpu, *old]
    assert paused.endswith("The queue is paused: no further run starts until `mt workers resume`.\n")
    assert '"paused":false' in as_json and '"runs":{"lstm-1":"gpu:1"}' in as_json
    assert "Name a worker with `drain` and `undrain`" in unknown


async def test_doctor__names_a_worker_that_refuses_all_jobs(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (settings, _, store):
        for worker in (CPU, machine("old:2", state="refuses", reason="Its version differs.")):
            await store.renew_worker(seconds=60, worker=changed(worker, seen_at=now().timestamp()))
        found = (await check_data(settings))["worker"]
    assert found == ("warning", "old:2 takes no job: Its version differs.")
