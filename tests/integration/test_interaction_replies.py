"""Each interaction gets one answer, even if calls to Discord fail."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from local_discord import LocalDiscord
from local_discord.driver import shown_text
from local_discord.rest import FaultAction
from local_discord.state import Refusal, User
from tests.support.bot import AMBER, ORIGINAL, RED, TOKEN, left, place, read, running_bot, settings
from tests.support.waiting import ANSWER_SECONDS, captured_logs, until
from trainer.artifacts.runs import manifest_of

CALLBACK = "/interactions/{interaction_id}/{interaction_token}/callback"
LONG_LOG = b'{"timestamp": "2026-11-20T12:00:00+00:00", "level": "info", "message": "' + b"x" * 3000 + b'"}\n'


@asynccontextmanager
async def fragile(root: Path, *, answer_seconds: float = 3) -> AsyncIterator[tuple[LocalDiscord, User]]:
    """A bot and its owner on a Discord that may be hurt by what a test does."""
    async with LocalDiscord(token=TOKEN, answer_seconds=answer_seconds) as server:
        ana = server.add_user("ana")
        async with running_bot(settings(root, server, owner_id=ana.id), server):
            yield server, ana


def answers_of(server: LocalDiscord) -> int:
    """How often a first answer was sent."""
    return [one.operation_id for one in server.requests].count("create_interaction_response")


@pytest.mark.parametrize(("fault", "sent"), [("reply_lost", 1), ("reset", 2)])
async def test_first_answer__is_given_until_it_arrives_and_once(tmp_path: Path, fault: FaultAction, sent: int) -> None:
    async with place(tmp_path) as here:
        here.story(here.ana)
        here.discord.fail_next("POST", CALLBACK, fault)
        answer = await here.ask(here.ana, "status")
        assert "⏳ Queued" in answer.text and answer.is_ephemeral
        assert answers_of(here.discord) == sent and here.discord.unresolved == []


@pytest.mark.parametrize(("answer_seconds", "times"), [(0.1, 1), (3.0, 20)])
async def test_interaction__that_is_answered_too_late_does_nothing(
    tmp_path: Path, answer_seconds: float, times: int
) -> None:
    async with fragile(tmp_path, answer_seconds=answer_seconds) as (server, ana):
        server.fail_next("POST", CALLBACK, "reset", times=times)
        with captured_logs() as logs:
            await server.slash(ana, "mt train", {"corpus": "demo"})
            await until(lambda: any(line["event"] == "interaction_expired" for line in logs))
            await until(lambda: left(tmp_path) == [])


@pytest.mark.parametrize("fault", ["reply_lost", "late_500"])
async def test_first_answer__that_discord_has_already_counts(tmp_path: Path, fault: FaultAction) -> None:
    async with fragile(tmp_path, answer_seconds=ANSWER_SECONDS) as (server, ana):
        server.fail_next("POST", CALLBACK, fault)
        if fault == "reply_lost":
            server.fail_next("GET", ORIGINAL, "reset")  # so that it is given again: "already acknowledged"
        with captured_logs() as logs:
            answer = await read(await server.slash(ana, "mt status", {}))
        assert [line for line in logs if line["event"] == "token_used_twice"] == []
    assert "There is no run yet" in answer.text


async def test_command__that_another_process_has_answered_does_not_run(tmp_path: Path) -> None:
    answered = Refusal(400, 40060, "Interaction has already been acknowledged.")
    async with fragile(tmp_path, answer_seconds=ANSWER_SECONDS) as (server, ana):
        hall = server.add_guild("lab", [ana])
        with captured_logs() as logs:
            for command, options in (("mt train", {"corpus": "demo"}), ("mt settings", {}), ("mt status", {})):
                server.fail_next("POST", CALLBACK, answered)
                await server.slash(ana, command, options)
                await until(lambda: not server.faults)
            await until(lambda: [line["event"] for line in logs].count("token_used_twice") == 3)
            told = await read(await server.slash(ana, "mt-admin doctor", guild=hall))
        ran = ("command_answered", "form_opened", "command_failed")
        events = {str(line["command"]): line["event"] for line in logs if line["event"] in (*ran, "token_used_twice")}
        events.pop("mt-admin doctor", None)
        assert events == dict.fromkeys(("train", "settings", "status"), "token_used_twice")
        assert list((tmp_path / "artifacts" / "models").glob("*")) == []
    assert "Another process answers commands with the same DISCORD__TOKEN" in told.text


async def test_answer__is_sent_until_it_arrives(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        story = here.story(here.ana)
        story.run.logs.write_bytes(LONG_LOG)
        here.discord.fail_next("PATCH", ORIGINAL, 503, times=2)
        here.discord.fail_next("PATCH", ORIGINAL, "reset")
        answer = await here.reply(here.ana, "logs", {"run": story.record.run_id})
        assert here.discord.read(answer.attachments[0]).endswith(b"x" * 3000)
        assert len(answer.versions) == 2 and here.discord.unresolved == []


async def test_error__after_a_public_first_answer_is_shown_in_private_once(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.discord.fail_next("DELETE", ORIGINAL, "reply_lost")
        answer = await here.ask(here.ana, "generate", {"prompt": "a"})
        assert "no completed run" in answer.text and answer.is_ephemeral
        assert here.discord.messages(here.discord.dm_channel(here.ana)) == []
        assert here.discord.unresolved == []


async def test_error__that_cannot_be_sent_is_logged_and_the_bot_continues(tmp_path: Path) -> None:
    async with fragile(tmp_path) as (server, ana):
        server.fail_next("PATCH", ORIGINAL, "reset")
        server.fail_next("PATCH", ORIGINAL, Refusal(404, 10008, "Unknown Message"))
        with captured_logs() as logs:
            await server.slash(ana, "mt status", {})
            await until(lambda: any(line["event"] == "error_not_sent" for line in logs))
        later = await read(await server.slash(ana, "mt status", {}))
    assert "There is no run yet" in later.text


@pytest.mark.parametrize(("status", "code"), [(401, 50027), (404, 10015)])
async def test_answer__after_the_token_expires_is_a_direct_message(tmp_path: Path, status: int, code: int) -> None:
    async with place(tmp_path) as here:
        here.story(here.ana)
        here.discord.fail_next("PATCH", ORIGINAL, Refusal(status, code, "Gone"))
        await here.discord.slash(here.ana, "mt status", {})
        told = await here.message(here.ana, "kk-ipa(.|\\n)*request")
        assert "interaction_metadata" not in told.payload


async def test_answer__that_was_deleted_is_one_line_of_the_log(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.story(here.ana)
        here.discord.fail_next("PATCH", ORIGINAL, Refusal(404, 10008, "Gone"))
        with captured_logs() as logs:
            call = await here.discord.slash(here.ana, "mt status", {})
            await until(lambda: any("answer_deleted" in str(line["event"]) for line in logs))
        sent = [one.operation_id for one in here.discord.requests if one.path.split("/")[-3:-2] == [call.token]]
        assert sent == ["update_original_webhook_message"]
        assert [line["log_level"] for line in logs if line["event"] != "bot_ready"] == ["warning"]


async def test_button__that_changes_its_message_shows_errors_beside_it(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        story = here.story(here.ana)
        message = await here.reply(here.ana, "status")
        (story.run.path / "request.json").unlink()
        told = await (await here.discord.click(here.ana, message, "mt:status:char_lstm-1:again")).followup()
        assert "There is no run" in shown_text(told.payload) and told.visible_to == here.ana
        assert "⏳ Queued" in shown_text(message.payload)


async def test_form__is_not_opened_for_strangers_nor_where_something_is_broken(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        stranger = await here.ask(here.eve, "score")
        (here.story(here.ana).run.path / "request.json").write_bytes(b"no request")
        broken = await here.ask(here.ana, "score", {"run": "char_lstm-1"})
        assert (stranger.colour, broken.colour) == (AMBER, RED)
        assert stranger.is_ephemeral and broken.is_ephemeral


async def test_form__with_a_lost_reply_is_not_answered_again(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        story = here.story(here.ana)
        story.run.write_manifest(manifest_of(story.record, "completed"))
        here.discord.fail_next("POST", CALLBACK, "reply_lost")
        with captured_logs() as logs:
            call = await here.discord.slash(here.ana, "mt score", {"run": "char_lstm-1"})
            await until(lambda: any(line["event"] == "form_not_confirmed" for line in logs))
        assert (await call.form())["title"] == "Score with kk-ipa"
