"""Tables of an experiment for papers, in LaTeX."""

from collections.abc import Sequence

from trainer.contracts.experiments import ExperimentResult, MatrixRow
from trainer.contracts.reports import note
from trainer.contracts.units import loss_number
from trainer.reports.experiment_report import battery_table, covered, on_text, perplexity_table
from trainer.reports.experiment_tables import PairRows, headline_rows
from trainer.reports.report_latex import latex_of, latex_row, latex_text
from trainer.reports.report_text import ENGLISH, MISSING


def latex_table(result: ExperimentResult) -> str:
    """Return the headline matrix with its intervals; it needs the packages booktabs and graphicx."""
    what = ENGLISH.note(on_text(*result.headline, result.modes[0]))
    pairs = headline_rows(result)
    own = [pairs.get((language, language)) for language in result.languages]
    native = [MISSING if row is None else loss_number(row.native_cross_entropy, "nats") for row in own]
    scored = [MISSING if row is None else rf"{100 * row.fraction_scored:.1f}\,\%" for row in own]
    return "\n".join(
        [
            r"% \usepackage{booktabs,graphicx}",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{Excess cross-entropy in nats per character of each listener (row) on each text (column):"
            rf" model {latex_text(what)}. In brackets: 95\,\% intervals of the paired bootstrap (2,000 resamples)."
            rf" {ENGLISH.note(covered(result))}}}",
            rf"  \label{{tab:{result.experiment_id}}}",
            r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"  \begin{{tabular}}{{@{{}}l{'c' * len(result.languages)}@{{}}}}",
            r"    \toprule",
            latex_row("", [latex_text(language) for language in result.languages]),
            r"    \midrule",
            *(line for listener in result.languages for line in _latex_listener(listener, pairs, result.languages)),
            r"    \midrule",
            latex_row("own model", native),
            latex_row("scored", scored),
            r"    \bottomrule",
            r"  \end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def latex_batteries(result: ExperimentResult) -> str:
    """Return the accuracies of the headline model on batteries; it needs booktabs."""
    table = battery_table(result, result.headline[0])
    return latex_of(table, table.caption or table.title, f"{result.experiment_id}-batteries")


def latex_perplexities(result: ExperimentResult) -> str:
    """Return the perplexities of the headline model and the areas under its loss curves; it needs booktabs."""
    table = perplexity_table(result, *result.headline, result.modes[0])
    spread = note(" After ±, the standard deviation over seeds.") if len(result.seeds) > 1 else note("")
    caption = note(
        "Perplexity per character of the models of each language (row) on each text (column), and area under the"
        " training loss in nats times steps: model {what}. {covered}{spread}",
        what=on_text(*result.headline, result.modes[0]),
        covered=covered(result),
        spread=spread,
    )
    return latex_of(table, caption, f"{result.experiment_id}-perplexity", is_math=True)


def _latex_listener(listener: str, pairs: PairRows, languages: Sequence[str]) -> list[str]:
    rows = [pairs.get((listener, text)) for text in languages]
    return [
        latex_row(latex_text(listener), [_latex_excess(row) for row in rows]),
        latex_row("", [_latex_interval(row) for row in rows]) + "[2pt]",
    ]


def _latex_excess(row: MatrixRow | None) -> str:
    return MISSING if row is None or _is_own(row) else f"${loss_number(row.excess_cross_entropy, 'nats')}$"


def _latex_interval(row: MatrixRow | None) -> str:
    if row is None or _is_own(row):
        return ""
    return rf"{{\scriptsize $[{loss_number(row.interval_low, 'nats')}, {loss_number(row.interval_high, 'nats')}]$}}"


def _is_own(row: MatrixRow) -> bool:
    return row.listener_language == row.text_language
