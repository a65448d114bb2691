"""`/mt-admin` on a local Discord: workers, jobs, access, deletion and checks."""

from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from bot.messages.text import GREY
from local_discord import Upload
from local_discord.driver import shown_text
from local_discord.state import Call, Guild, User
from tests.support.bot import AMBER, RED, TEXT, Place, Read, buttons, place, read
from tests.support.cross_language import cell_run, experiment_record
from tests.support.job_kinds import KINDS
from tests.support.stories import Story, run_record
from tests.support.waiting import captured_logs, until
from trainer.artifacts.runs import finish_run, manifest_of
from trainer.contracts.base import changed, now
from trainer.contracts.experiments import CellKey
from trainer.contracts.jobs import FolderJobPayload, WorkerInfo
from trainer.contracts.operations import JOB_ROWS
from trainer.store import keys

FAR = now().timestamp() + 10**9  # when a worker that never dies was last seen


class Hall(NamedTuple):
    """A bot in a guild of ana, who is its owner, and bob."""

    place: Place
    guild: Guild

    async def call(self, command: str, options: Mapping[str, str | User] | None = None) -> Call:
        typed = f"mt-admin {command}"
        call = await self.place.discord.slash(self.place.ana, typed, dict(options or {}), guild=self.guild)
        await call.answered()
        return call

    async def ask(self, command: str, options: Mapping[str, str | User] | None = None) -> Read:
        return await read(await self.call(command, options))

    async def delete(self, run_id: str, typed: str) -> Read:
        return await self.place.submit(await self.call("delete", {"run": run_id}), {"name": typed})


def is_gone(path: Path) -> bool:
    return not path.exists()


def ended(story: Story) -> Story:
    with story.run.open_log() as events:
        finish_run(story.run, events, manifest_of(story.record, "cancelled"))
    return story


@pytest.fixture(name="hall")
async def hall_fixture(tmp_path: Path) -> AsyncIterator[Hall]:
    async with place(tmp_path) as here:
        yield Hall(here, here.discord.add_guild("lab", [here.ana, here.bob]))


