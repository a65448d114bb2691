"""The card of many watched runs: a line per run, as many as an embed can hold."""

import pytest

from bot.messages.digest_card import digest_card
from tests.support.cards import within_limits


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
