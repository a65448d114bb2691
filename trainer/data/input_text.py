"""The text of a request: of a corpus that it names, or of a file, whole or in portions."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import (
    MAX_PROMPT_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    GenerateRequest,
    ScoreRequest,
    check_text_length,
)
from trainer.data.corpora import CorpusStore
from trainer.data.text import shown_name

_LONGEST_CHARACTER_BYTES = 4
_BOM = "\ufeff"
RequestT = TypeVar("RequestT", ScoreRequest, GenerateRequest)


def load_input(request: RequestT, corpora: CorpusStore) -> RequestT:
    """Return a request with its text in it; raises AppError where the corpus that it names is no text to take."""
    if isinstance(request, ScoreRequest):
        field, name, most = "text", request.path, MAX_TEXT_CHARACTERS
    else:
        field, name, most = "prompt_text", request.prompt_path, MAX_PROMPT_CHARACTERS
    if name is None:
        return request
    text: dict[str, object] = {field: read_text(corpora.find(name), most)}
    return request.model_copy(update=text)


def read_text(path: Path, most_characters: int) -> str:
    """Read a UTF-8 file to its last character; raises DATA_NOT_FOUND, INVALID_INPUT, PAYLOAD_TOO_LARGE."""
    shown = f"'{shown_name(path.name)}'"
    try:
        check_text_length(shown, path.stat().st_size / _LONGEST_CHARACTER_BYTES, most_characters)
        data = path.read_bytes()
    except OSError:
        raise AppError(ErrorCode.DATA_NOT_FOUND, f"There is no readable file {shown}.") from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise AppError(
            ErrorCode.INVALID_INPUT, f"{shown} is not UTF-8: byte {error.start:,} cannot be decoded."
        ) from None
    check_text_length(shown, len(text), most_characters)
    return text.removeprefix(_BOM)


class Portion(NamedTuple):
    """Whole lines of a text, one or more, and the number of the first of them."""

    number: int
    text: str


class BadLine(NamedTuple):
    """A line that cannot be read, and why."""

    number: int
    error: AppError


def read_portions(path: Path, most_characters: int) -> Iterator[Portion | BadLine]:
    """Read a UTF-8 file of any size in portions of so many characters, or of one line that is longer.

    Raises DATA_NOT_FOUND; a line that cannot be read is told and passed over.
    """
    waiting: list[str] = []
    first, characters = 1, 0
    for number, line in enumerate(read_lines(path), 1):
        is_whole = isinstance(line, BadLine) or characters + len(line) > most_characters
        if is_whole and waiting:
            yield Portion(first, "\n".join(waiting))
        if is_whole:
            waiting, characters = [], 0
        if isinstance(line, BadLine):
            yield line
            continue
        first = first if waiting else number
        waiting.append(line)
        characters += len(line) + 1
    if waiting:
        yield Portion(first, "\n".join(waiting))


def read_lines(path: Path) -> Iterator[str | BadLine]:
    """Yield the lines of a UTF-8 file without their ends; raises DATA_NOT_FOUND."""
    most_bytes = MAX_TEXT_CHARACTERS * _LONGEST_CHARACTER_BYTES
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(most_bytes):
                number += 1
                if len(line) == most_bytes and not line.endswith(b"\n"):
                    while (rest := file.readline(most_bytes)) and not rest.endswith(b"\n"):
                        pass
                yield _line(number, line)
    except OSError:
        raise AppError(ErrorCode.DATA_NOT_FOUND, f"There is no readable file '{shown_name(path.name)}'.") from None


def _line(number: int, line: bytes) -> str | BadLine:
    try:
        check_text_length("It", len(line) / _LONGEST_CHARACTER_BYTES, MAX_TEXT_CHARACTERS - 1)
        text = line.removesuffix(b"\n").decode()
        check_text_length("It", len(text), MAX_TEXT_CHARACTERS)
    except UnicodeDecodeError as error:
        said = f"It is not UTF-8: byte {error.start:,} cannot be decoded."
        return BadLine(number, AppError(ErrorCode.INVALID_INPUT, said))
    except AppError as error:
        return BadLine(number, error)
    return text.removeprefix(_BOM) if number == 1 else text
