"""Buttons of a run, with the real bot: files, settings, another try, a comparison, a channel and a page."""

import shutil
from hashlib import sha256
from pathlib import Path

from local_discord.driver import shown_text
from local_discord.state import Call, StoredMessage, User
from local_discord.wire import mapping, rows
from tests.support import ROOT, add_corpus
from tests.support.bot import AMBER, TEXT, Place, buttons, place, read
from tests.support.stories import Story, run_record
from trainer.artifacts.runs import RunDirectory, manifest_of
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.runs import CorpusRef

FINISHED = ROOT / "tests" / "fixtures" / "finished_run" / "artifacts" / "models"
DONE, OTHER = "char_lstm-20261122-74f34df5", "char_lstm-other"


def completed(here: Place, name: str = DONE) -> RunDirectory:
    """A completed run with all its files."""
    run = RunDirectory(here.root / "artifacts" / "models" / name)
    shutil.copytree(FINISHED / DONE, run.path)
    record = changed(run.record(), run_id=name, user_id=here.bob.id)
    (run.path / "request.json").write_text(record.model_dump_json(), encoding="utf-8")
    run.write_manifest(changed(run.completed_manifest(), run_id=name))
    return run


async def status_of(here: Place, user: User, run: str) -> StoredMessage:
    return await here.reply(user, "status", {"run": run})


def answered(call: Call) -> StoredMessage:
    message = call.original
    assert message is not None
    return message


