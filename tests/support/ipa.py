"""Sentences of seven languages as they are written, in IPA, and cleaned.

They are of Common Voice (CC0) and of X-WMT (MIT); turkic-translit 0.5.9 converted them and `turkic-clean-corpus`, its
command, cleaned them. A line that it dropped is cleaned to nothing.
"""

from typing import NamedTuple

from tests.support import ROOT


class Sentence(NamedTuple):
    language: str
    text: str
    ipa: str
    cleaned: str


def sentences(language: str) -> list[Sentence]:
    rows = (ROOT / "tests" / "fixtures" / "ipa.tsv").read_text(encoding="utf-8").splitlines()
    return [each for each in (Sentence(*row.split("\t")) for row in rows) if each.language == language]
