"""A report in an embed: its tables and notes in their order, up to the length of an embed."""

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO

import discord

from bot.messages.buttons import option, select
from bot.messages.text import GREEN, clamp, code_block, make_embed, plain, utf16_length
from bot.people.user_settings import current_unit
from trainer.contracts.reports import Figure, Note, Report, Section, Table
from trainer.lab.language import _, form_of, numeral, translated
from trainer.reports.report_text import Reader, aligned, rows_of, sampled

_MAX_OPTIONS = 25
_MAX_CELL, _MAX_WIDTH, _MAX_ROWS, _MAX_TABLE, _MAX_TEXT, _MAX_ALT_TEXT = 28, 64, 25, 2500, 3900, 1024


def reader_of_names() -> Reader:
    """Return the reader of text in which Discord reads marks."""
    return _reader()._replace(inert=plain)


def _reader() -> Reader:
    return Reader(current_unit(), translated, form_of, numeral)


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
    return [*([] if table.caption is None else [reader.note(table.caption)]), _block(table)]


def _block(table: Table) -> str:
    """Return the columns of a table that are no details, in a block of code, where no text is a mark.

    Where they are too wide for a phone, estimates stand without their intervals, and long names are cut.
    """
    few = sampled(table, _MAX_ROWS)
    lines = _lines(few, is_brief=False)
    if max(map(len, lines)) > _MAX_WIDTH:
        lines = _lines(few, is_brief=True)
    return code_block("\n".join([*lines, *(["…"] if len(few.rows) > _MAX_ROWS else [])]), _MAX_TABLE)


def _lines(table: Table, *, is_brief: bool) -> list[str]:
    reader = _reader()._replace(is_brief=is_brief)
    shown = [place for place, column in enumerate(table.columns) if not column.is_detail]
    rows = rows_of(table, reader)[: _MAX_ROWS + 1]
    cells = [[row[place] for place in shown] for row in rows]
    if is_brief:  # the last column has room
        cells = [[*(clamp(cell, _MAX_CELL) for cell in row[:-1]), row[-1]] for row in cells]
    return aligned(cells)
