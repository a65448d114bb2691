"""Buttons of a run, with the real bot: files, settings, another try, a comparison, a channel and a page."""

import shutil
from hashlib import sha256
from pathlib import Path

from local_discord.driver import shown_text
from local_discord.state import Call, StoredMessage, User
from local_discord.wire import Json, rows, text
from tests.support import ROOT, add_corpus
from tests.support.bot import AMBER, TEXT, Place, place, read
from tests.support.stories import Story, run_record
from trainer.artifacts.runs import RunDirectory, manifest_of
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.runs import RunRecord

FINISHED = ROOT / "tests" / "fixtures" / "finished_run" / "artifacts" / "models"
DONE, OTHER = "char_lstm-20261122-74f34df5", "char_lstm-other"


def completed(here: Place, name: str = DONE) -> RunDirectory:
    """A completed run with all its files."""
    folder = here.root / "artifacts" / "models" / name
    shutil.copytree(FINISHED / DONE, folder)
    run = RunDirectory(folder)
    renamed: dict[str, object] = {"run_id": name, "user_id": here.bob.id}
    record = run.record().model_copy(update=renamed)
    (folder / "request.json").write_text(record.model_dump_json(), encoding="utf-8")
    manifest = run.manifest()
    assert manifest is not None
    named: dict[str, object] = {"run_id": name}
    run.write_manifest(manifest.model_copy(update=named))
    return run


async def status_of(here: Place, user: User, run: str) -> StoredMessage:
    return await (await here.discord.slash(user, "mt status", {"run": run})).reply()


def buttons(message: StoredMessage) -> dict[str, str]:
    """The custom ids of the buttons by label."""
    parts: list[Json] = [part for row in message.components for part in rows(row["components"])]
    return {text(part["label"]): text(part["custom_id"]) for part in parts if part["type"] == 2}


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
        (run.path / "config.json").unlink()
        lost = await read(await here.discord.click(here.bob, answered(listed), f"mt:file:{DONE}", ["config.json"]))
        manifest = run.manifest()
        assert manifest is not None
        others: dict[str, object] = {"files": tuple(one for one in manifest.files if one.path != "config.json")}
        run.write_manifest(manifest.model_copy(update=others))
        gone = await read(await here.discord.click(here.bob, answered(listed), f"mt:file:{DONE}", ["config.json"]))
        nothing: dict[str, object] = {"files": ()}
        run.write_manifest(manifest.model_copy(update=nothing))
        none = await here.discord.click(here.bob, status, f"mt:files:{DONE}")
        found = sha256(sent).hexdigest()
        assert f"`config.json` 341 bytes · sha256 `{found[:12]}…`" in shown.text and shown.is_ephemeral
        assert sent == (FINISHED / DONE / "config.json").read_bytes()
        assert sha256(sent).hexdigest() in told.text
        assert "`config.json` is missing or damaged" in lost.text and lost.colour == AMBER
        assert "no such file" in gone.text
        assert "1 file of" in (await read(none)).text and "`manifest.json`" in (await read(none)).text


async def test_settings__are_shown_and_attached_and_train_again_when_edited(tmp_path: Path) -> None:
    add_corpus(tmp_path, TEXT.decode(), "cats")
    async with place(tmp_path) as here:
        await here.ask(here.bob, "train", {"corpus": "cats", "epochs": 2, "size": "tiny"})
        (path,) = here.runs()
        status = await status_of(here, here.bob, path.name)
        shown = await here.discord.click(here.bob, status, f"mt:config:{path.name}")
        text_shown = (await read(shown)).text
        attached = here.discord.read(answered(shown).attachments[0]).decode()
        opened = await here.discord.click(here.bob, status, f"mt:change:{path.name}")
        changed = attached.replace("num_epochs: 2", "num_epochs: 3")
        again = await read(await here.discord.submit_modal(opened, {"config": changed}))
        wrong = await here.discord.click(here.bob, status, f"mt:change:{path.name}")
        refused = await read(await here.discord.submit_modal(wrong, {"config": "num_epochs: many"}))
        assert "num_epochs: 2" in text_shown and "corpus: cats" in attached and "```" in text_shown
        assert "3 epochs" in again.text and "Queued" in again.text
        assert refused.colour == AMBER and "num_epochs" in refused.text
        assert len(here.runs()) == 2


