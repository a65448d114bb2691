"""Faults at every call of a delivery: one card, one final message, and no other run waits."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import SecretStr

from bot.notifications import delivery
from bot.notifications.inbox import MAX_CARDS
from bot.people.watchers import read_ledger
from bot.session.client import Bot
from local_discord import LocalDiscord, Upload
from local_discord.driver import shown_text
from local_discord.rest import FaultAction
from local_discord.state import Call, Refusal, StoredMessage, User
from tests.support import add_corpus, environment_in, settings_in, some_text, tiny_request
from tests.support.bot import GREY, ORIGINAL, Read, discord_alone, environment_on, read, running_bot, settings
from tests.support.inference import finished_run
from tests.support.log_secrets import TOKEN as TOKEN_OF_SECRETS
from tests.support.log_secrets import address, has_secret, worker
from tests.support.markers import slow_except
from tests.support.notifier import MESSAGE, MESSAGES, Place, place, sent_message_ids, until_delivered
from tests.support.stories import Story, run_record
from tests.support.waiting import ANSWER_SECONDS, captured_logs, until
from trainer.artifacts.runs import finish_run, manifest_of
from trainer.config.settings import RedisSettings
from trainer.contracts.base import changed
from trainer.queue.queue import JobQueue
from trainer.services.embedded import Services
from trainer.store import keys
from trainer.store.store import Store, connect

DM_CHANNELS = "/users/@me/channels"
HISTORY_MESSAGES = 200
FAST = Refusal(403, 40003, "Fast")
SERVER_FAULTS: Sequence[FaultAction] = (429, "blocked", 500, 502, 503, "reset", "reply_lost", FAST)
CANNOT_WRITE = {
    DM_CHANNELS: (Refusal(400, 50033, "Invalid Recipient(s)"), Refusal(404, 10013, "Unknown User")),
    MESSAGES: (
        Refusal(403, 50007, "Cannot send messages to this user"),
        Refusal(403, 50278, "No mutual guilds"),
        Refusal(400, 20009, "Explicit content cannot be sent to the desired recipient(s)"),
        Refusal(400, 50083, "Thread is archived"),
        Refusal(403, 160005, "Thread is locked"),
        Refusal(400, 200000, "Message was blocked by automatic moderation"),
        Refusal(400, 50035, "Invalid Form Body"),
        Refusal(413, 40005, "Request entity too large"),
    ),
}


async def test_each_fault__at_each_call_leaves_one_card_and_one_last_message(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        users = [here.discord.add_user(f"user{number}") for number in range(len(SERVER_FAULTS))]
        stories = [here.story(user, f"char_lstm-{user.name}") for user in users]

        def fail(method: str, template: str) -> None:
            for fault in SERVER_FAULTS:
                here.discord.fail_next(method, template, fault, retry_after_seconds=1.2)

        fail("POST", DM_CHANNELS)
        fail("POST", MESSAGES)
        async with here.listening():
            await until(lambda: all(len(sent_message_ids(story)) == 1 for story in stories))
            fail("PATCH", MESSAGE)
            for story in stories:
                story.start().step(10, 2.0)
            cards = [here.messages(user)[0] for user in users]
            for card in cards:
                await here.discord.wait_for_edit(card, "step 10 ")
            fail("POST", MESSAGES)
            for story in stories:
                story.cancel()
            await until(lambda: not any(read_ledger(story.run).pending for story in stories))
        for user in users:
            card, final = here.messages(user)
            assert "⏹ Cancelled" in shown_text(card.payload) and "· result" not in shown_text(card.payload)
            assert "· result" in shown_text(final.payload)
        refused = [one for one in here.discord.requests if one.status == 429]
        assert len(refused) == 2 * 4  # those that were made to fail: the bot keeps to Discord's limits


async def test_rate_limit__that_says_how_long_is_waited_for(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.story(here.ana).cancel()
        here.discord.fail_next("POST", MESSAGES, "blocked", retry_after_seconds=3)
        async with here.listening():
            await here.message(here.ana, "· result")
        [first, second] = seconds_of(here.discord, "create_message")
        assert second - first >= 3


async def test_discord_that_stays_unreachable__is_called_less_and_less_often(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.story(here.ana).cancel()
        here.discord.fail_next("POST", DM_CHANNELS, "reset", times=3)
        async with here.listening():
            await here.message(here.ana, "· result")
        gaps = [later - earlier for earlier, later in pairwise(seconds_of(here.discord, "create_dm"))]
        assert all(longest / 2 <= gap < longest + 10 for gap, longest in zip(gaps, (1, 2, 4), strict=True))


def seconds_of(server: LocalDiscord, operation_id: str) -> list[float]:
    """When an operation was asked for."""
    return [one.at_seconds for one in server.requests if one.operation_id == operation_id]


async def test_lost_reply__out_of_the_history_is_recognized_by_its_nonce(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        story = here.story(here.ana)
        here.discord.fail_next("POST", MESSAGES, "reply_lost")
        async with here.listening():
            card = await here.message(here.ana, "Queued")
            for number in range(HISTORY_MESSAGES):
                here.discord.say(here.ana, card.channel, f"{number}")
            await until(lambda: sent_message_ids(story) == {card.id})
        asked = [one.operation_id for one in here.discord.requests]
        assert asked.count("create_message") == 2 and asked.count("list_messages") >= 2
        assert [one for one in here.messages(here.ana) if one.embeds] == [card]
        nonces = {str(sent.body["nonce"]) for sent in here.discord.bodies if sent.operation_id == "create_message"}
        assert [len(nonce) for nonce in nonces] == [25]


@pytest.mark.parametrize("template", CANNOT_WRITE)
async def test_unreachable_person__is_tried_once_and_delays_no_other(tmp_path: Path, template: str) -> None:
    async with place(tmp_path) as here:
        for number, refusal in enumerate(CANNOT_WRITE[template]):
            lost = here.story(here.discord.add_user(f"lost{number}"), f"char_lstm-lost{number}")
            here.discord.fail_next("POST", template, refusal)
            with captured_logs() as logs:
                async with here.listening():
                    await until_delivered(lost.run)
            said = [(line["event"], line["error_code"]) for line in logs if line["log_level"] != "info"]
            assert said == [("channel_closed", str(refusal.code))]
            assert [watcher.closed_place for watcher in read_ledger(lost.run).watchers] == ["dm"]
        tries = len(here.discord.requests)
        open_ = here.story(here.ana, "char_lstm-open").cancel()
        async with here.listening():
            await until_delivered(open_.run)
            await asyncio.sleep(0.2)
        assert [len(here.discord.requests) - tries, len(here.messages(here.ana))] == [2, 1]


# With the whole bot


class Home(NamedTuple):
    """A Discord with a person, and a Redis that is not the bot's own."""

    discord: LocalDiscord
    ana: User
    root: Path
    services: Services
    store: Store
    url: str

    @asynccontextmanager
    async def bot(self) -> AsyncIterator[Bot]:
        chosen = settings(self.root, self.discord, owner_id=self.ana.id)
        chosen = changed(chosen, redis=RedisSettings(url=SecretStr(self.url)))
        async with running_bot(chosen, self.discord) as bot:
            await bot.wait_until_ready()
            yield bot

    @property
    def queue(self) -> JobQueue:
        return JobQueue(settings_in(self.root), self.store)

    def story(self, name: str) -> Story:
        return Story(self.root / "artifacts", run_record(name, user_id=self.ana.id))

    async def call(self, command: str, options: dict[str, str] | None = None) -> Call:
        return await self.discord.slash(self.ana, f"mt {command}", options or {})

    async def message(self, pattern: str) -> StoredMessage:
        return await self.discord.wait_for_message(self.discord.dm_channel(self.ana), pattern)

    def told(self) -> list[str]:
        """Return the messages that the bot sent by itself."""
        messages = self.discord.messages(self.discord.dm_channel(self.ana))
        return [shown_text(one.payload) for one in messages if "interaction_metadata" not in one.payload]


