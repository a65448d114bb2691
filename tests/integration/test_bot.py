"""The real bot on a local Discord: commands, buttons, rights, and a run from the attachment to the final message."""

import asyncio
import re
import signal
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import discord
import pytest
import yarl
from discord import app_commands
from discord.gateway import DiscordWebSocket
from discord.http import Route

from bot.app import build
from bot.commands.responses import Tree
from bot.main import main
from bot.messages.buttons import ButtonPress, Field, form
from bot.session.client import Bot
from local_discord import Upload
from local_discord.driver import shown_text
from local_discord.state import Refusal
from tests.support.bot import (
    AMBER,
    GREY,
    RED,
    TEXT,
    TOKEN,
    Place,
    Read,
    discord_alone,
    ended,
    environment_on,
    log_of,
    place,
    read,
    running_bot,
    settings,
    start_bot,
)
from tests.support.markers import slow_except
from tests.support.waiting import captured_logs, until
from trainer.artifacts.runs import manifest_of
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.operations import OPERATIONS

MEMBERS = "/guilds/{guild_id}/members/{user_id}"


class HasBase(Protocol):
    """The part of discord.py's Route that is looked at here."""

    BASE: str


async def test_run__from_the_attached_text_to_score_and_sample(tmp_path: Path) -> None:
    async with place(tmp_path, workers=1) as here:
        accepted = await here.ask(here.bob, "train", {"file": Upload("My_cats.txt", TEXT)})
        assert accepted.is_ephemeral and "⏳ Queued: My cats" in accepted.text
        card = await here.message(here.bob, "My cats")
        await here.discord.wait_for_edit(card, "Training")
        final = await here.message(here.bob, "· result")
        await here.discord.wait_for_edit(card, "Completed")
        assert here.discord.messages(card.channel) == [card, final]
        assert "✅ Completed: My cats" in shown_text(card.payload)
        said = shown_text(final.payload)
        assert re.search(r"Test \*\*\d\.\d{3}\*\* bits/token( ⚠)? · \d\.\d{3} bits/char( ⚠)? · perplexity", said)
        counted = r"\d-gram: \d\.\d{3}( \(!\))? bits per character; this model \d\.\d{3}( \(!\))? \([+-]\d\.\d{3}\)"
        assert re.search(counted, said)
        assert "\nGenerated text:\n```\n" in said
        assert all(later - earlier >= 1 for earlier, later in pairwise(card.edit_seconds))
        assert here.discord.read(card.attachments[0]).startswith(b"\x89PNG") and final.attachments == []
        assert "✅ Completed: My cats" in (await here.ask(here.bob, "status")).text
        score = await here.ask(here.ana, "score", {"text": "the cat sat on a mat"})
        assert "📏 Score of 20 characters with My cats" in score.text
        options: dict[str, str | int] = {"prompt": "the ", "max_new_tokens": 10, "samples": 2, "seed": 1}
        sample, again = [await here.ask(here.bob, "generate", {**options}) for _ in range(2)]
        assert sample.text.count("```") == 4 and not sample.is_ephemeral
        assert sample.text.split("request")[0] == again.text.split("request")[0]
        (run,) = here.runs()
        late = await here.ask(here.bob, "cancel", {"run": run.name})
        assert late.colour == AMBER and "already ended" in late.text
        assert await here.inference_requests() == [(run.name, user.id) for user in (here.ana, here.bob, here.bob)]


INFERENCE: Mapping[str, Mapping[str, str | Upload]] = {
    "score": {"text": "a"},
    "generate": {"prompt": "a"},
    "predict": {"text": "a"},
    "chat": {"message": "a"},
    "eval": {},
    "mt-reading segment": {"file": Upload("text.txt", TEXT)},
}


