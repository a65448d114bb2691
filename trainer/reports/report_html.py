"""A report as one HTML page without outside assets."""

from collections.abc import Iterator, Mapping
from html import escape

from trainer.contracts.reports import Cell, Choice, Column, Estimate, Figure, Note, Part, Report, Table
from trainer.reports.experiment_html import PAGE, cell_style, figure_html, html_table, section
from trainer.reports.experiment_tables import HeatScale
from trainer.reports.report_text import ENGLISH


def report_html(report: Report, images: Mapping[str, bytes]) -> str:
    """Return the page; `images` are the pictures (PNG) of the figures by name."""
    body = [
        section(ENGLISH.note(one.title), *(made for part in one.parts for made in _part(part, images)))
        for one in report.sections
    ]
    return PAGE.format(title=escape(ENGLISH.note(report.title)), body="\n".join(body))


def _part(part: Part, images: Mapping[str, bytes]) -> Iterator[str]:
    match part:
        case Note():
            yield f"<p>{escape(ENGLISH.note(part))}.</p>"
        case Figure():
            if part.name in images:
                yield figure_html(images[part.name], ENGLISH.note(part.text))
        case Table():
            yield table_html(part)
        case Choice():
            yield table_html(part.tables[0])
            for other in part.tables[1:]:
                yield f"<details><summary>{escape(ENGLISH.note(other.title))}</summary>{table_html(other)}</details>"


def table_html(table: Table) -> str:
    """Return a table, with its numbers on the colours of its scale if it has one."""
    head = "".join(f'<th scope="col">{escape(ENGLISH.note(column.title))}</th>' for column in table.columns)
    rows = [
        "".join(_cell(cell, column, table) for cell, column in zip(row, table.columns, strict=True))
        for row in table.rows
    ]
    caption = ENGLISH.note(table.caption or table.title)
    return html_table(caption, head, "".join(f"<tr>{row}</tr>\n" for row in rows))


def _cell(cell: Cell, column: Column, table: Table) -> str:
    text, value = escape(ENGLISH.cell(cell, column)), cell.value if isinstance(cell, Estimate) else cell
    is_coloured = table.scale is not None and column.form in ("share", "accuracy") and column.shows != "interval"
    if table.scale is None or not is_coloured or not isinstance(value, float):
        return f"<td>{text}</td>"
    return f'<td style="{cell_style(HeatScale(*table.scale), value)}">{text}</td>'
