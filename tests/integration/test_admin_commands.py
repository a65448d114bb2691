"""`/mt-admin` on a local Discord: workers, access, deletion and checks."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from local_discord import Choice
from local_discord.state import Call, Guild, User
from tests.support.bot import AMBER, RED, Place, Read, place, read
from tests.support.cross_language import cell_run, experiment_record
from tests.support.stories import Story
from tests.support.waiting import captured_logs, until
from trainer.artifacts.runs import finish_run, manifest_of
from trainer.contracts.base import changed, now
from trainer.contracts.experiments import CellKey
from trainer.contracts.jobs import FolderJobPayload, WorkerInfo
from trainer.contracts.runs import FinalState
from trainer.services.embedded import answering_server
from trainer.store import keys
from trainer.store.store import Store, connect


class Hall(NamedTuple):
    """A bot in a guild of ana, who is its owner, and bob."""

    place: Place
    guild: Guild

    async def call(self, user: User, command: str, options: Mapping[str, str | User] | None = None) -> Call:
        call = await self.place.discord.slash(user, f"mt-admin {command}", dict(options or {}), guild=self.guild)
        await call.answered()
        return call

    async def ask(self, command: str, options: Mapping[str, str | User] | None = None) -> Read:
        return await read(await self.call(self.place.ana, command, options))

    async def delete(self, run_id: str, typed: str) -> Read:
        opened = await self.call(self.place.ana, "delete", {"run": run_id})
        return await read(await self.place.discord.submit_modal(opened, {"name": typed}))


@pytest.fixture(name="hall")
async def hall_fixture(tmp_path: Path) -> AsyncIterator[Hall]:
    async with place(tmp_path) as here:
        yield Hall(here, here.discord.add_guild("lab", [here.ana, here.bob]))


async def store_of(here: Place) -> Store:
    address = await answering_server(here.bot.settings)
    assert address is not None
    return await connect(address)


def ended_story(here: Place, name: str, end: FinalState = "cancelled") -> Story:
    story = here.story(here.bob, name)
    with story.run.open_log() as events:
        finish_run(story.run, events, manifest_of(story.record, end))
    return story


async def test_access__is_given_and_taken_at_once_and_survives_a_restart(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        hall = Hall(here, here.discord.add_guild("lab", [here.ana, here.bob]))
        assert "Forbidden" in (await here.ask(here.eve, "runs")).text
        with captured_logs() as logs:
            assert "may use this bot" in (await hall.ask("access", {"member": here.eve, "level": "user"})).text
        assert [
            (line["admin_id"], line["user_id"], line["level"]) for line in logs if line["event"] == "access_changed"
        ] == [(here.ana.id, here.eve.id, "user")]
        assert "Your runs" in (await here.ask(here.eve, "runs")).text
        assert "no longer" in (await hall.ask("access", {"member": here.bob, "level": "none"})).text
        assert "Forbidden" in (await here.ask(here.bob, "runs")).text
        here.story(here.ana).start()
        assert await here.suggested(here.bob, "status", "run") == []
        refused = await hall.ask("access", {"member": here.ana, "level": "none"})
        assert "Admins are set by the settings only" in refused.text
        ids = here.eve.id, here.bob.id
    async with place(tmp_path) as here:
        assert [here.bot.access.of(user_id) for user_id in ids] == ["user", "none"]


async def test_taken_access__ends_messages_about_runs_of_others(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        hall = Hall(here, here.discord.add_guild("lab", [here.ana, here.bob]))
        others, own = here.story(here.ana, "lstm-1").start(), here.story(here.bob, "lstm-2").start()
        for story in (others, own):
            await here.ask(here.bob, "watch", {"run": story.record.run_id})
        assert here.bot.notifier.watched_by(here.bob.id) == ["lstm-1", "lstm-2"]
        await hall.ask("access", {"member": here.bob, "level": "none"})
        assert here.bot.notifier.watched_by(here.bob.id) == ["lstm-2"]
        assert here.bot.permissions.can_receive(here.bob.id, own.record)
        assert not here.bot.permissions.can_receive(here.bob.id, others.record)


async def test_deletion__needs_the_typed_name_and_removes_the_folder(hall: Hall) -> None:
    story = ended_story(hall.place, "lstm-1")
    await hall.place.bot.index.refresh()
    assert "does not match" in (await hall.delete("lstm-1", "another")).text
    assert story.run.path.is_dir()
    assert "deleted" in (await hall.delete("lstm-1", " kk-ipa ")).text
    assert not story.run.path.exists()
    assert hall.place.runs() == []
    assert [run.run_id for run in hall.place.bot.index.runs] == []
    gone = await read(await hall.call(hall.place.ana, "delete", {"run": "lstm-1"}))
    assert "There is no run" in gone.text


async def test_deletion__of_a_run_that_is_needed_is_refused(hall: Hall) -> None:
    here = hall.place
    here.story(here.bob, "lstm-1").start()
    assert "has not ended" in (await hall.delete("lstm-1", "lstm-1")).text
    ended_story(here, "lstm-2")
    effective = changed(here.story(here.bob, "lstm-3").record.effective, init_from_run_id="lstm-2")
    child = here.story(here.bob, "lstm-4")
    request = child.run.path / "request.json"
    request.write_text(changed(child.record, effective=effective).model_dump_json(), encoding="utf-8")
    assert "The run 'lstm-4' starts from 'lstm-2'" in (await hall.delete("lstm-2", "lstm-2")).text
    ended_story(here, "lstm-5")
    experiment = here.bot.queue.experiments.stored.create(experiment_record())
    experiment.write_runs([cell_run(CellKey("lstm", "kk", 1), "lstm-5")])
    assert "needs the run 'lstm-5'" in (await hall.delete("lstm-5", "lstm-5")).text
    assert [path.name for path in here.runs()] == ["lstm-1", "lstm-2", "lstm-3", "lstm-4", "lstm-5"]


async def test_workers__are_shown_with_their_runs_and_paused(hall: Hall) -> None:
    here = hall.place
    store = await store_of(here)
    try:
        empty = await hall.ask("workers")
        assert "No worker is running" in empty.text and empty.colour == AMBER
        seen_at = here.story(here.bob, "lstm-1").start().record.created_at.timestamp() + 10**9
        for name, at in (("box:7", seen_at), ("old:1", 1.0)):
            worker = WorkerInfo(name=name, version="1.2", slots=2, seen_at=at, memory_bytes=3 << 30)
            await store.renew_worker(seconds=60, worker=worker)
        async with store.transaction() as pipe:
            pipe.hset(keys.WORKERS, "broken", "{")
        await store.put(keys.in_progress("lstm-1"), b"box:7", ttl_seconds=60)
        shown = (await hall.ask("workers")).text
        assert (
            "1 worker" in shown
            and "box:7** · 1.2 · cpu · 3.0 GiB · 2 slots · ready" in shown
            and "cpu" in shown
            and "lstm-1" in shown
        )
        assert [worker.name for worker in await store.workers(seconds=0)] == ["box:7"]
        await store.release(["lstm-1"])
        assert "No run." in (await hall.ask("workers")).text
        assert "Paused" in (await hall.ask("workers", {"action": "pause"})).text
        assert "An admin has paused the queue" in (await here.ask(here.bob, "queue")).text
        await store.enqueue("training", "train", "job-1", FolderJobPayload(job_id="job-1"))
        assert await store.claim_jobs("training", 1, "me", lease_seconds=9) == []
        assert "Paused" not in (await hall.ask("workers", {"action": "resume"})).text
        assert len(await store.claim_jobs("training", 1, "me", lease_seconds=9)) == 1
    finally:
        await store.close()


async def test_workers__that_take_no_job_say_why_and_are_drained_by_name_or_host(hall: Hall) -> None:
    here = hall.place
    store = await store_of(here)
    seen_at = now().timestamp() + 10**9
    gpu: dict[str, object] = {"devices": ("cuda:0 NVIDIA H100",), "gpu_memory_bytes": (80 << 30,), "takes": "gpu"}
    wrong: dict[str, object] = {
        "state": "refuses",
        "refusals": ("artifacts_folder_mismatch", "version_mismatch"),
        "started_at": seen_at,
    }
    for name, more in (("box:1", gpu), ("box:2", wrong), ("lab:1", {})):
        fields: dict[str, object] = {"name": name, "version": "1.2", "slots": 1, "seen_at": seen_at}
        await store.renew_worker(seconds=60, worker=WorkerInfo.model_validate(fields | more))
    shown = await hall.ask("workers")
    assert "cuda:0 NVIDIA H100 (runs for GPUs only) · 0.0 GiB, GPU 80 GiB" in shown.text
    assert "refuses · started" in shown.text and shown.colour == AMBER
    assert "its artifacts folder is not" in shown.text and "its version is not" in shown.text
    names = ["box", "box:1", "box:2", "lab", "lab:1"]
    assert [choice.value for choice in await suggested(hall, here.ana, "")] == names
    assert [choice.value for choice in await suggested(hall, here.ana, "lab")] == ["lab", "lab:1"]
    assert await suggested(hall, here.bob, "") == []
    drained = (await hall.ask("workers", {"action": "drain", "worker": "box"})).text
    assert drained.count("· draining ·") == 2 and drained.count("· ready ·") == 1
    await store.enqueue("training", "train", "job-1", FolderJobPayload(job_id="job-1"))
    assert await store.claim_jobs("training", 1, "box:1", lease_seconds=9) == []
    assert "ready" in (await hall.ask("workers", {"action": "undrain", "worker": "box:1"})).text
    assert len(await store.claim_jobs("training", 1, "box:1", lease_seconds=9)) == 1
    assert (
        "'nobody'; running: box:1, box:2, lab:1."
        in (await hall.ask("workers", {"action": "drain", "worker": "nobody"})).text
    )
    for options in ({"action": "drain"}, {"worker": "box"}, {"action": "pause", "worker": "box"}):
        assert "Name a worker with `drain` and `undrain`" in (await hall.ask("workers", options)).text
    await store.close()


async def suggested(hall: Hall, user: User, typed: str) -> list[Choice]:
    here = hall.place
    return await here.discord.autocomplete(user, "mt-admin workers", "worker", typed, guild=hall.guild)


async def test_doctor__shows_every_check_without_a_path(hall: Hall) -> None:
    await until(lambda: hall.place.bot.owner_dm == "open")
    shown = await hall.ask("doctor")
    for name in ("data", "artifacts", "redis", "worker", "gpu", "direct messages", "commands"):
        assert f"**{name}**" in shown.text
    assert str(hall.place.root) not in shown.text
    assert "Discord has all" in shown.text
    commands = hall.place.discord.commands
    commands[:] = [command for command in commands if command["name"] == "mt-admin"]
    failed = await hall.ask("doctor")
    assert failed.colour == RED and "Discord does not have mt:" in failed.text
