"""Tables of reports for papers, in LaTeX with booktabs."""

from collections.abc import Sequence

from trainer.contracts.reports import Note, Table
from trainer.reports.report_text import ENGLISH, MISSING, rows_of

_THIN_SPACE = "\u202f"
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        **{char: rf"\{char}" for char in "{}$&#_%"},
    }
)


def latex_of(table: Table, caption: Note, label: str | None = None, *, is_math: bool = False) -> str:
    """Return a table with a caption; `label` is its name in the paper, and `is_math` sets its numbers as formulas."""
    header, *rows = rows_of(table)
    text = latex_text(ENGLISH.note(caption)).replace(_THIN_SPACE, r"\,")
    cell = _number if is_math else latex_text
    return latex_rows(text, label, header, [[title, *map(cell, cells)] for title, *cells in rows], table.n_titles)


def _number(cell: str) -> str:
    plus_minus = r" \pm "
    return cell if cell == MISSING else f"${cell.replace('±', plus_minus)}$"


def latex_rows(
    caption: str, label: str | None, header: Sequence[str], rows: Sequence[Sequence[str]], n_titles: int = 1
) -> str:
    """Return a table for a paper; its caption and its cells are escaped, its header and the titles of rows are not.

    The first `n_titles` columns are texts, which stand on the left.
    """
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{caption}}}",
            *([] if label is None else [rf"  \label{{tab:{label}}}"]),
            rf"  \begin{{tabular}}{{@{{}}{'l' * n_titles}{'r' * (len(header) - n_titles)}@{{}}}}",
            r"    \toprule",
            latex_row(latex_text(header[0]), [latex_text(cell) for cell in header[1:]]),
            r"    \midrule",
            *(latex_row(latex_text(title), cells) for title, *cells in rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def latex_text(text: str) -> str:
    """Escape the signs that have a meaning in LaTeX."""
    return text.translate(_LATEX)


def latex_row(title: str, cells: Sequence[str]) -> str:
    """Return a row of a LaTeX table, whose cells are escaped already."""
    return f"    {' & '.join([title, *cells])} " + r"\\"
