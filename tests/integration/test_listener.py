"""From a run's event log to direct messages: one card, edited, and one message at the end, whatever goes wrong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import discord
import pytest
from discord.http import Route

from bot.chart_process import ChartProcess
from bot.delivery import MessageLedger, read_ledger
from bot.listener import Listener
from local_discord import LocalDiscord
from local_discord.driver import shown_text
from local_discord.state import StoredMessage, User
from local_discord.wire import mapping
from tests.unit.bot.records import Story, run_record
from tests.waiting import captured_logs, until
from trainer.files import write_atomically
from trainer.runs import RunStore

TOKEN = "test-token"  # noqa: S105
EDIT_INTERVAL_SECONDS = 0.3
MESSAGES = "/channels/{channel_id}/messages"
MESSAGE = "/channels/{channel_id}/messages/{message_id}"


class HasBase(Protocol):
    """The part of discord.py's Route that is set here."""

    BASE: str


class HandBell:
    """Rings for the runs that a test names."""

    def __init__(self) -> None:
        self.runs: asyncio.Queue[str] = asyncio.Queue()
        self.broken = 0

    async def rings(self) -> AsyncIterator[str]:
        while True:
            run_id = await self.runs.get()
            if self.broken:
                self.broken -= 1
                raise ValueError("the bell is broken")
            yield run_id


class Place:
    """A Discord, a client that is logged in to it, and runs."""

    def __init__(self, discord_server: LocalDiscord, client: discord.Client, root: Path) -> None:
        self.discord = discord_server
        self.client = client
        self.root = root
        self.bell = HandBell()
        self.charts = ChartProcess()

    def story(self, user: User | None, name: str = "char_lstm-1") -> Story:
        return Story(self.root, run_record(name, user_id=user and user.id))

    @asynccontextmanager
    async def listening(self, *, look_interval_seconds: float = 0.1) -> AsyncIterator[Listener]:
        listener = Listener(
            RunStore(self.root),
            self.bell,
            self.client,
            self.charts,
            edit_interval_seconds=EDIT_INTERVAL_SECONDS,
            look_interval_seconds=look_interval_seconds,
            retry_seconds=0.1,
        )
        await listener.start()
        try:
            yield listener
        finally:
            await listener.stop()

    def texts(self, user: User) -> list[str]:
        return [shown_text(message.payload) for message in self.discord.messages(self.discord.dm_channel(user))]

    async def message(self, user: User, pattern: str) -> StoredMessage:
        return await self.discord.wait_for_message(self.discord.dm_channel(user), pattern)


@asynccontextmanager
async def place(root: Path) -> AsyncIterator[Place]:
    async with LocalDiscord(token=TOKEN) as server:
        route: HasBase = Route
        route.BASE = server.api_base_url
        async with discord.Client(intents=discord.Intents.none()) as client:
            await client.login(TOKEN)
            here = Place(server, client, root)
            try:
                yield here
            finally:
                here.charts.close()
        assert server.violations == []