@asynccontextmanager
async def home(root: Path) -> AsyncIterator[Home]:
    services = Services(settings_in(root, embedded_workers=0))
    url = await services.start()
    store = await connect(url)
    try:
        async with discord_alone() as server:
            yield Home(server, server.add_user("ana"), root, services, store, url)
        assert server.violations == [], "no answer is missing at the end"
    finally:
        await store.close()
        await services.stop()


def end(story: Story, *, completed: bool) -> None:
    with story.run.open_log() as events:
        finish_run(story.run, events, manifest_of(story.record, "completed" if completed else "cancelled"))


def is_undelivered(story: Story) -> bool:
    return any(watcher.is_undelivered for watcher in read_ledger(story.run).watchers)


async def test_undelivered_results__are_shown_once_at_the_next_command(tmp_path: Path) -> None:
    async with home(tmp_path) as here:
        here.discord.set_dms(here.ana, is_open=False)
        stories = [here.story(f"char_lstm-{number}") for number in range(MAX_CARDS + 1)]
        async with here.bot():
            await until(lambda: all(is_undelivered(story) for story in stories))
            stories[4].run.message_ledger.write_bytes(b"{")
            early = await (await here.call("status", {"run": "char_lstm-5"})).reply()
        for story in stories[:5]:
            end(story, completed=story is not stories[0])
        async with here.bot() as bot:
            here.discord.fail_next("PATCH", ORIGINAL, "reply_lost")
            first = await (await here.call("status", {"run": "char_lstm-5"})).reply()
            await until(lambda: told_here(stories) == [True, True, True, True])
            second = await (await here.call("runs")).reply()
            here.discord.set_dms(here.ana, is_open=True)
            later = here.story("char_lstm-later")
            bot.notifier.follow("char_lstm-later")
            await here.message("Queued")
            end(later, completed=False)
            await here.message("char_lstm-later · result")
            watched = await read(await here.call("watch", {"run": "char_lstm-0"}))
        notes = [[str(embed["title"]) for embed in one.embeds[1:]] for one in (early, first, second)]
        assert notes == [[], ["📪 Undelivered results"], []]
        note = str(first.embeds[1]["description"])
        assert [f"`char_lstm-{number}`" in note for number in range(6)] == [True] * 4 + [False] * 2
        assert "⏹ Cancelled: kk-ipa" in note and "✅ Completed: kk-ipa" in note
        assert first.visible_to == here.ana
        assert len(here.told()) == 2
        assert "Its result was sent" in watched.text


