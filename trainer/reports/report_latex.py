"""Tables of reports for papers, in LaTeX with booktabs."""

from trainer.contracts.reports import Note, Table
from trainer.reports.experiment_tables import latex_rows, latex_text
from trainer.reports.report_text import ENGLISH, rows_of

_THIN_SPACE = "\u202f"
MAX_SERIES_ROWS = 30


def latex_of(table: Table, caption: Note, label: str | None = None) -> str:
    """Return a table with a caption; `label` is its name in the paper. Of words there are at most 30."""
    header, *rows = rows_of(table)
    text = latex_text(ENGLISH.note(caption)).replace(_THIN_SPACE, r"\,")
    escaped = [[title, *map(latex_text, cells)] for title, *cells in rows]
    return latex_rows(text, label, header, escaped, n_titles=table.n_titles)
