"""The card of many watched runs: a line per run, as many as an embed can hold."""

from pathlib import Path

import pytest

from bot.messages.digest_card import digest_card, run_line
from tests.support.cards import within_limits
from tests.support.stories import TOTAL_STEPS, Story, run_record
from trainer.contracts.base import changed


@pytest.mark.parametrize("line", ["🏃 **a** · 0 %", "🏃 **" + "🐈" * 24 + "** · 41 % · loss 1.234"])
def test_card__of_more_lines_than_it_can_hold_says_how_many_are_missing(line: str) -> None:
    card = digest_card([line] * 500, "digest-1")
    description = card.description or ""
    shown = description.count(line)
    assert f"… and {500 - shown} more runs: `/mt runs`" in description
    assert "The result of each run comes in a message of its own." in description
    assert "Watching 500 runs" in (card.title or "")
    assert within_limits(card)


def test_card__shows_all_lines_that_fit() -> None:
    description = digest_card([f"🏃 **run-{number}** · 41 %" for number in range(20)], "digest-1").description or ""
    assert description.count("🏃") == 20 and "more run" not in description


def test_card__of_ended_runs_says_so() -> None:
    assert "No unfinished runs" in (digest_card([], "digest-1").title or "")


def test_line__shows_the_position_then_the_progress_and_whether_the_worker_responds(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record())
    queued = story.follower().status
    running = story.start().step(TOTAL_STEPS // 2, 2.0).follower().status
    reachable = changed(running, last_heartbeat_ts=1000.0)
    unreachable, unknown = changed(reachable, reachable=False), changed(reachable, train_bits_per_char=None)
    shown = [
        run_line(story.record, status)
        for status in (
            *(queued, changed(queued, queue_position=3), reachable, unreachable, unknown),
            changed(reachable, unknown_char_share=0.5),
        )
    ]

    assert run_line(story.record, changed(running, status="paused", eta_seconds=None, train_loss=None)) == (
        "⏸ **kk-ipa** · paused"
    )
    assert shown[0] == "⏳ **kk-ipa** · queued"
    assert shown[1] == "⏳ **kk-ipa** · position 3"
    # 4 / ln 2 bits per character; 60 seconds after the heartbeat
    assert shown[2] == "🏃 **kk-ipa** · 50 % · loss 2.000 · 5.77 bits/char · ETA <t:1060:R>"
    assert shown[4] == "🏃 **kk-ipa** · 50 % · loss 2.000 · ETA <t:1060:R>"
    assert shown[5] == "🏃 **kk-ipa** · 50 % · loss 2.000 · 5.77 bits/char ⚠ · ETA <t:1060:R>"
    assert shown[3] == "⚠ **kk-ipa** · worker not responding · loss 2.000 · 5.77 bits/char"