@pytest.mark.parametrize(
    ("refusal", "event", "finding"),
    [
        (
            Refusal(403, 50007, "Cannot send messages to this user"),
            "owner_dm_closed",
            "cannot send direct messages to the owner",
        ),
        (Refusal(400, 50035, "Invalid Form Body"), "owner_dm_unknown", "Not checked"),
    ],
)
async def test_owner__without_direct_messages_is_shown_by_doctor(
    tmp_path: Path, refusal: Refusal, event: str, finding: str
) -> None:
    async with home(tmp_path) as here:
        hall = here.discord.add_guild("lab", [here.ana])
        here.discord.fail_next("POST", DM_CHANNELS, refusal)
        with captured_logs() as logs:
            async with here.bot():
                await until(lambda: any(line["event"] == event for line in logs))
                said = await read(await here.discord.slash(here.ana, "mt-admin doctor", guild=hall))
        assert finding in said.text
        assert [line["user_id"] for line in logs if line["event"] == event] == [here.ana.id]


async def test_answer__that_does_not_arrive_leaves_the_results_undelivered(tmp_path: Path) -> None:
    async with home(tmp_path) as here:
        here.discord.set_dms(here.ana, is_open=False)
        end(here.story("char_lstm-1"), completed=False)
        with captured_logs() as logs:
            async with here.bot():
                await until(lambda: any("channel_closed" in str(line["event"]) for line in logs))
                here.discord.fail_next("PATCH", ORIGINAL, Refusal(404, 10008, "Unknown Message"))
                call = await here.call("status")
                await until(lambda: any("answer_deleted" in str(line["event"]) for line in logs))
                assert call.original is not None
                call.original.deleted = True
                again = await (await here.call("help")).reply()
        assert len(again.embeds) == 2


def told_here(stories: Sequence[Story]) -> list[bool]:
    return [watcher.acknowledged for story in stories[:4] for watcher in read_ledger(story.run).watchers]


