"""Faults of machines that share an object store, as `make scale-test` has found them."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.object_stores import (
    RUN,
    Bucket,
    accepted,
    bucket_fixture,
    machine,
    replica,
    server_fixture,
)
from tests.support.runs import record
from trainer.artifacts.replicas import Replica
from trainer.artifacts.replication import Replication
from trainer.artifacts.runs import RunDirectory, RunStore, finish_run, manifest_of

__all__ = ["bucket_fixture", "server_fixture"]

ROW = b'{"step": 1}\n'
LARGE = ROW * 30_000
"""More than a growing file that is stored after each change."""


def claimed(bucket: Bucket, root: Path) -> tuple[RunDirectory, Replica]:
    run = accepted(root)
    writer = replica(bucket, root)
    writer.publish()
    writer.claim()
    return run, writer


def test_stored_checkpoint__comes_with_all_rows_of_a_long_curve_before_it(tmp_path: Path, bucket: Bucket) -> None:
    run, writer = claimed(bucket, tmp_path / "a")
    run.loss_curve.write_bytes(LARGE)
    writer.push()
    run.loss_curve.write_bytes(LARGE + ROW)
    (run.checkpoints / "step-5").mkdir(parents=True)
    (run.checkpoints / "step-5" / "weights.safetensors").write_bytes(b"after all these rows")
    writer.push()
    other = replica(bucket, tmp_path / "b")
    other.claim()
    assert (other.path / "checkpoints" / "step-5" / "weights.safetensors").read_bytes() == b"after all these rows"
    assert (other.path / "loss_curve.jsonl").read_bytes() == LARGE + ROW


def test_folder_that_two_threads_publish__is_stored_without_an_error(tmp_path: Path, bucket: Bucket) -> None:
    run_ids = [f"char_lstm-{number}" for number in range(8)]
    for run_id in run_ids:
        RunStore(tmp_path).create(record(run_id))
    with ThreadPoolExecutor(4) as pool:
        for run_id in run_ids:
            both = [pool.submit(replica(bucket, tmp_path, run_id).publish) for _ in range(4)]
            assert [one.result() for one in both] == [None] * 4
    assert sorted(bucket.objects.tags("open/")) == [f"open/models/{run_id}" for run_id in run_ids]


async def test_damaged_folder__does_not_keep_a_machine_from_the_others(tmp_path: Path, bucket: Bucket) -> None:
    here = machine(tmp_path / "a", bucket)
    run_ids = [f"char_lstm-{number}" for number in range(3)]
    for run_id in run_ids:
        RunStore(here.app.artifacts_root).create(record(run_id))
        replica(bucket, here.app.artifacts_root, run_id).publish()
    whole = {key: bucket.objects.get(key) for key in bucket.objects.tags(f"files/models/{run_ids[1]}/")}
    for key in whole:
        bucket.objects.put(key, b"damaged")
    reader = Replication(machine(tmp_path / "b", bucket))
    assert await reader.refresh() == [run_ids[0], run_ids[2]]
    assert await reader.refresh() == []
    for key, stored in whole.items():
        assert stored is not None
        bucket.objects.put(key, stored.data)
    assert await reader.refresh() == [run_ids[1]]
    assert await reader.refresh() == []


async def test_damaged_folder_that_has_ended__is_tried_again(tmp_path: Path, bucket: Bucket) -> None:
    here = machine(tmp_path / "a", bucket)
    run, writer = claimed(bucket, here.app.artifacts_root)
    reader = Replication(machine(tmp_path / "b", bucket))
    assert await reader.refresh() == [RUN]
    with run.wait_for_lock(1), run.open_log() as events:
        finish_run(run, events, manifest_of(run.record(), "cancelled"))
    writer.push()
    whole = {key: bucket.objects.get(key) for key in bucket.objects.tags(f"files/models/{RUN}/")}
    for key in whole:
        bucket.objects.put(key, b"damaged")
    assert await reader.refresh() == []
    for key, stored in whole.items():
        assert stored is not None
        bucket.objects.put(key, stored.data)
    assert await reader.refresh() == [RUN]
    assert await reader.refresh() == []


async def test_job_that_ends_during_a_refresh__is_fetched_by_the_next_one(tmp_path: Path, bucket: Bucket) -> None:
    here, there = machine(tmp_path / "a", bucket), machine(tmp_path / "b", bucket)
    replication = Replication(here)
    run, writer = claimed(bucket, there.app.artifacts_root)
    with run.wait_for_lock(1), run.open_log() as events:
        finish_run(run, events, manifest_of(run.record(), "cancelled"))
    writer.push()
    looking = asyncio.create_task(replication.refresh())
    await asyncio.sleep(0)
    replication.watch("models", RUN)
    assert await looking == []
    assert await replication.refresh() == [RUN]
    assert await replication.refresh() == []
    assert RunStore(here.app.artifacts_root).get(RUN).seal.read_bytes() == run.seal.read_bytes()