async def test_inference__without_a_finished_run_or_a_worker_is_refused(tmp_path: Path) -> None:
    assert set(INFERENCE) == {one.chat.command for one in OPERATIONS if one.chat and one.work == "inference:submit"}
    async with place(tmp_path) as here:

        async def refused(sentence: str, run: Mapping[str, str] = MappingProxyType({})) -> list[Read]:
            answers = [await here.ask(here.bob, command, {**typed, **run}) for command, typed in INFERENCE.items()]
            assert [one for one in answers if not one.is_ephemeral or sentence not in one.text] == []
            return answers

        await refused("no completed run")
        for unknown in ("../../etc", "NOPE " * 30):
            await refused("There is no run", {"run": unknown})
        story = here.story(here.ana)
        await refused("not finished training", {"run": story.record.run_id})
        story.run.write_manifest(manifest_of(story.record, "completed"))
        answers = await refused("No worker is running. Ask the operator of this bot to start one.")
        assert [one.colour for one in answers] == [GREY] * len(INFERENCE)
        long = await here.ask(here.ana, "generate", {"prompt": "a", "max_new_tokens": 21})
        queued = await here.ask(here.ana, "train", {"file": Upload("cats.txt", TEXT)})
    assert "`max_new_tokens` may be at most 20 here, you gave 21" in long.text
    assert "⏳ Queued: cats" in queued.text
    assert "⚠ No worker is running. The job stays in the queue until one starts." in queued.text


