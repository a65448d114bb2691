"""Finding runs in the chat: pages that outlive the bot, suggestions while typing, logs, the question before an end."""

import asyncio
import json
import math
import re
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import discord
import pytest

from bot.app import build
from bot.commands.list_runs import RunFilters
from bot.commands.responses import CommandContext
from bot.commands.run_options import corpus_name, find_run
from bot.messages.buttons import parse_press
from local_discord import LocalDiscord, Upload
from local_discord.driver import shown_text
from local_discord.state import StoredMessage, User
from local_discord.wire import Json, rows, text
from tests.support.bot import AMBER, TEXT, TOKEN, Place, place, read, settings
from tests.support.measured_runs import line_losses
from tests.support.stories import Story, run_record
from tests.support.waiting import ANSWER_SECONDS
from trainer.artifacts.runs import manifest_of
from trainer.contracts.base import now
from trainer.contracts.runs import CorpusRef, EvalSummary, TokenizerFacts
from trainer.contracts.tokenizers import METHODS
from trainer.people.permissions import Caller
from trainer.store.store import connect


@pytest.fixture(name="here")
async def here_fixture(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as here:
        yield here


def story(here: Place, user: User | None, name: str, *, minutes_ago: float = 0, label: str | None = None) -> Story:
    changed: dict[str, object] = {"created_at": now() - timedelta(minutes=minutes_ago)}
    record = run_record(name, user_id=user and user.id, label=label).model_copy(update=changed)
    return Story(here.root / "artifacts", record)


def end(one: Story) -> Story:
    one.run.write_manifest(manifest_of(one.record, "completed"))
    return one


def parts(message: StoredMessage) -> list[Json]:
    return [part for row in message.components for part in rows(row.get("components"))]


def labels(message: StoredMessage) -> list[str]:
    return [text(part["label"]) for part in parts(message) if part["type"] == 2]


def button_of(message: StoredMessage, label: str) -> str:
    return next(text(part["custom_id"]) for part in parts(message) if part.get("label") == label)


async def test_runs__are_paged_newest_first_in_one_message_that_outlives_the_bot(tmp_path: Path) -> None:
    async with LocalDiscord(token=TOKEN, answer_seconds=ANSWER_SECONDS) as server:
        ana = server.add_user("ana")
        chosen = settings(tmp_path, server, owner_id=ana.id)
        async with build(chosen) as bot:
            running = asyncio.create_task(bot.start(TOKEN))
            await server.connected()
            await server.synced()
            here = Place(server, bot, tmp_path, ana, ana, ana)
            for number in range(20):
                story(here, ana, f"lstm-{number:02}", minutes_ago=20 - number)
            message = await (await server.slash(ana, "mt runs", {})).reply()
            first = shown_text(message.payload)
        await asyncio.gather(running, return_exceptions=True)
        await server.disconnected()
        async with build(chosen) as bot:
            running = asyncio.create_task(bot.start(TOKEN))
            await server.connected()
            turned = await (await server.click(ana, message, button_of(message, "Next »"))).reply()
            second = shown_text(turned.payload)
            last = await (await server.click(ana, message, button_of(message, "Next »"))).reply()
            third, at_end = shown_text(last.payload), parts(last)
            back = await (await server.click(ana, message, button_of(message, "« Back"))).reply()
            again = shown_text(back.payload)
        await asyncio.gather(running, return_exceptions=True)
        assert server.violations == []
    assert turned is last is back is message and message.visible_to == ana
    assert [line.split("`")[1] for line in first.splitlines() if line.startswith("`")] == [
        f"lstm-{number:02}" for number in range(19, 11, -1)
    ]
    assert "page 1 of 3" in first and "page 2 of 3" in second and "page 3 of 3" in third
    assert "lstm-11" in second and "lstm-03" in third and "lstm-00" in third
    assert again.split("request")[0] == second.split("request")[0]
    assert next(part for part in at_end if part.get("label") == "Next »")["disabled"] is True


async def test_runs__are_chosen_by_state_starter_and_words_also_on_later_pages(here: Place) -> None:
    end(story(here, here.ana, "lstm-done", label="türkçe"))
    story(here, here.ana, "lstm-open")
    story(here, here.bob, "lstm-bob").start().step(40, 2.0)
    story(here, None, "lstm-terminal")
    for number in range(9):
        end(story(here, here.bob, f"gru-{number}", label="қазақша " * 4))
    own = await here.ask(here.ana, "runs")
    done = await here.ask(here.ana, "runs", {"state": "completed"})
    every = await here.ask(here.ana, "runs", {"mine": False, "query": "lstm"})
    nothing = await here.ask(here.ana, "runs", {"query": "zebra"})
    message = await (await here.discord.slash(here.ana, "mt runs", {"mine": False, "query": "қазақша"})).reply()
    turned = await (await here.discord.click(here.ana, message, button_of(message, "Next »"))).reply()
    assert "Your runs: 2" in own.text and own.is_ephemeral
    assert "Your completed runs: 1" in done.text and "**türkçe** · completed" in done.text
    assert "All runs with «lstm»: 4" in every.text
    assert f"<@{here.bob.id}>" in every.text and "command line" in every.text
    assert "running 40 % · 2.000 nats/token" in every.text
    assert "No runs found" in nothing.text
    assert "with «қазақша»: 9" in shown_text(turned.payload)
    assert all(len(text(part["custom_id"])) <= 100 for part in parts(turned))


async def test_default_run__is_the_newest_of_the_caller_or_else_of_all(here: Place) -> None:
    fills_gaps(end(story(here, here.bob, "bert-bob", minutes_ago=1)))
    options: dict[str, dict[str, str]] = {"generate": {}, "chat": {"message": "a"}}
    nothing = [await here.ask(here.bob, command, option) for command, option in options.items()]
    end(story(here, here.bob, "lstm-bob", minutes_ago=9))
    end(story(here, here.ana, "lstm-ana", minutes_ago=2))
    story(here, here.bob, "lstm-open")
    fills_gaps(end(story(here, here.ana, "bert-ana")))
    chosen = [
        (await find_run(CommandContext(here.bot, Caller(user.id)), command, None)).record.run_id
        for user in (here.ana, here.bob, here.eve)
        for command in ("generate", "chat", "score")
    ]
    offered = {
        command: {choice.value for choice in await here.suggested(here.bob, command, "run", "")}
        for command in ("generate", "chat", "score")
    }
    assert all("no completed run that can generate text yet" in answer.text for answer in nothing)
    assert chosen == [
        *("lstm-ana", "lstm-ana", "bert-ana"),
        *("lstm-bob", "lstm-bob", "bert-bob"),
        *("lstm-ana", "lstm-ana", "bert-ana"),
    ]
    can_generate = {"lstm-ana", "lstm-bob"}
    assert offered == {"generate": can_generate, "chat": can_generate, "score": {*can_generate, "bert-ana", "bert-bob"}}


def fills_gaps(one: Story) -> None:
    """Make a run one of a masked model."""
    changed: dict[str, object] = {"effective": one.record.effective.model_copy(update=MASKED)}
    record = one.record.model_copy(update=changed)
    (one.run.path / "request.json").write_text(record.model_dump_json(), encoding="utf-8")


MASKED: dict[str, object] = {"objective": "masked_lm"}


async def test_runs__lead_to_the_status_of_one_of_them(here: Place) -> None:
    story(here, here.ana, "lstm-1")
    story(here, here.ana, "lstm-2").start()
    message = await (await here.discord.slash(here.ana, "mt runs", {})).reply()
    shown = await here.discord.click(here.ana, message, "mt:status:selected", ["lstm-2"])
    assert "Worker not responding" in (await read(shown)).text


@pytest.mark.parametrize("custom_id", ["mt:runs:q:1", "mt:runs:q:1-9-1-0", "mt:runs:q1:0-0-1-0", "mt:runs:q:0-0-1-99"])
async def test_page__of_another_version_says_so(here: Place, custom_id: str) -> None:
    message = await message_with(here, custom_id)
    told = await (await here.discord.click(here.ana, message, custom_id)).followup()
    assert "another version" in shown_text(told.payload)


def test_page_button__fits_discord_for_any_page_and_words() -> None:
    wanted = RunFilters("completed", is_mine=True, query="x" * 38)
    following = wanted._replace(page=999_998).buttons(1_000_000)[-1]
    custom_id = following.custom_id or ""
    read_back = parse_press({"custom_id": custom_id})
    assert len(custom_id) <= 100
    assert read_back is not None and RunFilters.parse(read_back) == wanted._replace(page=999_999)


async def message_with(here: Place, *custom_ids: str) -> StoredMessage:
    """A message of the bot with these buttons, whatever stands in them."""
    view = discord.ui.View()
    for custom_id in custom_ids:
        odd: discord.ui.Button[discord.ui.View] = discord.ui.Button(label=custom_id[:80], custom_id=custom_id)
        view.add_item(odd)
    channel = here.discord.dm_channel(here.ana)
    sent = await here.bot.get_partial_messageable(channel.id).send("Look!", view=view)
    return next(message for message in here.discord.messages(channel) if message.id == sent.id)


async def test_suggestions__have_own_runs_first_and_only_usable_ones(here: Place) -> None:
    end(story(here, here.bob, "lstm-done", label="bob's"))
    story(here, here.ana, "lstm-ana", minutes_ago=2)
    story(here, here.bob, "lstm-bob", minutes_ago=3)
    story(here, None, "lstm-terminal", minutes_ago=1)

    async def suggested(user: User, command: str, typed: str = "") -> list[str | int | float]:
        choices = await here.suggested(user, command, "run", typed)
        assert all(0 < len(choice.name) <= 100 for choice in choices)
        return [choice.value for choice in choices]

    assert await suggested(here.ana, "status") == ["lstm-ana", "lstm-done", "lstm-terminal", "lstm-bob"]
    assert await suggested(here.bob, "status") == ["lstm-done", "lstm-bob", "lstm-terminal", "lstm-ana"]
    described = [
        re.sub(r"\d+ s ago", "… s ago", choice.name) for choice in await here.suggested(here.ana, "status", "run")
    ]
    assert described == [
        "lstm-ana · queued · 2 minutes ago · lstm-ana",
        "bob's · completed · … s ago · lstm-done",
        "lstm-terminal · queued · … s ago · lstm-terminal",
        "lstm-bob · queued · 3 minutes ago · lstm-bob",
    ]
    assert await suggested(here.ana, "status", "BOB") == ["lstm-done", "lstm-bob"]
    assert await suggested(here.ana, "status", "lsbob") == ["lstm-bob"]
    assert await suggested(here.bob, "cancel") == ["lstm-bob"]
    assert await suggested(here.bob, "logs") == ["lstm-done", "lstm-bob"]
    assert await suggested(here.ana, "cancel") == ["lstm-ana", "lstm-terminal", "lstm-bob"]
    assert await suggested(here.ana, "score") == ["lstm-done"]
    assert await suggested(here.eve, "status") == []
    for number in range(30):
        story(here, here.ana, f"gru-{number}")
    assert len(await suggested(here.ana, "status")) == 25


async def test_suggestions__leave_out_what_is_private(tmp_path: Path) -> None:
    async with place(tmp_path, private_runs=True) as here:
        story(here, here.ana, "lstm-ana")
        story(here, here.bob, "lstm-bob")
        choices = await here.suggested(here.bob, "status", "run", "")
        assert [choice.value for choice in choices] == ["lstm-bob"]


async def test_suggestions__are_none_while_discord_does_not_say_who_asks(tmp_path: Path) -> None:
    async with LocalDiscord(token=TOKEN, answer_seconds=ANSWER_SECONDS) as server:
        ana = server.add_user("ana")
        home = server.add_guild("home", [ana])
        Story(tmp_path / "artifacts", run_record("lstm-1", user_id=None))
        async with build(settings(tmp_path, server, allowed_guild_ids=(home.id,))) as bot:
            running = asyncio.create_task(bot.start(TOKEN))
            await server.connected()
            await server.synced()
            server.fail_next("GET", "/guilds/{guild_id}/members/{user_id}", 503)
            await bot.index.refresh()
            unknown = await server.autocomplete(ana, "mt status", "run", "")
            known = await server.autocomplete(ana, "mt status", "run", "")
        await asyncio.gather(running, return_exceptions=True)
        assert server.violations == []
    assert unknown == []
    assert [choice.value for choice in known] == ["lstm-1"]


async def test_texts__are_suggested_by_name_own_ones_first_attached_ones_too(here: Place) -> None:
    await here.ask(here.bob, "train", {"file": Upload("My_cats.txt", TEXT)})
    await here.ask(here.ana, "train", {"corpus": "demo"})
    of_bob = await here.suggested(here.bob, "train", "corpus", "")
    of_ana = await here.suggested(here.ana, "train", "corpus", "")
    typed = await here.suggested(here.bob, "train", "corpus", "cats")
    again = await here.ask(here.bob, "train", {"corpus": str(typed[0].value)})
    assert [choice.name for choice in of_bob] == ["My cats (attached)", "demo", "udhr_ipa"]
    assert [choice.name for choice in of_ana] == ["demo", "udhr_ipa"]
    assert "⏳ Queued: My cats" in again.text and "attached text" in again.text


async def test_tokenizers__are_suggested_by_label_and_id(tmp_path: Path) -> None:
    fixture = Path(__file__).parents[1] / "fixtures" / "tokenizers" / "char-222eba1359b17193"
    shutil.copytree(fixture, tmp_path / "artifacts" / "tokenizers" / fixture.name)
    async with place(tmp_path) as here:
        choices = await here.suggested(here.bob, "train", "tokenizer", "222")
        assert [choice.value for choice in choices] == [fixture.name]
        assert "tokens" in choices[0].name


async def test_tokenizers__of_private_runs_are_not_suggested_to_others(tmp_path: Path) -> None:
    fixture = Path(__file__).parents[1] / "fixtures" / "tokenizers" / "char-222eba1359b17193"
    shutil.copytree(fixture, tmp_path / "artifacts" / "tokenizers" / fixture.name)
    async with place(tmp_path, private_runs=True) as here:
        one = story(here, here.ana, "lstm-ana")
        facts: dict[str, object] = {"tokenizer": TokenizerFacts(id=fixture.name, sha256="a" * 64)}
        one.run.write_manifest(manifest_of(one.record, "completed").model_copy(update=facts))
        of_bob, of_ana = [await here.suggested(one, "train", "tokenizer", "") for one in (here.bob, here.ana)]
        assert [choice.value for choice in of_bob] == [*METHODS]
        assert [choice.value for choice in of_ana] == [*METHODS, fixture.name]


async def test_status__shows_what_the_caller_may_do_next_and_renews_itself(here: Place, tmp_path: Path) -> None:
    one = story(here, here.bob, "lstm-1")
    story(here, here.ana, "lstm-2")
    message = await (await here.discord.slash(here.bob, "mt status", {"run": "lstm-1"})).reply()
    of_own = labels(message)
    of_other = labels(await (await here.discord.slash(here.bob, "mt status", {"run": "lstm-2"})).reply())
    of_admin = labels(await (await here.discord.slash(here.ana, "mt status", {"run": "lstm-1"})).reply())
    one.start().step(40, 2.0)
    store = await connect(f"unix://{tmp_path / 'data' / 'services' / 'valkey.sock'}")
    await store.renew_lease("lstm-1", "host:1", seconds=60, heartbeat=now().timestamp())
    await store.close()
    await (await here.discord.click(here.bob, message, "mt:status:lstm-1:again")).reply()
    renewed = shown_text(message.payload)
    end(one.complete())
    await (await here.discord.click(here.bob, message, "mt:status:lstm-1:again")).reply()
    assert {"Refresh", "Cancel", "Logs"} <= set(of_own) & set(of_admin)
    assert "Refresh" in of_other and not {"Cancel", "Logs"} & set(of_other)
    assert "Training" in renewed and "40 %" in renewed
    assert "Completed" in shown_text(message.payload)
    assert "Logs" in labels(message) and "Cancel" not in labels(message)


async def test_cancel__of_a_run_that_has_gone_on_for_long_is_asked_about_first(here: Place) -> None:
    young, old = story(here, here.bob, "lstm-1", minutes_ago=9), story(here, here.bob, "lstm-2", minutes_ago=11)
    at_once = await here.ask(here.bob, "cancel", {"run": "lstm-1"})
    question = await (await here.discord.slash(here.bob, "mt cancel", {"run": "lstm-2"})).reply()
    asked, kept = shown_text(question.payload), not old.run.cancel_requested()
    answer = await (await here.discord.click(here.bob, question, button_of(question, "Cancel it"))).reply()
    late = await here.ask(here.bob, "cancel", {"run": "lstm-2"})
    assert "Cancelled" in at_once.text and young.run.cancel_requested()
    assert "Cancel lstm-2?" in asked and kept
    assert "Cancelled" in shown_text(answer.payload) and old.run.cancel_requested()
    assert answer is question and answer.components == []
    assert "already ended" in late.text


async def test_logs__come_as_text_or_as_a_file_without_the_machine_s_paths(here: Place, tmp_path: Path) -> None:
    one = story(here, here.bob, "lstm-1")
    none = await here.ask(here.bob, "logs", {"run": "lstm-1"})
    lines: list[dict[str, object]] = [
        {"timestamp": f"2026-11-20T12:00:{number:02}.5+00:00", "level": "info", "message": "step", "step": number}
        for number in range(40)
    ]
    lines[39]["message"] = f"wrote {tmp_path}/artifacts/x.bin"
    one.run.logs.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    short = await here.ask(here.bob, "logs", {"run": "lstm-1", "lines": 3})
    usual = await here.ask(here.ana, "logs", {"run": "lstm-1"})
    status = await (await here.discord.slash(here.bob, "mt status", {"run": "lstm-1"})).reply()
    clicked = await read(await here.discord.click(here.bob, status, "mt:logs:lstm-1"))
    wordy: dict[str, object] = {"message": "long " * 600}
    one.run.logs.write_text(f"{json.dumps(wordy)}\n", encoding="utf-8")
    long = await (await here.discord.slash(here.bob, "mt logs", {"run": "lstm-1"})).reply()
    assert "No log yet" in none.text
    assert "2026-11-20 12:00:38 info     step step=38" in short.text and "step=36" not in short.text
    assert "wrote …/x.bin" in short.text and str(tmp_path) not in short.text
    assert usual.text.count(" info ") == clicked.text.count(" info ") == 20
    assert here.discord.read(long.attachments[0]).count(b"long") == 600
    assert "long" not in shown_text(long.payload)


async def test_help__tells_every_command_and_its_options(here: Place) -> None:
    overview = await here.ask(here.bob, "help")
    mt = here.discord.commands[0]
    for command in (row for row in rows(mt["options"]) if row["type"] == 1):
        name = text(command["name"])
        topic = await here.ask(here.bob, "help", {"topic": name})
        assert f"**/mt {name}** · {command['description']}" in overview.text
        for option in rows(command.get("options")):
            assert f"**{option['name']}**" in topic.text and text(option["description"]) in topic.text
    choices = await here.suggested(here.bob, "help", "topic", "tr")
    unknown = await here.ask(here.bob, "help", {"topic": "dance"})
    assert choices[0].value == "train"
    assert unknown.colour == AMBER and "There is no command with this name." in unknown.text


def measured(one: Story, loss: float) -> Story:
    """The end of a run that was measured."""
    summary = EvalSummary(
        split="test",
        loss=loss,
        perplexity=math.exp(loss),
        bits_per_char=loss / math.log(2),
        lines=line_losses(loss),
    )
    left: dict[str, object] = {"eval": (summary,)}
    one.run.write_manifest(manifest_of(one.record, "completed").model_copy(update=left))
    return one


def attached(here: Place, name: str, sha256: str) -> Story:
    """A run on attached text."""
    record = run_record(f"gru-{sha256[:6]}", user_id=here.ana.id, label=name)
    changed: dict[str, object] = {"corpus": CorpusRef(name=sha256, sha256=sha256, bytes=9)}
    effective: dict[str, object] = {"effective": record.effective.model_copy(update=changed)}
    return Story(here.root / "artifacts", record.model_copy(update=effective))


async def test_compare__shows_differences_and_refuses_unmeasured_runs(here: Place) -> None:
    measured(story(here, here.ana, "lstm-new", label="new *one*").start().step(5, 3.0, 2.5).step(9, 2.0, 2.0), 2.2)
    measured(story(here, here.bob, "lstm-old", label="old").start().step(5, 3.0).step(9, 1.5, 1.5), 2.0)
    story(here, here.bob, "lstm-open")
    worse = await here.ask(here.bob, "compare", {"a": "lstm-new", "b": " lstm-old"})
    message = next(iter(here.discord.messages(here.discord.dm_channel(here.bob))))
    [menu] = parts(message)
    different = [
        await read(await here.discord.click(user, message, text(menu["custom_id"]), ["lstm-old"]))
        for user in (here.bob, here.eve)
    ]
    better = await here.ask(here.bob, "compare", {"a": "lstm-old", "b": "lstm-new", "split": "test"})
    refused = [
        await here.ask(here.bob, "compare", {"a": "lstm-old", "b": other, **more})
        for other, more in (
            ("lstm-old", {}),
            ("lstm-open", {}),
            ("nowhere", {}),
            ("lstm-new", {"split": "validation"}),
        )
    ]
    first, other = (measured(attached(here, name, sign * 64), 2.0) for name, sign in (("мәтін", "1"), ("text", "2")))
    of_texts = await here.ask(
        here.bob, "compare", {"a": first.record.run_id, "b": other.record.run_id, "c": "lstm-new", "d": "lstm-old"}
    )
    unknown = corpus_name(CommandContext(here.bot, Caller(here.bob.id)), "3" * 64)
    stranger = await here.ask(here.eve, "compare", {"a": "lstm-old", "b": "lstm-new"})
    offered = await here.suggested(here.bob, "compare", "d", "")
    [picture] = message.attachments
    alt = "Training of each run over steps, in bits per character. The last values: a: new *one* 5.771, b: old 4.328."
    assert picture["filename"] == "comparison.png" and picture["description"] == alt
    assert "They have the same settings." in different[0].text and different[0].is_ephemeral
    assert "Forbidden" in different[1].text
    assert "⚖ new \\*one\\* against old" in worse.text
    assert "✗ regression: loss +10.00% (95 % interval +10.00% to +10.00%), more than 1.00%" in worse.text
    assert "Loss **2.2000** · 2.0000 (+0.2000)" in worse.text
    assert (worse.colour, worse.is_ephemeral) == (AMBER, False)
    assert "better: loss -9.09%" in better.text
    sentences = ("compared with itself", "not finished training", "no run 'nowhere'", "on its validation split")
    assert all(sentence in answer.text for sentence, answer in zip(sentences, refused, strict=True))
    assert not any("mt eval" in answer.text or "--" in answer.text for answer in refused)
    assert "Their test splits differ" in of_texts.text and "mt compare" not in of_texts.text
    assert "attached" not in of_texts.text and "Different settings" not in of_texts.text
    assert unknown == "attached text"
    assert "Forbidden" in stranger.text
    assert [choice.value for choice in offered][:2] == ["lstm-old", "lstm-new"]
