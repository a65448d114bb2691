"""Text of embeds: cut to limits, and inert."""

from hypothesis import strategies as st

from bot.messages.text import clamp, plain, without_links
from tests.support.cards import texts
from tests.support.properties import for_all_pairs


@for_all_pairs(texts, st.integers(min_value=1, max_value=100))
def test_clamp__keeps_short_texts_and_marks_what_was_cut(text: str, limit: int) -> None:
    units = len(text.encode("utf-16-le")) // 2
    clamped = clamp(text, limit)
    if units <= limit:
        assert clamped == text
    else:
        assert len(clamped.encode("utf-16-le")) // 2 <= limit
        assert clamped.endswith("…")
        assert text.startswith(clamped[:-1])


def test_message__has_no_three_backticks_in_a_row_whatever_it_quotes() -> None:
    assert [without_links("`" * n).count("```") for n in range(1, 9)] == [0] * 8


def test_plain__leaves_no_mention_link_or_markdown_alive() -> None:
    assert plain("<@1> @here https://x *a*") == "<\u200b@\u200b1> @\u200bhere https:\u200b//x \\*a\\*"
