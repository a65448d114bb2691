"""Finding runs in the chat: pages that outlive the bot, suggestions while typing, logs, the question before an end."""

import json
import math
import re
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from bot.commands.list_runs import RUNS, RunFilters
from bot.commands.responses import CommandContext
from bot.commands.run_options import corpus_name, find_run
from bot.messages.buttons import parse_press
from local_discord import Upload
from local_discord.driver import shown_text
from local_discord.state import User
from local_discord.wire import rows, text
from scripts.message_picture import message_html, shown_lines
from scripts.pictures import SHOWN, SHOWN_FILE, TARGET
from tests.support import ROOT
from tests.support.bot import AMBER, TEXT, Place, buttons, components, discord_alone, place, running_bot, settings
from tests.support.cross_language import experiment_record
from tests.support.measured_runs import line_losses
from tests.support.stories import Story, run_record
from trainer.artifacts.runs import manifest_of
from trainer.config.validation import parse
from trainer.contracts.base import changed, now
from trainer.contracts.runs import CorpusRef, EvalSummary, TokenizerFacts
from trainer.contracts.tokenizer_jobs import TokenizerTrainRequest
from trainer.contracts.tokenizers import METHODS
from trainer.lab.permissions import Caller

TOKENIZER = ROOT / "tests" / "fixtures" / "tokenizers" / "char-222eba1359b17193"


