"""`/mt queue`: who waits for what, and private runs of others without a name."""

import time
from pathlib import Path

import pytest

from bot.commands.queue import expected_starts
from bot.run_index import RunEntry
from tests.support.bot import place, read
from trainer.contracts.base import RunState, changed, now
from trainer.contracts.cost import Cost
from trainer.contracts.jobs import TrainJobPayload
from trainer.jobs.services import answering_server
from trainer.store.store import connect


@pytest.mark.parametrize("private_runs", [False, True])
async def test_queue__shows_the_order_of_turns(tmp_path: Path, private_runs: bool) -> None:
    async with place(tmp_path, private_runs=private_runs) as here:
        address = await answering_server(here.bot.settings)
        assert address is not None
        store = await connect(address)
        here.story(here.ana, "lstm-1").start().step(40, 1.0)
        for user, name in ((here.ana, "lstm-2"), (here.ana, "lstm-3"), (here.bob, "lstm-4"), (None, "lstm-5")):
            here.story(user, name)
            owner = "" if user is None else str(user.id)
            await store.enqueue("training", "train", name, TrainJobPayload(run_id=name), owner=owner)

        shown = (await here.ask(here.bob, "queue")).text

        names = [line for line in shown.splitlines() if line[:1].isdigit()]
        hidden = "a private run"
        ana = hidden if private_runs else f"**kk-ipa** · <@{here.ana.id}>"
        local = hidden if private_runs else "**kk-ipa** · command line"
        assert names == [
            f"1. 🏃 {ana}" + ("" if private_runs else " · 40 %"),
            f"2. ⏳ {ana}",
            f"3. ⏳ **kk-ipa** · <@{here.bob.id}>",
            f"4. ⏳ {local}",
            f"5. ⏳ {ana}",
        ]
        assert "1 run is training · 4 runs wait" in shown and "No worker is running" in shown
        await store.close()


async def test_refresh__shows_the_queue_of_now(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        call = await here.discord.slash(here.bob, "mt queue")
        message = await call.reply()
        assert "No run waits" in (await read(call)).text
        for number in range(23):
            here.story(here.ana, f"lstm-{number}")

        pressed = await here.discord.click(here.bob, message, "mt:queue:all")

        assert "… and 3 more runs" in (await read(pressed)).text


def entry(name: str, state: RunState = "queued", ends_at: float | None = None) -> RunEntry:
    return RunEntry(name, 1, now(), None, "lstm", "c", has_attached_text=False, state=state, ends_at=ends_at)


def test_expected_start__is_when_a_slot_is_free() -> None:
    running = [entry("a", "running", 130.0), entry("b", "running", 150.0)]
    waiting = [entry(name) for name in "cde"]

    starts = expected_starts([*running, *waiting], [None, None, 50.0, 10.0, 1.0], 1, 100.0)
    assert starts == [None, None, 130.0, 150.0, 160.0]
    assert expected_starts(waiting, [5.0, None, 5.0], 2, 100.0) == [100.0, 100.0, 105.0]
    assert expected_starts(waiting, [None, 5.0, 5.0], 1, 100.0) == [100.0, None, None]
    assert expected_starts([entry("a", "running"), *waiting], [None] * 4, 1, 100.0) == [None] * 4
    assert expected_starts([entry("a", "running", 90.0), waiting[0]], [None, 1.0], 1, 100.0) == [None, 100.0]


async def test_expected_start__is_shown_by_the_estimated_durations(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        cost = Cost(params=1, memory_bytes=1, disk_bytes=1, steps=1, seconds=600.0)
        for name in ("lstm-1", "lstm-2", "lstm-3"):
            story = here.story(here.ana, name)
            priced = changed(story.record, cost=cost, created_at=now())
            (story.run.path / "request.json").write_text(priced.model_dump_json(), encoding="utf-8")
        address = await answering_server(here.bot.settings)
        assert address is not None
        store = await connect(address)
        await store.renew_worker(seconds=60)
        await store.close()
        with (tmp_path / "artifacts" / "models" / "lstm-2" / "request.json").open("r+b") as damaged:
            await here.bot.index.refresh()
            damaged.truncate(10)
        before = time.time()

        shown = (await here.ask(here.bob, "queue")).text

        starts = [int(part.split(":")[0]) for part in shown.split("<t:")[1:]]
        assert [round((start - before) / 600) for start in starts] == [
            0,
            1,
        ]  # how long the second one takes is not known
