"""Tables of an experiment's report: its rows as CSV, and the headline matrix for a paper in LaTeX."""

from collections.abc import Mapping, Sequence

from trainer.contracts.base import Frozen
from trainer.contracts.experiments import ExperimentResult, MatrixRow, ModelTables, ScoringMode, SeedRow, TextKind
from trainer.contracts.wording import counted
from trainer.reports.heat_scale import HeatScale
from trainer.reports.score_table import csv_lines

KIND_WORDS: Mapping[TextKind, str] = {
    "passages": "the passages",
    "held_out": "held-out text",
    "shuffled": "held-out text with shuffled characters",
}
MODE_WORDS: Mapping[ScoringMode, str] = {
    "skip": "positions whose character every model knows",
    "unk": "all positions",
    "assimilate": "all positions, unknown characters replaced by the nearest known ones",
}
MISSING = "–"
"""Stands in tables for a number that does not exist."""
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

PairRows = Mapping[tuple[str, str], MatrixRow]
"""Rows of one mode by listener and language of the text."""
PairSeeds = Mapping[tuple[str, str], SeedRow]


def csv_text(row_type: type[Frozen], rows: Sequence[Frozen]) -> str:
    """Return rows as CSV under the names of their fields; numbers with six decimals, None as an empty cell."""
    cells = [[_cell(value) for value in _values(row)] for row in rows]
    return csv_lines([list(row_type.model_fields), *cells], ",") + "\n"


def pair_rows(tables: ModelTables, mode: ScoringMode) -> PairRows:
    rows = (row for row in tables.tables.matrix if row.scoring_mode == mode)
    return {(row.listener_language, row.text_language): row for row in rows}


def pair_seeds(result: ExperimentResult, model: str, kind: TextKind, mode: ScoringMode) -> PairSeeds:
    """Return the means and standard deviations over seeds; empty if there is one seed."""
    rows = (row for row in result.seed_rows if row.n_seeds > 1)
    chosen = (row for row in rows if (row.model, row.kind, row.scoring_mode) == (model, kind, mode))
    return {(row.listener_language, row.text_language): row for row in chosen}


def headline_rows(result: ExperimentResult) -> PairRows:
    return pair_rows(result.models[0], result.modes[0])


def headline_seeds(result: ExperimentResult) -> PairSeeds:
    return pair_seeds(result, *result.headline, result.modes[0])


def excess_scale(rows: PairRows) -> HeatScale:
    """Return the scale of a matrix: from 0, or from the lowest excess below it, to the highest."""
    values = [row.excess_cross_entropy for row in rows.values()]
    return HeatScale(min([0.0, *values]), max([0.0, *values]))


def latex_table(result: ExperimentResult) -> str:
    """Return the headline matrix with its intervals; it needs the packages booktabs and graphicx."""
    model, kind = result.headline
    mode = result.modes[0]
    pairs = headline_rows(result)
    own = [pairs.get((language, language)) for language in result.languages]
    native = [MISSING if row is None else f"{row.native_cross_entropy:.3f}" for row in own]
    scored = [MISSING if row is None else rf"{100 * row.fraction_scored:.1f}\,\%" for row in own]
    seeds = f"{counted(len(result.seeds), 'seed')} per language"
    return "\n".join(
        [
            r"% \usepackage{booktabs,graphicx}",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{Excess cross-entropy in nats per character of each listener (row) on each text (column):"
            rf" model {latex_text(model)} on {KIND_WORDS[kind]}, {MODE_WORDS[mode]}; {seeds}. In brackets:"
            r" 95\,\% intervals of the paired bootstrap over sections (2,000 resamples); they do not cover the spread"
            r" over seeds.}",
            rf"  \label{{tab:{result.experiment_id}}}",
            r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"  \begin{{tabular}}{{@{{}}l{'c' * len(result.languages)}@{{}}}}",
            r"    \toprule",
            _latex_row("", [latex_text(language) for language in result.languages]),
            r"    \midrule",
            *(line for listener in result.languages for line in _latex_listener(listener, pairs, result.languages)),
            r"    \midrule",
            _latex_row("own model", native),
            _latex_row("scored", scored),
            r"    \bottomrule",
            r"  \end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def latex_text(text: str) -> str:
    """Escape the signs that have a meaning in LaTeX."""
    return text.translate(_LATEX)


def _values(row: Frozen) -> list[object]:
    values: dict[str, object] = row.model_dump()
    return list(values.values())


def _cell(value: object) -> object:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:z.6f}"
        case _:
            return value


def _latex_listener(listener: str, pairs: PairRows, languages: Sequence[str]) -> list[str]:
    rows = [pairs.get((listener, text)) for text in languages]
    return [
        _latex_row(latex_text(listener), [_latex_excess(row) for row in rows]),
        _latex_row("", [_latex_interval(row) for row in rows]) + "[2pt]",
    ]


def _latex_excess(row: MatrixRow | None) -> str:
    return MISSING if row is None or _is_own(row) else f"${row.excess_cross_entropy:z.3f}$"


def _latex_interval(row: MatrixRow | None) -> str:
    if row is None or _is_own(row):
        return ""
    return rf"{{\scriptsize $[{row.interval_low:z.3f}, {row.interval_high:z.3f}]$}}"


def _is_own(row: MatrixRow) -> bool:
    return row.listener_language == row.text_language


def _latex_row(title: str, cells: Sequence[str]) -> str:
    return f"    {' & '.join([title, *cells])} " + r"\\"
