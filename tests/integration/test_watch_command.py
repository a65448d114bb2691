"""`/mt watch`, `/mt unwatch` and their buttons, with the real bot: recipients, channels and permissions."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.people.watchers import Watcher, read_ledger
from local_discord.driver import shown_text
from local_discord.state import Call, Channel, Guild, StoredMessage, User
from tests.support.bot import Place, place, read
from tests.support.stories import Story
from tests.support.waiting import until

WATCH, UNWATCH = "mt:watch:char_lstm-1", "mt:unwatch:char_lstm-1"
RUN = {"run": "char_lstm-1"}
CLOSED = "This bot cannot send you direct messages. Use `/mt status` here"


@pytest.fixture(name="here")
async def here_fixture(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as here:
        yield here


async def test_watcher__gets_direct_messages_once_the_answer_is_on_disk(here: Place) -> None:
    story = followed(here, here.ana)
    answer = await here.ask(here.bob, "watch", RUN)
    on_disk = [watcher.user_id for watcher in read_ledger(story.run).watchers]
    card = await message(here, here.bob, "Queued")
    await here.bot.queue.cancel("char_lstm-1")
    await message(here, here.bob, "· result")
    await message(here, here.ana, "· result")
    await here.discord.wait_for_edit(card, "Cancelled")
    assert "👁 Watching: kk-ipa" in answer.text and "by direct message" in answer.text and answer.is_ephemeral
    assert on_disk == [here.ana.id, here.bob.id]
    assert [len(told(here, user)) for user in (here.ana, here.bob, here.eve)] == [2, 2, 0]


async def test_buttons__of_status_of_answers_and_of_the_card(here: Place) -> None:
    story = followed(here, here.ana)
    status = await answered(await here.discord.slash(here.bob, "mt status", RUN))
    watching = await answered(await here.discord.click(here.bob, status, WATCH))
    card = await message(here, here.bob, "Queued")
    again = await answered(await here.discord.slash(here.bob, "mt status", RUN))
    not_watching = await answered(await here.discord.click(here.bob, card, UNWATCH))
    assert not watches(story, here.bob)
    await here.discord.click(here.bob, not_watching, WATCH)
    await until(lambda: watches(story, here.bob))
    await here.discord.click(here.bob, watching, UNWATCH)
    await until(lambda: not watches(story, here.bob))
    await here.discord.click(here.bob, again, UNWATCH)
    await here.bot.queue.cancel("char_lstm-1")
    await message(here, here.ana, "· result")
    ended = await answered(await here.discord.slash(here.bob, "mt status", RUN))
    assert "🔕 Not watching: kk-ipa" in shown_text(not_watching.payload)
    assert told(here, here.bob) == [card]
    assert not any("unwatch" in str(row) or "watch" in str(row) for row in ended.components)


async def test_unwatch__ends_edits_and_the_final_message_for_the_starter_too(here: Place) -> None:
    followed(here, here.ana)
    card = await message(here, here.ana, "Queued")
    await here.ask(here.bob, "watch", RUN)
    answer = await here.ask(here.ana, "unwatch", RUN)
    await here.ask(here.ana, "unwatch", RUN)
    await here.bot.queue.cancel("char_lstm-1")
    await message(here, here.bob, "· result")
    assert "no final message is sent" in answer.text
    assert told(here, here.ana) == [card] and card.edit_seconds == []
    await here.ask(here.ana, "watch", RUN)
    await message(here, here.ana, "· result")
    await here.discord.wait_for_edit(card, "Cancelled")
    assert len(told(here, here.ana)) == 2


async def test_unwatch__of_all(here: Place) -> None:
    stories = [followed(here, here.bob, f"char_lstm-{number}") for number in (1, 2)]
    other = followed(here, here.ana, "char_lstm-3")
    answer = await here.ask(here.bob, "unwatch", {"run": "all"})
    again = await here.ask(here.bob, "unwatch", {"run": "all"})
    never = await here.ask(here.bob, "unwatch", {"run": "char_lstm-3"})
    assert "`char_lstm-1`" in answer.text and "`char_lstm-2`" in answer.text
    assert "You were not watching any run" in again.text
    assert "🔕 Not watching" in never.text
    assert [watcher.user_id for watcher in read_ledger(other.run).pending] == [here.ana.id]
    assert [watches(story, here.bob) for story in stories] == [False, False]


async def test_run_that_has_ended__has_its_result_sent_once(here: Place) -> None:
    story = here.story(here.ana)
    await here.bot.queue.cancel("char_lstm-1")
    answer = await here.ask(here.bob, "watch", RUN)
    await message(here, here.bob, "· result")
    await until(lambda: entry(story, here.bob).has_final)
    again = await here.ask(here.bob, "watch", RUN)
    assert here.bot.notifier.watched_by(here.bob.id) == []
    assert all("The run has ended. Its result was sent by direct message." in one.text for one in (answer, again))
    assert len(told(here, here.bob)) == 1


async def test_here__is_the_channel_of_the_command_where_the_bot_may_post(here: Place) -> None:
    home = here.discord.add_guild("home", [here.bob])
    away = here.discord.add_guild("away", [here.bob], bot_present=False)
    followed(here, here.ana)
    refused = await ask_in(here, here.bob, away)
    watching = await ask_in(here, here.bob, home)
    card = await here.discord.wait_for_message(home.channels[0], "Queued")
    in_dm = await here.ask(here.ana, "watch", {**RUN, "where": "here"})
    await here.bot.queue.cancel("char_lstm-1")
    await here.discord.wait_for_message(home.channels[0], "· result")
    await message(here, here.ana, "· result")
    await here.discord.wait_for_edit(card, "Cancelled")
    assert f"to <#{home.channels[0].id}>" in shown_text(watching.payload)
    assert "may not post in this channel" in shown_text(refused.payload)
    assert "by direct message" in in_dm.text
    assert [len(told(here, here.bob)), len(messages(here, away.channels[0]))] == [0, 0]


async def test_closed_dms_of_a_watcher__are_shown_in_status_until_the_next_watch(here: Place) -> None:
    guild = here.discord.add_guild("home", [here.ana, here.bob])
    here.discord.set_dms(here.bob, is_open=False)
    story = followed(here, here.ana)
    watching = await answered(await here.discord.slash(here.bob, "mt watch", RUN, guild=guild))
    assert closed_place(story, here.bob) == "dm"
    of_bob = await answered(await here.discord.slash(here.bob, "mt status", RUN, guild=guild))
    of_ana = await answered(await here.discord.slash(here.ana, "mt status", RUN, guild=guild))
    here.discord.set_dms(here.bob, is_open=True)
    await here.discord.click(here.bob, of_bob, WATCH)
    await message(here, here.bob, "Queued")
    assert all(CLOSED in shown_text(one.payload) for one in (watching, of_bob))
    assert "cannot send you" not in shown_text(of_ana.payload)


def followed(here: Place, user: User, name: str = "char_lstm-1") -> Story:
    story = here.story(user, name)
    here.bot.notifier.follow(name)
    return story


async def answered(call: Call) -> StoredMessage:
    await read(call)
    return await call.reply()


async def ask_in(here: Place, user: User, guild: Guild) -> StoredMessage:
    return await answered(await here.discord.slash(user, "mt watch", {**RUN, "where": "here"}, guild=guild))


def messages(here: Place, channel: Channel) -> list[StoredMessage]:
    """Return the messages of a channel without answers to commands."""
    return [one for one in here.discord.messages(channel) if "interaction_metadata" not in one.payload]


def told(here: Place, user: User) -> list[StoredMessage]:
    return messages(here, here.discord.dm_channel(user))


async def message(here: Place, user: User, pattern: str) -> StoredMessage:
    return await here.discord.wait_for_message(here.discord.dm_channel(user), pattern)


def entry(story: Story, user: User) -> Watcher:
    found = read_ledger(story.run).of(user.id)
    assert found is not None
    return found


def watches(story: Story, user: User) -> bool:
    return entry(story, user).watches


def closed_place(story: Story, user: User) -> str | None:
    return entry(story, user).closed_place
