"""The real bot on a local Discord: commands, buttons, rights, and a run from the attachment to the final message."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import discord
import pytest
import yarl
from discord import app_commands
from discord.gateway import DiscordWebSocket
from discord.http import Route

from bot.app import build
from bot.commands.responses import Tree
from bot.messages.buttons import ButtonPress, Field, form
from bot.session.client import Bot
from local_discord import LocalDiscord, Upload
from local_discord.driver import shown_text
from local_discord.state import Refusal
from local_discord.wire import rows, text
from tests.support.bot import (
    AMBER,
    GREY,
    RED,
    TEXT,
    TOKEN,
    Read,
    ended,
    left,
    log_of,
    place,
    read,
    running_bot,
    settings,
    start_bot,
)
from tests.support.waiting import ANSWER_SECONDS, captured_logs, until
from trainer.artifacts.runs import manifest_of
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.queue.inference_kinds import KINDS


class HasBase(Protocol):
    """The part of discord.py's Route that is looked at here."""

    BASE: str


async def test_run__from_the_attached_text_to_score_and_sample(tmp_path: Path) -> None:
    async with place(tmp_path, workers=1) as here:
        channel = here.discord.dm_channel(here.bob)
        accepted = await here.ask(here.bob, "train", {"file": Upload("My_cats.txt", TEXT)})
        card = await here.discord.wait_for_message(channel, "My cats")
        await here.discord.wait_for_edit(card, "Training")
        final = await here.discord.wait_for_message(channel, "· result")
        await here.discord.wait_for_edit(card, "Completed")
        told = here.discord.messages(channel)
        status = await here.ask(here.bob, "status")
        score = await here.ask(here.ana, "score", {"text": "the cat sat on mat 3"})
        sample = await here.ask(here.bob, "generate", {"prompt": "the ", "max_new_tokens": 10, "samples": 2, "seed": 1})
        again = await here.ask(here.bob, "generate", {"prompt": "the ", "max_new_tokens": 10, "samples": 2, "seed": 1})
        (run,) = here.runs()
        late = await here.ask(here.bob, "cancel", {"run": run.name})
        asked_by = await here.asked_by()
        assert accepted.is_ephemeral and "⏳ Queued: My cats" in accepted.text
        assert told == [card, final]
        assert "✅ Completed: My cats" in shown_text(card.payload)
        assert re.search(
            r"Test \*\*\d\.\d{3}\*\* nats/token · \d\.\d\d bits/char( ⚠)? · perplexity", shown_text(final.payload)
        )
        assert all(
            later - earlier >= 1 for earlier, later in zip(card.edit_seconds, card.edit_seconds[1:], strict=False)
        )
        assert here.discord.read(card.attachments[0]).startswith(b"\x89PNG") and final.attachments == []
        assert "\nGenerated text:\n```\n" in shown_text(final.payload)
        assert "\nFiles: `model.safetensors` " in shown_text(final.payload)
        assert "✅ Completed: My cats" in status.text
        assert "📏 Score of 20 characters with My cats" in score.text
        assert sample.text.count("```") == 4 and not sample.is_ephemeral
        assert sample.text.split("request")[0] == again.text.split("request")[0]
        assert late.colour == AMBER and "already ended" in late.text
        assert asked_by == [(run.name, user.id) for user in (here.ana, here.bob, here.bob)]


BAD_TEXTS: Sequence[tuple[Mapping[str, str | Upload], str]] = [
    ({"file": Upload("cats.txt", b"caf\xe9 \xff" * 9)}, "not UTF-8"),
    ({"file": Upload("cats.pdf", TEXT)}, "ends in .txt"),
    ({"file": Upload("cats.txt", b"x" * 5001)}, "at most 5,000 bytes"),
    ({"file": Upload("cats.txt", b" \n\n")}, "empty"),
    ({"file": Upload("cats.txt", b"one\ntwo\n")}, "needs at least 3"),
    ({"corpus": "no_such_corpus"}, "no corpus"),
    ({"corpus": "../secret"}, "corpus"),
    ({"corpus": "cats", "file": Upload("cats.txt", TEXT)}, "exactly one"),
    ({}, "exactly one"),
]


