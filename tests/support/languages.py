"""Texts in many languages."""

from pathlib import Path
from unicodedata import normalize

ROWS = [
    line.split("\t")
    for line in (Path(__file__).parents[1] / "fixtures" / "human_rights.tsv").read_text(encoding="utf-8").splitlines()
]

LANGUAGES = ["en", "fi", "ipa", "kk", "ky", "tr", "ug", "uz"]


def texts_in(language: str) -> list[str]:
    return [normalize("NFC", text) for of, text in ROWS if of == language]
