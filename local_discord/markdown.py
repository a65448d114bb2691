"""Discord's Markdown as spans of a text, for pictures and terminals: the marks that the bot's messages use."""

import re
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_MARK = re.compile(
    r"\\(?P<text>[^A-Za-z0-9\s])|```(?:\w*\n)?(?P<block>(?s:.*?))\n?```|`(?P<code>[^`\n]+)`"
    r"|\*\*(?P<bold>(?:\\.|[^\\\n])+?)\*\*|\[(?P<link>[^\]\n]+)\]\((?P<url>[^)\s]+)\)"
    r"|<t:(?P<time>\d+)(?::\w)?>|<[@#](?P<mention>\d+)>"
)


class Span(NamedTuple):
    """A part of a text; the text of a bold one is Markdown again."""

    kind: str
    """text, block, code, bold, link, time or mention."""
    text: str
    url: str = ""


def spans(markdown: str, names: Mapping[str, str] | None = None) -> Iterator[Span]:
    """Yield the spans of a text in order, without their marks; `names` are people and channels by id."""
    end = 0
    for mark in _MARK.finditer(markdown):
        if mark.start() > end:
            yield Span("text", markdown[end : mark.start()])
        end = mark.end()
        kind, text = next((name, text) for name, text in mark.groupdict().items() if text is not None)
        if kind == "time":
            text = _relative(int(text))
        elif kind == "mention":
            text = f"@{(names or {}).get(text, text)}"
        yield Span(kind, text, mark["url"] or "")
    if end < len(markdown):
        yield Span("text", markdown[end:])


def _relative(at: int) -> str:
    """Return a time as Discord shows it to its reader."""
    seconds = round(at - time.time())
    size = abs(seconds)
    number, unit = (size, "second") if size < 60 else (size // 60, "minute") if size < 3600 else (size // 3600, "hour")
    words = f"{number} {unit}{'' if number == 1 else 's'}"
    return f"in {words}" if seconds > 0 else f"{words} ago"
