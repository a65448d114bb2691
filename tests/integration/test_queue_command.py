"""`/mt queue`: who waits for what, and private runs of others without a name."""

from pathlib import Path

import pytest

from local_discord.driver import shown_text
from tests.support.bot import place
from trainer.contracts.jobs import FolderJobPayload


@pytest.mark.parametrize("private_runs", [False, True])
async def test_queue__shows_the_order_of_turns(tmp_path: Path, private_runs: bool) -> None:
    async with place(tmp_path, private_runs=private_runs) as here, here.store() as store:
        here.story(here.ana, "lstm-1").start().step(40, 1.0)
        for user, name in ((here.ana, "lstm-2"), (here.ana, "lstm-3"), (here.bob, "lstm-4"), (None, "lstm-5")):
            here.story(user, name)
            owner = "" if user is None else str(user.id)
            await store.enqueue("training", "train", name, FolderJobPayload(job_id=name), owner=owner)
        shown = (await here.ask(here.bob, "queue")).text
        ana = "a private run" if private_runs else f"**kk-ipa** · <@{here.ana.id}>"
        assert [line for line in shown.splitlines() if line[:1].isdigit()] == [
            f"1. 🏃 {ana}" + ("" if private_runs else " · 40 %"),
            f"2. ⏳ {ana}",
            f"3. ⏳ **kk-ipa** · <@{here.bob.id}>",
            f"4. ⏳ {'a private run' if private_runs else '**kk-ipa** · command line'}",
            f"5. ⏳ {ana}",
        ]
        assert "1 run is training · 4 runs wait" in shown and "No worker is running" in shown


async def test_refresh__shows_the_queue_of_now(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        message = await here.reply(here.bob, "queue")
        assert "No run waits" in shown_text(message.payload)
        for number in range(23):
            here.story(here.ana, f"lstm-{number}")
        assert "… and 3 more runs" in (await here.click(here.bob, message, "mt:queue:all")).text