@pytest.fixture(name="here")
async def here_fixture(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as here:
        yield here


def story(here: Place, user: User | None, name: str, *, minutes_ago: float = 0, label: str | None = None) -> Story:
    record = run_record(name, user_id=user and user.id, label=label)
    return Story(here.root / "artifacts", changed(record, created_at=now() - timedelta(minutes=minutes_ago)))


def end(one: Story) -> Story:
    one.run.write_manifest(manifest_of(one.record, "completed"))
    return one


async def test_runs__are_paged_newest_first_in_one_message_that_outlives_the_bot(tmp_path: Path) -> None:
    async with discord_alone() as server:
        ana = server.add_user("ana")
        chosen = settings(tmp_path, server, owner_id=ana.id)
        async with running_bot(chosen, server) as bot:
            here = Place(server, bot, tmp_path, ana, ana, ana)
            for number in range(20):
                story(here, ana, f"lstm-{number:02}", minutes_ago=20 - number)
            message = await here.reply(ana, "runs")
            pages = [shown_text(message.payload)]
        async with running_bot(chosen, server):
            for label in ("Next »", "Next »", "« Back"):
                assert ("Next »" in buttons(message)) == (label == "Next »")
                turned = await (await server.click(ana, message, buttons(message)[label])).reply()
                assert turned is message and message.visible_to == ana
                pages.append(shown_text(message.payload))
    for page, (number, greatest, least) in zip(pages, ((1, 19, 12), (2, 11, 4), (3, 3, 0), (2, 11, 4)), strict=True):
        assert f"page {number} of 3" in page
        names = [line.split("`")[1] for line in page.splitlines() if line.startswith("`")]
        assert names == [f"lstm-{one:02}" for one in range(greatest, least - 1, -1)]


async def test_runs__are_chosen_by_state_starter_and_words_also_on_later_pages(here: Place) -> None:
    end(story(here, here.ana, "lstm-done", label="türkçe"))
    story(here, here.ana, "lstm-open")
    story(here, here.bob, "lstm-bob").start().step(40, 2.0)
    story(here, None, "lstm-terminal")
    for number in range(9):
        end(story(here, here.bob, f"gru-{number}", label="қазақша " * 4))
    own = await here.ask(here.ana, "runs")
    assert "Your runs: 2" in own.text and own.is_ephemeral
    done = await here.ask(here.ana, "runs", {"state": "completed"})
    assert "Your completed runs: 1" in done.text and "**türkçe** · completed" in done.text
    every = await here.ask(here.ana, "runs", {"mine": False, "query": "lstm"})
    assert "All runs with «lstm»: 4" in every.text
    assert f"<@{here.bob.id}>" in every.text and "command line" in every.text
    assert "running 40 % · 2.885 bits/token" in every.text
    assert "No runs found" in (await here.ask(here.ana, "runs", {"query": "zebra"})).text
    message = await here.reply(here.ana, "runs", {"mine": False, "query": "қазақша"})
    turned = await (await here.discord.click(here.ana, message, buttons(message)["Next »"])).reply()
    assert "with «қазақша»: 9" in shown_text(turned.payload)
    assert all(len(custom_id) <= 100 for custom_id in buttons(turned).values())


async def test_default_run__is_the_newest_of_the_caller_or_else_of_all(here: Place) -> None:
    fills_gaps(end(story(here, here.bob, "bert-bob", minutes_ago=1)))
    for command, options in (("generate", {}), ("chat", {"message": "a"})):
        nothing = await here.ask(here.bob, command, {**options})
        assert "no completed run that can generate text yet" in nothing.text
    end(story(here, here.bob, "lstm-bob", minutes_ago=9))
    end(story(here, here.ana, "lstm-ana", minutes_ago=2))
    story(here, here.bob, "lstm-open")
    fills_gaps(end(story(here, here.ana, "bert-ana")))
    newest = {
        here.ana: ("lstm-ana", "lstm-ana", "bert-ana"),
        here.bob: ("lstm-bob", "lstm-bob", "bert-bob"),
        here.eve: ("lstm-ana", "lstm-ana", "bert-ana"),
    }
    for user, names in newest.items():
        for command, name in zip(("generate", "chat", "score"), names, strict=True):
            found = await find_run(CommandContext(here.bot, Caller(user.id)), command, None)
            assert found.record.run_id == name
    can_generate = {"lstm-ana", "lstm-bob"}
    every = {*can_generate, "bert-ana", "bert-bob"}
    for command, offered in (("generate", can_generate), ("chat", can_generate), ("score", every)):
        assert {choice.value for choice in await here.suggested(here.bob, command, "run")} == offered


async def test_default_run__that_is_not_completed_yet_is_named(here: Place) -> None:
    story(here, here.bob, "lstm-waits", label="kazakh")
    for command, options in (("generate", {}), ("score", {"text": "a"})):
        early = await here.ask(here.bob, command, {**options})
        assert "yet. kazakh is not completed: `/mt status` shows its progress." in early.text


def fills_gaps(one: Story) -> None:
    """Make a run one of a masked model."""
    record = changed(one.record, effective=changed(one.record.effective, objective="masked_lm"))
    (one.run.path / "request.json").write_text(record.model_dump_json(), encoding="utf-8")


async def test_runs__lead_to_the_status_of_one_of_them(here: Place) -> None:
    story(here, here.ana, "lstm-1")
    story(here, here.ana, "lstm-2").start()
    message = await here.reply(here.ana, "runs")
    assert "Worker not responding" in (await here.click(here.ana, message, "mt:status:selected", ["lstm-2"])).text


async def test_page__of_another_version_says_so(here: Place) -> None:
    pages = ("mt:runs:q:1", "mt:runs:q:1-9-1-0", "mt:runs:q1:0-0-1-0", "mt:runs:q:0-0-1-99")
    message = await here.message_with(here.ana, *pages)
    for custom_id in pages:
        told = await (await here.discord.click(here.ana, message, custom_id)).followup()
        assert "another version" in shown_text(told.payload)


def test_page_button__fits_discord_for_any_page_and_words() -> None:
    wanted = RunFilters("completed", is_mine=True, query="x" * 38)
    custom_id = RUNS.buttons(999_998, 1_000_000, wanted.query_id, wanted.code)[-1].custom_id or ""
    read_back = parse_press({"custom_id": custom_id})
    assert len(custom_id) <= 100
    assert read_back is not None and RunFilters.parse(read_back) == wanted._replace(page=999_999)


async def test_list_of_jobs__turns_its_pages(here: Place) -> None:
    for number in range(11):
        here.bot.lab.queue.experiments.create(experiment_record(f"small{number}"))
        fields: dict[str, object] = {"method": "char", "corpora": ["demo"], "vocab_size": 16 + number}
        await here.bot.lab.queue.train_tokenizer(parse(TokenizerTrainRequest, fields))
    for kind, group in (("experiment", "mt-experiment"), ("tokenizer", "tokenizer")):
        message = await here.reply(here.bob, f"{group} list")
        first = shown_text(message.payload)
        assert f"11 {kind}s · page 1 of 2" in first and first.count("⏳") == 10
        last = (await here.click(here.bob, message, f"mt:list_{kind}s:list:1")).text
        assert "page 2 of 2" in last and last.count("⏳") == 1
        opened = await here.discord.click(here.bob, message, f"mt:list_{kind}spage:list:1")
        await (await here.discord.submit_modal(opened, {"page": "1"})).reply()
        assert "page 1 of 2" in shown_text(message.payload)


async def test_suggestions__have_own_runs_first_and_only_usable_ones(here: Place) -> None:
    end(story(here, here.bob, "lstm-done", label="bob's"))
    story(here, here.ana, "lstm-ana", minutes_ago=2)
    story(here, here.bob, "lstm-bob", minutes_ago=3)
    story(here, None, "lstm-terminal", minutes_ago=1)
    for user, command, typed, names in (
        (here.ana, "status", "", ["lstm-ana", "lstm-done", "lstm-terminal", "lstm-bob"]),
        (here.bob, "status", "", ["lstm-done", "lstm-bob", "lstm-terminal", "lstm-ana"]),
        (here.ana, "status", "BOB", ["lstm-done", "lstm-bob"]),
        (here.ana, "status", "lsbob", ["lstm-bob"]),
        (here.ana, "status", "last", ["last"]),
        (here.bob, "cancel", "", ["lstm-bob"]),
        (here.bob, "logs", "", ["lstm-done", "lstm-bob"]),
        (here.ana, "cancel", "", ["lstm-ana", "lstm-terminal", "lstm-bob"]),
        (here.ana, "score", "", ["lstm-done"]),
        (here.eve, "status", "", []),
    ):
        assert [choice.value for choice in await here.suggested(user, command, "run", typed)] == names
    choices = await here.suggested(here.ana, "status", "run")
    assert [re.sub(r"\d+ s ago", "… s ago", choice.name) for choice in choices] == [
        "lstm-ana · queued · 2 minutes ago · lstm-ana",
        "bob's · completed · … s ago · lstm-done",
        "lstm-terminal · queued · … s ago · lstm-terminal",
        "lstm-bob · queued · 3 minutes ago · lstm-bob",
    ]
    for number in range(30):
        story(here, here.ana, f"gru-{'x' * 40}-{number}", label="long " * 12)
    choices = await here.suggested(here.ana, "status", "run")
    assert len(choices) == 25 and all(0 < len(choice.name) <= 100 for choice in choices)


async def test_suggestions__leave_out_what_is_private(tmp_path: Path) -> None:
    stored = tmp_path / "artifacts" / "tokenizers" / TOKENIZER.name
    shutil.copytree(TOKENIZER, stored)
    async with place(tmp_path, private_runs=True) as here:
        one = story(here, here.ana, "lstm-ana")
        facts = TokenizerFacts(id=stored.name, sha256="a" * 64)
        one.run.write_manifest(changed(manifest_of(one.record, "completed"), tokenizer=facts))
        story(here, here.bob, "lstm-bob")
        here.bot.lab.queue.experiments.create(experiment_record())
        for user, command, option, offered in (
            (here.bob, "status", "run", ["lstm-bob"]),
            (here.bob, "mt-experiment show", "experiment", []),
            (here.bob, "train", "tokenizer", [*METHODS, stored.name]),  # it was trained by itself
            (here.ana, "train", "tokenizer", [*METHODS, stored.name]),
        ):
            assert [choice.value for choice in await here.suggested(user, command, option)] == offered
        [by_id] = await here.suggested(here.ana, "train", "tokenizer", "222")
        assert by_id.value == stored.name and "tokens" in by_id.name
        request = stored / "request.json"
        attached_name = "3fd20959421e7202d9c200965a5ae5a8bf3c2f9d977552ab8b6d7bc5b8085f53"
        request.write_text(request.read_text("utf-8").replace('"kazakh"', f'"{attached_name}"'), encoding="utf-8")
        for user, offered in ((here.bob, []), (here.ana, [stored.name])):
            assert [one.value for one in await here.suggested(user, "tokenizer show", "tokenizer")] == offered


async def test_texts__are_suggested_by_name_own_ones_first_attached_ones_too(here: Place) -> None:
    await here.ask(here.bob, "train", {"file": Upload("My_cats.txt", TEXT)})
    await here.ask(here.ana, "train", {"corpus": "demo"})
    for user, names in ((here.bob, ["My cats (attached)", "demo", "udhr_ipa"]), (here.ana, ["demo", "udhr_ipa"])):
        assert [choice.name for choice in await here.suggested(user, "train", "corpus")] == names
    [typed] = await here.suggested(here.bob, "train", "corpus", "cats")
    again = await here.ask(here.bob, "train", {"corpus": typed.value})
    assert "⏳ Queued: My cats" in again.text and "attached text" in again.text


async def test_status__has_the_next_commands_of_the_caller_and_is_refreshed(here: Place) -> None:
    one = story(here, here.bob, "lstm-1")
    story(here, here.ana, "lstm-2")
    of_own, of_other, of_admin = [
        {*buttons(await here.reply(user, "status", {"run": run}))}
        for user, run in ((here.bob, "lstm-1"), (here.bob, "lstm-2"), (here.ana, "lstm-1"))
    ]
    assert {"Refresh", "Cancel", "Logs"} <= of_own & of_admin
    assert "Refresh" in of_other and not {"Cancel", "Logs"} & of_other
    message = await here.reply(here.bob, "status", {"run": "lstm-1"})
    one.start().step(40, 2.0)
    async with here.store() as store:
        await store.renew_lease("lstm-1", "host:1", seconds=60)
    await (await here.discord.click(here.bob, message, "mt:status:lstm-1:again")).reply()
    assert "Training" in shown_text(message.payload) and "40 %" in shown_text(message.payload)
    end(one.complete())
    await (await here.discord.click(here.bob, message, "mt:status:lstm-1:again")).reply()
    assert "Completed" in shown_text(message.payload)
    assert "Logs" in buttons(message) and "Cancel" not in buttons(message)


async def test_cancel__of_an_older_run_needs_a_confirmation(here: Place) -> None:
    young, old = story(here, here.bob, "lstm-1", minutes_ago=9), story(here, here.bob, "lstm-2", minutes_ago=11)
    assert "Cancelled" in (await here.ask(here.bob, "cancel", {"run": "lstm-1"})).text
    assert young.run.cancel_requested()
    question = await here.reply(here.bob, "cancel", {"run": "lstm-2"})
    assert "Cancel lstm-2?" in shown_text(question.payload) and not old.run.cancel_requested()
    answer = await (await here.discord.click(here.bob, question, buttons(question)["Cancel it"])).reply()
    assert "Cancelled" in shown_text(answer.payload) and old.run.cancel_requested()
    assert answer is question and answer.components == []
    assert "already ended" in (await here.ask(here.bob, "cancel", {"run": "lstm-2"})).text


async def test_logs__come_as_text_or_as_a_file_without_the_machine_s_paths(here: Place, tmp_path: Path) -> None:
    one = story(here, here.bob, "lstm-1")
    assert "No log yet" in (await here.ask(here.bob, "logs", {"run": "lstm-1"})).text
    lines: list[dict[str, object]] = [
        {"timestamp": f"2026-11-20T12:00:{number:02}.5+00:00", "level": "info", "message": "step", "step": number}
        for number in range(40)
    ]
    lines[39]["message"] = f"wrote {tmp_path}/artifacts/x.bin"
    one.run.logs.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    short = await here.ask(here.bob, "logs", {"run": "lstm-1", "lines": 3})
    assert "2026-11-20 12:00:38 info     step step=38" in short.text and "step=36" not in short.text
    assert "wrote …/x.bin" in short.text and str(tmp_path) not in short.text
    usual = await here.ask(here.ana, "logs", {"run": "lstm-1"})
    status = await here.reply(here.bob, "status", {"run": "lstm-1"})
    clicked = await here.click(here.bob, status, "mt:logs:lstm-1")
    assert usual.text.count(" info ") == clicked.text.count(" info ") == 20
    one.run.logs.write_text('{"message": "' + "long " * 600 + '"}\n', encoding="utf-8")
    long = await here.reply(here.bob, "logs", {"run": "lstm-1"})
    assert here.discord.read(long.attachments[0]).count(b"long") == 600
    assert "long" not in shown_text(long.payload)


async def test_help__shows_every_command_and_its_options(here: Place) -> None:
    overview, of_admins = await here.ask(here.bob, "help"), await here.ask(here.ana, "help")
    assert "**/mt-study** · `start` `list` `show` `cancel`" in overview.text
    assert "**/mt-admin** · `workers`" in of_admins.text and "mt-admin" not in overview.text
    mt = here.discord.commands[0]
    for command in (row for row in rows(mt["options"]) if row["type"] == 1):
        name = text(command["name"])
        topic = await here.ask(here.bob, "help", {"topic": name})
        assert f"`{name}`" in overview.text and text(command["description"]) in topic.text
        for option in rows(command.get("options")):
            assert f"**{option['name']}**" in topic.text and text(option["description"]) in topic.text
    choices = await here.suggested(here.bob, "help", "topic", "tr")
    unknown = await here.ask(here.bob, "help", {"topic": "dance"})
    assert choices[0].value == "train"
    assert unknown.colour == AMBER and "There is no command with this name." in unknown.text


async def test_picture_of_the_help__shows_the_help_of_today(here: Place) -> None:
    message = await here.reply(here.ana, "help")
    drawn = SHOWN.validate_json((ROOT / TARGET / SHOWN_FILE).read_bytes())["help"]
    today = shown_lines(message_html(message.payload, here.discord.read))
    remake = "draw it again: python -m scripts.pictures --answers"
    changing = ("request ", "aigul used ")
    assert [line for line in drawn if not line.startswith(changing)] == [
        line for line in today if not line.startswith(changing)
    ], remake


def measured(one: Story, loss: float) -> Story:
    """The end of a run that was measured."""
    bits, lines = loss / math.log(2), line_losses(loss)
    summary = EvalSummary(split="test", loss=loss, perplexity=math.exp(loss), bits_per_char=bits, lines=lines)
    one.run.write_manifest(changed(manifest_of(one.record, "completed"), eval=(summary,)))
    return one


def attached(here: Place, name: str, sha256: str) -> Story:
    """A run on attached text."""
    record = run_record(f"gru-{sha256[:6]}", user_id=here.ana.id, label=name)
    effective = changed(record.effective, corpus=CorpusRef(name=sha256, sha256=sha256, bytes=9))
    return Story(here.root / "artifacts", changed(record, effective=effective))


async def test_compare__shows_differences_and_refuses_unmeasured_runs(here: Place) -> None:
    measured(story(here, here.ana, "lstm-new", label="new *one*").start().step(5, 3.0, 2.5).step(9, 2.0, 2.0), 2.2)
    measured(story(here, here.bob, "lstm-old", label="old").start().step(5, 3.0).step(9, 1.5, 1.5), 2.0)
    story(here, here.bob, "lstm-open")
    worse = await here.ask(here.bob, "compare", {"a": "lstm-new", "b": " lstm-old"})
    assert "⚖ new \\*one\\* against old" in worse.text
    assert "✗ worse: loss +10.00% (95 % interval +9.97% to +10.03%), more than 1.00%" in worse.text
    assert " 3.174 " in worse.text and " 2.885 " in worse.text and " +0.289 " in worse.text
    assert (worse.colour, worse.is_ephemeral) == (AMBER, False)
    message = next(iter(here.discord.messages(here.discord.dm_channel(here.bob))))
    [picture] = message.attachments
    alt = "Training of each run over steps, in bits/char. The last values: a: new *one* 5.771, b: old 4.328."
    assert picture["filename"] == "comparison.png" and picture["description"] == alt
    [menu] = components(message)
    same, forbidden = [
        await here.click(user, message, text(menu["custom_id"]), ["lstm-old"]) for user in (here.bob, here.eve)
    ]
    assert "They have the same settings." in same.text and same.is_ephemeral and "Forbidden" in forbidden.text
    for user, a, b, more, said in (
        (here.bob, "lstm-old", "lstm-new", {"split": "test"}, "better: loss -9.09%"),
        (here.bob, "lstm-old", "lstm-old", {}, "compared with itself"),
        (here.bob, "lstm-old", "lstm-open", {}, "not finished training"),
        (here.bob, "lstm-old", "nowhere", {}, "no run or group 'nowhere'"),
        (here.bob, "lstm-old", "lstm-new", {"split": "validation"}, "on its validation split"),
        (here.eve, "lstm-old", "lstm-new", {}, "Forbidden"),
    ):
        answer = (await here.ask(user, "compare", {"a": a, "b": b, **more})).text
        assert said in answer and "mt eval" not in answer and "--" not in answer
    first, other = (measured(attached(here, name, sign * 64), 2.0) for name, sign in (("мәтін", "1"), ("text", "2")))
    four = {"a": first.record.run_id, "b": other.record.run_id, "c": "lstm-new", "d": "lstm-old"}
    of_texts = (await here.ask(here.bob, "compare", {**four})).text
    assert "Their test splits differ" in of_texts
    assert not any(words in of_texts for words in ("mt compare", "attached", "Different settings")), of_texts
    assert corpus_name(CommandContext(here.bot, Caller(here.bob.id)), "3" * 64) == "attached text"
    offered = await here.suggested(here.bob, "compare", "d")
    assert [choice.value for choice in offered][:2] == ["lstm-old", "lstm-new"]
