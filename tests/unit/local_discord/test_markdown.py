"""Markdown of Discord as spans: no mark of a message is left, and the text of users keeps its signs."""

import re
from itertools import chain

import pytest

from local_discord.markdown import Span, spans
from tests.support.messages import MESSAGES

MARKS = re.compile(r"\*\*|`|\]\(|<[t@#]|\\[^\w\s]|^(-# |#|> )|\|\||~~|__", re.MULTILINE)


def flat(markdown: str) -> list[Span]:
    """The spans of a text, with those of its bold parts in their places."""
    return [*chain.from_iterable(flat(one.text) if one.kind == "bold" else [one] for one in spans(markdown))]


@pytest.mark.parametrize("name", MESSAGES)
def test_messages__leave_no_mark_to_a_reader(name: str) -> None:
    embed = MESSAGES[name]("corpus_v2 (new) *a*")
    shown = [*flat(embed.title or ""), *flat(embed.description or "")]
    assert [span.text for span in shown if span.kind not in ("code", "block") and MARKS.search(span.text)] == []


def test_spans__are_those_that_discord_shows() -> None:
    assert [*spans("**a\\* `b`** [c](https://d.e) <@7> <#8>", {"7": "Ana"})] == [
        Span("bold", "a\\* `b`"),
        Span("text", " "),
        Span("link", "c", "https://d.e"),
        Span("text", " "),
        Span("mention", "@Ana"),
        Span("text", " "),
        Span("mention", "@8"),
    ]
    assert [*spans("```py\nx **y**\n```\nz\\_\\*")] == [
        Span("block", "x **y**"),
        Span("text", "\nz"),
        Span("text", "_"),
        Span("text", "*"),
    ]
