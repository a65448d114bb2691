"""The one form of a text that is split, counted, encoded and scored (DEC D26)."""

from collections.abc import Iterator
from typing import NamedTuple
from unicodedata import is_normalized, normalize

from trainer.contracts.tokenizers import Normalization


class Line(NamedTuple):
    """A line that is not blank, and where it begins in its text."""

    start: int
    text: str


def normalized(text: str, normalization: Normalization) -> str:
    """Return the text in NFC, lower-cased letter by letter where that is asked for."""
    form = normalization.form
    if not normalization.lowercase:
        return text if is_normalized(form, text) else normalize(form, text)
    # Python lowers a final sigma by its neighbours; the `tokenizers` library, which must agree, does not.
    return normalize(form, normalize(form, text).replace("Σ", "σ").lower())


def documents(text: str) -> Iterator[Line]:
    """Yield the lines of a normalized text that are documents: \\n and \\r\\n end a line, blank lines are dropped."""
    start = 0
    for line in text.split("\n"):
        document = line.removesuffix("\r")
        if document.strip():
            yield Line(start, document)
        start += len(line) + 1
