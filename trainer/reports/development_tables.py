"""The files of a development's report: its rows as CSV, with all digits, its tables for a paper, and a page."""

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from itertools import zip_longest
from typing import TypeVar

from pydantic import ValidationError

from trainer.contracts.base import Frozen
from trainer.contracts.development import Acquisition, CheckpointPoint, Development, DevelopmentRow, WordScores
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.reports import Note, Report, note
from trainer.reports.experiment_tables import csv_text
from trainer.reports.report_html import report_html
from trainer.reports.report_latex import latex_of
from trainer.reports.report_text import sampled

_MAX_LATEX_WORDS = 30
RowT = TypeVar("RowT", bound=Frozen)


def read_csv(row_type: type[RowT], text: str) -> tuple[RowT, ...]:
    """Return the rows that `csv_text` has written exactly; raises INVALID_INPUT for a table of another form."""
    columns, found = [*row_type.model_fields], list[RowT]()
    for number, row in enumerate(csv.reader(StringIO(text))):
        cells = {name: cell for name, cell in zip_longest(columns, row, fillvalue="") if cell}
        try:
            if number:
                found.append(row_type.model_validate_strings(cells))
        except ValidationError:
            message = f"Row {number:,} of a table does not fit its columns, which are {', '.join(columns)}."
            raise AppError(ErrorCode.INVALID_INPUT, message) from None
    return tuple(found)


def report_files(
    development: Development, report: Report, scores: Sequence[WordScores], images: Mapping[str, bytes]
) -> dict[str, str | bytes]:
    """Return the files of a report by name, given the scores of words and the pictures of its figures.

    The tables have all digits, so that the results can be computed from them again.
    """
    return {
        "checkpoints.csv": csv_text(CheckpointPoint, development.points, is_exact=True),
        "development.csv": csv_text(DevelopmentRow, development.curves, is_exact=True),
        "words.csv": csv_text(WordScores, scores, is_exact=True),
        "acquisition.csv": csv_text(Acquisition, development.acquisitions, is_exact=True),
        "table.tex": _latex(development, report),
        "report.html": report_html(report, images),
        "report.json": report.model_dump_json(),
        **{f"{name}.png": image for name, image in images.items()},
    }


def _latex(development: Development, report: Report) -> str:
    """Return the curves, and the ages of up to 30 words, as tables for a paper."""
    run_id, made = development.run_id, list[str]()
    tables = {table.name: table for table in report.tables()}
    captions: dict[str, Note] = {
        "curves": note(
            "Development of {run_id} over its checkpoints. In parentheses: 95\u202f% intervals.", run_id=run_id
        ),
        "words": note("Ages at which {run_id} acquires words. In parentheses: 95\u202f% intervals.", run_id=run_id),
    }
    if (words := tables.get("words")) is not None and len(words.rows) > _MAX_LATEX_WORDS:
        captions["words"] = note(
            "Ages at which {run_id} acquires words, evenly spread over the {words} that have one. In parentheses:"
            " 95\u202f% intervals.",
            run_id=run_id,
            words=len(words.rows),
        )
        tables["words"] = sampled(words, _MAX_LATEX_WORDS)
    for name, caption in captions.items():
        if name in tables:
            made.append(latex_of(tables[name], caption, f"{run_id}-{name}"))
    return "\n".join(made)
