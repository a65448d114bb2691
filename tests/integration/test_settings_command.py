"""`/mt settings`: the form, what it stores, and what it changes."""

import stat
from math import log
from pathlib import Path

from bot.people.user_settings import UserSettings, UserSettingsStore
from local_discord import Upload
from local_discord.driver import shown_text
from local_discord.state import Call
from local_discord.wire import Json, mapping, rows, text
from tests.support.bot import TEXT, place
from tests.support.inference import finished_run
from tests.support.stopped_runs import stopped_run
from tests.support.waiting import captured_logs
from trainer.artifacts.runs import manifest_of
from trainer.config.settings import AppSettings
from trainer.contracts.base import changed


def lists(form: Json) -> dict[str, dict[str, bool]]:
    """The options of each list of a form, and whether they are selected."""
    found = [mapping(part["component"]) for part in rows(form["components"])]
    return {
        text(one["custom_id"]): {text(row["value"]): row.get("default") is True for row in rows(one["options"])}
        for one in found
    }


async def test_form__stores_the_selection_for_the_next_start(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.story(here.bob).start().complete()
        call = await here.discord.slash(here.bob, "mt settings")
        assert lists(await call.form()) == {
            "language": {"default": True, "en": False, "tr": False, "ru": False},
            "notify": {"dm": True, "here": False, "off": False},
            "default_run": {"default": True, "char_lstm-1": False},
            "unit": {"default": True, "bits": False, "nats": False},
        }
        saved = await here.submit(call, {"unit": "nats", "notify": "off", "language": "tr"})
        [unit] = [part for part in rows((await call.form())["components"]) if part.get("description") is not None]
        assert unit["description"] == "1 nat = 1.443 bits; one bit is the surprisal of a fair coin's toss."
        assert "Ayarlar kaydedildi" in saved.text and "Nat" in saved.text
        expected = UserSettings(language="tr", notify="off", unit="nats")
        assert here.bot.user_settings.of(here.bob.id) == expected
        assert here.bot.user_settings.of(here.ana.id) == UserSettings()
        user_id = here.bob.id
    [file] = (tmp_path / "artifacts" / "users").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (file.parent / "12.json").write_text("{", encoding="utf-8")
    with captured_logs() as logs:
        store = UserSettingsStore(file.parent)
    assert store.of(user_id) == expected and store.of(12) == UserSettings()
    assert [line["event"] for line in logs] == ["user_settings_unreadable"]


async def test_commands__have_texts_but_no_names_in_other_languages(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        admin = next(command for command in here.discord.commands if command["name"] == "mt-admin")
        workers = next(row for row in rows(admin["options"]) if row["name"] == "workers")
        action = next(row for row in rows(workers["options"]) if row["name"] == "action")
        pause = rows(action["choices"])[0]
        assert set(mapping(admin["description_localizations"])) == {"tr", "ru"}
        assert mapping(pause["name_localizations"]) == {"tr": "duraklat", "ru": "пауза"}
        assert not admin.get("name_localizations") and not workers.get("name_localizations")
        assert mapping(action["description_localizations"])["tr"] != action["description"]


async def test_chosen_run_and_unit__are_the_defaults_of_commands(tmp_path: Path) -> None:
    for name in ("lstm-1", "lstm-2"):
        finished_run(tmp_path, name)
    async with place(tmp_path) as here:

        async def form_of(command: str) -> tuple[Call, Json]:
            call = await here.discord.slash(here.bob, f"mt {command}")
            return call, await call.form()

        before = text((await form_of("score"))[1]["custom_id"])
        assert before.endswith(":summary-bits-5")
        other = "lstm-1" if "lstm-2" in before else "lstm-2"
        await here.bot.lab.index.refresh()
        call, _ = await form_of("settings")
        saved = await here.submit(call, {"default_run": other, "unit": "nats"})
        assert "Default run: **" in saved.text
        assert (await form_of("score"))[1]["custom_id"] == f"mt:score:{other}:summary-nats-5"
        call, again = await form_of("settings")
        chosen = {name: name == other for name in ("default", "lstm-1", "lstm-2")}
        assert lists(again)["default_run"] == chosen
        await here.bot.lab.queue.states.delete(other)
        await here.bot.lab.index.refresh()
        assert other not in text((await form_of("score"))[1]["custom_id"])
        assert "There is no run" in (await here.submit(call, {})).text


async def test_unit__of_the_settings_holds_for_cards_answers_and_suggestions(tmp_path: Path) -> None:
    app = AppSettings(data_root=tmp_path / "data", artifacts_root=tmp_path / "artifacts", unit="nats")
    async with place(tmp_path, groups={"app": app}) as here:
        story = here.story(here.bob).start().step(25, 2.0, 2.0).checkpoint(25)
        await here.ask(here.bob, "watch", {"run": story.record.run_id})
        card = await here.message(here.bob, "checkpoint at step 25")
        assert "(best validation 2.000 nats/token · 4.000 nats/char)" in shown_text(card.payload)
        said = "Losses and surprisals are in nats; `/mt settings` changes the unit."
        assert said in (await here.ask(here.bob, "help")).text
        call = await here.discord.slash(here.bob, "mt settings")
        saved = await here.submit(call, {"unit": "bits"})
        assert "Unit: **Bits**" in saved.text
        story.step(50, 1.0, 1.0).checkpoint(50)
        here.bot.notifier.follow(story.record.run_id)
        await here.discord.wait_for_edit(card, "best validation 1.443 bits/token")
        [file] = card.attachments
        assert f"training loss {1 / log(2):.3f} bits/token" in text(file["description"])
        story.complete()
        manifest = manifest_of(story.record, "completed")
        measured = changed(manifest.metrics, test=1.0, bits_per_char=1.5)
        story.run.write_manifest(changed(manifest, metrics=measured))
        for user, per_token, per_char in (
            (here.bob, f"{1 / log(2):.3f}** bits/token", "1.500 bits/char"),
            (here.ana, "1.000** nats/token", f"{1.5 * log(2):.3f} nats/char"),
        ):
            assert f"Test **{per_token} · {per_char}" in (await here.ask(user, "status", {"run": "char_lstm-1"})).text
            assert f"{per_token} · {per_char}".replace("**", "") in (await here.ask(user, "runs", {"mine": False})).text
            [offered] = await here.suggested(user, "status", "run", "char")
            assert per_char in offered.name


async def test_form__lists_at_most_as_many_runs_as_discord_allows(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for number in range(30):
            here.story(here.bob, f"lstm-{number}").start().complete()
        await here.bot.lab.index.refresh()
        form = lists(await (await here.discord.slash(here.bob, "mt settings")).form())
        assert len(form["default_run"]) == 25


async def test_notify__of_the_settings_holds_for_each_way_to_start_a_run(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        hall = here.discord.add_guild("home", [here.bob]).channels[0]
        await here.bot.user_settings.save(here.bob.id, UserSettings(notify="off"))
        old = await stopped_run(tmp_path, "failed", user_id=here.bob.id)
        text_message = here.discord.say(here.bob, hall, "Look!", Upload("cats.txt", TEXT))
        opened = await here.discord.choose(here.bob, text_message, "Train on attachment")
        attached = await here.submit(opened, {})
        resumed = await here.ask(here.bob, "resume", {"run": old.run_id})
        shown = await here.reply(here.bob, "status", {"run": old.run_id})
        for one in (attached, resumed, await here.click(here.bob, shown, f"mt:retry:{old.run_id}")):
            assert "⏳ Queued" in one.text and "`/mt status` shows the progress." in one.text
        assert here.bot.notifier.watched_by(here.bob.id) == []
        await here.ask(here.bob, "train", {"file": Upload("cats.txt", TEXT), "seed": 1})
        await here.ask(here.bob, "train", {"file": Upload("cats.txt", TEXT), "seed": 2, "notify": "dm"})
        [watched] = here.bot.notifier.watched_by(here.bob.id)
        assert here.bot.lab.queue.runs.get(watched).record().effective.seed == 2
        await here.bot.user_settings.save(here.bob.id, UserSettings(notify="here"))
        opened = await here.discord.choose(here.bob, text_message, "Train on attachment")
        loud = await here.submit(opened, {"epochs": "2"})
        assert "⏳ Queued" in loud.text and "A card in this channel shows the progress." in loud.text
        assert (await here.discord.wait_for_message(hall, "Queued")).visible_to is None
