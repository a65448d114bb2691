"""The menu of a message: its text is scored, its attachment trained on."""

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
        for user, message, told in (
            (here.bob, verse, "📏 Score of 19 characters"),
            (here.bob, picture, "This message has no text."),
            (here.eve, verse, "Forbidden"),
        ):
            found = await answer(await here.discord.choose(user, message, SCORE))
            assert told in said(found) and is_hidden(found)
        with pytest.raises(ClientRefusal, match="has no Dance"):
            await here.discord.choose(here.bob, verse, "Dance")


async def test_train_on_attachment__starts_a_run_with_the_values_of_its_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with training_place(tmp_path) as here:
        discord, channel = here.discord, here.discord.dm_channel(here.bob)
        photo, cats = Upload("photo.png", b"png"), Upload("cats on_mats.txt", TEXT)
        message = discord.say(here.bob, channel, "Look!", photo, cats)
        opened = await discord.choose(here.bob, message, TRAIN)
        assert text((await opened.form())["title"]) == "Train on cats_on_mats.txt"
        for values in ({"model": " gpt2 ", "epochs": "2"}, {"name": "two"}, {"name": ""}):
            accepted = await here.submit(opened, values)
            assert "⏳ Queued: " in accepted.text and accepted.is_ephemeral
        for name, value, told in (
            ("epochs", "many", "`epochs` must be a whole"),
            ("epochs", "1001", "`epochs` must be a whole"),
            ("model", "dance", "`model`"),
        ):
            wrong = await here.submit(opened, {name: value})
            assert wrong.colour == AMBER and told in wrong.text
        bare = await read(await discord.choose(here.bob, discord.say(here.bob, channel, "Look!", photo), TRAIN))
        assert "This message has no text file." in bare.text
        monkeypatch.setattr(message_menus, "_MAX_OFFERED", 1)
        await (await discord.choose(here.bob, message, TRAIN)).form()
        assert "This form has expired" in (await here.submit(opened, {})).text
        runs = [run.record().effective for run in RunStore(tmp_path / "artifacts").all()]
    found = {one.label: (one.model_family, one.num_epochs) for one in runs}
    assert len(runs) == 3 and found["two"] == ("char_lstm", 94) and ("gpt2", 2) in found.values()