async def test_settings__that_are_too_long_for_a_form_are_attached_only(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        record = run_record("lstm-1", user_id=here.bob.id)
        long: dict[str, object] = {"checkpoint_schedule": tuple(range(2000))}
        effective: dict[str, object] = {"effective": record.effective.model_copy(update=long)}
        Story(here.root / "artifacts", record.model_copy(update=effective))
        status = await status_of(here, here.bob, "lstm-1")
        form = await here.discord.click(here.bob, status, "mt:change:lstm-1")
        shown = await here.discord.click(here.bob, status, "mt:config:lstm-1")
        assert "too long for a form" in (await read(form)).text
        assert "```" not in (await read(shown)).text
        assert b"checkpoint_schedule" in here.discord.read(answered(shown).attachments[0])


def failed(here: Place, record: RunRecord, code: ErrorCode) -> Story:
    story = Story(here.root / "artifacts", record).start().fail()
    error = RunError.of(AppError(code, "It did not fit."))
    story.run.write_manifest(manifest_of(record, "failed", error=error))
    return story


async def test_retry__after_a_lack_of_memory_has_half_the_batch(tmp_path: Path) -> None:
    add_corpus(tmp_path, TEXT.decode(), "cats")
    async with place(tmp_path) as here:
        await here.ask(here.bob, "train", {"corpus": "cats", "epochs": 2, "size": "tiny", "batch_size": 64})
        (path,) = here.runs()
        running = RunDirectory(path)
        status = await status_of(here, here.bob, path.name)
        early = await here.bot.queue.status(path.name)
        named: dict[str, object] = {"run_id": "lstm-failed"}
        failed(here, running.record().model_copy(update=named), ErrorCode.OUT_OF_MEMORY)
        message = await status_of(here, here.bob, "lstm-failed")
        again = await read(await here.discord.click(here.bob, message, "mt:retry:lstm-failed"))
        await here.bot.queue.cancel(path.name)
        cancelled = await status_of(here, here.bob, path.name)
        plain = await read(await here.discord.click(here.bob, cancelled, f"mt:retry:{path.name}"))
        accepted = [RunDirectory(one).record().effective for one in here.runs()]
        batches = sorted((str(one.batch_size), one.gradient_accumulation) for one in accepted)
        assert early.status == "queued" and "Retry" not in buttons(status)
        assert "Retry with batch 32" in buttons(message) and "Queued" in again.text
        assert "Retry" in buttons(cancelled) and "Queued" in plain.text
        assert batches == [("32", 2), ("64", 1), ("64", 1), ("64", 1)]


async def test_retry__of_a_run_that_has_not_ended_is_refused(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        story = here.story(here.bob)
        story.start().fail()
        message = await status_of(here, here.bob, "char_lstm-1")
        shutil.rmtree(story.run.path)
        here.story(here.bob)
        told = await read(await here.discord.click(here.bob, message, "mt:retry:char_lstm-1"))
        assert told.colour == AMBER and "Only a failed or cancelled run" in told.text


async def test_compare__is_chosen_from_a_list_of_completed_runs(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        completed(here)
        status = await status_of(here, here.ana, DONE)
        alone = await read(await here.discord.click(here.ana, status, f"mt:compare:{DONE}"))
        completed(here, OTHER)
        asked = await here.discord.click(here.ana, status, f"mt:compare:{DONE}")
        question = await read(asked)
        compared = await read(await here.discord.click(here.ana, answered(asked), f"mt:compareto:{DONE}", [OTHER]))
        assert "no other completed run" in alone.text
        assert "Select the baseline" in question.text
        assert f"{DONE} · {OTHER}" in compared.text


async def test_watch_here__is_the_channel_of_the_button(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        home = here.discord.add_guild("home", [here.bob])
        story = here.story(here.ana)
        call = await here.discord.slash(here.bob, "mt status", {"run": "char_lstm-1"}, guild=home)
        status = await call.reply()
        watching = await read(await here.discord.click(here.bob, status, "mt:watch:char_lstm-1:here"))
        card = await here.discord.wait_for_message(home.channels[0], "Queued")
        assert f"to <#{home.channels[0].id}>" in watching.text
        assert card.channel == home.channels[0] and story.record.run_id in shown_text(card.payload)


async def test_refresh__of_a_card_keeps_its_buttons_also_after_the_end(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.story(here.bob)
        here.bot.notifier.follow("char_lstm-1")
        channel = here.discord.dm_channel(here.bob)
        card = await here.discord.wait_for_message(channel, "Queued")
        before = buttons(card)
        await (await here.discord.click(here.bob, card, "mt:status:char_lstm-1:own")).reply()
        after = buttons(card)
        await here.bot.queue.cancel("char_lstm-1")
        await here.discord.wait_for_edit(card, "Cancelled")
        await here.discord.wait_for_message(channel, "· result")
        ended = buttons(card)
        await (await here.discord.click(here.bob, card, "mt:status:char_lstm-1:own")).reply()
        assert set(before) == set(after) == {"Cancel", "Logs", "Unwatch", "Refresh", "Watch here", "Copy config"}
        assert set(ended) == set(buttons(card)) == {"Refresh"}
        assert "Cancelled" in shown_text(card.payload)


async def test_page__is_chosen_by_its_number(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for number in range(20):
            here.story(here.ana, f"lstm-{number:02}")
        message = await (await here.discord.slash(here.ana, "mt runs", {"model": "char_lstm"})).reply()
        first = shown_text(message.payload)
        opened = await here.discord.click(here.ana, message, buttons(message)["1/3"])
        await (await here.discord.submit_modal(opened, {"page": " 3 "})).reply()
        last = shown_text(message.payload)
        opened = await here.discord.click(here.ana, message, buttons(message)["3/3"])
        refused = await (await here.discord.submit_modal(opened, {"page": "two"})).followup()
        none = await here.ask(here.ana, "runs", {"model": "gru"})
        assert "page 1 of 3" in first and "page 3 of 3" in last and "char_lstm runs: 20" in last
        assert "`page` must be a number" in shown_text(refused.payload)
        assert "gru runs: 0" in none.text
