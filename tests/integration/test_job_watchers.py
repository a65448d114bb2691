"""Experiments and tokenizers in direct messages: one card, one final message; closed messages and many runs."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from bot.notifications.inbox import MAX_CARDS
from bot.people.watchers import HasLedger, Ledger, MessageLedger, SentMessage, Watcher, read_ledger
from local_discord.driver import shown_text
from local_discord.rest import Limit
from local_discord.state import Refusal
from tests.support.bot import components
from tests.support.cross_language import experiment_record
from tests.support.experiment_results import finished_experiment
from tests.support.job_kinds import FAILURE, KINDS
from tests.support.notifier import MESSAGE, MESSAGES, Place, place, sent_message_ids, until_delivered
from tests.support.stored_jobs import begin
from tests.support.stories import Story
from tests.support.waiting import captured_logs, until
from trainer.artifacts.experiments import ExperimentDirectory, ExperimentStore
from trainer.artifacts.job_folder import REPORT_FILE
from trainer.contracts.base import KindName, changed, now
from trainer.contracts.errors import AppError
from trainer.contracts.experiments import Validity
from trainer.contracts.operations import JOB_ROWS
from trainer.reports.experiment_report import experiment_report
from trainer.system.files import write_atomically

USERS, RUNS, WATCHED = 20, 50, 8
INTERVAL_SECONDS = 0.2
UNAUTHORIZED = Refusal(401, 0, "401: Unauthorized")
CANNOT_SEND = Refusal(403, 50007, "Cannot send messages to this user")


@pytest.fixture(name="here")
async def here_fixture(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as here:
        yield here


@pytest.fixture(name="lax")
async def lax_fixture(tmp_path: Path) -> AsyncIterator[Place]:
    """The same with many messages a second."""
    async with place(tmp_path, message_limit=Limit(50, 1.0)) as here:
        yield here


def started(here: Place, number: int, *, is_own: bool = True) -> list[Story]:
    """Runs that train, of ana or of nobody."""
    return [here.story(here.ana if is_own else None, f"char_lstm-{index}").start() for index in range(number)]


def complete(experiment: ExperimentDirectory) -> None:
    (experiment.path / "validity.json").write_text(Validity(passed=True).model_dump_json(), encoding="utf-8")
    result = finished_experiment()
    experiment.result.write_text(result.model_dump_json(), encoding="utf-8")
    (experiment.path / REPORT_FILE).write_text(experiment_report(result).model_dump_json(), encoding="utf-8")


async def test_final_message_of_an_experiment__has_matrix_figures_and_the_list_of_its_tables(
    here: Place, tmp_path: Path
) -> None:
    job = experiment(tmp_path)
    async with here.listening() as listener:
        await listener.watch(job.job_id, here.ana.id, None)
        card = await here.message(here.ana, "Queued: experiment small")
        assert listener.watched_by(here.ana.id) == [job.job_id]
    begin(job)
    async with here.listening():
        await here.discord.wait_for_edit(card, "Running: experiment small")
        complete(job)
        final = await here.message(here.ana, f"{job.job_id} · result")
        await until_delivered(job)
    assert "Completed" in shown_text(card.payload) and "Excess cross-entropy" in shown_text(final.payload)
    assert here.messages(here.ana) == [card, final]
    assert [str(file["filename"]) for file in final.attachments] == ["heat_map.png", "tree.png"]
    [tables] = [one for one in components(final) if one.get("placeholder") == "Table"]
    assert tables["custom_id"] == f"mt:jobtable:{job.job_id}:experiment"


async def test_experiment_that_begins_again__has_its_messages_again(here: Place, tmp_path: Path) -> None:
    first = experiment(tmp_path)
    async with here.listening() as listener:
        await listener.watch(first.job_id, here.ana.id, None)
        card = await here.message(here.ana, "Queued: experiment small")
        first.fail(FAILURE)
        await until_delivered(first)
    later = changed(experiment_record(), created_at=now() + timedelta(minutes=5))
    again = ExperimentStore(tmp_path).create(later)
    await Ledger(again).watch(here.ana.id, None)
    lose_card(again)
    async with here.listening():
        assert await here.message(here.ana, "Queued: experiment small") != card
        assert "Failed" in shown_text(card.payload)
        again.fail(FAILURE)
        await until_delivered(again)
    assert ["· result" in text for text in here.texts(here.ana)] == [False, True] * 2


def lose_card(item: HasLedger) -> None:
    """Leave the ledger as if the bot had been killed while it sent the card."""
    [known] = read_ledger(item).watchers
    unsure = changed(known, card=SentMessage(nonce="lost"))
    write_atomically(item.message_ledger, MessageLedger(watchers=(unsure,)).model_dump_json().encode())


def experiment(root: Path) -> ExperimentDirectory:
    return ExperimentStore(root).create(experiment_record())


@pytest.mark.parametrize("kind", JOB_ROWS)
async def test_job_of_each_kind__has_one_card_and_one_final_message(
    here: Place, tmp_path: Path, kind: KindName
) -> None:
    job = KINDS[kind].create(tmp_path, 1)
    async with here.listening() as listener:
        await listener.watch(job.job_id, here.ana.id, None)
        await here.message(here.ana, job.job_id)
        assert listener.watched_by(here.ana.id) == [job.job_id]
    async with here.listening():
        KINDS[kind].end(tmp_path, job.job_id)
        final = await here.message(here.ana, f"{job.job_id} · result")
        await until_delivered(job)
    assert [text.split("\n")[1][0] for text in here.texts(here.ana)] == ["❌"] * 2
    assert FAILURE.message in shown_text(final.payload)


async def test_unwatched_experiment__sends_no_more_messages(here: Place, tmp_path: Path) -> None:
    job = experiment(tmp_path)
    async with here.listening() as listener:
        await listener.watch(job.job_id, here.ana.id, None)
        await listener.unwatch(job.job_id, here.ana.id)
        complete(job)
        assert listener.watched_by(here.ana.id) == []
        with pytest.raises(AppError, match="There is no job 'other-00000000'"):
            await listener.unwatch("other-00000000", here.ana.id)
    assert len(here.texts(here.ana)) == 1


# Closed direct messages


async def test_closed_dms__are_mentioned_once_in_the_channel_of_the_command(here: Place) -> None:
    ana = here.discord.add_user("ana", dms_open=False)
    hall = here.discord.add_guild("home", [ana]).channels[0]
    story = here.story(ana)
    async with here.listening() as listener:
        for _ in range(2):
            await listener.watch(story.record.run_id, ana.id, None, hall.id)
    story.cancel()
    async with here.listening() as listener:
        listener.follow(story.record.run_id)
        async with listener.deliver_pending(ana.id) as results:
            assert [result.card.footer.text for result in results] == [story.record.run_id]
    (mention,) = here.discord.messages(hall)
    assert mention.payload["content"] == f"<@{ana.id}>"
    assert "Direct messages are closed" in shown_text(mention.payload)


async def test_mention_that_fails__is_tried_again_and_sent_once(here: Place) -> None:
    ana = here.discord.add_user("ana", dms_open=False)
    hall = here.discord.add_guild("home", [ana]).channels[0]
    story = here.story(None)
    for refusal in (UNAUTHORIZED, CANNOT_SEND, UNAUTHORIZED):
        here.discord.fail_next("POST", MESSAGES, refusal)
    with captured_logs() as logs:
        async with here.listening() as listener:
            await listener.watch(story.record.run_id, ana.id, None, hall.id, waits=False)
            await until_delivered(story.run)
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["task_failed"] * 2
    assert [mention.content for mention in here.discord.messages(hall)] == [f"<@{ana.id}>"]


async def test_undelivered_result__of_a_deleted_run_is_not_shown(here: Place) -> None:
    ana = here.discord.add_user("ana", dms_open=False)
    deleted, other = (here.story(ana, f"char_lstm-{name}").cancel() for name in ("deleted", "other"))
    async with here.listening() as listener:
        for story in (deleted, other):
            await until_delivered(story.run)
        await until(lambda: not listener.watched_by(ana.id))  # a refusal is on disk before its delivery has ended
        shutil.rmtree(deleted.run.path)
        async with listener.deliver_pending(ana.id) as results:
            assert [result.card.footer.text for result in results] == ["char_lstm-other"]


async def test_closed_dms__and_a_closed_channel_of_the_command_are_silent(here: Place) -> None:
    ana = here.discord.add_user("ana", dms_open=False)
    away = here.discord.add_guild("away", [ana], bot_present=False).channels[0]
    story = here.story(ana)
    async with here.listening() as listener:
        watcher = await listener.watch(story.record.run_id, ana.id, None, away.id)
    assert watcher.closed_place == "dm"
    assert here.discord.messages(away) == []


# Many runs


async def test_many_runs__are_one_digest_until_all_have_ended(lax: Place, tmp_path: Path) -> None:
    ana, stories = lax.ana, started(lax, MAX_CARDS)
    for story in stories:
        story.step(10, 2.0)
    async with lax.listening():
        await until(lambda: len(lax.texts(ana)) == MAX_CARDS)
        stories += [lax.story(ana, "char_lstm-more").start(), lax.story(ana, "char_lstm-waits")]
        for story in stories[MAX_CARDS:]:
            await lax.queue.signals.put(story.record.run_id)
        digest = await lax.message(ana, f"Watching {MAX_CARDS + 1} runs|Watching {MAX_CARDS + 2} runs")
        await until(lambda: "⏳" in shown_text(digest.payload))
        await until(lambda: len(lax.texts(ana)) == 1)
    lose_card(stories[1].run)
    async with lax.listening():
        stories[0].complete()
        await lax.message(ana, "char_lstm-0 · result")
        await lax.discord.wait_for_edit(digest, f"Watching {MAX_CARDS + 1} runs")
        for story in stories[1:]:
            story.cancel()
        await lax.discord.wait_for_edit(digest, "No unfinished runs")
        for story in stories:
            await until_delivered(story.run)
        await until(lambda: not list((tmp_path / "digests").iterdir()))
    assert sorted("· result" in text for text in lax.texts(ana)) == [False] + [True] * len(stories)


async def test_card__that_discord_does_not_delete_stays_beside_the_digest(lax: Place) -> None:
    for refusal in (UNAUTHORIZED, Refusal(403, 50001, "Missing Access")):  # the first one may pass
        lax.discord.fail_next("DELETE", MESSAGE, refusal)
    stories = started(lax, MAX_CARDS)
    async with lax.listening():
        await until(lambda: all(sent_message_ids(story) for story in stories))
        await lax.queue.signals.put(lax.story(lax.ana, "char_lstm-more").start().record.run_id)
        await lax.message(lax.ana, f"Watching {MAX_CARDS + 1} runs")
        await until(lambda: not lax.discord.faults and len(lax.texts(lax.ana)) == 2)


async def test_refused_digest__is_mentioned_once_for_each_run(lax: Place, tmp_path: Path) -> None:
    hall = lax.discord.add_guild("home", [lax.ana]).channels[0]
    stories = started(lax, MAX_CARDS + 1, is_own=False)
    async with lax.listening() as listener:
        for story in stories:
            await listener.watch(story.record.run_id, lax.ana.id, None, hall.id, waits=False)
        await lax.message(lax.ana, f"Watching {MAX_CARDS + 1} runs")
        await until(lambda: len(lax.texts(lax.ana)) == 1)
        lax.discord.fail_next("PATCH", MESSAGE, CANNOT_SEND)
        stories[0].step(10, 2.0)
        for story in stories:
            await until_delivered(story.run)
        await until(lambda: not list((tmp_path / "digests").iterdir()))
        await listener.watch(stories[0].record.run_id, lax.ana.id, None, hall.id)
        await lax.message(lax.ana, "Training: kk-ipa")
    assert [mention.content for mention in lax.discord.messages(hall)] == [f"<@{lax.ana.id}>"] * len(stories)
    places = [[watcher.closed_place for watcher in read_ledger(story.run).watchers] for story in stories]
    assert places == [[None]] + [["dm"]] * MAX_CARDS


async def test_digest_that_a_killed_bot_ended__is_removed_at_the_start(here: Place, tmp_path: Path) -> None:
    (tmp_path / "digests").mkdir()
    ended = MessageLedger(watchers=(Watcher(user_id=here.ana.id, acknowledged=True),))
    (tmp_path / "digests" / "digest-1-1.json").write_text(ended.model_dump_json(), encoding="utf-8")
    here.story(here.ana).start()
    async with here.listening():
        await here.message(here.ana, "Training: kk-ipa")
    assert not list((tmp_path / "digests").iterdir())


async def test_refused_or_damaged_digest__delays_no_final_message(lax: Place, tmp_path: Path) -> None:
    (tmp_path / "digests").mkdir()
    (tmp_path / "digests" / "digest-1-1.json").write_text("{", encoding="utf-8")
    stories = started(lax, MAX_CARDS + 1)
    with captured_logs() as logs:
        async with lax.listening():
            await lax.message(lax.ana, "Watching 6 runs")
            lax.discord.set_dms(lax.ana, is_open=False)
            for story in stories:
                story.cancel()
            for story in stories:
                await until_delivered(story.run)
    assert [line["digest_id"] for line in logs if line["event"] == "digest_unreadable"] == ["digest-1-1"]


@pytest.mark.slow
async def test_fifty_runs_of_twenty_watchers__keep_the_pace_of_each_channel(tmp_path: Path) -> None:
    """With Discord's limits for an interval of a second.

    In less than an interval, each of 20 channels is opened once and has one message, and at most 8 cards are deleted.
    """
    messages, overall = Limit(5, 5 * INTERVAL_SECONDS), Limit(2 * USERS + WATCHED, INTERVAL_SECONDS)
    async with place(tmp_path, message_limit=messages, overall_limit=overall) as here:
        first, *others = [here.discord.add_user(f"user-{number}") for number in range(USERS)]
        stories = started(here, RUNS, is_own=False)
        watched = {first: stories[:WATCHED], **{user: stories[at % 10 :: 10] for at, user in enumerate(others, 1)}}
        async with here.listening(edit_interval_seconds=INTERVAL_SECONDS) as listener:
            watching = [
                listener.watch(story.record.run_id, user.id, None, None, waits=False)
                for user, followed in watched.items()
                for story in followed
            ]
            await asyncio.gather(*watching)
            await until(lambda: all(len(here.messages(user)) == len(watched[user]) for user in others))
            for story in stories:
                story.step(1, 2.0)
                await here.queue.signals.put(story.record.run_id)
            digest = await here.message(first, f"Watching {WATCHED} runs")
            await until(lambda: "loss 2.885 bits/token" in shown_text(digest.payload))
            await until(lambda: all(any(card.edit_seconds for card in here.messages(user)) for user in others))
            for story in stories:
                story.cancel()
                await here.queue.signals.put(story.record.run_id)
            for story in stories:
                await until_delivered(story.run)
        for user, followed in watched.items():
            for story in followed:
                assert sum(f"{story.record.run_id} · result" in text for text in here.texts(user)) == 1
            written = sorted(version.at_seconds for message in here.messages(user) for version in message.versions)
            assert min(later - earlier for earlier, later in pairwise(written)) >= INTERVAL_SECONDS
        assert [request for request in here.discord.requests if request.status == 429] == []
