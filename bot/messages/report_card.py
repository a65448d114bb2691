"""A report in an embed: its tables and notes in their order, up to the length of an embed."""

import re
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from textwrap import wrap

import discord

from bot.messages.buttons import option, select
from bot.messages.text import GREEN, clamp, code_block, make_embed, plain, utf16_length
from bot.people.user_settings import current_unit
from trainer.contracts.reports import Figure, Note, Report, Section, Table
from trainer.lab.language import _, form_of, numeral, told, translated
from trainer.reports.report_text import COLUMN_GAP, Reader, Rows, aligned, rows_of, sampled

_MAX_OPTIONS = 25
_MIN_TITLE, _MIN_CELL, _MAX_WIDTH = 9, 10, 64
"""Characters to which the title of a column of numbers, and names, are cut, and those of a row."""
_MAX_ROWS, _MAX_TABLE, _MAX_TEXT, _MAX_ALT_TEXT = 25, 2500, 3900, 1024
_NUMBER = re.compile(r"(?=[-+−±]?\d)(?:[^\w]|\d|\b[^\W\d]{1,3}\b)+")


def reader_of_names() -> Reader:
    """Return the reader of text in which Discord reads marks."""
    return _reader()._replace(inert=plain)


def _reader() -> Reader:
    return Reader(current_unit(), translated, form_of, numeral, told=told)


def report_lines(report: Report) -> Iterator[str]:
    """Yield the lines of a report in the reader's language and unit, at most as many as an embed has room for."""
    reader = reader_of_names()
    left = _MAX_TEXT
    for number, section in enumerate(one for one in report.sections if not one.is_detail):
        for line in _section(section, reader, has_title=number > 0):
            left -= utf16_length(line) + 1
            if left < 0:
                yield _("… the page has all of it")
                return
            yield line


def table_select(word: str, job_id: str, report: Report) -> discord.ui.Select[discord.ui.View]:
    """Return a list to select a table of a report."""
    reader = _reader()
    titles = [reader.note(table.title) for table in _tables(report)][:_MAX_OPTIONS]
    options = [option(str(number), title) for number, title in enumerate(titles)]
    return select("jobtable", job_id, _("Table"), options, word)


def table_card(report: Report, number: int, job_id: str) -> discord.Embed:
    """Return a table of a report with its caption."""
    reader, table = reader_of_names(), _tables(report)[number]
    title = f"{reader.note(report.title)}: {reader.note(table.title)}"
    return make_embed(GREEN, title, _captioned(table, reader), job_id)


def _tables(report: Report) -> list[Table]:
    """Return the tables of a report; of several to choose from the first one."""
    return [part for section in report.sections for part in section.first_parts() if isinstance(part, Table)]


def attach_figures(
    embed: discord.Embed, figures: Sequence[Figure], pictures: Mapping[str, bytes]
) -> list[discord.File]:
    """Show the first picture of a report in an embed; return the files to send with it, which a try to send reads.

    `pictures` are PNG files by the names of their figures.
    """
    files = [
        discord.File(BytesIO(pictures[one.name]), f"{one.name}.png", description=figure_in_words(one))
        for one in figures
        if one.name in pictures
    ]
    if files:
        embed.set_image(url=f"attachment://{files[0].filename}")
    return files


def figure_in_words(figure: Figure) -> str:
    """Return what a figure shows and the last values of its lines, for screen readers."""
    reader = _reader()
    last = [(series.name, one.value) for series in figure.series if (one := series.values[-1]) is not None]
    ends = ", ".join(f"{name} {reader.number(value, figure.form)}" for name, value in last if value is not None)
    values = f" {_('The last values: {values}.', values=ends)}" if ends else ""
    return clamp(f"{reader.note(figure.text)}{values}", _MAX_ALT_TEXT)


def _section(section: Section, reader: Reader, *, has_title: bool) -> Iterator[str]:
    """Yield the tables with their captions, then the notes; nothing of a section of figures alone."""
    parts = section.first_parts()
    lines = [line for part in parts if isinstance(part, Table) for line in _captioned(part, reader)]
    lines += [reader.note(part) for part in parts if isinstance(part, Note)]
    if has_title and lines:
        yield f"**{reader.note(section.title)}**"
    yield from lines


