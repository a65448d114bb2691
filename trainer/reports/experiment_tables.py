"""Tables of an experiment's report: its rows as CSV, and the matrix and the perplexities for a paper in LaTeX."""

from collections.abc import Iterable, Mapping, Sequence
from math import pow
from statistics import fmean, stdev
from typing import Literal, NamedTuple

from pydantic import TypeAdapter

from trainer.contracts.base import Frozen
from trainer.contracts.batteries import BatteryOptions, BatteryRow
from trainer.contracts.experiments import (
    TRIGRAM,
    Correlation,
    CorrelationKind,
    ExperimentResult,
    MatrixRow,
    ModelTables,
    PairSet,
    PerplexityRow,
    ScoringMode,
    SeedRow,
    TextKind,
)
from trainer.contracts.units import PERPLEXITY_DIGITS, SURPRISAL_DIGITS, Unit, in_unit, loss_number
from trainer.contracts.wording import PARENTS_WEIGHTS, counted
from trainer.reports.score_table import csv_lines

HEAT_MAP, TREE, BATTERIES = "heat_map.png", "tree.png", "batteries.png"
"""Pictures of a card."""
SCALE_COLOURS = ("#fdfdf0", "#e3f4c1", "#b4e0ba", "#6fc5bf", "#35a1c3", "#2279b5", "#25509c", "#1f2f7a", "#0b1a4f")
"""From low to high. Their lightness falls evenly, so that the order is seen without colours too."""
_DARK, _LIGHT = "#000000", "#ffffff"


class HeatScale(NamedTuple):
    """A range of numbers that is drawn in colours."""

    low: float
    high: float

    def colour(self, value: float) -> str:
        """Return the colour of a number; numbers outside the range have the colour of its end."""
        position = min(max(self._share(value), 0.0), 1.0) * (len(SCALE_COLOURS) - 1)
        lower = min(int(position), len(SCALE_COLOURS) - 2)
        first, second = (bytes.fromhex(colour[1:]) for colour in SCALE_COLOURS[lower : lower + 2])
        mixed = bytes(round(a + (b - a) * (position - lower)) for a, b in zip(first, second, strict=True))
        return f"#{mixed.hex()}"

    def text_colour(self, value: float) -> str:
        """Return black or white, whichever has the higher contrast on the number's colour."""
        behind = luminance(self.colour(value))
        is_dark_better = contrast(behind, luminance(_DARK)) >= contrast(behind, luminance(_LIGHT))
        return _DARK if is_dark_better else _LIGHT

    def _share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0


def luminance(colour: str) -> float:
    """Return the relative luminance of `#rrggbb`, as the Web Content Accessibility Guidelines define it."""
    parts = [part / 255 for part in bytes.fromhex(colour[1:])]
    red, green, blue = (part / 12.92 if part <= 0.04045 else pow((part + 0.055) / 1.055, 2.4) for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: float, second: float) -> float:
    """Return the contrast ratio of two luminances, from 1 to 21."""
    lighter, darker = max(first, second), min(first, second)
    return (lighter + 0.05) / (darker + 0.05)


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
STATISTIC_WORDS: Mapping[CorrelationKind, str] = {"pearson": "Pearson's r", "spearman": "Spearman's ρ"}
PAIR_WORDS: Mapping[PairSet, str] = {"all": "all rated pairs", "across_branches": "without pairs within a branch"}
ONE_SEED = "One seed per language: the intervals cover sections of the text, not the spread of trainings."
SEVERAL_SEEDS = "{seeds} per language: the intervals cover seeds and sections of the text."
NO_SEED = "The trigram baseline has no seeds: its intervals cover sections of the text."
BATTERY_SEEDS = ("One seed per language.", "Means of {seeds} per language.")
BATTERY_INTERVALS = ("of Wilson over the items", "by Student's t over the seeds, or of Wilson if wider")
"""For accuracies of one seed, and for their means over several seeds."""
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

_MEASURE = BatteryOptions().measure
_texts: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[str, ...])

PairRows = Mapping[tuple[str, str], MatrixRow]
"""Rows of one mode by listener and language of the text."""
PairSeeds = Mapping[tuple[str, str], SeedRow]


class ListenerFigures(NamedTuple):
    """The models of one language, one per seed: their perplexity on each text, and their training."""

    language: str
    phase: Literal["first", "second"] | None
    """None for models that are not trained in two phases."""
    perplexities: Mapping[str, PerplexityRow]
    """By language of the text."""
    area: float | None
    """The mean over seeds of the area under the training loss; None for the baseline and without a training loss."""
    area_sd: float | None
    """None for fewer than two seeds."""
    n_seeds: int = 1
    n_of_parent: int = 0
    """The number of seeds whose training lowered no validation loss, so that the model has its parent's weights."""


def csv_text(row_type: type[Frozen], rows: Iterable[Frozen], *, is_exact: bool = False) -> str:
    """Return rows as CSV under the names of their fields, as `csv_table` does."""
    return csv_table([*row_type.model_fields], map(values_of, rows), is_exact=is_exact)


