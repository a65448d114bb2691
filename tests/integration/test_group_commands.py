"""Groups of runs over seeds in Discord: one card and one final message, buttons, status, lists and comparisons."""

from collections.abc import AsyncIterator
from datetime import timedelta
from math import log
from pathlib import Path

import pytest

from bot.people.watchers import GroupMessages, read_ledger
from local_discord import Upload
from local_discord.driver import shown_text
from local_discord.state import StoredMessage, User
from tests.support import ended, wait_for_status
from tests.support.bot import TEXT, Place, buttons, place
from tests.support.groups import GROUP, group_stories
from tests.support.measured_runs import SUMMARY, line_losses
from tests.support.notifier import place as notifier_place
from tests.support.stories import Story
from tests.support.waiting import until
from trainer.artifacts.runs import manifest_of
from trainer.contracts.base import changed, now


@pytest.fixture(name="here")
async def here_fixture(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as here:
        yield here


def direct(here: Place, user: User) -> list[StoredMessage]:
    return here.discord.messages(here.discord.dm_channel(user))


def end(story: Story, loss: float) -> Story:
    """Complete a run with a test loss."""
    summary = changed(SUMMARY, loss=loss, lines=line_losses(loss))
    manifest = changed(manifest_of(story.record, "completed"), eval=(summary,))
    metrics = changed(manifest.metrics, test=loss, bits_per_char=2 * loss)
    story.start().step(50, 2 * loss, loss).step(100, loss, loss).complete(train_loss=loss)
    story.run.write_manifest(changed(manifest, metrics=metrics))
    return story


async def test_seeds__start_a_group_with_one_card_and_one_final_message(here: Place) -> None:
    cats: dict[str, str | int | float | Upload] = {"file": Upload("cats.txt", TEXT), "model": "gru", "size": "tiny"}
    answer = await here.ask(here.bob, "train", {**cats, "seeds": "2", "max_steps": 3})
    [first, second] = [path.name for path in here.runs()]
    group_id = first.removesuffix("-s42")
    assert second == f"{group_id}-s43"
    assert "2 seeds: 42, 43" in answer.text
    assert group_id in answer.text and first not in answer.text
    card = await here.message(here.bob, f"Queued: cats-gru · 2 seeds(?s:.*){group_id}")
    assert {"Cancel", "Unwatch", "Refresh"} <= buttons(card).keys()
    await here.click(here.bob, card, buttons(card)["Cancel"])
    for run_id in (first, second):
        await wait_for_status(here.bot.lab.queue, run_id, ended)
    final = await here.message(here.bob, f"{group_id} · result")
    assert "⏹ 2 cancelled" in shown_text(final.payload)
    await here.discord.wait_for_edit(card, "Cancelled: cats-gru · 2 seeds")
    assert direct(here, here.bob) == [card, final], "the runs send nothing of their own"


async def test_card__follows_all_runs_and_ends_with_their_mean(tmp_path: Path) -> None:
    async with notifier_place(tmp_path) as here:
        stories = group_stories(tmp_path, user_id=here.ana.id)
        async with here.listening() as listener:
            await here.queue.signals.put(stories[0].record.run_id)
            card = await here.message(here.ana, "Queued: kk-ipa · 3 seeds")
            end(stories[0], 1.5)
            stories[2].start().step(40, 2.0, 1.9)
            await here.queue.signals.put(stories[0].record.run_id)
            await here.discord.wait_for_edit(card, "Training: kk-ipa · 3 seeds")
            end(stories[1], 1.7)
            stories[2].fail()
            await here.queue.signals.put(stories[2].record.run_id)
            final = await here.message(here.ana, f"{GROUP} · result")
            await until(lambda: not read_ledger(GroupMessages(GROUP, stories[0].run)).pending)
            listener.follow(GROUP)
    shown = shown_text(final.payload)
    assert "✅ 2 completed · ❌ 1 failed" in shown and "**1.443 ± 0.000** bits/token" in shown
    assert here.messages(here.ana) == [card, final]
    [chart] = card.attachments
    assert "Training and validation losses of 3 runs" in str(chart["description"])
    assert here.discord.read(chart).startswith(b"\x89PNG") and final.attachments == []


async def test_group__is_shown_watched_and_cancelled_by_its_id(here: Place) -> None:
    stories = group_stories(here.root / "artifacts", user_id=here.bob.id)
    end(stories[0], 1.5)
    shown = await here.reply(here.ana, "status", {"run": GROUP})
    assert "Queued: kk-ipa · 3 seeds" in shown_text(shown.payload)
    assert {"Cancel", "Watch", "Refresh"} <= buttons(shown).keys(), "an admin may cancel it"
    assert len(shown.attachments) == 1
    watched = await here.ask(here.ana, "watch", {"run": GROUP})
    assert "A card with the progress" in watched.text
    await here.message(here.ana, "Queued: kk-ipa · 3 seeds")
    unwatched = await here.ask(here.ana, "unwatch", {"run": GROUP})
    assert "Not watching: kk-ipa" in unwatched.text and GROUP in unwatched.text
    refused = await here.ask(here.ana, "logs", {"run": GROUP})
    assert f"'{GROUP}' is a group of 3 runs: name one of them" in refused.text
    asked = await here.reply(here.bob, "cancel", {"run": GROUP})
    assert "Cancel kk-ipa?" in shown_text(asked.payload), "it is older than ten minutes"
    cancelled = await here.click(here.bob, asked, buttons(asked)["Cancel it"])
    assert "✅ 1 completed · ⏹ 2 cancelled" in cancelled.text
    again = await here.ask(here.bob, "watch", {"run": GROUP})
    assert "The run has ended" in again.text


async def test_group__is_one_row_and_one_suggestion_before_its_runs(here: Place) -> None:
    stories = group_stories(here.root / "artifacts", user_id=here.bob.id)
    for story, loss in zip(stories, (1.5, 1.7), strict=False):
        end(story, loss)
    listed = await here.reply(here.bob, "runs")
    shown = shown_text(listed.payload)
    assert "Your runs: 1" in shown
    figures = f"{1.6 / log(2):.3f} ± {0.1414214 / log(2):.3f} bits/token · 3.200 ± 0.283 bits/char"
    assert f"**kk-ipa** · ⏳ 1 queued · ✅ 2 completed · {figures}" in shown
    assert f"`{GROUP}` · kk\\_ipa" in shown and f"{GROUP}-s1" not in shown
    offered = await here.suggested(here.bob, "status", "run")
    assert [choice.value for choice in offered] == [GROUP, *(story.record.run_id for story in stories)][:1] + sorted(
        (story.record.run_id for story in stories), reverse=True
    )
    assert "3 seeds" in offered[0].name
    only_runs = await here.suggested(here.bob, "logs", "run")
    assert GROUP not in [choice.value for choice in only_runs]


@pytest.mark.slow
async def test_groups__are_compared_with_runs_and_groups(here: Place) -> None:
    root, other_id = here.root / "artifacts", "char_lstm-20261126-ffffffff"
    fast, slow = group_stories(root, user_id=here.bob.id), group_stories(root, (1, 2, 3), other_id, user_id=here.bob.id)
    for story, loss in zip((*fast, *slow[:2]), (1.5, 1.52, 1.49, 1.7, 1.75), strict=True):
        end(story, loss)
    alone = end(here.story(here.bob, "char_lstm-9", created_at=now() - timedelta(days=1)), 1.9)
    compared = await here.reply(here.ana, "compare", {"a": GROUP, "b": other_id, "c": alone.record.run_id})
    shown = shown_text(compared.payload)
    assert "Paired over 2 seeds: " in shown and "3 runs against 1 (interval of one" in shown
    assert "`kk-ipa (0a1b2c3d)`: without a pair, so left out: seed 3." in shown
    assert "`kk-ipa (ffffffff)`: no completed run, so left out: seed 3 (queued)." in shown
    assert len(compared.attachments) == 1
    picked = await here.discord.click(here.ana, compared, f"mt:differences:{GROUP}", [other_id])
    assert "They have the same settings." in shown_text((await picked.reply()).payload)
    mixed = await here.ask(here.ana, "compare", {"a": GROUP, "b": fast[0].record.run_id})
    assert "A run cannot be compared with itself" in mixed.text
    hidden = group_stories(root, (1, 2), "char_lstm-20261126-00000000", user_id=here.ana.id)
    none = await here.ask(here.ana, "compare", {"a": GROUP, "b": hidden[0].record.run_id.removesuffix("-s1")})
    assert "No run of the group" in none.text
