"""The code blocks of a page, what a reader types in them, and whether a program has printed what a page shows."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SHELLS = ("sh", "bash", "console")
INTERRUPTED = "^C"
"""A line of output in a `console` block: the reader presses Ctrl-C."""
_BLOCK = re.compile(r'^```(\w*)(?: title="([^"\n]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_HERE_DOCUMENT = r"<<'(\w+)'"
_NO_COMMANDS = ("#", "do", "done", "for ", "")

_RUN_ID, _TIME, _SPEED = r"(?:lstm|gru)-\d{8}-[0-9a-f]{8}", r"\d{4}-\d\d-\d\d \d\d:\d\d", r"[\d,]+ tokens/s"
_NUMBER, _BORDER, _LEFT_OUT, _BAR = r"-?\d[\d,]*(?:\.\d+)?", "─+", "[…]", "━ "
_RELATIVE, _ABSOLUTE = 0.03, 0.02
"""More than CPUs differ by, and less than an older version's numbers did."""


class Block(NamedTuple):
    """A fenced block: its language, its title, its lines."""

    language: str
    title: str
    text: str

    def dialogue(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each command of a `console` block with the lines that it shows."""
        for part in self.text.removeprefix("$ ").split("\n$ "):
            command, *shown = part.splitlines()
            yield command, shown

    def commands(self) -> list[str]:
        """Return the lines that are commands, without the lines that a command reads or continues."""
        if self.language == "console":
            return [command for command, _ in self.dialogue()]
        found: list[str] = []
        end, continues = "", False
        for line in self.text.splitlines():
            if end or continues:
                end = "" if line == end else end
            elif not any(line.strip() == word or (word[-1:] == " " and line.startswith(word)) for word in _NO_COMMANDS):
                found.append(line.strip())
                end = "".join(find(_HERE_DOCUMENT, line))
            continues = line.endswith("\\")
        return found


def find(pattern: str, text: str) -> list[str]:
    found: list[str] = re.findall(pattern, text, re.MULTILINE)
    return found


def blocks_of(page: Path) -> list[Block]:
    return [Block(*found.groups("")) for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))]


def tolerance(command: str) -> float:
    """Return by how much a number may differ: those of a few words differ more between CPUs than a loss does."""
    return 0.3 if " score " in command else _RELATIVE


def is_printed(line: str, output: str, relative: float = _RELATIVE) -> bool:
    """Return whether a line of a page is one of the lines of an output."""
    return any(is_shown(line.lstrip(_BAR), printed.lstrip(_BAR), relative) for printed in output.splitlines())


def is_shown(shown: str, printed: str, relative: float = _RELATIVE) -> bool:
    """Return whether a line was printed as the page shows it: equal words, close numbers, anything for `[…]`."""
    for pattern in (_RUN_ID, _TIME, _SPEED, _BORDER):
        shown, printed = re.sub(pattern, "#", shown), re.sub(pattern, "#", printed)
    if shown.endswith(_LEFT_OUT):
        shown = shown.removesuffix(_LEFT_OUT).rstrip()
        printed = printed[: len(shown)]
    numbers = zip(find(_NUMBER, shown), find(_NUMBER, printed), strict=False)
    return re.sub(_NUMBER, "#", shown).split() == re.sub(_NUMBER, "#", printed).split() and all(
        math.isclose(float(one.replace(",", "")), float(other.replace(",", "")), rel_tol=relative, abs_tol=_ABSOLUTE)
        for one, other in numbers
    )
