"""Texts of tables that are not in UTF-8, but in a code page of Windows, such as those that Excel writes."""

import re
from collections.abc import Sequence
from typing import get_args

from trainer.config.validation import format_problem, safe_name
from trainer.contracts.cells import CodePage
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.reports import Note, note
from trainer.data.rows import TextFile

CODE_PAGES: tuple[CodePage, ...] = get_args(CodePage)
_WORD = re.compile(rb"[^\s,;\"]*[\x80-\xff][^\s,;\"]*")
"""A word with bytes that are not those of ASCII."""
_MAX_WORDS = 1000


def table_text(file: TextFile, encoding: CodePage | None) -> tuple[str, list[Note]]:
    """Return the text of a file in UTF-8, in a named code page, or in any if all give the same text, as of dashes.

    Raises INVALID_INPUT for other files.
    """
    try:
        return file.text(), []
    except AppError:
        content, shown = file.content, file.shown
        if b"\0" in content or format_problem(content, shown) is not None:
            raise
    words = [*{found[0]: None for found in _WORD.finditer(content)}][:_MAX_WORDS]
    if encoding is None and len({_decoded(content, page) for page in CODE_PAGES}) > 1:
        given = ", ".join(f"'{safe_name(word)}' ({page})" for word, page in _readings(words))
        message = (
            f"'{shown}' is not UTF-8, and its letters depend on the code page: {given}. Save it as UTF-8, or name the"
            " right one in `encoding` (`--set encoding=windows-1250`)."
        )
        raise AppError(ErrorCode.INVALID_INPUT, message)
    page = encoding or "windows-1252"
    text = _decoded(content, page)
    if text is None:
        message = f"'{shown}' is neither UTF-8 nor {page}: save it as UTF-8."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    word = safe_name(_decoded(words[0], page) or "")
    return text, [note("The file is not UTF-8: it is read as {encoding}, such as `{word}`.", encoding=page, word=word)]


def _readings(words: Sequence[bytes]) -> list[tuple[str, CodePage]]:
    """Return the word that differs most between the code pages, by the first that reads it so."""
    most: dict[str, CodePage] = {}
    for word in words:
        readings = {text: page for page in reversed(CODE_PAGES) if (text := _decoded(word, page))}
        most = max(most, readings, key=len)
    return [(text, page) for page in CODE_PAGES for text, of_text in most.items() if of_text == page]


def _decoded(content: bytes, page: CodePage) -> str | None:
    """Return the text of bytes in a code page; None for bytes that it does not have."""
    try:
        return content.decode(page)
    except UnicodeDecodeError:
        return None