async def test_redis__that_stops_or_loses_its_keys_loses_no_message(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with home(tmp_path) as here:
        running, finished = here.story("char_lstm-1").start().step(10, 2.0), here.story("char_lstm-2")
        end(finished, completed=True)
        clock = asyncio.get_running_loop().time

        async def timed(command: str, options: dict[str, str]) -> tuple[Read, float]:
            begun = clock()
            return await read(await here.call(command, options)), clock() - begun

        async with here.bot():
            await here.message("char_lstm-2 · result")
            await here.message("Worker not responding")
            await here.services.stop()
            answers = await asyncio.gather(
                timed("status", {"run": "char_lstm-1"}),
                timed("score", {"text": "abc"}),
                timed("generate", {"prompt": "a"}),
                timed("train", {"corpus": "text", "name": "kept"}),
            )
            running.cancel()
            await here.message("char_lstm-1 · result")  # from the disk
            await here.services.start()
            kept = (await here.queue.train(tiny_request(label="heard"), user_id=here.ana.id)).run_id
            await here.message(kept)  # by the stream
            await forget(here.store)
            after = (await here.queue.train(tiny_request(label="again"), user_id=here.ana.id)).run_id
            await here.message(after)
        for run_id in (kept, after):
            await here.queue.states.cancel(run_id)
        await forget(here.store)
        async with here.bot():
            for run_id in (kept, after):
                await here.message(f"{run_id} · result")
        assert max(seconds for _, seconds in answers) < 60  # not as long as an answer may take
        status, score, sample, training = [answer for answer, _ in answers]
        assert "⚠ Worker not responding: kk-ipa" in status.text and "⏳ Queued: kept" in training.text
        for refused in (score, sample):
            assert (refused.colour, refused.text.split("\n")[1]) == (GREY, "⏳ Service unavailable")
        assert sum("· result" in text for text in here.told()) == 4
        assert len(here.told()) == 4 + 4  # of the one that had ended before, no card


async def forget(store: Store) -> None:
    """Delete all keys, as an administrator or a server without memory may do."""
    trimmed: Awaitable[object] = store.redis.xtrim(keys.EVENT_STREAM, maxlen=0)
    await trimmed
    destroyed: Awaitable[object] = store.redis.xgroup_destroy(keys.EVENT_STREAM, keys.EVENT_GROUP)
    await destroyed


# What people write

WORD = "wordqxwz"
EVIL = (
    f"{WORD} @everyone <@&7> <@7> [link](https://evil.example) `` ``` *b* \x1b[31m\r\n[error] forged\u2028 forged\u202e"
)


@pytest.mark.slow
async def test_user_text__mentions_nobody_and_is_in_no_log(tmp_path: Path) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    async with LocalDiscord(token=TOKEN_OF_SECRETS, answer_seconds=ANSWER_SECONDS) as server:
        ana = server.add_user("ana")
        channel = server.dm_channel(ana)
        finished_run(tmp_path, user_id=ana.id)
        of_secrets = {"REDIS__URL": address(tmp_path), "DISCORD__TOKEN": TOKEN_OF_SECRETS}
        more = environment_on(server, APP__ENV="prod", LOGGING__LEVEL="DEBUG", DISCORD__OWNER_ID=str(ana.id))
        environment = environment_in(tmp_path, **more | of_secrets)
        with out.open("wb") as to_out, err.open("wb") as to_err:
            async with worker(tmp_path, to_out.fileno(), to_err.fileno()):
                bot = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "bot"), cwd=tmp_path, env=environment, stdout=to_out, stderr=to_err
                )
                await server.connected()
                await server.synced()
                told = await server.wait_for_message(channel, "· result")
                text = Upload(f"{EVIL}.txt".replace("/", ""), f"{EVIL}\n{some_text()}".encode())
                training: tuple[str, dict[str, str | int | Upload]] = ("train", {"file": text, "epochs": 1})
                for command, options in (*WRITTEN, training):
                    await read(await server.slash(ana, f"mt {command}", options))
                await server.wait_for_message(channel, "· result", after=told)
                bot.terminate()
                await bot.wait()
        shown = server.messages(channel, seen_by=ana)
    assert all(message.content == "" for message in shown)
    mentions = [one.body["allowed_mentions"] for one in server.bodies if "allowed_mentions" in one.body]
    assert mentions and all(allowed == {"parse": []} for allowed in mentions)
    assert [word for word in FORBIDDEN for one in shown if word in outside_of_blocks(one)] == []
    logs = [*(tmp_path / "artifacts").rglob("logs.jsonl*"), *(tmp_path / "artifacts").rglob("events.jsonl"), out, err]
    lines = [line for path in logs for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if has_secret(line) or WORD in line] == []
    assert all(line.startswith("{") for line in lines)
    assert any("command_answered" in line for line in lines) and any("command_refused" in line for line in lines)


