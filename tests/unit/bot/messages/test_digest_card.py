"""The card of many watched runs: a line per run, as many as an embed can hold."""

from bot.messages.digest_card import digest_card
from tests.support.cards import within_limits


def test_card__shows_the_lines_that_fit_and_says_how_many_are_missing() -> None:
    line = "🏃 **a** · 0 %"
    card = digest_card([line] * 500, "digest-1")
    description = card.description or ""
    assert f"… and {500 - description.count(line)} more runs: `/mt runs`" in description
    assert "The result of each run comes in a message of its own." in description
    assert "Watching 500 runs" in (card.title or "") and within_limits(card)
    description = digest_card([f"🏃 **run-{number}** · 41 %" for number in range(20)], "digest-1").description or ""
    assert description.count("🏃") == 20 and "more run" not in description
