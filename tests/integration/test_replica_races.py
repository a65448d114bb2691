"""Machines that change a folder in the object store at the same moment, and readers that compare it with theirs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.object_stores import (
    RUN,
    Bucket,
    accepted,
    bucket_fixture,
    machine,
    replica,
    server_fixture,
)
from trainer.artifacts.object_store import ObjectStore
from trainer.artifacts.replicas import Head, Replica, WriterChanged
from trainer.artifacts.replication import Replication, stored_check
from trainer.artifacts.runs import cancel_idle_run
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorCode

__all__ = ["bucket_fixture", "server_fixture"]


class ShortlyBefore(ObjectStore):
    """The store of a machine; another one acts right before each of its conditional writes."""

    def __init__(self, bucket: Bucket, act: Callable[[], None]) -> None:
        super().__init__(bucket.settings)
        self._act = act

    def put_new(self, key: str, data: bytes) -> str | None:
        self._act()
        return super().put_new(key, data)

    def replace(self, key: str, data: bytes, etag: str) -> str | None:
        self._act()
        return super().replace(key, data, etag)


class LostAnswers(ObjectStore):
    """The store of a machine that does not get the answers to its conditional writes, and has written all the same."""

    def replace(self, key: str, data: bytes, etag: str) -> str | None:
        super().replace(key, data, etag)
        return None


def stored_head(bucket: Bucket, key: str = f"open/models/{RUN}") -> Head:
    found = bucket.objects.get(key)
    assert found is not None
    return Head.model_validate_json(found.data)


def test_machine_that_always_comes_second__does_not_become_the_writer(tmp_path: Path, bucket: Bucket) -> None:
    accepted(tmp_path / "a")
    first = replica(bucket, tmp_path / "a")
    first.publish()
    second = Replica(ShortlyBefore(bucket, first.claim), tmp_path / "b", "models", RUN)
    with pytest.raises(WriterChanged):
        second.claim()
    assert not first.push()
    assert stored_head(bucket).counter > 2


def test_run_that_two_machines_publish__belongs_to_the_first(tmp_path: Path, bucket: Bucket) -> None:
    for name in ("a", "b"):
        accepted(tmp_path / name)
    first = replica(bucket, tmp_path / "a")
    second = Replica(ShortlyBefore(bucket, first.publish), tmp_path / "b", "models", RUN)
    with pytest.raises(AppError, match="Another machine has just stored the same") as refused:
        second.publish()
    assert refused.value.code is ErrorCode.SERVICE_UNAVAILABLE
    before = stored_head(bucket)
    first.publish()
    assert stored_head(bucket) == before


def test_write_whose_answer_was_lost__counts(tmp_path: Path, bucket: Bucket) -> None:
    run = accepted(tmp_path)
    replica(bucket, tmp_path).publish()
    writer = Replica(LostAnswers(bucket.settings), tmp_path, "models", RUN)
    writer.claim()
    (run.path / "new.txt").write_text("new", encoding="utf-8")
    assert writer.push()
    assert "new.txt" in {file.path for file in stored_head(bucket).files}
    assert not writer.push()


def test_copy__is_complete_only_if_the_store_has_every_file_as_it_is_here(tmp_path: Path, bucket: Bucket) -> None:
    settings: Settings = machine(tmp_path, bucket)
    run = accepted(settings.app.artifacts_root)
    is_stored = stored_check(settings)
    assert is_stored is not None
    one = replica(bucket, settings.app.artifacts_root)
    one.publish()
    assert not is_stored(run), "it has not ended"
    cancel_idle_run(run)
    one.push()
    assert is_stored(run)
    (run.path / "new.txt").write_text("new", encoding="utf-8")
    assert not is_stored(run), "the store does not know the file"
    (run.path / "new.txt").unlink()
    [manifest] = [file.key for file in stored_head(bucket, f"ended/models/{RUN}").files if file.path == "manifest.json"]
    bucket.objects.delete([manifest])
    assert not is_stored(run), "the store has lost the file"
    assert one.is_stored(verifies=False)


async def test_run_that_was_accepted_without_the_store__is_stored_later(tmp_path: Path, bucket: Bucket) -> None:
    settings: Settings = machine(tmp_path, bucket)
    accepted(settings.app.artifacts_root)
    replication = Replication(settings)
    await replication.refresh()
    assert bucket.objects.get(f"open/models/{RUN}") is None
    await replication.refresh(with_ended=True)
    assert stored_head(bucket).counter == 1


def test_id_that_cannot_be_a_folder__is_not_stored(tmp_path: Path, bucket: Bucket) -> None:
    with pytest.raises(AppError) as refused:
        Replica(bucket.objects, tmp_path, "models", "../models")
    assert refused.value.code is ErrorCode.NOT_FOUND
