"""The request for an analysis of reading times, made of the columns of a table that are known."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.batteries import MAX_FILE_CHARACTERS
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.readings import Measure, ReadingFile, ReadingOptions, ReadingRequest, TableOptions
from trainer.contracts.reports import Note
from trainer.data.rows import TextFile
from trainer.reading.tables import WRITTEN, check_measures, read_times, written_times
from trainer.reports.report_text import ENGLISH


class Reduced(NamedTuple):
    """A table with its known columns alone, which WRITTEN reads, and notes on how it was read."""

    file: ReadingFile
    notes: tuple[Note, ...]


def reduced(file: TextFile, options: TableOptions, measures: Sequence[Measure] = ()) -> Reduced:
    """Return a table for a request; raises INVALID_INPUT as `read_times` does."""
    times = read_times(file, options)
    check_measures(times, measures)
    content = written_times(times, measures).decode()
    name = f"{PurePosixPath(file.shown).stem}.csv"
    return Reduced(parse(ReadingFile, {"name": name, "content": content}), times.data.notes)


def reading_request(options: ReadingOptions, runs: Sequence[str], table: TextFile) -> ReadingRequest:
    """Return a request with the known columns of a table; raises the errors of `reduced`."""
    sent = reduced(table, options, options.measures)
    file = changed(sent.file, notes=tuple(map(ENGLISH.note, sent.notes)))
    fields: dict[str, object] = options.model_dump()
    written: dict[str, object] = WRITTEN.model_dump()
    return parse(ReadingRequest, {**fields, **written, "runs": runs, "file": file})


def check_sent(request: ReadingRequest) -> None:
    """Raise PAYLOAD_TOO_LARGE for a table that a server does not take."""
    name, n_characters = request.file.name, len(request.file.content)
    if n_characters > MAX_FILE_CHARACTERS:
        message = (
            f"'{name}' has {n_characters:,} characters in the columns that are read, and a server takes"
            f" {MAX_FILE_CHARACTERS:,}. Give one measure at a time (`measures`), a table with fewer persons or texts,"
            " or run `mt reading` on the machine of the server, which takes larger tables."
        )
        raise AppError(ErrorCode.PAYLOAD_TOO_LARGE, message)