def _captioned(table: Table, reader: Reader) -> list[str]:
    """Return the caption of a table and its columns that are no details, in a block of code, where no text is a mark.

    Where they are too wide for an embed, estimates stand without their intervals, long names are cut, and the last
    columns are left out.
    """
    few = sampled(table, _MAX_ROWS)
    cells = _cells(few, is_brief=False)
    is_brief = _width(cells) > _MAX_WIDTH
    if is_brief:
        n_titles = sum(not column.is_detail for column in table.columns[: table.n_titles])
        cells = _fitted(_cells(few, is_brief=True), n_titles)
    n_shown = sum(not column.is_detail for column in table.columns)
    left_out = [_("… more columns are on the page")] if len(cells[0]) < n_shown else []
    lines = [*aligned(cells), *(["…"] if len(few.rows) > _MAX_ROWS else []), *left_out]
    caption = "" if table.caption is None else reader._replace(is_brief=is_brief).note(table.caption)
    return [*filter(None, [caption]), code_block("\n".join(lines), _MAX_TABLE)]


def _cells(table: Table, *, is_brief: bool) -> Rows:
    reader = _reader()._replace(is_brief=is_brief)
    shown = [place for place, column in enumerate(table.columns) if not column.is_detail]
    return [[row[place] for place in shown] for row in rows_of(table, reader)[: _MAX_ROWS + 1]]


def _fitted(cells: Rows, n_titles: int) -> Rows:
    """Return the cells with the widest columns cut until rows fit, and without the last ones if that is not enough.

    Numbers are never cut, nor what stands beside the titles of a table of two columns, which may take several lines.
    """
    if len(cells[0]) == 2 and not all(_NUMBER.fullmatch(value) for _, value in cells[1:]):
        return _on_several_lines(cells)
    widths, least = list[int](), list[int]()
    for place, (title, *others) in enumerate(_columns(cells)):
        widths.append(max(map(len, (title, *others))))
        numbers = [len(cell) for cell in others if place >= n_titles and _NUMBER.fullmatch(cell)]
        least.append(min(max([*numbers, _MIN_TITLE if numbers else _MIN_CELL]), widths[-1]))
    while _row_width(widths) > _MAX_WIDTH and widths != least:
        spare = [width - end for width, end in zip(widths, least, strict=True)]
        widths[spare.index(max(spare))] -= 1
    shown = next(number for number in range(len(widths), 0, -1) if _row_width(widths[:number]) <= _MAX_WIDTH)
    columns = [_cut(column, width) for column, width in zip(_columns(cells)[:shown], widths, strict=False)]
    return _columns(columns)  # rows again


def _on_several_lines(cells: Rows) -> Rows:
    """Return a table of two columns whose second cells take as many rows as they need."""
    titles, values = _columns(cells)
    width = min(max(map(len, titles)), _MAX_WIDTH // 2)
    room = _MAX_WIDTH - len(COLUMN_GAP) - width
    rows = list[list[str]]()
    for title, value in zip(_cut(titles, width), values, strict=True):
        first, *others = wrap(value, room) or [""]
        rows += [[title, first], *(["", line] for line in others)]
    return rows


def _cut(column: Sequence[str], width: int) -> list[str]:
    """Return the title of a column cut at its end; of other cells both ends, by which names differ."""
    title, *others = column
    half = width // 2
    cut = [cell if len(cell) <= width else f"{cell[: width - half - 1]}…{cell[-half:]}" for cell in others]
    return [clamp(title, width), *cut]


def _width(cells: Rows) -> int:
    return _row_width([max(map(len, column)) for column in _columns(cells)])


def _columns(rows: Rows) -> Rows:
    return [[row[place] for row in rows] for place in range(len(rows[0]))]


def _row_width(widths: Sequence[int]) -> int:
    return sum(widths) + len(COLUMN_GAP) * (len(widths) - 1)
