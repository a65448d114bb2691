"""The tables of the program that the page uses, which the server writes into `page/tables.js`."""

from collections.abc import Iterator, Mapping
from typing import get_args

from trainer.contracts.base import Frozen, KindName, RunState
from trainer.contracts.exports import CHECKPOINT_FORMATS, CURVE_FORMATS, FORMAT_WORDS, ExportFormat
from trainer.contracts.models import ModelFamily
from trainer.contracts.operations import JOB_ROWS, OPERATIONS, RESUMABLE_STATES
from trainer.contracts.parameters import MAX_COMPARED, SORT_FIELDS, SortField
from trainer.contracts.reports import WRITINGS, Form, Note, Writing, note
from trainer.contracts.runs import FINAL_STATES, MAX_UNKNOWN_CHAR_SHARE
from trainer.contracts.units import LOSS_DIGITS, PERPLEXITY_DIGITS, SHARE_DIGITS, SURPRISAL_DIGITS
from trainer.data.text import CONVERTED_SUFFIXES, SUFFIXES
from trainer.reports.run_report import RUN_FIELDS, RUN_LOSSES


class JobTable(Frozen):
    """A kind of jobs: its path, its words, and the columns of its list, each a title and a field."""

    kind: KindName
    word: str
    words: str
    title: str
    columns: tuple[tuple[str, str], ...]
    start: str
    """The path to which the page sends a request for one; empty where another page starts them."""
    command: str
    """A command of `mt` that starts one."""


def _job_tables() -> Iterator[JobTable]:
    operations = {one.name: one for one in OPERATIONS}
    for row in JOB_ROWS.values():
        start = operations.get(row.starts)
        yield JobTable(
            kind=row.kind,
            word=row.word,
            words=row.words,
            title=row.kind.replace("_", " ").capitalize(),
            columns=row.columns,
            start="" if start is None or "{" in start.path else start.path,
            command="" if start is None or start.terminal is None else start.terminal.example,
        )


class RunColumn(Frozen):
    """A column of the list of runs: a field of a run's status, by which the list can be sorted."""

    name: SortField
    title: Note
    form: Form
    is_usual: bool
    """Shown unless the reader chooses other columns."""


def _run_columns() -> Iterator[RunColumn]:
    sortable = {name: name for name in SORT_FIELDS}
    for field in RUN_FIELDS:
        if field.name in sortable and field.name != "label":  # which names the row
            name = sortable[field.name]
            yield RunColumn(name=name, title=note(field.title), form=field.form, is_usual=field.is_column)
    forms: tuple[tuple[Form, str], ...] = (("loss", "{split} loss"), ("per_char", "{split}, {unit} per character"))
    for loss in RUN_LOSSES:
        for one, (form, template) in zip((loss.loss, loss.bits_per_char), forms, strict=True):
            if one in sortable:
                title = note(template, split=note(loss.title))
                yield RunColumn(name=sortable[one], title=title, form=form, is_usual=one in loss.usual)


class PageTables(Frozen):
    """Lists, limits and words; in sentences, names in braces stand for numbers and names of a result."""

    states: tuple[RunState, ...] = get_args(RunState)
    final_states: tuple[RunState, ...] = FINAL_STATES
    resumable_states: tuple[RunState, ...] = RESUMABLE_STATES
    jobs: tuple[JobTable, ...] = tuple(_job_tables())
    run_columns: tuple[RunColumn, ...] = tuple(_run_columns())
    families: tuple[ModelFamily, ...] = get_args(ModelFamily)
    max_compared: int = MAX_COMPARED
    corpus_suffixes: tuple[str, ...] = (*sorted(SUFFIXES), *CONVERTED_SUFFIXES)

    max_unknown_char_share: float = MAX_UNKNOWN_CHAR_SHARE
    marked_forms: tuple[Form, ...] = ("loss", "per_char", "perplexity")
    """The forms of numbers that are too low to compare where more of the characters are unknown."""
    loss_digits: int = LOSS_DIGITS
    surprisal_digits: int = SURPRISAL_DIGITS
    perplexity_digits: int = PERPLEXITY_DIGITS
    share_digits: int = SHARE_DIGITS

    formats: Mapping[ExportFormat, str] = FORMAT_WORDS
    checkpoint_formats: tuple[ExportFormat, ...] = CHECKPOINT_FORMATS
    curve_formats: tuple[ExportFormat, ...] = CURVE_FORMATS
    writings: Mapping[Form, Writing] = WRITINGS
