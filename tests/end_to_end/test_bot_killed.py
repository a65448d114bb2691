"""The bot process is killed repeatedly during a run: users notice only a pause."""

import asyncio
import random
from collections.abc import Awaitable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from bot.people.watchers import read_ledger
from local_discord import LocalDiscord
from local_discord.driver import shown_text
from local_discord.state import Channel, StoredMessage
from tests.support import add_corpus, settings_in, some_text, tiny_request
from tests.support.bot import TOKEN, ended, start_bot
from tests.support.waiting import ANSWER_SECONDS, until
from trainer.queue.queue import JobQueue
from trainer.services.embedded import Services
from trainer.store import keys
from trainer.store.store import connect

CLOSED = "Direct messages are closed"
EDIT_INTERVAL_SECONDS = 1.0
MESSAGES = "/channels/{channel_id}/messages"


@pytest.mark.parametrize(("kills", "kills_before_the_end"), [(4, 2), pytest.param(10, 8, marks=pytest.mark.slow)])
async def test_bot_killed_repeatedly__keeps_one_card_and_one_final_message(
    tmp_path: Path, kills: int, kills_before_the_end: int
) -> None:
    text, chance = some_text(3000), random.Random(7)
    add_corpus(tmp_path, text)
    services = Services(settings := settings_in(tmp_path))
    url = await services.start()
    store = await connect(url)
    try:
        async with LocalDiscord(token=TOKEN, answer_seconds=ANSWER_SECONDS) as server:
            ana, bob, cy = (server.add_user(name) for name in ("ana", "bob", "cy"))
            server.set_dms(bob, is_open=False)
            home = server.add_guild("home", [bob, cy])
            card_places = (server.dm_channel(ana), home.channels[0])
            queue = JobQueue(settings, store)
            run = queue.runs.get((await queue.train(tiny_request(num_epochs=1000), user_id=ana.id)).run_id)
            environment = {
                "DISCORD__TOKEN": TOKEN,
                "DISCORD__OWNER_ID": str(ana.id),
                "DISCORD__ALLOWED_GUILD_IDS": str(home.id),
                "DISCORD__API_BASE_URL": server.api_base_url,
                "DISCORD__GATEWAY_URL": server.gateway_url,
                "DISCORD__EDIT_INTERVAL_SECONDS": str(EDIT_INTERVAL_SECONDS),
                "REDIS__URL": url,
                "QUEUE__EMBEDDED_WORKERS": "0",
                "APP__DATA_ROOT": str(tmp_path / "data"),
                "APP__ARTIFACTS_ROOT": str(tmp_path / "artifacts"),
            }
            for number in range(kills):
                if number == kills_before_the_end:
                    await queue.states.cancel(run.run_id)
                loses_reply = number in (0, kills_before_the_end)
                if loses_reply:  # of the card, and of the final message
                    server.fail_next("POST", MESSAGES, "reply_lost")
                bot = await start_bot(tmp_path, environment)
                if number == 0:
                    await server.connected()
                    await server.synced()
                    for user, where in ((bob, "dm"), (cy, "here")):
                        call = await server.slash(user, "mt watch", {"run": run.run_id, "where": where}, guild=home)
                        await call.reply()
                    await until(lambda: all(len(told(server, place)) == 1 for place in card_places))
                if loses_reply:
                    await until(partial(has_lost, server, 1 + number // kills_before_the_end))
                else:
                    await some_moment(server, chance)
                bot.kill()
                await bot.communicate()
                await server.disconnected()
            bot = await start_bot(tmp_path, environment)
            await server.connected()
            await until(lambda: not read_ledger(run).pending)
            bot.terminate()
            code, said = await ended(bot)
            assert code == 0, said
            for channel in card_places:
                card, final = told(server, channel)
                assert "⏹ Cancelled" in shown_text(card.payload) and "· result" not in shown_text(card.payload)
                assert "· result" in shown_text(final.payload)
                assert final.edit_seconds == []
                assert len(card.edit_seconds) > 0
                gaps = [later - earlier for earlier, later in pairwise(card.edit_seconds)]
                assert all(gap >= EDIT_INTERVAL_SECONDS for gap in gaps)
            assert told(server, server.dm_channel(bob)) == []
            mentions = [one for one in all_told(server, home.channels[0]) if CLOSED in shown_text(one.payload)]
            assert [one.content for one in mentions] == [f"<@{bob.id}>"]
            of_bob = [watcher for watcher in read_ledger(run).watchers if watcher.user_id == bob.id]
            assert [watcher.closed_place for watcher in of_bob] == ["dm"]
        assert server.violations == []
        stream: Awaitable[object] = store.redis.xrange(keys.EVENT_STREAM)
        events = (run.path / "events.jsonl").read_text(encoding="utf-8") + repr(await stream)
        assert str(tmp_path) not in events and str(Path.cwd()) not in events
        assert not any(line in events for line in text.splitlines())
    finally:
        await store.close()
        await services.stop()


async def some_moment(server: LocalDiscord, chance: random.Random) -> None:
    """Some moment of a process's first seconds, or right when it has just told something."""
    so_far, seconds = told_requests(server), chance.uniform(0.5, 4.0)
    try:
        async with asyncio.timeout(seconds):
            await until(lambda: told_requests(server) > so_far and chance.random() < 0.5)
    except TimeoutError:
        pass


def has_lost(server: LocalDiscord, replies: int) -> bool:
    lost = [request for request in server.requests if (request.operation_id, request.status) == ("create_message", 0)]
    return len(lost) == replies


def told_requests(server: LocalDiscord) -> int:
    return sum(request.operation_id in ("create_message", "update_message") for request in server.requests)


def told(server: LocalDiscord, channel: Channel) -> list[StoredMessage]:
    """Return the messages of a channel about the run, without answers to commands."""
    return [one for one in all_told(server, channel) if CLOSED not in shown_text(one.payload)]


def all_told(server: LocalDiscord, channel: Channel) -> list[StoredMessage]:
    return [one for one in server.messages(channel) if "interaction_metadata" not in one.payload]
