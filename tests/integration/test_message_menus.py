"""The menu of a message: its text is scored, its attachment trained on."""

import re
from pathlib import Path

import pytest

from bot.commands import message_menus
from local_discord import Upload
from local_discord.client import ClientRefusal
from local_discord.wire import text
from tests.support.bot import AMBER, TEXT, read
from tests.support.bot import place as training_place
from tests.support.inference_bot import answer, is_hidden, place, said
from trainer.artifacts.runs import RunStore

SCORE, TRAIN = "Score with last run", "Train on attachment"


async def test_score_with_last_run__answers_about_the_text_of_a_message(answers: Path) -> None:
    async with place(answers) as here, here.bot(workers=0):
        channel = here.discord.dm_channel(here.bob)
        verse = here.discord.say(here.bob, channel, "the sun was shining")
        picture = here.discord.say(here.bob, channel, "", Upload("sea.png", b"png"))
        scored = await answer(await here.discord.choose(here.bob, verse, SCORE))
        none = await answer(await here.discord.choose(here.bob, picture, SCORE))
        stranger = await answer(await here.discord.choose(here.eve, verse, SCORE))
        with pytest.raises(ClientRefusal, match="has no Dance"):
            await here.discord.choose(here.bob, verse, "Dance")
    assert "📏 Score of 19 characters" in said(scored) and is_hidden(scored)
    assert "This message has no text." in said(none) and is_hidden(none)
    assert "Forbidden" in said(stranger)


async def test_train_on_attachment__starts_a_run_with_what_its_form_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with training_place(tmp_path) as here:
        discord, channel = here.discord, here.discord.dm_channel(here.bob)
        files = (Upload("photo.png", b"png"), Upload("cats on_mats.txt", TEXT))
        message = discord.say(here.bob, channel, "Look!", *files)
        opened = await discord.choose(here.bob, message, TRAIN)
        form = await opened.form()
        accepted = await read(await discord.submit_modal(opened, {"model": " gpt2 ", "epochs": "2"}))
        named = await read(await discord.submit_modal(opened, {"name": "two"}))
        unnamed = await read(await discord.submit_modal(opened, {"name": ""}))
        wrong = [
            await read(await discord.submit_modal(opened, values))
            for values in ({"epochs": "many"}, {"epochs": "1001"}, {"model": "dance"})
        ]
        bare = await read(await discord.choose(here.bob, discord.say(here.bob, channel, "Look!", files[0]), TRAIN))
        monkeypatch.setattr(message_menus, "_MAX_OFFERED", 1)
        await (await discord.choose(here.bob, message, TRAIN)).form()
        late = await read(await discord.submit_modal(opened, {}))
        runs = [run.record() for run in RunStore(tmp_path / "artifacts").all()]
    assert text(form["title"]) == "Train on cats_on_mats.txt"
    assert all("⏳ Queued: " in one.text and one.is_ephemeral for one in (accepted, named, unnamed))
    found = {one.effective.label: (one.effective.model_family, one.effective.num_epochs) for one in runs}
    assert len(runs) == 3 and found["two"] == ("char_lstm", 5) and ("gpt2", 2) in found.values()
    for one, told in zip(wrong, ("`epochs` must be a whole", "`epochs` must be a whole", "`model`"), strict=True):
        assert one.colour == AMBER and told in one.text
    assert "This message has no text file." in bare.text
    assert re.search("This form has expired", late.text)
