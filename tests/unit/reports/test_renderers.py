"""One battery, development, experiment, comparison, tokenizer and corpus, as each face writes their reports.

The browser's renderer is tested in tests/integration/test_page_modules.py, of the same reports.
"""

import csv
import re
from collections.abc import Iterator
from html import unescape
from io import StringIO
from math import log
from pathlib import Path

import pytest

from bot.messages.report_card import report_lines, table_card
from tests.support.development_results import DEVELOPMENT
from tests.support.reports import REPORTS
from tests.support.stored_jobs import finish_battery, finished_development, finished_experiment, waiting_battery
from trainer.client.report_view import ReportView
from trainer.commands.terminal import Terminal
from trainer.contracts.base import changed
from trainer.contracts.reports import (
    WRITINGS,
    Cell,
    Column,
    Estimate,
    Form,
    Link,
    Note,
    Quantity,
    Report,
    Section,
    Table,
    TableChoice,
)
from trainer.reports.report_html import report_html

BIT = log(2)
"""Nats."""


def number(value: float, form: Form) -> str:
    """A number in bits, by Python's formats; only the forms of the reports here."""
    writing = WRITINGS[form]
    value = value / BIT if writing.unit == "nats" else value
    sign, marks = "+" if writing.is_signed else "", "," if writing.is_grouped else ""
    kind = "g" if writing.is_significant else "%" if writing.is_percent else "f"
    return f"{value:{sign}z{marks}.{writing.digits}{kind}}".rstrip("%" if form == "points" else "")


def said(note: Note) -> str:
    """A note in English and bits."""
    values = {
        name: said(one) if isinstance(one, Note) else number(one.value, one.form) if isinstance(one, Quantity) else one
        for name, one in note.values.items()
    }
    many = note.plural is not None and values.get("count") != "1"
    return (note.plural or "" if many else note.template).format(unit="bits", **values)


def numbers(cell: Cell, column: Column, *, is_brief: bool = False) -> Iterator[str]:
    """The numbers of a cell that its column shows."""
    match cell:
        case Estimate():
            shown = {"all": (cell.value, cell.low, cell.high, cell.deviation), "value": (cell.value,)}
            parts = (cell.low, cell.high) if column.shows == "interval" else shown[column.shows]
            known = [one for one in parts[: 1 if is_brief and column.shows == "all" else None] if one is not None]
            ends = [number(one, column.form) for one in known]
            yield from (one.rstrip("%") if column.form == "accuracy" else one for one in ends)
        case Link(text=int() as text):
            yield number(text, column.form)
        case int() | float():
            yield number(cell, column.form)
        case _:
            return


def words(cell: Cell) -> Iterator[str]:
    match cell:
        case str():
            yield cell
        case Note():
            yield said(cell)
        case Link(text=str() as text):
            yield text
        case _:
            return


def pairs(tables: list[Table]) -> Iterator[tuple[Cell, Column]]:
    for table in tables:
        for row in table.rows:
            yield from zip(row, table.columns, strict=True)


def firsts(sections: list[Section]) -> list[Table]:
    """The tables that a reader of the answer sees: of several to choose from the first one."""
    parts = [part for section in sections for part in section.parts]
    chosen = [part.tables[0] if isinstance(part, TableChoice) else part for part in parts]
    return [part for part in chosen if isinstance(part, Table)]


def everything(report: Report) -> list[str]:
    """All notes, words and numbers of a report."""
    notes = [said(part) for part in report.parts() if isinstance(part, Note)]
    cells = [*pairs(report.tables())]
    return [*notes, *(one for cell, _ in cells for one in words(cell)), *(n for pair in cells for n in numbers(*pair))]


def missing(expected: list[str], text: str) -> list[str]:
    flat = re.sub(r"\s+", " ", text)
    return sorted({one for one in expected if re.sub(r"\s+", " ", one).strip() not in flat})


@pytest.mark.parametrize("name", REPORTS)
def test_page_file_and_notebook__have_every_number_and_note(name: str) -> None:
    report = REPORTS[name]
    view, expected = ReportView(report, {}), everything(report)
    assert len(expected) > 8
    for html in (view._repr_html_(), report_html(report, {})):
        text = unescape(re.sub(r"<[^>]+>", " ", html))
        in_nats = html.startswith("<!DOCTYPE")  # a file is read where no unit is chosen
        numbers_in = [one for one in expected if not in_nats or not re.search(r"\d|\bbits\b", one)]
        assert missing(numbers_in, text) == []
    assert missing(expected, repr(view)) == []


@pytest.mark.parametrize("name", REPORTS)
def test_terminal__has_every_number_and_note_but_details(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    report = REPORTS[name]
    shown = [section for section in report.sections if not section.is_detail]
    Terminal(as_json=False).show_report(DEVELOPMENT, report)
    text = capsys.readouterr().out
    notes = [said(part) for section in shown for part in section.parts if isinstance(part, Note)]
    cells = pairs([table for table in firsts(shown) if not table.is_series])
    assert missing([*notes, *(n for pair in cells for n in numbers(*pair, is_brief=True))], text) == []


@pytest.mark.parametrize("name", REPORTS)
def test_discord__has_the_answer_and_each_table_to_choose(name: str) -> None:
    report = REPORTS[name]
    tables = firsts([*report.sections])
    cards = [str(table_card(report, place, "job").description) for place in range(len(tables))]
    for table, card in zip(tables, cards, strict=True):
        if "… more columns are on the page" in card:
            continue
        cells = [(cell, one) for cell, one in pairs([changed(table, rows=table.rows[:1])]) if not one.is_detail]
        shown = [one for pair in cells for one in numbers(*pair, is_brief=True)]
        assert missing([one for one in shown if len(one) < 10 and "," not in one], card) == []
    lines = "\n".join(report_lines(report))
    titled = [table for table in tables[:1] if any(said(column.title) for column in table.columns)]
    captions = [table.caption or table.title for table in titled]
    brief = [changed(one, values={**one.values, "intervals": ""}) for one in captions]  # without intervals in its rows
    assert all(said(one) in lines or said(cut) in lines for one, cut in zip(captions, brief, strict=True))


@pytest.mark.slow
def test_csv_and_latex__have_the_numbers_of_the_tables_that_name_them(tmp_path: Path) -> None:
    battery = waiting_battery(tmp_path, "pairs-1", "lstm-1", "lstm-2")
    finish_battery(battery)
    jobs = {
        "battery": battery.path,
        "development": finished_development(tmp_path, "development-1", "lstm-1").path,
        "experiment": finished_experiment(tmp_path).path,
    }
    for name, folder in jobs.items():
        report = Report.model_validate_json((folder / "report.json").read_bytes())
        for table in report.tables():
            if table.file is None or table.file == "perplexity.csv":  # which has a row of each seed
                continue
            rows = csv.reader(StringIO((folder / table.file).read_text("utf-8")))
            cells = [cell for row in rows for cell in row]
            written = {round(float(one), 6) for one in cells if re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", one)}
            values = {round(one.value, 6) for one, _ in pairs([table]) if isinstance(one, Estimate) and one.value}
            assert values <= written | {round(one, 5) for one in written}, (name, table.name)
        latex = (folder / "table.tex").read_text("utf-8")
        assert r"\toprule" in latex and r"\bottomrule" in latex