async def test_crashed_run__offers_resume_and_its_last_lines_to_its_owner(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        story = here.story(here.ana).start().checkpoint(3).fail("It crashed.")
        lines = (f'  File "{tmp_path}/x.py", line 7\n', "Fatal Python error: Aborted\n")
        error = RunError.of(AppError(ErrorCode.CRASH_LOOP, "It crashed."))
        story.run.write_manifest(changed(manifest_of(story.record, "failed", error=error), last_lines=lines))
        here.bot.notifier.follow("char_lstm-1")
        final = await here.message(here.ana, "· result")
        assert "Fatal Python error: Aborted" in shown_text(final.payload)
        for user, button, said in (
            (here.ana, "resume", "has no complete checkpoint to resume from"),
            (here.bob, "resume", "`/mt resume` is only for"),
            (here.ana, "logs", 'File "…/x.py", line 7\nFatal Python error: Aborted'),
        ):
            assert said in (await here.click(user, final, f"mt:{button}:char_lstm-1")).text


async def test_button__of_another_bot_is_ignored(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        message = await here.message_with(here.ana, "other:1")
        call = await here.discord.click(here.ana, message, "other:1")
        await here.ask(here.ana, "queue")
        assert call.answered_seconds is None


async def test_status__without_a_run_is_of_the_newest_own_or_visible_one(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        nothing = await here.ask(here.bob, "status")
        assert nothing.colour == AMBER and "There is no run yet" in nothing.text
        here.story(here.ana, "char_lstm-ana").start().step(10, 3.0).step(20, 2.0)
        of_ana = await here.ask(here.bob, "status")
        assert "char_lstm-ana · request" in of_ana.text and "Worker not responding" in of_ana.text
        here.story(here.bob, "char_lstm-bob")
        assert "char_lstm-bob · request" in (await here.ask(here.bob, "status")).text
        assert "char_lstm-ana · request" in (await here.ask(here.bob, "status", {"run": "char_lstm-ana"})).text


async def test_members_of_an_allowed_guild__are_users_once_discord_says_so(tmp_path: Path) -> None:
    async with discord_alone() as server:
        ana, bob, eve = (server.add_user(name) for name in ("ana", "bob", "eve"))
        home = server.add_guild("home", [bob])
        away = server.add_guild("away", [eve], bot_present=False)
        chosen = settings(tmp_path, server, owner_id=ana.id, allowed_guild_ids=(home.id, away.id))
        async with running_bot(chosen, server) as bot:
            here = Place(server, bot, tmp_path, ana, bob, eve)
            here.story(None, "lstm-1")
            server.fail_next("GET", MEMBERS, 503)
            assert await here.suggested(bob, "status", "run") == [], "Discord does not say who asks"
            assert [choice.value for choice in await here.suggested(bob, "status", "run")] == ["lstm-1"]
            in_guild = await read(await server.slash(bob, "mt status", {}, guild=home))
            assert "lstm-1" in in_guild.text and in_guild.is_ephemeral
            assert "lstm-1" in (await here.ask(bob, "status")).text
            assert "Forbidden" in (await here.ask(eve, "status")).text
            server.fail_next("GET", MEMBERS, 503)
            busy = await here.ask(server.add_user("new"), "status")
            assert busy.colour == GREY and "Try again" in busy.text


async def test_error_of_the_bot__is_shown_in_red_with_the_id_in_the_log(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        story = here.story(None)
        (story.run.path / "request.json").write_bytes(b"no request")
        with captured_logs() as logs:
            answer = await here.ask(here.ana, "status", {"run": story.record.run_id})
        (line,) = [line for line in logs if line["event"] == "command_failed"]
        assert answer.colour == RED and answer.is_ephemeral
        assert f"request {line['request_id']}" in answer.text
        assert str(tmp_path) not in answer.text


async def test_command_of_an_older_version__is_answered_and_suggests_nothing(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        async with discord.Client(intents=discord.Intents.none()) as older:
            await older.login(TOKEN)
            tree = app_commands.CommandTree(older)
            tree.add_command(ancient)
            await tree.sync()
        with captured_logs() as logs:
            asking = asyncio.create_task(here.discord.autocomplete(here.ana, "ancient", "what", "a", timeout=1))
            await until(lambda: any(line["event"] == "command_not_started" for line in logs))
            asking.cancel()
        assert [one for one in here.discord.requests if one.operation_id == "create_interaction_response"] == []
        answer = await read(await here.discord.slash(here.ana, "ancient", {"what": "a"}))
        assert answer.colour == RED and answer.is_ephemeral


async def _nothing(interaction: discord.Interaction, typed: str) -> list[app_commands.Choice[str]]:
    return []


@app_commands.command(description="A command that is no more.")
@app_commands.allowed_installs(guilds=True, users=True)
@app_commands.autocomplete(what=_nothing)
async def ancient(interaction: discord.Interaction, what: str) -> None:
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
@app_commands.allowed_installs(guilds=True, users=True)
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
    async with discord_alone() as server:
        nowhere: dict[str, object] = {"gateway_url": "ws://127.0.0.1:9/gateway", "owner_id": 7}
        async with build(settings(tmp_path, server, workers=0, **nowhere)) as bot:
            running = asyncio.create_task(bot.start(TOKEN))
            await until(lambda: "Attempting a reconnect" in caplog.text)
            DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(server.gateway_url)
            await server.connected()
        await asyncio.gather(running, return_exceptions=True)


async def test_bot__says_once_that_discord_is_away_and_how_it_is_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def has_connected(times: int) -> bool:
        said.append(capsys.readouterr().out)
        return "".join(said).count("Discord: connected as ") == times

    async with discord_alone() as server:
        server.fail_next("GET", "/users/@me", "reset", times=4)  # aiohttp asks twice
        with captured_logs() as logs:
            async with running_bot(settings(tmp_path, server), server):
                await until(lambda: has_connected(1))
                server.drop_gateway("invalidate")
                await until(lambda: has_connected(2))
    assert [line["event"] for line in logs].count("discord_unreachable") > 1
    assert [
        "".join(said).count(words) for words in ("Discord is not reachable", "To add it to your account, open ")
    ] == [1, 1]


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
    async with discord_alone() as server, Faulty(settings(tmp_path, server), no_answer) as bot:
        bot.tree = Tree(bot)
        with pytest.raises(AttributeError, match="a fault"):
            await bot.start(TOKEN)


@pytest.mark.parametrize(
    ("number", "env"), [(signal.SIGINT, "dev"), pytest.param(signal.SIGHUP, "prod", marks=pytest.mark.slow)]
)
async def test_process__answers_and_exits_0_on_a_signal(tmp_path: Path, number: signal.Signals, env: str) -> None:
    async with discord_alone() as server:
        ana = server.add_user("ana")
        changes = {"DISCORD__OWNER_ID": str(ana.id), "QUEUE__EMBEDDED_WORKERS": "1", "APP__ENV": env}
        bot = await start_bot(tmp_path, environment_on(server, **changes))
        await server.connected()
        await server.synced()
        answer = await read(await server.slash(ana, "mt status", {}))
        await until(lambda: "oauth2/authorize" in log_of(tmp_path).read_text(encoding="utf-8"))
        bot.send_signal(number)
        code, errors = await ended(bot)
    assert "There is no run yet" in answer.text
    assert code == 0, errors
    log = log_of(tmp_path).read_text(encoding="utf-8")
    address = f"https://discord.com/oauth2/authorize?client_id={server.application_id}&scope="
    rights = 1 << 10 | 1 << 11 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 38  # view, send, embed, attach, history, in threads
    account = f"{address}applications.commands&integration_type=1"
    server_link = f"{address}bot+applications.commands&permissions={rights}&integration_type=0"
    before = ("add it to your account, open ", "add it to a server, open ")
    if env == "prod":
        before = ('"account_link": "', '"server_link": "')
    assert [log.count(f"{words}{link}") for words, link in zip(before, (account, server_link), strict=True)] == [1, 1]


async def test_process__says_at_the_start_that_the_owner_cannot_be_written_to(tmp_path: Path) -> None:
    async with discord_alone() as server:
        ana = server.add_user("ana", dms_open=False)
        bot = await start_bot(tmp_path, environment_on(server, DISCORD__OWNER_ID=str(ana.id)))
        await until(lambda: "cannot send direct messages to the owner. Add it" in log_of(tmp_path).read_text("utf-8"))
        bot.send_signal(signal.SIGTERM)
        assert (await ended(bot))[0] == 0


@pytest.mark.parametrize("is_away", slow_except([False, True], False))
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
    assert log.count("\nDiscord is not reachable from this machine.") == is_away


_REFUSED = "Discord refuses DISCORD__TOKEN. Copy the token again from Discord's developer portal.\n"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"DISCORD__OWNER": "7"}, "did you mean `DISCORD__OWNER_ID`"),
        ({"DISCORD__TOKEN": ""}, "DISCORD__TOKEN is not set"),
        ({"DISCORD__OWNER_ID": ""}, "Set DISCORD__OWNER_ID"),
        ({"DISCORD__TOKEN": "Bot token"}, "`DISCORD__TOKEN` must be the token alone, without spaces; each setting has"),
        (
            {"DISCORD__OWNER_ID": "aigul"},
            "then right-click the name and copy the id), you gave 'aigul'",
        ),
        ({"DISCORD__ALLOWED_USER_IDS": "7, <@8>"}, "`DISCORD__ALLOWED_USER_IDS` must have numbers such as 123456789"),
    ],
)
def test_wrong_settings__are_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DISCORD__TOKEN", "DISCORD__OWNER_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"DISCORD__TOKEN": TOKEN, "DISCORD__OWNER_ID": "7", **changes}.items():
        if value:
            monkeypatch.setenv(name, value)
    assert main() == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("", "neither a file `.env` in {} nor the environment has it. Copy the bot's token"),
        (".env", "neither a file `.env` in {} nor the environment has it. Copy the bot's token"),
        ("env.txt", "must be called `.env`: rename `env.txt` in {}.\n"),
        (".env.txt", "must be called `.env`: rename `.env.txt` in {}.\n"),
    ],
)
def test_missing_token__names_the_file_and_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, remedy: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISCORD__TOKEN", raising=False)
    if name:
        (tmp_path / name).touch()
    assert main() == 2
    said = capsys.readouterr().err
    assert said.startswith("DISCORD__TOKEN is not set") and remedy.format(tmp_path) in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "refusal", "exit_code", "sentence"),
    [
        ({"DISCORD__TOKEN": "wrong"}, None, 2, _REFUSED),
        pytest.param(
            {"REDIS__URL": "redis://127.0.0.1:9"}, None, 1, "No Redis answers at `REDIS__URL`.", marks=pytest.mark.slow
        ),
        pytest.param(
            {},
            Refusal(403, 40002, "You need to verify your account"),
            1,
            "Discord is unavailable: 403",
            marks=pytest.mark.slow,
        ),
    ],
)
async def test_process__that_is_refused_says_so_in_one_sentence(
    tmp_path: Path, changes: dict[str, str], refusal: Refusal | None, exit_code: int, sentence: str
) -> None:
    async with discord_alone() as server:
        if refusal is not None:
            server.fail_next("GET", "/users/@me", refusal)
        code, errors = await ended(await start_bot(tmp_path, environment_on(server, **changes)))
    assert (code, errors.count("\n")) == (exit_code, 1)
    assert errors.startswith(sentence)


@pytest.mark.slow
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
    assert (twin[0], twin[1].count("\n")) == (1, 1) and twin[1].startswith("The bot already runs (process ")
    assert code == 1 and "refuses the bot's connection (code 4014)" in errors
    assert refused == (2, _REFUSED)
    assert "Unclosed" not in errors + twin[1]