FORBIDDEN = ("@everyone", "<@&7", "<@7", "](https://", "\x1b", "\u2028", "\u202e")
WRITTEN: Sequence[tuple[str, dict[str, str | int | Upload]]] = [
    ("train", {"corpus": EVIL}),
    ("train", {"corpus": "none", "name": EVIL[9:41]}),
    ("status", {"run": EVIL}),
    ("watch", {"run": EVIL}),
    ("cancel", {"run": EVIL}),
    ("resume", {"run": EVIL}),
    ("runs", {"query": EVIL[:100]}),
    ("help", {"topic": EVIL}),
    ("score", {"text": EVIL}),
    ("score", {"text": EVIL, "run": EVIL}),
    ("generate", {"prompt": EVIL, "stop": EVIL}),
]


def outside_of_blocks(message: StoredMessage) -> str:
    """Return the text outside of code blocks, in which Discord interprets markdown."""
    return re.sub(r"```.*?```", "", shown_text(message.payload), flags=re.DOTALL)


# Edits that are refused or slow

TOO_OLD = "Maximum number of edits to messages older than 1 hour reached. Try again later"
EDIT_FAULTS: dict[str, FaultAction] = {
    "sleeps": Refusal(429, 30046, TOO_OLD, retry_after_seconds=50),
    "raises": Refusal(429, 30046, TOO_OLD, retry_after_seconds=3600),
    "bad request": Refusal(400, 30046, TOO_OLD),
    "slow": "silent",
    "archived": Refusal(400, 50083, "Thread is archived"),
    "invalid": Refusal(400, 50035, "Invalid Form Body"),
    "too large": Refusal(413, 40005, "Request entity too large"),
}


@pytest.mark.parametrize("fault", slow_except(EDIT_FAULTS, "sleeps", "slow", "archived"))
async def test_edit__that_is_refused_or_slow_holds_no_other_message_of_its_channel(tmp_path: Path, fault: str) -> None:
    action = EDIT_FAULTS[fault]
    async with place(tmp_path) as here:
        old, other = here.story(here.ana, "char_lstm-old"), here.story(here.ana, "char_lstm-other")
        async with here.listening():
            cards = [await here.message(here.ana, f"Queued(.|\\n)*{story.record.run_id}") for story in (old, other)]
            await until(lambda: all(len(sent_message_ids(story)) == 1 for story in (old, other)))
            if isinstance(action, Refusal):
                cards[0].edit_refusal = action
            else:
                here.discord.fail_next("PATCH", MESSAGE, action)
            old.start().step(10, 2.0)
            await until(lambda: not here.discord.faults and has_refused_edit(here) == isinstance(action, Refusal))
            other.start().step(10, 2.0).cancel()
            await here.message(here.ana, "char_lstm-other · result")
            old.cancel()
            await here.message(here.ana, "char_lstm-old · result")
            await until(lambda: "Cancelled" in shown_text(cards[1].payload))


async def test_edit__that_is_not_answered_is_given_up_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_EDIT_SECONDS", 0.5)
    monkeypatch.setattr(delivery, "_FIRST_RETRY_SECONDS", 2.0)
    async with place(tmp_path) as here:
        story = here.story(here.ana)
        with captured_logs() as logs:
            async with here.listening():
                card = await here.message(here.ana, "Queued")
                await until(lambda: sent_message_ids(story) == {card.id})
                here.discord.fail_next("PATCH", MESSAGE, "silent")
                story.start().step(10, 2.0)
                await until(lambda: any(line["event"] == "discord_retry" for line in logs))
                story.step(20, 2.0)
                await here.queue.signals.put(story.record.run_id)  # news do not shorten the wait
                await here.discord.wait_for_edit(card, "step 20 ")


def has_refused_edit(here: Place) -> bool:
    return any(one.operation_id == "update_message" and one.status >= 400 for one in here.discord.requests)
