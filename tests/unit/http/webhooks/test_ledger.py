"""The ledger `webhooks.json`: what each address has received, durable before the next event is sent."""

import asyncio
import errno
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.crash_states import RecordingDisk, lay_out
from tests.support.disk_failures import FailingDisk
from tests.support.stories import Story, run_record
from tests.support.unsynced_disk import UnsyncedDisk
from tests.support.waiting import captured_logs
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.contracts.base import now
from trainer.contracts.errors import AppError
from trainer.http.webhooks.ledger import Progress, WebhookLedger, WebhookRecord, first_seen, read_webhooks


def run_in(folder: Path) -> RunDirectory:
    return Story(folder, run_record()).run


async def test_progress__is_kept_for_each_address_also_with_concurrent_changes(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    ledger = WebhookLedger(run)
    await asyncio.gather(*(ledger.update(f"address-{number}", seq=number) for number in range(20)))
    await ledger.update("address-3", seq=4, has_ended=True)
    record = read_webhooks(run)
    assert record == ledger.current
    assert [record.of(f"address-{number}").seq for number in range(6)] == [0, 1, 2, 4, 4, 5]
    assert record.of("address-3").has_ended
    assert record.of("new") == Progress(address="new")


def test_ledger__is_the_last_one_written_or_the_one_before_after_any_crash(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    disk = RecordingDisk(root)
    run = RunStore(root, disk).create(run_record())
    disk.acknowledge()

    async def confirm() -> None:
        ledger = WebhookLedger(run)
        for seq in (1, 2, 3):
            await ledger.update("a", seq=seq)
            disk.acknowledge()

    asyncio.run(confirm())
    for tree, acknowledged in disk.states():
        if acknowledged:
            lay_out(tree, tmp_path / "state")
            state = RunDirectory(tmp_path / "state" / "models" / run.run_id, UnsyncedDisk())
            assert read_webhooks(state).of("a").seq in (acknowledged - 1, acknowledged)
            WebhookLedger(state)
            assert not list(state.path.glob(".webhooks.json.*"))


async def test_change_that_could_not_be_written__is_written_by_the_next_save(tmp_path: Path) -> None:
    run_in(tmp_path)
    [stored] = RunStore(tmp_path).all()
    ledger = WebhookLedger(RunDirectory(stored.path, FailingDisk(1, errno.ENOSPC)))
    with pytest.raises(AppError, match="The disk is full"):
        await ledger.update("a", seq=5)
    assert read_webhooks(stored) == WebhookRecord()
    await ledger.save()
    assert read_webhooks(stored).of("a").seq == 5


def test_temporary_file_of_the_bot__is_left_to_the_bot(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    leftover = run.path / ".webhooks.json.0.tmp"
    leftover.touch()
    run.open_log().__exit__()
    assert leftover.exists()
    WebhookLedger(run)
    assert not leftover.exists()


def test_address__has_the_time_of_its_first_start_until_it_is_taken_out(tmp_path: Path) -> None:
    file, before = tmp_path / "webhooks.json", now()
    first = first_seen(file, ["a"])
    second = first_seen(file, ["a", "b"])
    assert before <= first["a"] == second["a"] <= second["b"] <= now()
    assert first_seen(file, []) == {}
    assert first_seen(file, ["a"])["a"] > second["b"]


def test_times_that_cannot_be_read__start_anew(tmp_path: Path) -> None:
    file = tmp_path / "webhooks.json"
    file.write_bytes(b"{")
    with captured_logs() as lines:
        since = first_seen(file, ["a"])
    assert [line["event"] for line in lines] == ["webhook_addresses_unreadable"]
    assert now() - since["a"] < timedelta(minutes=5)
    assert first_seen(file, ["a"]) == since
