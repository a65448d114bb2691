"""Lines in seven languages with their IPA and their cleaned IPA, as turkic-translit 0.5.9 and its cleaning made them.

The first lines of a language are from the Universal Declaration of Human Rights (a text of the United Nations, free to
reproduce), the others are prompt sentences of Mozilla Common Voice (CC0 1.0); corpora/README.md names both sources.
"""

from typing import NamedTuple

from tests.support import ROOT

DECLARATION_LINES = 5


class Line(NamedTuple):
    """A line; `clean` is empty where cleaning drops it."""

    language: str
    text: str
    ipa: str
    clean: str


_LINES = [
    Line(*row.split("\t"))
    for row in (ROOT / "tests" / "fixtures" / "turkic_ipa.tsv").read_text(encoding="utf-8").splitlines()[1:]
]


def turkic_lines(language: str) -> list[Line]:
    return [line for line in _LINES if line.language == language]
