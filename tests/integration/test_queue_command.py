"""`/mt queue`: who waits for what, and private runs of others without a name."""

import time
from pathlib import Path

import pytest

from tests.support.bot import place, read
from trainer.contracts.base import changed, now
from trainer.contracts.cost import Cost
from trainer.contracts.jobs import TrainJobPayload
from trainer.services.embedded import answering_server
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


@pytest.mark.parametrize("is_paused", [False, True])
async def test_expected_start__is_the_same_in_the_queue_and_in_each_card(tmp_path: Path, is_paused: bool) -> None:
    async with place(tmp_path) as here:
        cost = Cost(params=1, memory_bytes=1, disk_bytes=1, steps=1, seconds=600.0)
        address = await answering_server(here.bot.settings)
        assert address is not None
        store = await connect(address)
        await store.renew_worker(seconds=60)
        for user, name in ((here.ana, "lstm-1"), (here.ana, "lstm-2"), (here.bob, "lstm-3"), (here.ana, "lstm-4")):
            story = here.story(user, name)
            priced = changed(story.record, cost=None if name == "lstm-2" else cost, created_at=now())
            (story.run.path / "request.json").write_text(priced.model_dump_json(), encoding="utf-8")
            await store.enqueue("training", "train", name, TrainJobPayload(run_id=name), owner=str(user.id))
        await store.close()
        await here.bot.queue.pause(is_paused=is_paused)
        awaited = await here.bot.queue.what_it_awaits(await here.bot.queue.status("lstm-2"))
        assert awaited.startswith("The queue is paused" if is_paused else "Waiting for a worker")
        minute, last, shown = 0.0, 1.0, ""
        cards: list[float | None] = []
        while minute != last:  # starts are in full minutes: all of them within one
            minute = time.time() // 60
            shown = (await here.ask(here.bob, "queue")).text
            statuses = [await here.bot.queue.status(name) for name in ("lstm-1", "lstm-3", "lstm-2", "lstm-4")]
            cards = [(await here.bot.queue.steady_status(status)).starts_ts for status in statuses]
            last = time.time() // 60

        starts = [int(part.split(":")[0]) for part in shown.split("<t:")[1:]]
        assert starts == [start for start in cards if start is not None]
        # bob's run takes its turn before the second one of ana, after which no start is known
        assert [start / 60 - minute for start in starts] == ([] if is_paused else [1, 11, 21])