async def test_train__of_a_bad_text_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for options, reason in BAD_TEXTS:
            answer = await here.ask(here.ana, "train", options)
            assert answer.colour == AMBER and answer.is_ephemeral
            assert reason in answer.text and str(tmp_path) not in answer.text
            await until(lambda: left(tmp_path) == [])


INFERENCE: Mapping[str, Mapping[str, str | int]] = {
    "score": {"text": "a"},
    "generate": {"prompt": "a"},
    "predict": {"text": "a"},
    "chat": {"message": "a"},
    "eval": {},
}


async def test_inference__without_a_finished_run_or_a_worker_is_refused(tmp_path: Path) -> None:
    assert set(INFERENCE) == {kind.route.command for kind in KINDS.values() if kind.route}
    async with place(tmp_path) as here:

        async def refused(run: str | None = None) -> list[Read]:
            answers = [
                await here.ask(here.bob, command, options if run is None else {**options, "run": run})
                for command, options in INFERENCE.items()
            ]
            assert all(answer.is_ephemeral for answer in answers)
            return answers

        async def answer_all(sentence: str, run: str | None = None) -> None:
            assert [one.text for one in await refused(run) if sentence not in one.text] == []

        await answer_all("no completed run")
        for unknown in ("nope", "../../etc", "NOPE " * 30):
            await answer_all("There is no run", unknown)
        story = here.story(here.ana)
        await answer_all("not finished training", story.record.run_id)
        story.run.write_manifest(manifest_of(story.record, "completed"))
        await answer_all("No worker is running. Ask the operator of this bot to start one.")
        assert [one.colour for one in await refused()] == [GREY] * len(INFERENCE)
        long = await here.ask(here.ana, "generate", {"prompt": "a", "max_new_tokens": 21})
        queued = await here.ask(here.ana, "train", {"file": Upload("cats.txt", TEXT)})
    assert "`max_new_tokens` may be at most 20 here, you gave 21" in long.text
    assert "⏳ Queued: cats" in queued.text
    assert "⚠ No worker is running. The job stays in the queue until one starts." in queued.text


