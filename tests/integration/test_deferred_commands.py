"""Commands that a killed bot had deferred: the next bot answers each of them once."""

import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest

from bot.session.client import Bot
from bot.session.deferred import Deferred
from local_discord import LocalDiscord
from local_discord.driver import shown_text
from local_discord.state import Call, Refusal, Upload, User
from tests.support.bot import (
    AMBER,
    EPHEMERAL,
    GREY,
    ORIGINAL,
    RED,
    TEXT,
    discord_alone,
    environment_on,
    read,
    running_bot,
    settings,
    start_bot,
)
from tests.support.inference import finished_run
from tests.support.markers import slow_except
from tests.support.redis_servers import address, embedded
from tests.support.waiting import captured_logs, until

AGAIN = "The bot restarted before it could answer. Run the command again."


class Place(NamedTuple):
    """A Discord with a person, and the folder of the bots that come and go."""

    discord: LocalDiscord
    ana: User
    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "artifacts" / "deferred"

    def records(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*"))

    async def thinking(self) -> Call:
        """A command whose first answer was given by a bot that is gone."""
        async with self.bot():
            pass
        call = await self.discord.slash(self.ana, "mt status", {})
        await self.send(
            "POST", f"interactions/{call.id}/{call.token}/callback", {"type": 5, "data": {"flags": EPHEMERAL}}
        )
        return call

    def leave(self, call: Call, *, seconds_ago: float = 0.0, command: str = "status") -> None:
        """Leave a record as a bot does that is killed after its first answer."""
        record = Deferred(
            interaction_id=call.id,
            application_id=self.discord.application_id,
            token=call.token,
            command=command,
            request_id="0a1b2c3d",
            deferred_at=time.time() - seconds_ago,
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{call.id}.json").write_text(record.model_dump_json(), encoding="utf-8")

    def bot(self) -> AbstractAsyncContextManager[Bot]:
        return running_bot(settings(self.root, self.discord, owner_id=self.ana.id), self.discord)

    def sent_for(self, call: Call) -> list[str]:
        """The requests about a call's answer."""
        return [one.operation_id for one in self.discord.requests if f"/{call.token}/messages" in one.path]

    async def send(self, method: str, path: str, body: Mapping[str, object]) -> None:
        address = f"{self.discord.api_base_url}/{path}"
        async with aiohttp.ClientSession() as session, session.request(method, address, json=body) as response:
            assert response.ok


@asynccontextmanager
async def place(root: Path) -> AsyncIterator[Place]:
    async with discord_alone() as server:
        yield Place(server, server.add_user("ana"), root)


@pytest.mark.parametrize("is_behind_proxy", slow_except([False, True], False))
async def test_bot__that_is_killed_leaves_no_command_thinking(tmp_path: Path, *, is_behind_proxy: bool) -> None:
    finished_run(tmp_path)
    async with embedded(tmp_path) as (_, _, store), place(tmp_path) as here:
        await store.renew_worker(seconds=600)  # so the models are asked, and nobody answers
        own = {"DISCORD__OWNER_ID": str(here.ana.id), "REDIS__URL": address(tmp_path)}
        environment = environment_on(here.discord, **own)
        if is_behind_proxy:  # the local Discord is the proxy, too; nothing else knows these names
            environment |= {
                "DISCORD__API_BASE_URL": "http://discord.invalid/api/v10",
                "DISCORD__GATEWAY_URL": "ws://gateway.invalid/gateway",
                "DISCORD__CDN_BASE_URL": "http://cdn.invalid",
                "HTTP_PROXY": here.discord.cdn_base_url.replace("://", "://user:password@"),
                "NO_PROXY": "",
            }
        killed = await start_bot(tmp_path, environment)
        await here.discord.connected()
        await here.discord.synced()
        hidden = await here.discord.slash(here.ana, "mt score", {"text": "the sun"})
        public = await here.discord.slash(here.ana, "mt generate", {"prompt": "a"})
        await until(lambda: len(here.discord.unresolved) == 2)
        assert here.records() == sorted(str(call.id) for call in (hidden, public))
        assert {os.stat(path).st_mode & 0o777 for path in here.folder.iterdir()} == {0o600}
        killed.kill()
        _, first_log = await killed.communicate()
        await here.discord.disconnected()
        next_bot = await start_bot(tmp_path, environment)
        answers = [await hidden.reply(), await public.reply()]
        await until(lambda: here.records() == [])
        await here.discord.connected()
        added = await read(
            await here.discord.slash(here.ana, "mt corpus add", {"file": Upload("new.txt", TEXT), "name": "new"})
        )
        next_bot.terminate()
        _, next_log = await next_bot.communicate()
        assert all(AGAIN in shown_text(answer.payload) for answer in answers)
        assert answers[0].payload["flags"] == EPHEMERAL
        assert "new" in added.text and added.colour not in (AMBER, GREY, RED)
        assert all(call.token not in (first_log + next_log).decode() for call in (hidden, public))


async def test_command__that_was_answered_or_has_expired_is_left_alone(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        answered, old = await here.thinking(), await here.thinking()
        for call in (answered, old):
            path = f"webhooks/{here.discord.application_id}/{call.token}/messages/@original"
            await here.send("PATCH", path, {"content": "It is done."})
        here.leave(answered)
        here.leave(old, seconds_ago=901)
        (here.folder / "7.json").write_bytes(b'{"token": "half')
        before = len(here.sent_for(old))
        async with here.bot():
            await until(lambda: here.records() == [])
        assert (await answered.reply()).content == "It is done."
        assert here.sent_for(answered)[-1] == "get_original_webhook_message"
        assert len(here.sent_for(old)) == before


async def test_answer__after_a_restart_is_sent_until_it_arrives(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        call = await here.thinking()
        here.leave(call, command="train")
        here.discord.fail_next("GET", ORIGINAL, 503)
        here.discord.fail_next("PATCH", ORIGINAL, 429)
        here.discord.fail_next("PATCH", ORIGINAL, "reply_lost")
        with captured_logs() as logs:
            async with here.bot():
                answer = await call.reply()
                await until(lambda: here.records() == [])
        assert "Check `/mt runs` for your run" in shown_text(answer.payload)
        assert len(answer.versions) == 2
        assert call.token not in repr(logs)


async def test_answer__that_discord_refuses_is_deleted(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        call = await here.thinking()
        here.leave(call)
        here.discord.fail_next("GET", ORIGINAL, Refusal(401, 50027, "Invalid Webhook Token"))
        async with here.bot():
            await until(lambda: here.records() == [])
        here.leave(call)  # so that nothing is left thinking
        async with here.bot():
            await call.reply()


async def test_bot__that_stops_early_leaves_the_answer_to_the_next_bot(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        call = await here.thinking()
        here.leave(call)
        here.discord.fail_next("GET", ORIGINAL, "reset", times=1000)  # as long as the bot lives
        async with here.bot():
            await until(lambda: "get_original_webhook_message" in here.sent_for(call))
        assert here.records() == [str(call.id)]
        here.discord.faults.clear()
        async with here.bot():
            await call.reply()


async def test_command__is_answered_also_where_nothing_can_be_written(tmp_path: Path) -> None:
    async with place(tmp_path) as here, here.bot():
        here.folder.rmdir()
        with captured_logs() as logs:
            call = await here.discord.slash(here.ana, "mt status", {})
            assert "There is no run yet" in shown_text((await call.reply()).payload)
            await until(lambda: any(line["event"] == "interaction_not_stored" for line in logs))
        here.folder.mkdir()
