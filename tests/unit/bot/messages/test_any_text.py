"""Messages and forms with any text of a user: Discord accepts them, and the text stays in its place."""

import json
import re

import discord
from hypothesis import strategies as st

from bot.messages.buttons import Field, form
from local_discord.limits import message_problems
from local_discord.validation import DISCORD
from local_discord.wire import Json, decode, mapping
from tests.support.cards import within_limits
from tests.support.messages import MESSAGES, RUN
from tests.support.properties import for_all

_MARKS = [
    *("@everyone", "@here", "<@1>", "<@!1>", "<@&1>", "<#2>", "</mt train:3>", "<t:0:R>", "<:a:1>", "https://x.y"),
    *("`", "``", "```", "```ansi\n", "\n```\n", "**", "__", "~~", "||", "[a](https://x.y)", "\n> ", "\n# ", "\n-# "),
    "[a](https://x.y)```[a](https://x.y)",
    *("\x1b[31m", "\x1b[2J", "\0", "\r", "\t", " ", "\n", "\\", "{name}", "%s", "\u2028", "\u0085"),
    *("\u202e", "\u202d", "\u202b", "\u2066", "\u2067", "\u2068", "\u2069", "\u202c", "\u200e", "\u200f", "\u061c"),
    *("\u200b", "\u200d", "\u2060", "\ufeff", "\u3164", "\u00ad", "\u0301" * 30, "a\u0361\u035c", "\U0001f468\u200d"),
    *("ئۇيغۇر", "שלום", "😀", "ﷺ", "\U000e0001", "\ufffd", "\uffff"),
]
_PIECES = st.one_of(st.sampled_from(_MARKS), st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
_SOME = st.lists(_PIECES, max_size=12).map("".join)
TEXTS = st.one_of(_SOME, _SOME, _SOME, _SOME.map(lambda some: some * 60))
"""Text without halves of surrogate pairs, which no contract accepts."""
HALVES = st.tuples(TEXTS, st.sampled_from(["", "\ud800", "\udfff\ud800", "a\udbffb"])).map("".join)
"""Text of messages that quote what a contract has refused."""

QUOTING = "failed card|status|failed|undelivered|user error|fault|corpus build|tokenizer".split("|")
"""Messages that quote a text in a sentence of the bot, which can mention somebody itself."""
_CODE = re.compile(r"```.*?```|(?<!\\)`[^`\n]*`", re.DOTALL)
_LIVE = re.compile(r"<(?:@[!&]?|#|/|t:|a?:)\w|@everyone|@here|://")
_LINK = re.compile(r"\]\([^)\s]*://")
_OVERRIDES = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067"


def problems(operation: tuple[str, str], body: Json) -> list[str]:
    """Mistakes of a request, by Discord's API description and the limits that its pages name."""
    found = DISCORD.match(*operation)
    assert found is not None
    refused = [*DISCORD.body_problems(found[0], body), *message_problems(mapping(body.get("data")) or body)]
    return [f"{problem.path}: {problem.message}" for problem in refused]


def shown(embed: discord.Embed) -> str:
    return f"{embed.title}\n{embed.description}"


def escapes(line: str) -> bool:
    """True if a line changes the direction of the text around it."""
    depth = 0
    for char in line:
        depth += (char == "\u2068") - (char == "\u2069")
        if depth < 0 or char in _OVERRIDES:
            return True
    return False


HARMLESS = {name: _CODE.sub("", shown(make("x"))) for name, make in MESSAGES.items()}


@for_all(TEXTS)
def test_messages__of_any_text_are_accepted_and_keep_it_inert(given: str) -> None:
    for name, make in MESSAGES.items():
        embed = make(given)
        assert within_limits(embed), name
        body: Json = {"embeds": [decode(json.dumps(embed.to_dict()))]}
        assert problems(("POST", "/channels/1/messages"), body) == [], name
        text = shown(embed)
        outside = _CODE.sub("", text)
        live = _LINK if name in QUOTING else _LIVE
        found: list[str] = live.findall(outside)
        expected: list[str] = live.findall(HARMLESS[name])
        assert text.count("```") % 2 == 0, name
        assert set(found) <= set(expected), name
        assert not any(escapes(line) for line in outside.split("\n")), name


@for_all(HALVES)
def test_messages__of_text_with_half_a_character_can_be_encoded(given: str) -> None:
    for name in ("fault", "logs", "runs"):
        embed = MESSAGES[name](given)
        assert shown(embed).encode("utf-8") and within_limits(embed), name


@for_all(TEXTS)
def test_undelivered_results__of_any_text_name_every_run(given: str) -> None:
    assert (MESSAGES["undelivered"](given).description or "").count(f"`{RUN}`") == 4


@for_all(TEXTS)
def test_forms__of_any_text_are_accepted_by_discord(given: str) -> None:
    fields = Field("prompt", f"Prompt {given}", given), Field("n", "N", given, True, 9)
    modal = form("edit", RUN, f"Edit {given}", *fields)
    data: dict[str, object] = modal.to_dict()
    body: Json = {"type": 9, "data": decode(json.dumps(data))}
    assert problems(("POST", "/interactions/1/token/callback"), body) == []