async def test_files__are_listed_with_hashes_and_taken_through_a_list(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        run = completed(here)
        status = await status_of(here, here.bob, DONE)
        listed = await here.discord.click(here.bob, status, f"mt:files:{DONE}")
        shown = await read(listed)
        taken = await here.discord.click(here.bob, answered(listed), f"mt:file:{DONE}", ["config.json"])
        told = await read(taken)
        sent = here.discord.read(answered(taken).attachments[0])
        found = sha256(sent).hexdigest()
        assert sent == (FINISHED / DONE / "config.json").read_bytes()
        assert f"`config.json` 341 bytes · sha256 `{found[:12]}…`" in shown.text and shown.is_ephemeral
        assert found in told.text
        (run.path / "config.json").unlink()
        lost = await here.click(here.bob, answered(listed), f"mt:file:{DONE}", ["config.json"])
        assert "`config.json` is missing or damaged" in lost.text and lost.colour == AMBER
        manifest = run.completed_manifest()
        run.write_manifest(changed(manifest, files=tuple(one for one in manifest.files if one.path != "config.json")))
        gone = await here.click(here.bob, answered(listed), f"mt:file:{DONE}", ["config.json"])
        assert "no such file" in gone.text
        run.write_manifest(changed(manifest, files=()))
        none = await here.click(here.bob, status, f"mt:files:{DONE}")
        assert "1 file of" in none.text and "`manifest.json`" in none.text


async def test_files__of_somebody_elses_run_are_those_of_its_model(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        run, home = completed(here, OTHER), here.discord.add_guild("home", [here.ana, here.bob])
        status = await status_of(here, here.bob, OTHER)
        pressed = await here.discord.click(here.bob, status, f"mt:files:{OTHER}")
        assert "eval/samples.jsonl" in (await read(pressed)).text
        record, corpus = run.record(), CorpusRef(name="demo", sha256="0" * 64, bytes=9)
        of_ana = changed(record, user_id=here.ana.id, effective=changed(record.effective, corpus=corpus))
        (run.path / "request.json").write_text(of_ana.model_dump_json(), encoding="utf-8")
        await here.reply(here.ana, "watch", {"run": OTHER, "where": "here"}, home)
        final = await here.discord.wait_for_message(home.channels[0], "Generated text")
        everything = (await here.click(here.ana, final, f"mt:files:{OTHER}")).text
        listed = await here.discord.click(here.bob, final, f"mt:files:{OTHER}")
        shared = (await read(listed)).text
        assert "`manifest.json`" in everything and "`eval/samples.jsonl`" in everything
        assert "`config.json`" in shared and "`manifest.json`" not in shared and "eval/" not in shared
        for name in ("eval/samples.jsonl", "manifest.json"):
            assert "no such file" in (await here.click(here.bob, answered(pressed), f"mt:file:{OTHER}", [name])).text
        sent = await here.click(here.bob, answered(listed), f"mt:file:{OTHER}", ["config.json"])
        assert "config.json" in sent.text and sent.colour != AMBER


async def test_settings__are_shown_and_attached_and_train_again_when_edited(tmp_path: Path) -> None:
    add_corpus(tmp_path, TEXT.decode(), "cats")
    async with place(tmp_path) as here:
        await here.ask(here.bob, "train", {"corpus": "cats", "epochs": 2, "size": "tiny"})
        (path,) = here.runs()
        status = await status_of(here, here.bob, path.name)
        shown = await here.discord.click(here.bob, status, f"mt:config:{path.name}")
        text_shown = (await read(shown)).text
        attached = here.discord.read(answered(shown).attachments[0]).decode()
        assert "num_epochs: 2" in text_shown and "corpus: cats" in attached and "```" in text_shown
        opened = await here.discord.click(here.bob, status, f"mt:change:{path.name}")
        assert '\nlabel: "cats-char_lstm"\n' in attached and "label:" not in str(opened.callback_data)
        again = await here.submit(opened, {"config": attached.replace("num_epochs: 2", "num_epochs: 3")})
        assert "3 passes over the text" in again.text and "Queued" in again.text
        wrong = await here.discord.click(here.bob, status, f"mt:change:{path.name}")
        refused = await here.submit(wrong, {"config": "num_epochs: many"})
        assert refused.colour == AMBER and "num_epochs" in refused.text
        assert len(here.runs()) == 2


async def test_settings__too_long_for_a_form_are_attached_only(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        effective = changed(run_record().effective, checkpoint_schedule=tuple(range(2000)))
        here.story(here.bob, "lstm-1", effective=effective)
        status = await status_of(here, here.bob, "lstm-1")
        assert "too long for a form" in (await here.click(here.bob, status, "mt:change:lstm-1")).text
        shown = await here.discord.click(here.bob, status, "mt:config:lstm-1")
        assert "```" not in (await read(shown)).text
        assert b"checkpoint_schedule" in here.discord.read(answered(shown).attachments[0])


async def test_name_note_and_tags__stand_in_a_form_and_are_shown_with_the_status(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        run = here.story(here.bob).start().step(5, 2.0).run
        for given, shown, stored in (
            ({"note": "diverged\nat *once*", "tags": "pilot\n\n large, slow "}, "🏷 pilot, large, slow\n📝 diver", ()),
            ({"note": "diverged at once", "tags": "pilot"}, "🏷 pilot", ("diverged at *once*", "pilot\nlarge, slow")),
            ({"note": "", "tags": ""}, "", ("diverged at once", "pilot")),
            ({"note": "kept", "tags": "x" * 65}, "64", ()),
        ):
            call = await here.discord.slash(here.bob, "mt annotate", {"run": run.run_id})
            fields = [mapping(part["component"]) for part in rows((await call.form())["components"])]
            name, *others = (field["value"] for field in fields if field.get("value"))
            assert name == "kk-ipa" and tuple(others) == stored
            answer = await here.submit(call, given)
            assert shown in answer.text and ("🏷" in answer.text) == ("🏷" in shown)
        assert (run.annotations().note, run.annotations().tags) == ("", ())
        call = await here.discord.slash(here.bob, "mt annotate", {"run": run.run_id})
        answer = await here.submit(call, {"label": "renamed", "note": "", "tags": ""})
        assert "renamed" in answer.text and run.record().effective.label == "renamed"


async def test_retry__after_a_lack_of_memory_has_half_the_batch(tmp_path: Path) -> None:
    add_corpus(tmp_path, TEXT.decode(), "cats")
    async with place(tmp_path) as here:
        await here.ask(here.bob, "train", {"corpus": "cats", "epochs": 2, "size": "tiny", "batch_size": 64})
        (path,) = here.runs()
        assert "Retry" not in buttons(await status_of(here, here.bob, path.name))
        assert (await here.bot.lab.queue.states.status(path.name)).status == "queued"
        record = changed(RunDirectory(path).record(), run_id="lstm-failed")
        error = RunError.of(AppError(ErrorCode.OUT_OF_MEMORY, "It did not fit."))
        story = Story(here.root / "artifacts", record).start().fail()
        story.run.write_manifest(manifest_of(record, "failed", error=error))
        message = await status_of(here, here.bob, "lstm-failed")
        assert "Retry with batch 32" in buttons(message)
        assert "Queued" in (await here.click(here.bob, message, "mt:retry:lstm-failed")).text
        await here.bot.lab.queue.states.cancel(path.name)
        cancelled = await status_of(here, here.bob, path.name)
        assert "Queued" in (await here.click(here.bob, cancelled, buttons(cancelled)["Retry"])).text
        accepted = [RunDirectory(one).record().effective for one in here.runs()]
        batches = sorted((str(one.batch_size), one.gradient_accumulation) for one in accepted)
        assert batches == [("32", 2), ("64", 1), ("64", 1), ("64", 1)]
        labels = sorted(one.label or "" for one in accepted)
        numbers = [label.removeprefix("cats-char_lstm") for label in labels]
        assert numbers == ["", "", "-2", "-3"]  # the first twice by this test


async def test_retry__of_a_run_that_has_not_ended_is_refused(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        story = here.story(here.bob).start().fail()
        message = await status_of(here, here.bob, "char_lstm-1")
        shutil.rmtree(story.run.path)
        here.story(here.bob)
        told = await here.click(here.bob, message, "mt:retry:char_lstm-1")
        assert told.colour == AMBER and "Only a failed or cancelled run" in told.text


async def test_compare__is_chosen_from_a_list_of_completed_runs(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        completed(here)
        status = await status_of(here, here.ana, DONE)
        alone = await here.click(here.ana, status, f"mt:compare:{DONE}")
        assert "no other completed run" in alone.text
        completed(here, OTHER)
        asked = await here.discord.click(here.ana, status, f"mt:compare:{DONE}")
        assert "Select the baseline" in (await read(asked)).text
        compared = await here.click(here.ana, answered(asked), f"mt:compareto:{DONE}", [OTHER])
        assert f"{DONE} · {OTHER}" in compared.text


async def test_watch_here__is_the_channel_of_the_button(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        home = here.discord.add_guild("home", [here.bob])
        story = here.story(here.ana)
        status = await here.reply(here.bob, "status", {"run": "char_lstm-1"}, home)
        watching = await here.click(here.bob, status, "mt:watch:char_lstm-1:here")
        assert f"to <#{home.channels[0].id}>" in watching.text
        card = await here.discord.wait_for_message(home.channels[0], "Queued")
        assert card.channel == home.channels[0] and story.record.run_id in shown_text(card.payload)


async def test_refresh__of_a_card_keeps_its_buttons_also_after_the_end(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.story(here.bob)
        here.bot.notifier.follow("char_lstm-1")
        card = await here.message(here.bob, "Queued")
        usual = {"Cancel", "Logs", "Unwatch", "Refresh", "Watch here", "Copy config"}
        assert set(buttons(card)) == usual
        await (await here.discord.click(here.bob, card, "mt:status:char_lstm-1:own")).reply()
        assert set(buttons(card)) == usual
        await here.bot.lab.queue.states.cancel("char_lstm-1")
        await here.discord.wait_for_edit(card, "Cancelled")
        await here.message(here.bob, "· result")
        assert set(buttons(card)) == {"Refresh"}
        await (await here.discord.click(here.bob, card, "mt:status:char_lstm-1:own")).reply()
        assert set(buttons(card)) == {"Refresh"} and "Cancelled" in shown_text(card.payload)


async def test_page__is_chosen_by_its_number(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for number in range(20):
            here.story(here.ana, f"lstm-{number:02}")
        message = await here.reply(here.ana, "runs", {"model": "char_lstm"})
        assert "page 1 of 3" in shown_text(message.payload)
        opened = await here.discord.click(here.ana, message, buttons(message)["1/3"])
        await (await here.discord.submit_modal(opened, {"page": " 3 "})).reply()
        assert "page 3 of 3" in shown_text(message.payload) and "char_lstm runs: 20" in shown_text(message.payload)
        opened = await here.discord.click(here.ana, message, buttons(message)["3/3"])
        refused = await (await here.discord.submit_modal(opened, {"page": "two"})).followup()
        assert "`page` must be a number" in shown_text(refused.payload)
        assert "gru runs: 0" in (await here.ask(here.ana, "runs", {"model": "gru"})).text