async def test_access__is_given_and_taken_at_once_and_survives_a_restart(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        hall = Hall(here, here.discord.add_guild("lab", [here.ana, here.bob]))
        assert "Forbidden" in (await here.ask(here.eve, "runs")).text
        with captured_logs() as logs:
            assert "may use this bot" in (await hall.ask("access", {"member": here.eve, "level": "user"})).text
        [line] = [line for line in logs if line["event"] == "access_changed"]
        assert (line["admin_id"], line["user_id"], line["level"]) == (here.ana.id, here.eve.id, "user")
        assert "Your runs" in (await here.ask(here.eve, "runs")).text
        assert "no longer" in (await hall.ask("access", {"member": here.bob, "level": "none"})).text
        assert "Forbidden" in (await here.ask(here.bob, "runs")).text
        here.story(here.ana).start()
        assert await here.suggested(here.bob, "status", "run") == []
        refused = await hall.ask("access", {"member": here.ana, "level": "none"})
        assert "Admins are set by the settings only" in refused.text
        ids = here.eve.id, here.bob.id
    async with place(tmp_path) as here:
        assert [here.bot.backend.access.of(user_id) for user_id in ids] == ["user", "none"]


async def test_admin_commands__work_without_a_server_and_suggest_runs_to_admins_only(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        ended(here.story(here.bob))
        calls: list[tuple[str, dict[str, str | User]]] = [
            ("workers", {"action": "pause"}),
            ("access", {"member": here.eve, "level": "user"}),
            ("delete", {"run": "char_lstm-1"}),
            ("doctor", {}),
        ]
        for user in (here.bob, here.eve):
            assert await here.discord.autocomplete(user, "mt-admin delete", "run", "char") == []
        told = [await here.discord.slash(here.ana, f"mt-admin {command}", options) for command, options in calls]
        deleted = await here.submit(told.pop(2), {"name": "char_lstm-1"})
        answers = [await read(call) for call in told]
    assert "Deleted" in deleted.text and all(answer.is_ephemeral for answer in answers)
    assert [phrase in one.text for one, phrase in zip(answers, ("Paused", "may use", "Installation"), strict=True)] == [
        True
    ] * 3


async def test_job_of_any_kind__is_listed_shown_watched_cancelled_and_deleted(hall: Hall, tmp_path: Path) -> None:
    here = hall.place
    for kind, row in JOB_ROWS.items():
        job = KINDS[kind].create(tmp_path / "artifacts", 1)
        listed = await hall.call("jobs", {"kind": kind})
        assert f"⏳ `{job.job_id}`" in (await read(listed)).text
        shown = await here.discord.click(here.ana, await listed.reply(), f"mt:get_{row.word}:selected", [job.job_id])
        assert job.job_id in (await read(shown)).text
        card = await shown.reply()
        assert [*buttons(card)] == ["Refresh", "Cancel", "Watch"]
        watched = await here.click(here.ana, card, f"mt:jobwatch:{job.job_id}:{row.word}")
        assert "A card in your direct messages" in watched.text
        cancelled = await here.discord.click(here.ana, card, f"mt:cancel_{row.word}:{job.job_id}")
        assert (await read(cancelled)).colour == GREY and job.state() == "cancelled"
        final = await here.message(here.ana, f"{job.job_id} · result")
        assert "ancelled" in shown_text(final.payload)
        await until(lambda: not here.bot.notifier.watched_by(here.ana.id))
        ended = await cancelled.reply()
        assert "ZIP" not in buttons(ended)
        asked = await here.discord.click(here.ana, ended, buttons(ended)["Delete…"])
        assert f"Delete {job.job_id}?" in (await read(asked)).text and job.exists()
        await here.discord.click(here.ana, await asked.reply(), f"mt:delete_{row.word}:{job.job_id}:sure")
        await until(partial(is_gone, job.path))


async def test_taken_access__ends_messages_about_runs_of_others(hall: Hall) -> None:
    here = hall.place
    others, own = here.story(here.ana, "lstm-1").start(), here.story(here.bob, "lstm-2").start()
    for name in ("lstm-1", "lstm-2"):
        await here.ask(here.bob, "watch", {"run": name})
    assert here.bot.notifier.watched_by(here.bob.id) == ["lstm-1", "lstm-2"]
    await hall.ask("access", {"member": here.bob, "level": "none"})
    assert here.bot.notifier.watched_by(here.bob.id) == ["lstm-2"]
    assert here.bot.lab.permissions.can_receive(here.bob.id, own.record)
    assert not here.bot.lab.permissions.can_receive(here.bob.id, others.record)


async def test_deletion__needs_the_typed_name_and_removes_the_folder(hall: Hall) -> None:
    story = ended(hall.place.story(hall.place.bob, "lstm-1"))
    await hall.place.bot.lab.index.refresh()
    assert "does not match" in (await hall.delete("lstm-1", "another")).text
    assert story.run.path.is_dir()
    assert "deleted" in (await hall.delete("lstm-1", " kk-ipa ")).text
    assert hall.place.runs() == []
    assert [*hall.place.bot.lab.index.runs] == []
    assert "There is no run" in (await hall.ask("delete", {"run": "lstm-1"})).text


async def test_deletion__of_a_run_that_is_needed_is_refused(hall: Hall) -> None:
    here = hall.place
    here.story(here.bob, "lstm-1").start()
    ended(here.story(here.bob, "lstm-2"))
    here.story(here.bob, "lstm-3", effective=changed(run_record().effective, init_from_run_id="lstm-2"))
    ended(here.story(here.bob, "lstm-4"))
    experiment = here.bot.lab.queue.experiments.create(experiment_record())
    experiment.write_runs([cell_run(CellKey("lstm", "kk", 1), "lstm-4")])
    for name, said in (
        ("lstm-1", "has not ended"),
        ("lstm-2", "The run 'lstm-2' stays, because others need it: the run 'lstm-3'."),
        ("lstm-4", "The run 'lstm-4' stays, because others need it: the experiment 'small-01234567'."),
    ):
        assert said in (await hall.delete(name, name)).text
    assert [path.name for path in here.runs()] == ["lstm-1", "lstm-2", "lstm-3", "lstm-4"]


async def test_corpus__is_deleted_by_its_owner_or_an_admin_unless_a_run_needs_it(hall: Hall) -> None:
    here = hall.place
    stored = here.root / "artifacts" / "corpora"
    for name in ("verses", "prose"):
        await here.ask(here.bob, "corpus add", {"file": Upload("a.txt", TEXT), "name": name})
    await here.ask(here.ana, "corpus add", {"file": Upload("b.txt", TEXT[:-2]), "name": "hymns"})
    assert "is only for" in (await here.ask(here.bob, "corpus delete", {"corpus": "hymns"})).text
    assert "Deleted: hymns" in (await here.ask(here.ana, "corpus delete", {"corpus": "hymns"})).text
    assert "Deleted: verses" in (await here.ask(here.bob, "corpus delete", {"corpus": "verses"})).text
    assert sorted(path.name for path in stored.iterdir()) == ["prose.json", "prose.txt"]
    assert "verses" not in here.bot.lab.index.corpora
    await here.ask(here.bob, "train", {"corpus": "prose"})
    [run] = here.bot.lab.queue.runs.all()
    needed = f"The corpus 'prose' stays, because others need it: the run '{run.run_id}'."
    for owner_or_admin in (here.bob, here.ana):
        assert needed in (await here.ask(owner_or_admin, "corpus delete", {"corpus": "prose"})).text


async def test_workers__are_shown_with_their_runs_and_paused(hall: Hall) -> None:
    here = hall.place
    async with here.store() as store:
        empty = await hall.ask("workers")
        assert "No worker is running" in empty.text and empty.colour == AMBER
        here.story(here.bob, "lstm-1").start()
        worker = WorkerInfo(name="box:7", version="1.2", slots=2, seen_at=FAR, memory_bytes=3 << 30)
        for name, seconds in (("box:7", 60), ("old:1", 0.001)):
            await store.renew_worker(seconds=seconds, worker=changed(worker, name=name))
        async with store.transaction() as pipe:
            earlier = changed(worker, name="earlier:2", seen_at=1.0).model_dump_json()  # of a version before 0.2.0
            for name, published in (("broken", "{"), ("odd", "soon"), ("earlier:2", earlier)):
                pipe.hset(keys.WORKERS, name, published)
            pipe.set(keys.worker("odd"), worker.model_dump_json(), px=60_000)
        await store.put(keys.in_progress("lstm-1"), b"box:7", ttl_seconds=60)
        shown = (await hall.ask("workers")).text
        assert "1 worker" in shown and "box:7** · 1.2 · cpu · 3.0 GiB · 2 slots · ready" in shown
        assert "lstm-1" in shown
        assert [worker.name for worker in await store.workers()] == ["box:7"]
        recent = changed(worker, name="earlier:3", seen_at=now().timestamp())
        async with store.transaction() as pipe:
            pipe.hset(keys.WORKERS, recent.name, recent.model_dump_json())
        assert [worker.name for worker in await store.workers()] == ["box:7", "earlier:3"]
        await store.remove_worker("earlier:3")
        await store.release(["lstm-1"])
        assert "No run." in (await hall.ask("workers")).text
        assert "Paused" in (await hall.ask("workers", {"action": "pause"})).text
        assert "An admin has paused the queue" in (await here.ask(here.bob, "queue")).text
        await store.enqueue("training", "train", "job-1", FolderJobPayload(job_id="job-1"))
        assert await store.claim_jobs("training", 1, "me", lease_seconds=9) == []
        assert "Paused" not in (await hall.ask("workers", {"action": "resume"})).text
        assert len(await store.claim_jobs("training", 1, "me", lease_seconds=9)) == 1


async def test_workers__that_take_no_job_say_why_and_are_drained_by_name_or_host(hall: Hall) -> None:
    gpu: dict[str, object] = {"devices": ("cuda:0 NVIDIA H100",), "gpu_memory_bytes": (80 << 30,), "takes": "gpu"}
    wrong: dict[str, object] = {"state": "refuses", "refusals": ("artifacts_folder_mismatch", "version_mismatch")}
    async with hall.place.store() as store:
        for name, more in (("box:1", gpu), ("box:2", wrong | {"started_at": FAR}), ("lab:1", {})):
            fields: dict[str, object] = {"name": name, "version": "1.2", "slots": 1, "seen_at": FAR}
            await store.renew_worker(seconds=60, worker=WorkerInfo.model_validate(fields | more))
        shown = await hall.ask("workers")
        assert "cuda:0 NVIDIA H100 (runs for GPUs only) · 0.0 GiB, GPU 80 GiB" in shown.text
        assert "refuses · started" in shown.text and shown.colour == AMBER
        assert "its artifacts folder is not" in shown.text and "its version is not" in shown.text
        for user, typed, names in (
            (hall.place.ana, "", ["box", "box:1", "box:2", "lab", "lab:1"]),
            (hall.place.ana, "lab", ["lab", "lab:1"]),
            (hall.place.bob, "", []),
        ):
            offered = await hall.place.discord.autocomplete(user, "mt-admin workers", "worker", typed, guild=hall.guild)
            assert [choice.value for choice in offered] == names
        drained = (await hall.ask("workers", {"action": "drain", "worker": "box"})).text
        assert drained.count("· draining ·") == 2 and drained.count("· ready ·") == 1
        await store.enqueue("training", "train", "job-1", FolderJobPayload(job_id="job-1"))
        assert await store.claim_jobs("training", 1, "box:1", lease_seconds=9) == []
        assert "ready" in (await hall.ask("workers", {"action": "undrain", "worker": "box:1"})).text
        assert len(await store.claim_jobs("training", 1, "box:1", lease_seconds=9)) == 1
    unknown = await hall.ask("workers", {"action": "drain", "worker": "nobody"})
    assert "'nobody'; running: box:1, box:2, lab:1." in unknown.text
    for options in ({"action": "drain"}, {"worker": "box"}, {"action": "pause", "worker": "box"}):
        assert "Name a worker with `drain` and `undrain`" in (await hall.ask("workers", options)).text


async def test_owner__gets_one_message_about_a_worker_that_breaks_and_another_if_it_breaks_again(hall: Hall) -> None:
    reason = "3 of its processes in a row ended before their first step, the last one with exit code 1."
    broken: dict[str, object] = {"state": "refuses", "refusals": ("children_die_at_start",), "reason": reason}

    def messages() -> list[str]:
        server = hall.place.discord
        found = [shown_text(message.payload) for message in server.messages(server.dm_channel(hall.place.ana))]
        return [text for text in found if "Broken worker" in text]

    async with hall.place.store() as store:

        async def show(**more: object) -> None:
            fields: dict[str, object] = {"name": "box:1", "version": "1.2", "slots": 1, "seen_at": FAR}
            await store.renew_worker(seconds=60, worker=WorkerInfo.model_validate(fields | more))

        await show(**broken)
        await until(lambda: len(messages()) == 1)
        [text] = messages()
        assert "box:1" in text and reason in text and "`/mt-admin workers action:undrain`" in text
        shown = await hall.ask("workers")
        assert "refuses" in shown.text and reason in shown.text and shown.colour == AMBER
        assert (
            "⚠ Each worker that could take this job is broken." in (await hall.place.ask(hall.place.bob, "queue")).text
        )
        await show()
        assert await store.report_broken([]) == []
        await show(**broken)
        await until(lambda: len(messages()) == 2)


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
    assert (
        failed.colour == RED
        and "Discord does not have mt, mt-battery, mt-experiment, mt-reading, mt-study:" in failed.text
    )
