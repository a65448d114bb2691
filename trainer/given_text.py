"""The text of a request, where it was given by the name of a corpus."""

from pathlib import Path
from typing import TypeVar

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import (
    MAX_PROMPT_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    GenerateRequest,
    ScoreRequest,
    check_length,
)
from trainer.corpora import CorpusStore
from trainer.data.text import shown_name

_LONGEST_CHARACTER_BYTES = 4
_BOM = "\ufeff"
RequestT = TypeVar("RequestT", ScoreRequest, GenerateRequest)


def with_text(request: RequestT, corpora: CorpusStore) -> RequestT:
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
        check_length(shown, path.stat().st_size / _LONGEST_CHARACTER_BYTES, most_characters)
        data = path.read_bytes()
    except OSError:
        raise AppError(ErrorCode.DATA_NOT_FOUND, f"There is no readable file {shown}.") from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise AppError(
            ErrorCode.INVALID_INPUT, f"{shown} is not UTF-8: byte {error.start:,} cannot be decoded."
        ) from None
    check_length(shown, len(text), most_characters)
    return text.removeprefix(_BOM)