def csv_table(columns: Sequence[str], rows: Iterable[Iterable[object]], *, is_exact: bool = False) -> str:
    """Return rows as CSV: numbers with six decimals, or with all digits if it is exact; None as an empty cell."""
    cells = ([_csv_cell(value, is_exact=is_exact) for value in row] for row in rows)
    return csv_lines([columns, *cells], ",") + "\n"


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


def listener_figures(result: ExperimentResult, model: str, kind: TextKind, mode: ScoringMode) -> list[ListenerFigures]:
    """Return the figures of each listener of a model on a kind of text in a mode."""
    wanted = model, kind, mode
    rows = [row for row in result.perplexities if (row.model, row.kind, row.scoring_mode) == wanted]
    found: list[ListenerFigures] = []
    for language in result.languages:
        curves = [curve for curve in result.curves if (curve.model, curve.language) == (model, language)]
        phases = [curve.phase for curve in curves if curve.phase != "single"]
        areas = [curve.auc for curve in curves if curve.auc is not None]
        found.append(
            ListenerFigures(
                language=language,
                phase=phases[0] if phases else None,
                perplexities={row.text_language: row for row in rows if row.listener_language == language},
                area=fmean(areas) if areas else None,
                area_sd=stdev(areas) if len(areas) > 1 else None,
                n_seeds=len(curves),
                n_of_parent=sum(one.has_parents_weights for one in curves),
            )
        )
    return found


def headline_figures(result: ExperimentResult) -> list[ListenerFigures]:
    return listener_figures(result, *result.headline, result.modes[0])


def figure_rows(result: ExperimentResult, figures: Sequence[ListenerFigures], unit: Unit = "nats") -> list[list[str]]:
    """Return a header and a row per listener: perplexity on each text and area, with the deviation over seeds."""
    rows = [["", *result.text_languages, "area"]]
    for each in figures:
        found = [each.perplexities.get(text) for text in result.text_languages]
        cells = [
            MISSING if row is None else with_spread(row.perplexity, row.perplexity_sd, PERPLEXITY_DIGITS)
            for row in found
        ]
        title = each.language if each.phase is None else f"{each.language} ({each.phase} phase{_of_parent(each)})"
        area = MISSING
        if each.area is not None:
            deviation = None if each.area_sd is None else in_unit(each.area_sd, unit)
            area = with_spread(in_unit(each.area, unit), deviation, SURPRISAL_DIGITS)
        rows.append([title, *cells, area])
    return rows


def _of_parent(figures: ListenerFigures) -> str:
    if not figures.n_of_parent:
        return ""
    seeds = "" if figures.n_seeds == 1 else f" in {figures.n_of_parent} of {counted(figures.n_seeds, 'seed')}"
    return f"; {PARENTS_WEIGHTS}{seeds}"


def battery_rows(result: ExperimentResult, model: str) -> dict[tuple[str, str], BatteryRow]:
    """Return the accuracies of a model on whole batteries, by language of the model and title of the battery."""
    wanted = model, "battery", _MEASURE
    rows = [row for row in result.batteries if (row.model, row.level, row.measure) == wanted]
    return {(row.model_language, f"{row.battery_language}: {row.battery}"): row for row in rows}


def battery_table(result: ExperimentResult, model: str) -> list[list[str]]:
    """Return a header and a row per language of a model: its accuracy in % on the battery of each column."""
    rows = battery_rows(result, model)
    titles = [*{title: None for _, title in rows}]
    cells = [[language, *(accuracy_text(rows[language, title]) for title in titles)] for language in result.languages]
    return [["", *titles], *cells]


def accuracy_text(row: BatteryRow) -> str:
    """Return an accuracy in % with its interval."""
    if row.accuracy is None or row.low is None or row.high is None:
        return MISSING
    return f"{100 * row.accuracy:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"


def battery_caption(result: ExperimentResult, model: str) -> str:
    """Return the caption of a table of accuracies."""
    n_seeds = len(result.seeds)
    brackets = BATTERY_INTERVALS[n_seeds > 1]
    return (
        f"Accuracy in % of model {model} by the sum of log-probabilities, without ties. Rows: language of the model;"
        f" columns: battery, after its language. {_battery_seeds(n_seeds)} In brackets: 95 % intervals {brackets}."
    )


def battery_spread_note(result: ExperimentResult) -> str:
    """Return the note of a figure of accuracies."""
    n_seeds = len(result.seeds)
    return _battery_seeds(n_seeds) + (" ±: standard deviation over seeds." if n_seeds > 1 else "")


def _battery_seeds(n_seeds: int) -> str:
    return BATTERY_SEEDS[n_seeds > 1].format(seeds=counted(n_seeds, "seed"))


def seeds_note(result: ExperimentResult, model: str | None = None) -> str:
    """Return the sentence on what intervals cover, which stands in the caption of every table and figure.

    Default of `model`: the headline model.
    """
    if model == TRIGRAM:
        return NO_SEED
    n_seeds = len(result.seeds)
    return ONE_SEED if n_seeds == 1 else SEVERAL_SEEDS.format(seeds=counted(n_seeds, "seed"))


