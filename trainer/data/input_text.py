"""Input texts of inference requests: from a corpus by name, or from a file, complete or in portions."""

from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

from trainer.config.validation import decoded, format_problem, unreadable
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.generations import GenerateRequest
from trainer.contracts.inference_fields import (
    MAX_PROMPT_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    InferenceRequest,
    check_text_length,
)
from trainer.contracts.scores import ScoreRequest
from trainer.data.corpora import CorpusStore
from trainer.data.tables import as_text
from trainer.data.text import BOM, START_BYTES, check_start, shown_name, with_newlines

_MAX_CHARACTER_BYTES = 4
_LINE_ENDS = ("\r", "\n")
RequestT = TypeVar("RequestT", bound=InferenceRequest)


def load_input(request: RequestT, corpora: CorpusStore) -> RequestT:
    """Return a request with the text of the corpus that it names; raises AppError for an unsuitable corpus.

    Other requests, and an evaluation, which reads its corpus by itself, are returned unchanged.
    """
    match request:
        case ScoreRequest(path=str(name)):
            field, source, most = "text", "path", MAX_TEXT_CHARACTERS
        case GenerateRequest(prompt_path=str(name)):
            field, source, most = "prompt_text", "prompt_path", MAX_PROMPT_CHARACTERS
        case _:
            return request
    return changed(request, **{field: read_text(corpora.find(name, source), most, name)})


def read_text(path: Path, most_characters: int, given: str | None = None) -> str:
    """Read a UTF-8 file, given by its path or another name, without its byte order mark, with \\n between its lines.

    Raises DATA_NOT_FOUND, INVALID_INPUT, PAYLOAD_TOO_LARGE.
    """
    shown = f"'{shown_name(path.name)}'"
    try:
        check_text_length(shown, path.stat().st_size / _MAX_CHARACTER_BYTES, most_characters)
        data = path.read_bytes()
    except OSError as error:
        raise AppError(ErrorCode.DATA_NOT_FOUND, unreadable(given or path, error)) from None
    text = decoded(data, shown)
    check_start(data[:START_BYTES], path.name)
    check_text_length(shown, len(text), most_characters)
    return with_newlines(text.removeprefix(BOM))


class GivenText(NamedTuple):
    """The text of a file, with what a person should know of the table that it was read from."""

    text: str
    notes: tuple[str, ...]


def read_texts(path: Path, most_characters: int) -> GivenText:
    """Read a file as `read_text` does, of a table or a transcript its texts alone; raises as `as_text` does."""
    with TemporaryDirectory(prefix="mt-tables-") as folder:
        source = as_text(path, Path(folder))
        return GivenText(read_text(source.path, most_characters, str(path)), source.notes)


class Portion(NamedTuple):
    """One or more complete lines of a text, and the number of the first line."""

    number: int
    text: str


class BadLine(NamedTuple):
    """A line that cannot be read, and the error."""

    number: int
    error: AppError


def read_portions(path: Path, most_characters: int) -> Iterator[Portion | BadLine]:
    """Yield a UTF-8 file of any size in portions of complete lines, at most `most_characters` or one line.

    Raises DATA_NOT_FOUND; yields a BadLine for a line that cannot be read.
    """
    waiting: list[str] = []
    characters = 0
    number = 1
    for number, line in enumerate(read_lines(path), 1):
        if waiting and (isinstance(line, BadLine) or characters + len(line) > most_characters):
            yield Portion(number - len(waiting), "\n".join(waiting))
            waiting, characters = [], 0
        if isinstance(line, BadLine):
            yield line
        else:
            waiting.append(line)
            characters += len(line) + 1
    if waiting:
        yield Portion(number + 1 - len(waiting), "\n".join(waiting))


def read_lines(path: Path) -> Iterator[str | BadLine]:
    """Yield the lines of a UTF-8 file without their ends; raises DATA_NOT_FOUND.

    Raises INVALID_INPUT for a compressed file, UTF-16 and ISO-2022.
    """
    most_bytes = MAX_TEXT_CHARACTERS * _MAX_CHARACTER_BYTES
    try:
        with path.open("rb") as data, TextIOWrapper(data, "latin-1", newline="") as file:  # a character per byte
            if (problem := format_problem(data.peek(), f"'{shown_name(path.name)}'")) is not None:
                raise AppError(ErrorCode.INVALID_INPUT, problem)
            check_start(data.peek(START_BYTES)[:START_BYTES], path.name)
            number = 0
            while line := file.readline(most_bytes):
                number += 1
                if len(line) == most_bytes and not line.endswith(_LINE_ENDS):
                    while (rest := file.readline(most_bytes)) and not rest.endswith(_LINE_ENDS):
                        pass
                yield _line(number, line.rstrip("\r\n").encode("latin-1"))
    except OSError as error:
        raise AppError(ErrorCode.DATA_NOT_FOUND, unreadable(path, error)) from None


def _line(number: int, line: bytes) -> str | BadLine:
    try:
        check_text_length("It", len(line) / _MAX_CHARACTER_BYTES, MAX_TEXT_CHARACTERS - 1)
        text = decoded(line, "It", is_line=True)
        check_text_length("It", len(text), MAX_TEXT_CHARACTERS)
    except AppError as error:
        return BadLine(number, error)
    return text.removeprefix(BOM) if number == 1 else text