async def test_cancel__is_for_the_starter_and_admins_by_command_and_by_button(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        channel = here.discord.dm_channel(here.ana)
        await here.ask(here.ana, "train", {"file": Upload("cats.txt", TEXT)})
        card = await here.discord.wait_for_message(channel, "Queued")
        (run,) = here.runs()
        by_other = await here.ask(here.bob, "cancel", {"run": run.name})
        by_stranger = await read(await here.discord.click(here.eve, card, f"mt:cancel:{run.name}"))
        assert by_other.colour == by_stranger.colour == AMBER
        assert not (run / "cancel").exists()
        by_starter = await read(await here.discord.click(here.ana, card, f"mt:cancel:{run.name}"))
        assert "Cancelled: cats" in by_starter.text and by_starter.is_ephemeral
        assert "The run had not started" in by_starter.text
        await here.discord.wait_for_message(channel, "· result")
        await here.discord.wait_for_edit(card, "Cancelled")
        assert [text(item["label"]) for one in card.components for item in rows(one["components"])] == ["Refresh"]


async def test_crashed_run__offers_resume_and_its_last_lines_to_who_started_it(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        story = here.story(here.ana).start().checkpoint(3).fail("It crashed.")
        crash: dict[str, object] = {
            "last_lines": (f'  File "{tmp_path}/x.py", line 7\n', "Fatal Python error: Aborted\n")
        }
        error = RunError.of(AppError(ErrorCode.CRASH_LOOP, "It crashed."))
        story.run.write_manifest(manifest_of(story.record, "failed", error=error).model_copy(update=crash))
        here.bot.notifier.follow("char_lstm-1")
        final = await here.discord.wait_for_message(here.discord.dm_channel(here.ana), "· result")
        resumed, by_other = [
            await read(await here.discord.click(user, final, "mt:resume:char_lstm-1")) for user in (here.ana, here.bob)
        ]
        logs = await read(await here.discord.click(here.ana, final, "mt:logs:char_lstm-1"))
        assert "Fatal Python error: Aborted" in shown_text(final.payload)
        assert "has no complete checkpoint to resume from" in resumed.text
        assert "`/mt resume` is only for" in by_other.text
        assert 'File "…/x.py", line 7\nFatal Python error: Aborted' in logs.text


async def test_button__of_somebody_else_s_bot_is_left_alone(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        story = here.story(here.ana)
        here.bot.notifier.follow(story.record.run_id)
        channel = here.discord.dm_channel(here.ana)
        card = await here.discord.wait_for_message(channel, "Queued")
        view = discord.ui.View()
        other: discord.ui.Button[discord.ui.View] = discord.ui.Button(label="Other", custom_id="other:1")
        view.add_item(other)
        partial = here.bot.get_partial_messageable(channel.id).get_partial_message(card.id)
        await partial.edit(view=view)
        call = await here.discord.click(here.ana, card, "other:1")
        await here.ask(here.ana, "queue")
        assert call.answered_seconds is None


async def test_status__without_a_run_is_of_the_newest_own_or_visible_one(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        nothing = await here.ask(here.bob, "status")
        here.story(here.ana, "char_lstm-ana").start().step(10, 3.0).step(20, 2.0)
        of_ana = await here.ask(here.bob, "status")
        here.story(here.bob, "char_lstm-bob")
        own = await here.ask(here.bob, "status")
        named = await here.ask(here.bob, "status", {"run": "char_lstm-ana"})
        assert nothing.colour == AMBER and "There is no run yet" in nothing.text
        assert "char_lstm-ana · request" in of_ana.text
        assert "Worker not responding" in of_ana.text
        assert "char_lstm-bob · request" in own.text
        assert "char_lstm-ana · request" in named.text


async def test_closed_dms__are_told_in_status(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.discord.set_dms(here.ana, is_open=False)
        guild = here.discord.add_guild("home", [here.ana])
        call = await here.discord.slash(here.ana, "mt train", {"file": Upload("cats.txt", TEXT)}, guild=guild)
        assert (await read(call)).is_ephemeral
        (run,) = here.runs()
        await until(lambda: (run / "dm.json").exists() and b'"is_closed":true' in (run / "dm.json").read_bytes())
        status = await read(await here.discord.slash(here.ana, "mt status", {}, guild=guild))
        assert "This bot cannot send you direct messages." in status.text


async def test_members_of_an_allowed_guild__are_users_wherever_they_call_from(tmp_path: Path) -> None:
    async with LocalDiscord(token=TOKEN, answer_seconds=ANSWER_SECONDS) as server:
        ana, bob, eve = (server.add_user(name) for name in ("ana", "bob", "eve"))
        home = server.add_guild("home", [bob])
        away = server.add_guild("away", [eve], bot_present=False)
        chosen = settings(tmp_path, server, owner_id=ana.id, allowed_guild_ids=(home.id, away.id))
        async with running_bot(chosen, server):
            in_guild = await read(await server.slash(bob, "mt status", {}, guild=home))
            in_dm = await read(await server.slash(bob, "mt status", {}))
            stranger = await read(await server.slash(eve, "mt status", {}))
            server.fail_next("GET", "/guilds/{guild_id}/members/{user_id}", 503)
            busy = await read(await server.slash(server.add_user("new"), "mt status", {}))
        assert server.violations == []
    assert "There is no run yet" in in_guild.text and in_guild.is_ephemeral
    assert "There is no run yet" in in_dm.text
    assert "Forbidden" in stranger.text
    assert busy.colour == GREY and "Try again" in busy.text


async def test_fault_of_the_bot__is_told_in_red_with_the_id_that_is_in_the_log(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        story = here.story(None)
        (story.run.path / "request.json").write_bytes(b"no request")
        with captured_logs() as logs:
            answer = await here.ask(here.ana, "status", {"run": story.record.run_id})
        (line,) = [line for line in logs if line["event"] == "command_failed"]
        assert answer.colour == RED and answer.is_ephemeral
        assert f"request {line['request_id']}" in answer.text
        assert str(tmp_path) not in answer.text


async def test_command_of_an_older_version__is_answered(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        async with discord.Client(intents=discord.Intents.none()) as older:
            await older.login(TOKEN)
            tree = app_commands.CommandTree(older)
            tree.add_command(ancient)
            await tree.sync()
        answer = await read(await here.discord.slash(here.ana, "ancient"))
        assert answer.colour == RED and answer.is_ephemeral


@app_commands.command(description="A command that is no more.")
async def ancient(interaction: discord.Interaction) -> None:
    await interaction.response.defer()


async def test_form_of_an_older_version__does_nothing_and_is_no_fault(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.bot.tree.add_command(ancient_form)
        await here.bot.tree.sync()
        with captured_logs() as logs:
            opened = await here.discord.slash(here.ana, "ancient-form")
            sent = await here.discord.submit_modal(opened, {"steps": "3"})
            after = await here.ask(here.ana, "status")
        assert sent.original is None and sent.followups == []
        assert "There is no run yet" in after.text
        assert not any(line["log_level"] == "error" for line in logs)


@app_commands.command(name="ancient-form", description="A form that is no more.")
async def ancient_form(interaction: discord.Interaction[Bot]) -> None:
    await interaction.response.send_modal(form("dance", "char_lstm-1", "Dance", Field("steps", "Steps")))


async def test_addresses__that_are_not_set_are_discord_s_own() -> None:
    route: HasBase = Route
    own = (route.BASE, DiscordWebSocket.DEFAULT_GATEWAY)
    async with build(Settings()):
        assert (route.BASE, DiscordWebSocket.DEFAULT_GATEWAY) == own


async def test_gateway__that_is_refused_at_first_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("ERROR")  # a command that ran in this process before may show no log
    async with LocalDiscord(token=TOKEN, answer_seconds=ANSWER_SECONDS) as server:
        nowhere: dict[str, object] = {"gateway_url": "ws://127.0.0.1:9/gateway", "owner_id": 7}
        async with build(settings(tmp_path, server, workers=0, **nowhere)) as bot:
            running = asyncio.create_task(bot.start(TOKEN))
            await until(lambda: "Attempting a reconnect" in caplog.text)
            DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(server.gateway_url)
            await server.connected()
        await asyncio.gather(running, return_exceptions=True)
        assert server.violations == []


class Faulty(Bot):
    """Has a fault of its own while it is connected."""

    async def connect(self, *, reconnect: bool = True) -> None:
        connecting = asyncio.create_task(super().connect(reconnect=reconnect))
        await self.wait_until_ready()
        connecting.cancel()
        raise AttributeError("a fault")


async def no_answer(interaction: discord.Interaction[Bot], press: ButtonPress) -> None:
    """No button is pressed."""


async def test_fault__while_it_is_connected_ends_the_bot(tmp_path: Path) -> None:
    async with (
        LocalDiscord(token=TOKEN, answer_seconds=ANSWER_SECONDS) as server,
        Faulty(settings(tmp_path, server), no_answer) as bot,
    ):
        bot.tree = Tree(bot)
        with pytest.raises(AttributeError, match="a fault"):
            await bot.start(TOKEN)


@asynccontextmanager
async def discord_alone() -> AsyncIterator[LocalDiscord]:
    """A Discord for bots of processes of their own."""
    async with LocalDiscord(token=TOKEN, answer_seconds=ANSWER_SECONDS) as server:
        yield server
        assert server.violations == []


def environment_on(server: LocalDiscord, **changes: str) -> dict[str, str]:
    return {
        "DISCORD__TOKEN": TOKEN,
        "DISCORD__OWNER_ID": "7",
        "DISCORD__API_BASE_URL": server.api_base_url,
        "DISCORD__GATEWAY_URL": server.gateway_url,
        "QUEUE__EMBEDDED_WORKERS": "0",
        **changes,
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_process__ends_all_and_exits_0_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    async with discord_alone() as server:
        ana = server.add_user("ana")
        changes = {"DISCORD__OWNER_ID": str(ana.id), "QUEUE__EMBEDDED_WORKERS": "1"}
        bot = await start_bot(tmp_path, environment_on(server, **changes))
        await server.connected()
        await server.synced()
        answer = await read(await server.slash(ana, "mt status", {}))
        bot.send_signal(number)
        code, errors = await ended(bot)
    assert "There is no run yet" in answer.text
    assert code == 0, errors


@pytest.mark.parametrize("is_away", [False, True])
async def test_process__ends_on_a_signal_while_it_connects(tmp_path: Path, is_away: bool) -> None:
    async with discord_alone() as server:
        if is_away:
            server.fail_next("GET", "/users/@me", "reset", times=99)
        bot = await start_bot(tmp_path, environment_on(server))
        await (until(lambda: len(server.requests) >= 2) if is_away else server.synced())
        bot.send_signal(signal.SIGTERM)
        code, errors = await ended(bot)
    assert code == 0, errors
    assert "Unclosed" not in errors
    log = log_of(tmp_path).read_text(encoding="utf-8")
    assert ("Discord is not reachable from this machine." in log) == is_away


_REFUSED = "Discord refuses DISCORD__TOKEN. Copy the token again from Discord's developer portal.\n"


@pytest.mark.parametrize(
    ("changes", "exit_code", "sentence"),
    [
        ({"DISCORD__TOKEN": "wrong"}, 2, _REFUSED),
        ({"REDIS__URL": "redis://127.0.0.1:9"}, 1, ""),
        ({"DISCORD__OWNER": "7"}, 2, "did you mean `DISCORD__OWNER_ID`"),
        ({"DISCORD__TOKEN": ""}, 2, "DISCORD__TOKEN is not set"),
        ({"DISCORD__OWNER_ID": ""}, 2, "Set DISCORD__OWNER_ID"),
    ],
)
async def test_process__that_cannot_start_says_one_sentence(
    tmp_path: Path, changes: dict[str, str], exit_code: int, sentence: str
) -> None:
    async with discord_alone() as server:
        environment = {name: value for name, value in environment_on(server, **changes).items() if value}
        code, errors = await ended(await start_bot(tmp_path, environment))
    assert (code, errors.count("\n")) == (exit_code, 1)
    assert sentence in errors


async def test_process__that_discord_refuses_says_so_and_exits_1(tmp_path: Path) -> None:
    async with discord_alone() as server:
        server.fail_next("GET", "/users/@me", Refusal(403, 40002, "You need to verify your account"))
        code, errors = await ended(await start_bot(tmp_path, environment_on(server)))
    assert code == 1
    assert errors.startswith("Discord is unavailable: 403") and errors.count("\n") == 1


async def test_process__waits_for_discord_and_ends_when_refused_for_good(tmp_path: Path) -> None:
    async with discord_alone() as server:
        server.fail_next("GET", "/users/@me", "reset")
        server.fail_next("GET", "/applications/@me", 503)
        server.fail_next("PUT", "/applications/{application_id}/commands", 503)
        bot = await start_bot(tmp_path, environment_on(server))
        await until(lambda: len(server.requests) > 0)
        twin = await ended(await start_bot(tmp_path, environment_on(server)))
        await server.synced()
        await server.connected()
        server.drop_gateway(4014)
        code, errors = await ended(bot)
        third = await start_bot(tmp_path, environment_on(server))
        await server.connected()
        server.drop_gateway(4004)
        refused = await ended(third)
    assert (twin[0], twin[1].count("\n")) == (1, 1) and "Another bot uses the same" in twin[1]
    assert code == 1 and "refuses the bot's connection (code 4014)" in errors
    assert refused == (2, _REFUSED)
    assert "Unclosed" not in errors + twin[1]
