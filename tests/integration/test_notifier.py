"""From a run's event log to its watchers: one card, edited, and one message at the end, whatever goes wrong."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from bot.messages.text import AMBER, BLURPLE
from bot.people.watchers import MessageLedger, SentMessage, Watcher, read_ledger
from local_discord.driver import shown_text
from local_discord.rest import Limit
from local_discord.state import Channel, StoredMessage, User
from local_discord.wire import mapping, rows, text
from tests.support.notifier import EDIT_INTERVAL_SECONDS, MESSAGES, Place, place, sent_message_ids, until_delivered
from tests.support.stories import Story
from tests.support.waiting import captured_logs, until
from trainer.artifacts.runs import manifest_of
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.system.files import write_atomically


@pytest.fixture(name="here")
async def here_fixture(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as here:
        yield here


async def test_run__has_one_card_that_is_edited_and_one_final_message(here: Place) -> None:
    story = here.story(here.ana)
    async with here.listening() as listener:
        listener.follow(story.record.run_id)
        card = await here.message(here.ana, "Queued: kk-ipa")
        story.start()
        for step in range(1, 100):
            story.step(step, 3.0 - step / 100)
            await here.queue.signals.put(story.record.run_id)
            await asyncio.sleep(0.05)
            if len(card.edit_seconds) == 3:
                break
        story.step(100, 1.9).complete(train_loss=1.9)
        await here.queue.signals.put(story.record.run_id)
        final = await here.message(here.ana, "· result")
        await until_delivered(story.run)
    assert here.messages(here.ana) == [card, final]
    assert min(later - earlier for earlier, later in pairwise(card.edit_seconds)) >= EDIT_INTERVAL_SECONDS
    assert shown_text(card.payload).startswith("\n✅ Completed: kk-ipa in 11 min 8 s")
    (chart,) = card.attachments
    assert mapping(card.embeds[0]["image"])["url"] == chart["url"]
    assert "training loss 2.741 bits/token" in str(chart["description"])
    assert here.discord.read(chart).startswith(b"\x89PNG")
    assert final.attachments == [], "the chart stands in the card"
    assert custom_ids(final) == ["generate", "score", "evalon", "files", "compare", "config", "details"]
    assert "cancel" in custom_ids(card) and "mt:cancel" not in str(card.components)


async def test_run_that_has_ended_before__has_one_message(here: Place) -> None:
    here.story(here.ana).start().step(10, 3.0).step(20, 2.0).checkpoint(20).cancel()
    async with here.listening():
        final = await here.message(here.ana, "· result")
    assert len(here.texts(here.ana)) == 1
    assert len(final.attachments) == 1, "there is no card that shows the chart"
    assert custom_ids(final) == ["resume", "retry", "logs"]


async def test_restart__continues_with_the_same_card(here: Place) -> None:
    story = here.story(here.ana).start()
    async with here.listening():
        card = await here.message(here.ana, "Training")
    story.step(50, 2.0).complete()
    async with here.listening():
        await here.message(here.ana, "· result")
    async with here.listening():  # which ends the card, where the one before had no time for that
        await until_delivered(story.run)
    assert len(here.texts(here.ana)) == 2
    assert "Completed" in shown_text(card.payload)


async def test_restarts__keep_the_interval_between_edits(here: Place) -> None:
    story = here.story(here.ana).start()
    async with here.listening():
        card = await here.message(here.ana, "Training")
    for step in range(1, 4):
        story.step(step, 2.0)
        async with here.listening():
            await here.discord.wait_for_edit(card, f"step {step} ")
    assert len(card.edit_seconds) == 3
    assert min(later - earlier for earlier, later in pairwise(card.edit_seconds)) >= EDIT_INTERVAL_SECONDS


async def test_lost_signal__is_made_up_by_polling(here: Place) -> None:
    story = here.story(here.ana)
    async with here.listening():
        card = await here.message(here.ana, "Queued")
        await until(lambda: card.id in sent_message_ids(story))
        readings = here.queue.readings
        await until(lambda: here.queue.readings > readings + 2)  # each after a wait for the signal
        story.cancel()
        await here.message(here.ana, "· result")


async def test_signal__wakes_at_once_after_an_error_and_an_unknown_run(here: Place) -> None:
    here.queue.broken = 1
    async with here.listening(poll_seconds=60):
        for _ in range(2):
            await here.queue.signals.put("char_lstm-unknown")
        story = here.story(here.ana)
        await here.queue.signals.put(story.record.run_id)
        await here.message(here.ana, "Queued")
        story.cancel()
        await here.queue.signals.put(story.record.run_id)
        await here.message(here.ana, "· result")


async def test_new_run__waits_while_a_command_holds_the_notifier(here: Place) -> None:
    hall = here.discord.add_guild("home", [here.ana]).channels[0]
    known = here.story(here.ana, "char_lstm-known")
    async with here.listening(poll_seconds=60) as listener:
        card = await here.message(here.ana, "Queued")
        with listener.hold():
            with listener.hold():
                held, other = here.story(here.ana, "char_lstm-held"), here.story(here.ana, "char_lstm-other")
                known.start()
                for story in (held, other, known):
                    await here.queue.signals.put(story.record.run_id)
                await here.discord.wait_for_edit(card, "Training")  # the signal after those of the new runs
            assert listener.watched_by(here.ana.id) == ["char_lstm-known"]
            await listener.watch("char_lstm-held", here.ana.id, hall.id, None, waits=False)
        await here.message(here.ana, "char_lstm-other")
        await here.discord.wait_for_message(hall, "char_lstm-held")
    assert len(here.texts(here.ana)) == 2


@pytest.mark.parametrize(("steady_seconds", "waits"), [(60.0, [0.1, 0.2, 0.4]), (0.0, [0.1, 0.1, 0.1])])
async def test_task_that_fails_again__waits_longer_unless_it_was_steady(
    here: Place, steady_seconds: float, waits: list[float]
) -> None:
    here.queue.broken = 3
    for _ in range(3):
        here.queue.signals.put_nowait("char_lstm-any")
    with captured_logs() as logs:
        async with here.listening(steady_seconds=steady_seconds):
            await until(lambda: len(logs) == 3)
    assert [line["retry_seconds"] for line in logs] == pytest.approx(waits)


async def test_crash_between_message_and_ledger__makes_no_second_message(here: Place) -> None:
    story = here.story(here.ana)
    async with here.listening():
        await here.message(here.ana, "Queued")
    (known,) = read_ledger(story.run).watchers
    assert known.card is not None
    put_watchers(story, changed(known, card=SentMessage(nonce=known.card.nonce)))
    story.cancel()
    async with here.listening():
        await until_delivered(story.run)
    assert [text.split("\n")[1] for text in here.texts(here.ana)] == ["⏹ Cancelled: kk-ipa"] * 2


async def test_deleted_card__is_sent_again_once_unless_the_run_ends(here: Place) -> None:
    bob = here.discord.add_user("bob")
    story, ending = here.story(here.ana), here.story(bob, "char_lstm-ending")
    async with here.listening():
        for user in (here.ana, bob):
            await delete(here, await here.message(user, "Queued"))
        ending.cancel()
        story.start()
        second = await here.message(here.ana, "Training")
        await here.message(bob, "· result")
        await until_delivered(ending.run)
        await until(lambda: second.id in sent_message_ids(story))
        await delete(here, second)
        story.step(10, 2.0)
        await until(lambda: [request.status for request in here.discord.requests].count(404) == 3)
        story.cancel()
        await here.message(here.ana, "· result")
        await until_delivered(story.run)
    assert [len(here.texts(user)) for user in (here.ana, bob)] == [1, 1]


async def delete(here: Place, message: StoredMessage) -> None:
    channel = here.client.get_partial_messageable(message.channel.id)
    await channel.get_partial_message(message.id).delete()


async def test_malformed_and_unknown_events__are_logged(here: Place) -> None:
    story = here.story(here.ana)
    with captured_logs() as logs:
        async with here.listening():
            card = await here.message(here.ana, "Queued")
            with (story.run.path / "events.jsonl").open("ab") as file:
                file.write(b'no event\n{"type":"trainer.job.started.v2"}\n')
            story.start().step(10, 2.0)
            await here.discord.wait_for_edit(card, "step 10 ")
    # the follower and whoever opens the log to write see them
    said = [line["event"] for line in logs if line["log_level"] == "warning"]
    assert {*said[:2]} == {"event_unknown", "event_malformed"}


async def test_delivery_that_fails__is_logged_restarted_and_delays_nobody(here: Place, tmp_path: Path) -> None:
    broken = here.story(here.ana, "char_lstm-broken")
    here.story(here.ana, "char_lstm-whole").cancel()
    log = broken.run.path / "events.jsonl"
    log.rename(tmp_path / "away")
    with captured_logs() as logs:
        async with here.listening():
            await here.message(here.ana, "char_lstm-whole · result")
            await until(lambda: any(line["event"] == "task_failed" for line in logs))
            (tmp_path / "away").rename(log)
            await here.message(here.ana, "char_lstm-broken")
    failures = [line for line in logs if line["event"] == "task_failed"]
    assert failures[0]["task"] == f"char_lstm-broken for {here.ana.id}"
    assert isinstance(failures[0]["exc_info"], FileNotFoundError)


async def test_broken_ledger__is_logged_and_delays_nobody_else(here: Place) -> None:
    broken = here.story(here.ana, "char_lstm-broken")
    broken.run.message_ledger.write_bytes(b"{")
    here.story(here.ana, "char_lstm-whole").cancel()
    with captured_logs() as logs:
        async with here.listening() as listener:
            listener.follow("char_lstm-broken")
            await here.message(here.ana, "char_lstm-whole · result")
    said = [line["run_id"] for line in logs if line["event"] == "run_unreadable"]
    assert said == ["char_lstm-broken"] * 2


@pytest.mark.parametrize("ending", ["arrived", "lost"])
async def test_bot_killed_before_the_last_edit__ends_the_card_later(here: Place, ending: str) -> None:
    story = here.story(here.ana).start()
    async with here.listening():
        card = await here.message(here.ana, "Training")
        await until(lambda: card.id in sent_message_ids(story))
    story.cancel()
    async with here.listening():
        await until_delivered(story.run)
    (known,) = read_ledger(story.run).watchers
    assert known.card is not None
    was_sent = known.card if ending == "arrived" else SentMessage(nonce=known.card.nonce)
    edits = len(card.edit_seconds)
    put_watchers(story, changed(known, card_is_stale=True, card=was_sent))
    async with here.listening():
        await until_delivered(story.run)
    assert len(card.edit_seconds) == edits + 1 and len(here.texts(here.ana)) == 2


async def test_card_that_never_arrived__is_not_sent_after_the_end(here: Place) -> None:
    story = here.story(here.ana).cancel()
    put_watchers(story, Watcher(user_id=here.ana.id, card=SentMessage(nonce="1")))
    async with here.listening():
        await until_delivered(story.run)
    assert len(here.texts(here.ana)) == 1


async def test_card__shows_the_state_of_the_queue(here: Place) -> None:
    here.queue.known = {"queue_position": 2, "waits_for": "worker"}
    story = here.story(here.ana)
    async with here.listening():
        card = await here.message(here.ana, "Position 2 in the queue")
        assert WAIT_MESSAGES["worker"] in shown_text(card.payload)
        here.queue.known = {"queue_position": 1}
        await here.discord.wait_for_edit(card, "Position 1 in the queue")
        assert "Waiting for a worker." in shown_text(card.payload)
        here.queue.known = {}
        story.start().step(10, 3.0)
        await here.discord.wait_for_edit(card, "Training")
        assert "ETA" in shown_text(card.payload)
        here.queue.known = {"reachable": False}
        await here.discord.wait_for_edit(card, "Worker not responding")
        assert "ETA" not in shown_text(card.payload)
        here.queue.known = {}
        await here.discord.wait_for_edit(card, "Training")
    colours = [rows(version.payload["embeds"])[0]["color"] for version in card.versions]
    assert colours[-3:] == [BLURPLE, AMBER, BLURPLE]


async def test_last_lines_of_a_crash__are_sent_to_the_starter_only(here: Place) -> None:
    ana, bob = here.discord.add_user("ana"), here.discord.add_user("bob")
    hall = here.discord.add_guild("home", [ana]).channels[0]
    story, public = here.story(ana), here.story(ana, "char_lstm-public")
    error = RunError.of(AppError(ErrorCode.CRASH_LOOP, "It crashed."))
    for crashed in (story, public):
        manifest = manifest_of(crashed.record, "failed", error=error)
        crashed.run.write_manifest(changed(manifest, last_lines=("Fatal Python error: Aborted\n",)))
        crashed.fail("It crashed.")
    put_watchers(story, Watcher(user_id=ana.id), Watcher(user_id=bob.id))
    put_watchers(public, in_channel(hall, ana))
    async with here.listening():
        await until_delivered(story.run)
        await until_delivered(public.run)
    told = [*here.messages(ana), *here.messages(bob), *here.discord.messages(hall)]
    assert ["Fatal Python error" in shown_text(one.payload) for one in told] == [True, False, False]
    assert [custom_ids(one) for one in told] == [["logs"], [], ["logs"]]


# Several watchers


async def test_watchers__have_a_card_and_a_final_message_each(here: Place) -> None:
    ana, bob, cy = (here.discord.add_user(name) for name in ("ana", "bob", "cy"))
    hall = here.discord.add_guild("home", [cy]).channels[0]
    story = here.story(ana).start().step(10, 3.0).step(20, 2.0)
    put_watchers(story, Watcher(user_id=ana.id), Watcher(user_id=bob.id), in_channel(hall, cy))
    channels = (here.discord.dm_channel(ana), here.discord.dm_channel(bob), hall)
    async with here.listening():
        for channel in channels:
            await here.discord.wait_for_message(channel, "step 20 ")
        story.complete()
        await until_delivered(story.run)
    for channel in channels:
        card, final = here.discord.messages(channel)
        assert "· result" not in shown_text(card.payload) and "· result" in shown_text(final.payload)
        assert all("Completed" in shown_text(message.payload) for message in (card, final))
        assert custom_ids(card) == [*(["cancel", "logs"] if channel is channels[0] else []), "unwatch", "status"]
        mention = f"<@{cy.id}>" if channel is hall else ""
        assert (card.payload["content"], final.payload["content"]) == ("", mention), "people are told the end only"
    (sent,) = [body.body for body in here.discord.bodies if "<@" in str(body.body.get("content"))]
    assert mapping(sent["allowed_mentions"])["users"] == [cy.id]
    assert here.charts.drawn == 2


async def test_watchers_in_one_channel__do_not_take_each_other_s_messages(here: Place) -> None:
    bob, cy = here.discord.add_user("bob"), here.discord.add_user("cy")
    hall = here.discord.add_guild("home", [bob, cy]).channels[0]
    story = here.story(None)
    put_watchers(story, in_channel(hall, bob), in_channel(hall, cy))
    here.discord.fail_next("POST", MESSAGES, "reply_lost", times=2)
    async with here.listening():
        await until(lambda: len(sent_message_ids(story)) == 2)
        here.discord.fail_next("POST", MESSAGES, "reply_lost", times=2)
        story.cancel()
        await until_delivered(story.run)
    texts = [shown_text(message.payload) for message in here.discord.messages(hall)]
    assert ["· result" in text for text in texts] == [False, False, True, True]
    assert len(sent_message_ids(story)) == 4


@pytest.mark.parametrize("trouble", ["closed", "no access", "deleted", "deleted under its card"])
async def test_unreachable_watcher__is_stored_and_delays_no_other(here: Place, trouble: str) -> None:
    ana, bob = here.discord.add_user("ana"), here.discord.add_user("bob")
    away = here.discord.add_guild("away", [bob], bot_present=False).channels[0]
    here.discord.set_dms(bob, is_open=trouble != "closed")
    gone = Channel(1234567890, "gone")
    lost = {
        "closed": Watcher(user_id=bob.id),
        "no access": in_channel(away, bob),
        "deleted": in_channel(gone, bob),
        "deleted under its card": in_channel(gone, bob, card=SentMessage(nonce="1", message_id=1234567891)),
    }[trouble]
    story = here.story(ana)
    put_watchers(story, lost, Watcher(user_id=ana.id))
    async with here.listening():
        await here.message(ana, "Queued")
        await until(lambda: any(watcher.is_closed for watcher in read_ledger(story.run).watchers))
        story.cancel()
        await here.message(ana, "· result")
        await until_delivered(story.run)
        told = len(here.discord.requests)
        await here.queue.signals.put(story.record.run_id)
        await until(here.queue.signals.empty)
    assert len(here.discord.requests) == told
    (bobs,) = [watcher for watcher in read_ledger(story.run).watchers if watcher.user_id == bob.id]
    assert bobs.closed_place == ("dm" if trouble == "closed" else "channel")


@pytest.mark.slow
async def test_rate_limit_of_one_channel__delays_nobody_else(tmp_path: Path) -> None:
    async with place(tmp_path, message_limit=Limit(2, 20)) as here:
        ana, bob = here.discord.add_user("ana"), here.discord.add_user("bob")
        busy = here.client.get_partial_messageable(here.discord.dm_channel(ana).id)
        sending = [asyncio.create_task(busy.send("busy")) for _ in range(2)]
        await until(lambda: len(here.texts(ana)) == 2)
        story = here.story(ana)
        put_watchers(story, Watcher(user_id=ana.id), Watcher(user_id=bob.id))
        async with here.listening():
            await here.message(bob, "Queued")
            story.cancel()
            await here.message(bob, "· result")
            assert here.texts(ana) == ["busy", "busy"]
        await asyncio.gather(*sending)


async def test_run_that_has_become_private__sends_messages_to_its_owner_only(here: Place) -> None:
    ana, bob = here.discord.add_user("ana"), here.discord.add_user("bob")
    story = here.story(ana).cancel()
    put_watchers(story, Watcher(user_id=bob.id), Watcher(user_id=ana.id))
    here.private_to = ana
    async with here.listening():
        await here.message(ana, "· result")
    assert here.texts(bob) == []


def put_watchers(story: Story, *watchers: Watcher) -> None:
    write_atomically(story.run.message_ledger, MessageLedger(watchers=watchers).model_dump_json().encode())


def in_channel(channel: Channel, user: User, card: SentMessage | None = None) -> Watcher:
    return Watcher(user_id=user.id, in_dm=False, channel_id=channel.id, card=card)


def custom_ids(message: StoredMessage) -> list[str]:
    """Return the custom ids of the buttons in a message's first version."""
    rows_of_buttons = rows(message.versions[0].payload["components"])
    return [text(button["custom_id"]).split(":")[1] for line in rows_of_buttons for button in rows(line["components"])]
