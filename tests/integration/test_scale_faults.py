"""Faults of machines that share an object store, as `make scale-test` has found them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.object_stores import Bucket, S3Server, s3_server
from tests.support.runs import record
from trainer.artifacts.replicas import Replica
from trainer.artifacts.runs import RunDirectory, RunStore, finish_run, manifest_of

RUN = "char_lstm-1"
ROW = b'{"step": 1}\n'
LARGE = ROW * 30_000
"""More than a growing file that is stored after each change."""


@pytest.fixture(scope="module", name="server")
def server_fixture() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(name="bucket")
def bucket_fixture(server: S3Server) -> Bucket:
    return server.bucket()


def replica(bucket: Bucket, root: Path, run_id: str = RUN) -> Replica:
    return Replica(bucket.objects, root, "models", run_id)


def claimed(bucket: Bucket, root: Path) -> tuple[RunDirectory, Replica]:
    run = RunStore(root).create(record(RUN))
    writer = replica(bucket, root)
    writer.publish()
    writer.claim()
    return run, writer


def test_end_that_could_not_be_stored__is_stored_by_the_next_look(tmp_path: Path, bucket: Bucket) -> None:
    run, _ = claimed(bucket, tmp_path / "a")
    with run.wait_for_lock(1), run.open_log() as events:
        finish_run(run, events, manifest_of(run.record(), "cancelled"))

    replica(bucket, tmp_path / "a").pull()

    assert bucket.objects.tags("open/") == {}
    other = replica(bucket, tmp_path / "b")
    other.pull()
    assert (other.path / "manifest.json").read_bytes() == (run.path / "manifest.json").read_bytes()
    assert (other.path / "SHA256SUMS").read_bytes() == run.seal.read_bytes()


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


def test_folder_that_two_threads_of_a_machine_publish__is_stored_without_an_error(
    tmp_path: Path, bucket: Bucket
) -> None:
    run_ids = [f"char_lstm-{number}" for number in range(8)]
    for run_id in run_ids:
        RunStore(tmp_path).create(record(run_id))

    with ThreadPoolExecutor(4) as pool:
        for run_id in run_ids:
            both = [pool.submit(replica(bucket, tmp_path, run_id).publish) for _ in range(4)]
            assert [one.result() for one in both] == [None] * 4

    assert sorted(bucket.objects.tags("open/")) == [f"open/models/{run_id}" for run_id in run_ids]
