"""A report as one HTML page without outside assets."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from html import escape

from trainer.contracts.reports import Cell, Column, Estimate, Figure, Note, Part, Report, Section, Table
from trainer.reports.experiment_tables import HeatScale
from trainer.reports.report_text import ENGLISH, Reader

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<style>
:root {{ color-scheme: light dark; --back: #ffffff; --text: #1b1f26; --quiet: #525b6a; --line: #c9d0da }}
@media (prefers-color-scheme: dark) {{
  :root {{ --back: #1e2126; --text: #e6e9ee; --quiet: #a7b0be; --line: #454c57 }}
}}
body {{ background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 64rem; padding: 1rem }}
h1 {{ font-size: 1.6rem }}
h2 {{ font-size: 1.2rem; margin-top: 2rem }}
.table {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0.5rem 0 }}
caption {{ color: var(--quiet); padding: 0.3rem 0; text-align: left }}
th, td {{ border: 1px solid var(--line); padding: 0.25rem 0.5rem; text-align: right }}
th {{ font-weight: 600 }}
td small {{ display: block }}
td.own {{ outline: 2px solid var(--text); outline-offset: -2px }}
figure {{ margin: 0.5rem 0 }}
figcaption {{ color: var(--quiet) }}
img {{ background: #ffffff; height: auto; max-width: 100% }}
summary {{ cursor: pointer }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


def report_html(report: Report, images: Mapping[str, bytes]) -> str:
    """Return the page; `images` are the pictures (PNG) of the figures by name."""
    return _PAGE.format(title=escape(ENGLISH.note(report.title)), body=report_body(report, images))


def report_body(report: Report, images: Mapping[str, bytes], reader: Reader = ENGLISH) -> str:
    """Return the sections of a report, to stand in a page or in the output of a notebook."""
    return "\n".join(_section(one, images, reader) for one in report.sections)


def _section(section: Section, images: Mapping[str, bytes], reader: Reader) -> str:
    title, parts = reader.note(section.title), [made for part in section.parts for made in _part(part, images, reader)]
    body = "\n".join(parts)
    return f"<h2>{escape(title)}</h2>\n{_folded(title, body) if section.is_detail else body}"


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def _part(part: Part, images: Mapping[str, bytes], reader: Reader) -> Iterator[str]:
    match part:
        case Note():
            yield f"<p>{escape(reader.note(part).removesuffix('.'))}.</p>"
        case Figure():
            if part.name in images:
                yield _figure(images[part.name], reader.note(part.text))
        case Table():
            yield _table(part, reader)
        case _:
            yield _table(part.tables[0], reader)
            yield from (_folded(reader.note(other.title), _table(other, reader)) for other in part.tables[1:])


def _figure(png: bytes, text: str) -> str:
    image = f'<img src="data:image/png;base64,{b64encode(png).decode()}" alt="{escape(text)}">'
    return f"<figure>{image}<figcaption>{escape(text)}</figcaption></figure>"


def _table(table: Table, reader: Reader) -> str:
    """Return a table, with its numbers on the colours of its scale if it has one."""
    head = "".join(f'<th scope="col">{escape(reader.note(column.title))}</th>' for column in table.columns)
    rows = [
        "".join(_cell(cell, column, table, reader) for cell, column in zip(row, table.columns, strict=True))
        for row in table.rows
    ]
    body = "".join(f"<tr>{row}</tr>\n" for row in rows)
    return (
        f'<div class="table"><table><caption>{escape(reader.note(table.caption or table.title))}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(cell: Cell, column: Column, table: Table, reader: Reader) -> str:
    text, value = escape(reader.cell(cell, column)), cell.value if isinstance(cell, Estimate) else cell
    if table.scale is None or column.shows == "interval" or not isinstance(value, float):
        return f"<td>{text}</td>"
    scale, own = HeatScale(*table.scale), " class=own" if isinstance(cell, Estimate) and cell.is_own else ""
    return f'<td{own} style="background:{scale.colour(value)};color:{scale.text_colour(value)}">{text}</td>'