def spread_note(result: ExperimentResult) -> str:
    """Return `seeds_note` for values that have a standard deviation beside them, if there are several seeds."""
    return seeds_note(result) + (" ±: standard deviation over seeds." if len(result.seeds) > 1 else "")


def with_spread(value: float, sd: float | None, digits: int) -> str:
    """Return a number with its standard deviation over seeds, if there is one."""
    return f"{value:.{digits}f}" if sd is None else f"{value:.{digits}f}±{sd:.{digits}f}"


def primary_correlation(result: ExperimentResult) -> Correlation | None:
    """Return the primary test of the human ratings; None without ratings."""
    return next((row for row in result.correlations if row.is_primary), None)


def correlation_line(result: ExperimentResult) -> str | None:
    """Return the primary test of the human ratings in one sentence; None without ratings."""
    row = primary_correlation(result)
    if row is None:
        return None
    title = f"primary test, model {row.model} on {KIND_WORDS[row.kind]}, {MODE_WORDS[row.mode]}"
    over = f"{counted(row.n_pairs, 'pair')} of {counted(row.n_languages, 'language')}, {PAIR_WORDS[row.pairs]}"
    if row.r is None or row.p is None:
        return f"Human ratings, {title}: no correlation, {over}."
    permuted = counted(row.n_permutations, "permutation")
    return (
        f"Human ratings, {title}: {STATISTIC_WORDS[row.statistic]} = {row.r:z.3f}, p = {p_text(row.p)}"
        f" ({over}; {permuted} of the languages)."
    )


def correlation_rows(result: ExperimentResult) -> list[list[str]]:
    """Return a header and a row per test of the human ratings, the primary test first."""
    rows = [["test", "model", "text", "mode", "statistic", "pairs", "languages", "n", "r", "p"]]
    others = [row for row in result.correlations if not row.is_primary]
    for row in [*(row for row in result.correlations if row.is_primary), *others]:
        p = row.p if row.is_primary else row.p_holm
        rows.append(
            [
                "primary" if row.is_primary else "exploratory",
                *(row.model, row.kind.replace("_", "-"), row.mode),
                *(STATISTIC_WORDS[row.statistic], PAIR_WORDS[row.pairs]),
                *(str(row.n_languages), str(row.n_pairs)),
                MISSING if row.r is None else f"{row.r:z.3f}",
                MISSING if p is None else p_text(p) + ("" if row.is_primary else " (Holm)"),
            ]
        )
    return rows


def p_text(p: float) -> str:
    """Return a p-value with four decimals, or with two digits below 0.001."""
    return f"{p:.4f}" if p >= 0.001 else f"{p:.1e}"


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
    native = [MISSING if row is None else loss_number(row.native_cross_entropy, "nats") for row in own]
    scored = [MISSING if row is None else rf"{100 * row.fraction_scored:.1f}\,\%" for row in own]
    return "\n".join(
        [
            r"% \usepackage{booktabs,graphicx}",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{Excess cross-entropy in nats per character of each listener (row) on each text (column):"
            rf" model {latex_text(model)} on {KIND_WORDS[kind]}, {MODE_WORDS[mode]}. In brackets: 95\,\% intervals of"
            rf" the paired bootstrap (2,000 resamples). {seeds_note(result)}}}",
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
    model, _ = result.headline
    header, *rows = battery_table(result, model)
    return latex_rows(latex_text(battery_caption(result, model)), f"{result.experiment_id}-batteries", header, rows)


def latex_perplexities(result: ExperimentResult) -> str:
    """Return the perplexities of the headline model and the areas under its loss curves; it needs booktabs."""
    model, kind = result.headline
    header, *rows = figure_rows(result, headline_figures(result))
    spread = " After ±, the standard deviation over seeds." if len(result.seeds) > 1 else ""
    caption = (
        "Perplexity per character of the models of each language (row) on each text (column), and"
        f" area under the training loss in nats times steps: model {latex_text(model)} on {KIND_WORDS[kind]},"
        f" {MODE_WORDS[result.modes[0]]}. {seeds_note(result)}{spread}"
    )
    numbers = [[title, *map(_latex_number, cells)] for title, *cells in rows]
    return latex_rows(caption, f"{result.experiment_id}-perplexity", header, numbers)


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


def values_of(row: Frozen) -> list[object]:
    """Return the values of a record's fields."""
    values: dict[str, object] = row.model_dump()
    return list(values.values())


def _csv_cell(value: object, *, is_exact: bool) -> object:
    """Return a value as a cell of CSV: a number, true or false, or texts with spaces between them."""
    match value:
        case bool():
            return str(value).lower()
        case float() if not is_exact:
            return f"{value:z.6f}"
        case tuple():
            return " ".join(_texts.validate_python(value))
        case _:
            return value


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


def _latex_number(cell: str) -> str:
    plus_minus = r" \pm "
    return cell if cell == MISSING else f"${cell.replace('±', plus_minus)}$"


def _is_own(row: MatrixRow) -> bool:
    return row.listener_language == row.text_language


def latex_row(title: str, cells: Sequence[str]) -> str:
    """Return a row of a LaTeX table, whose cells are escaped already."""
    return f"    {' & '.join([title, *cells])} " + r"\\"
