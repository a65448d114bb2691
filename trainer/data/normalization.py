"""Normalization of text before splitting, counting, encoding and scoring."""

from collections.abc import Iterator
from typing import NamedTuple
from unicodedata import is_normalized, normalize

from trainer.contracts.tokenizers import DocumentMode, Normalization

_CHARACTERS_AT_ONCE = 1 << 12


class Line(NamedTuple):
    """A document, with its start in its text and the number of its first line, from 1."""

    start: int
    text: str
    number: int


def normalized(text: str, normalization: Normalization) -> str:
    """Return the text in NFC, optionally in lower case letter by letter.

    The lower case of Turkish and Azerbaijani is that of SpecialCasing.txt in Unicode: I and a dot above is İ in NFC.
    """
    form = normalization.form
    if not normalization.lowercase:
        return text if text.isascii() or is_normalized(form, text) else normalize(form, text)
    composed = normalize(form, text)
    if normalization.lowercase is not True:
        composed = composed.replace("İ", "i").replace("I", "ı")
    # Python lowers a final sigma by its neighbours; the `tokenizers` library does not, and both must agree.
    return normalize(form, composed.replace("Σ", "σ").lower())


def normalized_lines(lines: str, normalization: Normalization) -> str:
    """Return the lines between newlines in their normalized form.

    A newline combines with no character, so that some lines are normalized at once: a few, because a combining
    character makes all of them slow.
    """
    parts: list[str] = []
    start = 0
    while start < len(lines):
        end = 1 + lines.find("\n", start + _CHARACTERS_AT_ONCE) or len(lines)
        parts.append(normalized(lines[start:end], normalization))
        start = end
    return "".join(parts)


def documents(text: str, mode: DocumentMode = "line") -> Iterator[Line]:
    """Yield the documents of a normalized text: its lines that are not blank, or the complete text of a stream.

    \\n and \\r\\n end a line.
    """
    if mode == "stream":
        yield Line(0, text, 1)
        return
    start = 0
    for number, line in enumerate(text.split("\n"), 1):
        document = line.removesuffix("\r")
        if document.strip():
            yield Line(start, document, number)
        start += len(line) + 1
