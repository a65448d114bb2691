"""`/mt watch`, `/mt unwatch` and their buttons, with the real bot: recipients, channels and permissions."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from bot.people.user_settings import Notify, UserSettings
from bot.people.watchers import Watcher, read_ledger
from local_discord.driver import shown_text
from local_discord.state import Channel, StoredMessage, User
from tests.support import add_corpus, some_text, tiny_request
from tests.support.bot import Place, buttons, place
from tests.support.stories import Story
from tests.support.waiting import until
from trainer.artifacts.runs import manifest_of
from trainer.contracts.base import HttpOrigin, now

WATCH, UNWATCH = "mt:watch:char_lstm-1", "mt:unwatch:char_lstm-1"
RUN = {"run": "char_lstm-1"}
IN_CHANNEL = {**RUN, "where": "here"}
CLOSED = "This bot cannot send you direct messages. Use `/mt status` here"


@pytest.fixture(name="here")
async def here_fixture(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as here:
        yield here


async def test_watcher__gets_direct_messages_once_the_answer_is_on_disk(here: Place) -> None:
    story = followed(here, here.ana)
    answer = await here.ask(here.bob, "watch", RUN)
    assert "👁 Watching: kk-ipa" in answer.text and "by direct message" in answer.text and answer.is_ephemeral
    assert [watcher.user_id for watcher in read_ledger(story.run).watchers] == [here.ana.id, here.bob.id]
    card = await here.message(here.bob, "Queued")
    await here.bot.lab.queue.states.cancel("char_lstm-1")
    for user in (here.bob, here.ana):
        await here.message(user, "· result")
    await here.discord.wait_for_edit(card, "Cancelled")
    assert [len(direct_messages(here, user)) for user in (here.ana, here.bob, here.eve)] == [2, 2, 0]


async def test_buttons__of_status_of_answers_and_of_the_card(here: Place) -> None:
    story = followed(here, here.ana)
    status = await here.reply(here.bob, "status", RUN)
    watching = await (await here.discord.click(here.bob, status, WATCH)).reply()
    card = await here.message(here.bob, "Queued")
    again = await here.reply(here.bob, "status", RUN)
    not_watching = await (await here.discord.click(here.bob, card, UNWATCH)).reply()
    assert "🔕 Not watching: kk-ipa" in shown_text(not_watching.payload)
    assert not watches(story, here.bob)
    await here.discord.click(here.bob, not_watching, WATCH)
    await until(lambda: watches(story, here.bob))
    await here.discord.click(here.bob, watching, UNWATCH)
    await until(lambda: not watches(story, here.bob))
    await here.discord.click(here.bob, again, UNWATCH)
    await here.bot.lab.queue.states.cancel("char_lstm-1")
    await here.message(here.ana, "· result")
    assert direct_messages(here, here.bob) == [card]
    ended = await here.reply(here.bob, "status", RUN)
    assert not any("watch" in custom_id for custom_id in buttons(ended).values())


async def test_unwatch__ends_edits_and_the_final_message_for_the_starter_too(here: Place) -> None:
    followed(here, here.ana)
    card = await here.message(here.ana, "Queued")
    await here.ask(here.bob, "watch", RUN)
    for _ in range(2):
        assert "no final message is sent" in (await here.ask(here.ana, "unwatch", RUN)).text
    await here.bot.lab.queue.states.cancel("char_lstm-1")
    await here.message(here.bob, "· result")
    assert direct_messages(here, here.ana) == [card] and card.edit_seconds == []
    await here.ask(here.ana, "watch", RUN)
    await here.message(here.ana, "· result")
    await here.discord.wait_for_edit(card, "Cancelled")
    assert len(direct_messages(here, here.ana)) == 2


async def test_unwatch__of_all(here: Place) -> None:
    stories = [followed(here, here.bob, f"char_lstm-{number}") for number in (1, 2)]
    other = followed(here, here.ana, "char_lstm-3")
    answer = (await here.ask(here.bob, "unwatch", {"run": "all"})).text
    assert "`char_lstm-1`" in answer and "`char_lstm-2`" in answer
    assert "You were not watching any run" in (await here.ask(here.bob, "unwatch", {"run": "all"})).text
    assert "🔕 Not watching" in (await here.ask(here.bob, "unwatch", {"run": "char_lstm-3"})).text
    assert [watcher.user_id for watcher in read_ledger(other.run).pending] == [here.ana.id]
    assert [watches(story, here.bob) for story in stories] == [False, False]


async def test_run_that_has_ended__has_its_result_sent_once(here: Place) -> None:
    story = here.story(here.ana)
    await here.bot.lab.queue.states.cancel("char_lstm-1")
    for _ in range(2):
        answer = await here.ask(here.bob, "watch", RUN)
        assert "The run has ended. Its result was sent by direct message." in answer.text
        await here.message(here.bob, "· result")
        await until(lambda: entry(story, here.bob).has_final)
    assert here.bot.notifier.watched_by(here.bob.id) == []
    assert len(direct_messages(here, here.bob)) == 1


async def test_here__is_the_channel_of_the_command_where_the_bot_may_post(here: Place) -> None:
    home = here.discord.add_guild("home", [here.bob])
    away = here.discord.add_guild("away", [here.bob], bot_present=False)
    followed(here, here.ana)
    refused = await here.reply(here.bob, "watch", IN_CHANNEL, away)
    assert "may not post in this channel" in shown_text(refused.payload)
    watching = await here.reply(here.bob, "watch", IN_CHANNEL, home)
    assert f"to <#{home.channels[0].id}>" in shown_text(watching.payload)
    card = await here.discord.wait_for_message(home.channels[0], "Queued")
    assert "by direct message" in (await here.ask(here.ana, "watch", IN_CHANNEL)).text
    await here.bot.lab.queue.states.cancel("char_lstm-1")
    await here.discord.wait_for_message(home.channels[0], "· result")
    await here.message(here.ana, "· result")
    await here.discord.wait_for_edit(card, "Cancelled")
    assert direct_messages(here, here.bob) == messages(here, away.channels[0]) == []


async def test_closed_dms_of_a_watcher__are_shown_in_status_until_the_next_watch(here: Place) -> None:
    guild = here.discord.add_guild("home", [here.ana, here.bob])
    here.discord.set_dms(here.bob, is_open=False)
    story = followed(here, here.ana)
    watching = await here.reply(here.bob, "watch", RUN, guild)
    assert entry(story, here.bob).closed_place == "dm"
    of_bob = await here.reply(here.bob, "status", RUN, guild)
    assert all(CLOSED in shown_text(one.payload) for one in (watching, of_bob))
    of_ana = await here.reply(here.ana, "status", RUN, guild)
    assert "cannot send you" not in shown_text(of_ana.payload)
    here.discord.set_dms(here.bob, is_open=True)
    await here.discord.click(here.bob, of_bob, WATCH)
    await here.message(here.bob, "Queued")


def followed(here: Place, user: User, name: str = "char_lstm-1") -> Story:
    story = here.story(user, name)
    here.bot.notifier.follow(name)
    return story


def messages(here: Place, channel: Channel) -> list[StoredMessage]:
    """Return the messages of a channel without answers to commands."""
    return [one for one in here.discord.messages(channel) if "interaction_metadata" not in one.payload]


def direct_messages(here: Place, user: User) -> list[StoredMessage]:
    return messages(here, here.discord.dm_channel(user))


def entry(story: Story, user: User) -> Watcher:
    found = read_ledger(story.run).of(user.id)
    assert found is not None
    return found


def watches(story: Story, user: User) -> bool:
    return entry(story, user).watches


# Runs that nobody has started in Discord


@pytest.mark.parametrize("http", [None, HttpOrigin(api_key="admin"), HttpOrigin(api_key="lab")])
async def test_run_of_no_discord_user__is_reported_to_the_owner(tmp_path: Path, http: HttpOrigin | None) -> None:
    add_corpus(tmp_path, some_text())
    async with place(tmp_path) as here:
        run_id = (await here.bot.lab.queue.train(tiny_request(), user_id=None, http=http)).run_id
        card = await here.message(here.ana, f"Queued(.|\\n)*{run_id}")
        group = (await here.bot.lab.queue.train(tiny_request(seeds=(1, 2)), user_id=None, http=http)).group
        assert group is not None
        await here.message(here.ana, f"Queued(.|\\n)*{group.group_id}")
        await here.bot.lab.queue.states.cancel(run_id)
        await here.message(here.ana, f"{run_id} · result")
        await here.discord.wait_for_edit(card, "Cancelled")
        assert direct_messages(here, here.bob) == []


@pytest.mark.parametrize(("is_wanted", "notify"), [(False, "dm"), (True, "off")])
async def test_owner__without_owner_messages_gets_none(tmp_path: Path, is_wanted: bool, notify: Notify) -> None:
    async with place(tmp_path, notify_owner=is_wanted) as here:
        await here.bot.user_settings.save(here.ana.id, UserSettings(notify=notify))
        here.bot.notifier.follow(here.story(None).record.run_id)
        assert here.bot.notifier.watched_by(here.ana.id) == []


async def test_owner__gets_no_message_about_a_run_that_had_ended_before_the_bot_started(here: Place) -> None:
    before, since = now() - timedelta(days=1), now() + timedelta(days=1)
    stories = [here.story(None, f"char_lstm-{n}", created_at=at) for n, at in enumerate((before, before, since))]
    for story in stories[1:]:
        story.run.write_manifest(manifest_of(story.record, "cancelled"))
    for story in stories:
        here.bot.notifier.follow(story.record.run_id)  # as after an evaluation of an old run
    assert here.bot.notifier.watched_by(here.ana.id) == ["char_lstm-0", "char_lstm-2"]