async def test_run__has_one_card_that_is_edited_and_one_final_message_with_its_chart(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        ana = here.discord.add_user("ana")
        story = here.story(ana)
        async with here.listening() as listener:
            listener.follow(story.record.run_id)
            card = await here.message(ana, "Queued: kk-ipa")
            for step in range(1, 12):
                (story.start() if step == 1 else story).step(step, 3.0 - step / 10)
                await here.bell.runs.put(story.record.run_id)
                await asyncio.sleep(0.08)
            story.complete()
            await here.bell.runs.put(story.record.run_id)
            final = await here.message(ana, "· result")

        assert len(here.texts(ana)) == 2
        assert final.id > card.id
        gaps = [later - earlier for earlier, later in pairwise(card.edit_seconds)]
        assert len(gaps) >= 2
        assert min(gaps) >= EDIT_INTERVAL_SECONDS
        assert shown_text(card.payload).startswith("\n✅ Completed: kk-ipa in 11 min 8 s")
        for message in (card, final):
            (chart,) = message.attachments
            assert mapping(message.embeds[0]["image"])["url"] == chart["url"]
            assert "training loss 1.900 nats per token" in str(chart["description"])
            assert here.discord.read(chart).startswith(b"\x89PNG")
        assert [version.payload["components"] != [] for version in (card.versions[0], card.versions[-1])] == [
            True,
            False,
        ]


async def test_two_people__are_told_of_their_own_runs_only(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        ana, bob = here.discord.add_user("ana"), here.discord.add_user("bob")
        here.story(ana, "char_lstm-ana").cancel()
        here.story(bob, "char_lstm-bob").fail()
        here.story(None, "char_lstm-nobody").cancel()
        async with here.listening() as listener:
            listener.follow("char_lstm-nobody")
            await here.message(ana, "char_lstm-ana · result")
            await here.message(bob, "char_lstm-bob · result")

        assert [("char_lstm-ana" in text, "char_lstm-bob" in text) for text in here.texts(ana)] == [(True, False)] * 2
        assert [("char_lstm-ana" in text, "char_lstm-bob" in text) for text in here.texts(bob)] == [(False, True)] * 2


async def test_restart__goes_on_with_the_same_card(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        ana = here.discord.add_user("ana")
        story = here.story(ana).start()
        async with here.listening():
            card = await here.message(ana, "Training")
        story.step(50, 2.0).complete()
        async with here.listening():
            await here.message(ana, "· result")
        async with here.listening():
            await asyncio.sleep(0.1)

        assert len(here.texts(ana)) == 2
        assert "Completed" in shown_text(card.payload)


async def test_lost_bell__is_made_up_by_looking(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        ana = here.discord.add_user("ana")
        story = here.story(ana)
        async with here.listening():
            await here.message(ana, "Queued")
            story.cancel()
            await here.message(ana, "· result")


async def test_bell__wakes_at_once_and_may_name_runs_that_are_not_there(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        ana = here.discord.add_user("ana")
        async with here.listening(look_interval_seconds=60):
            await here.bell.runs.put("char_lstm-unknown")
            story = here.story(ana)
            await here.bell.runs.put(story.record.run_id)
            await here.message(ana, "Queued")
            story.cancel()
            await here.bell.runs.put(story.record.run_id)
            await here.message(ana, "· result")


async def test_bell__that_breaks_is_listened_to_again(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        ana = here.discord.add_user("ana")
        here.bell.broken = 1
        async with here.listening(look_interval_seconds=60):
            await here.bell.runs.put("char_lstm-any")
            story = here.story(ana)
            await here.bell.runs.put(story.record.run_id)
            await here.message(ana, "Queued")


@pytest.mark.parametrize("lost", ["card", "final"])
async def test_lost_reply__makes_no_second_message(tmp_path: Path, lost: str) -> None:
    async with place(tmp_path) as here:
        ana = here.discord.add_user("ana")
        story = here.story(ana)
        if lost == "card":
            here.discord.fail_next("POST", MESSAGES, "reply_lost")
        async with here.listening() as listener:
            listener.follow(story.record.run_id)
            await here.message(ana, "Queued")
            if lost == "final":
                here.discord.fail_next("POST", MESSAGES, "reply_lost")
            story.cancel()
            await until_settled(story)

        assert [text.split("\n")[1] for text in here.texts(ana)] == ["⏹ Cancelled: kk-ipa"] * 2


async def test_crash_between_message_and_ledger__makes_no_second_message(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        ana = here.discord.add_user("ana")
        story = here.story(ana)
        async with here.listening():
            await here.message(ana, "Queued")
        known = read_ledger(story.run)
        assert known.card is not None
        forgotten: dict[str, object] = {"message_id": None}
        unsure: dict[str, object] = {"card": known.card.model_copy(update=forgotten)}
        write_atomically(story.run.message_ledger, known.model_copy(update=unsure).model_dump_json().encode())
        story.cancel()
        async with here.listening():
            await until_settled(story)

        assert len(here.texts(ana)) == 2


@pytest.mark.parametrize("refused", ["card", "final"])
async def test_intent_without_message__is_sent_after_looking(tmp_path: Path, refused: str) -> None:
    async with place(tmp_path) as here:
        ana = here.discord.add_user("ana")
        story = here.story(ana)
        if refused == "card":
            here.discord.fail_next("POST", MESSAGES, 503)
        async with here.listening():
            await here.message(ana, "Queued")
            if refused == "final":
                here.discord.fail_next("POST", MESSAGES, 503)
            story.cancel()
            await until_settled(story)

        assert len(here.texts(ana)) == 2


async def test_discord_away__is_waited_for_and_the_newest_state_arrives(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        ana = here.discord.add_user("ana")
        story = here.story(ana)
        async with here.listening():
            card = await here.message(ana, "Queued")
            here.discord.fail_next("PATCH", MESSAGE, "reset")
            story.start().step(50, 2.0).cancel()
            await here.message(ana, "· result")

        assert "Cancelled" in shown_text(card.payload)


async def test_closed_dms__are_remembered_and_hold_up_nobody_else(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        ana, bob = here.discord.add_user("ana", dms_open=False), here.discord.add_user("bob")
        closed, open_ = here.story(ana, "char_lstm-closed"), here.story(bob, "char_lstm-open").cancel()
        with captured_logs() as logs:
            async with here.listening():
                await until_settled(closed)
                await until_settled(open_)
            tried = len(here.discord.requests)
            async with here.listening() as listener:
                listener.follow(closed.record.run_id)
                await asyncio.sleep(0.2)

        assert read_ledger(closed.run).dm_closed
        assert len(here.discord.requests) == tried
        assert [line["run_id"] for line in logs if line["event"] == "direct messages are closed"] == [
            "char_lstm-closed"
        ]


async def test_card_that_was_deleted__is_not_made_again(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        ana = here.discord.add_user("ana")
        story = here.story(ana)
        async with here.listening():
            card = await here.message(ana, "Queued")
            channel = here.client.get_partial_messageable(card.channel.id)
            await channel.get_partial_message(card.id).delete()
            story.start()
            await asyncio.sleep(2 * EDIT_INTERVAL_SECONDS)
            story.cancel()
            await here.message(ana, "· result")

        assert len(here.texts(ana)) == 1


async def test_broken_log__is_said_tried_again_and_holds_up_nobody_else(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        ana = here.discord.add_user("ana")
        broken = here.story(ana, "char_lstm-broken")
        here.story(ana, "char_lstm-whole").cancel()
        log = broken.run.path / "events.jsonl"
        good = log.read_bytes()
        log.write_bytes(b"no event\n")
        with captured_logs() as logs:
            async with here.listening():
                await here.message(ana, "char_lstm-whole · result")
                log.write_bytes(good)
                await here.message(ana, "char_lstm-broken")

        failures = [line for line in logs if line["event"] == "task failed, beginning it again"]
        assert failures[0]["task"] == "char_lstm-broken"
        assert isinstance(failures[0]["exc_info"], ValueError)


async def test_refusal_that_is_not_of_dms__is_an_error_that_is_logged(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        ana = here.discord.add_user("ana")
        story = here.story(ana)
        ledger = MessageLedger(channel_id=1234567890)  # a channel that the bot cannot see
        write_atomically(story.run.message_ledger, ledger.model_dump_json().encode())
        with captured_logs() as logs:
            async with here.listening():
                await until(lambda: len(logs) > 0)

        assert logs[0]["event"] == "task failed, beginning it again"


async def until_settled(story: Story) -> None:
    await until(lambda: read_ledger(story.run).is_settled)
