"""The card of an experiment: its progress by cell, and in the end the matrix, the tree and the validity checks."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from itertools import groupby
from typing import get_args

import discord

from bot.messages.run_card import progress_bar
from bot.messages.text import (
    AMBER,
    BLURPLE,
    GREEN,
    GREY,
    RED,
    clamp,
    code_block,
    count,
    figure,
    make_embed,
    percent,
    plain,
    unit_per,
    without_links,
)
from bot.people.user_settings import current_unit
from trainer.contracts.base import RunState
from trainer.contracts.batteries import BatteryRow
from trainer.contracts.experiments import Cell, CellKind, ExperimentResult, ExperimentStatus, ValidityCheck
from trainer.contracts.units import PERPLEXITY_DIGITS, SURPRISAL_DIGITS
from trainer.lab.language import _, numeral
from trainer.reports.experiment_tables import (
    BATTERIES,
    HEAT_MAP,
    MISSING,
    ONE_SEED,
    SEVERAL_SEEDS,
    STATISTIC_WORDS,
    TREE,
    ListenerFigures,
    battery_rows,
    headline_figures,
    headline_rows,
    headline_seeds,
    primary_correlation,
)

_SIGNS: dict[RunState, str] = {
    **{"queued": "○", "running": "▶", "paused": "⏸"},
    **{"completed": "✓", "failed": "✗", "cancelled": "⊘"},
}
_MAX_COLUMNS = 10
"""Languages in the matrix of a card; on a phone more columns wrap."""
_MAX_LINES = 1500
_MAX_BATTERIES = 600
_KINDS: tuple[CellKind, ...] = get_args(CellKind)


def experiment_card(status: ExperimentStatus, result: ExperimentResult | None = None) -> discord.Embed:
    """Return the card of an experiment in its current state; `result` is that of a completed one."""
    name, footer = plain(status.name), status.experiment_id
    match status.status:
        case "queued":
            return make_embed(GREY, f"⏳ {_('Queued: experiment {name}', name=name)}", [status.message], footer)
        case "running":
            return make_embed(BLURPLE, f"🧪 {_('Running: experiment {name}', name=name)}", _progress(status), footer)
        case "completed" if result is not None:
            colour = AMBER if status.is_valid is False else GREEN
            return make_embed(
                colour, f"🧪 {_('Completed: experiment {name}', name=name)}", _results(status, result), footer
            )
        case "completed":
            return make_embed(GREEN, f"🧪 {_('Completed: experiment {name}', name=name)}", [status.message], footer)
        case "failed":
            lines = [without_links(status.message), *_progress(status)[1:]]
            return make_embed(RED, f"❌ {_('Failed: experiment {name}', name=name)}", [*lines, _kept()], footer)
        case _:
            return make_embed(
                GREY, f"⏹ {_('Cancelled: experiment {name}', name=name)}", [*_progress(status)[1:], _kept()], footer
            )


def _kept() -> str:
    return _("Finished trainings and scores are stored. Starting the same experiment again continues with them.")


def attach_figures(embed: discord.Embed, figures: Mapping[str, bytes], result: ExperimentResult) -> list[discord.File]:
    """Show the heat map in an embed; return the files to send with it, new for each try, since a try reads them."""
    if figures:
        embed.set_image(url=f"attachment://{HEAT_MAP}")
    languages = ", ".join(result.languages)
    descriptions = {
        HEAT_MAP: _("Excess surprisal by listener and text: {languages}.", languages=languages),
        TREE: _("Average-linkage tree of {languages}.", languages=languages),
        BATTERIES: _("Accuracy on batteries by language of the model: {languages}.", languages=languages),
    }
    return [
        discord.File(BytesIO(figure), name, description=clamp(descriptions[name], 1024))
        for name, figure in figures.items()
    ]


def _progress(status: ExperimentStatus) -> list[str]:
    """Return a bar, and for each model its languages with the states of their cells."""
    done, total = status.cells_done, len(status.cells)
    cells = _("**{done} of {total}** cells", done=done, total=total)
    bar = f"{progress_bar(100 * done / max(1, total))} {cells}{_elapsed(status)}"
    return [
        bar,
        clamp("\n".join(_cell_lines(status.cells)), _MAX_LINES),
        _("✓ done · ▶ running · ○ waiting · ✗ failed"),
    ]


def _elapsed(status: ExperimentStatus) -> str:
    seconds = status.elapsed_seconds
    if seconds is None:
        return ""
    if seconds < 60:
        return f" · {_('{number} s', number=numeral(seconds, '.0f'))}"
    return f" · {_('{number} min', number=numeral(seconds / 60, '.0f'))}"


def _cell_lines(cells: Sequence[Cell]) -> list[str]:
    lines: list[str] = []
    for (model, seed, kind), group in groupby(sorted(cells, key=_group_of), key=_group_of):
        shown = "  ".join(f"{_SIGNS[cell.status]} {cell.language}" for cell in group)
        names = {"model": f"**{plain(model)}**", "seed": seed, "cells": shown}
        match _KINDS[kind]:
            case "train":
                lines.append(_("{model}, seed {seed}, trained: {cells}", **names))
            case "score":
                lines.append(_("{model}, seed {seed}, scored: {cells}", **names))
            case _:
                lines.append(_("{model}, seed {seed}, batteries: {cells}", **names))
    return lines


def _group_of(cell: Cell) -> tuple[str, int, int]:
    return cell.model, cell.seed, _KINDS.index(cell.kind)


def _results(status: ExperimentStatus, result: ExperimentResult) -> list[str]:
    model, kind = result.headline
    text = kind.replace("_", "-")
    lines = [
        _(
            "Excess surprisal, {unit} ({model}, {kind}, {seeds}). Rows: model of a language; columns: text.",
            unit=unit_per("char"),
            model=plain(model),
            kind=text,
            seeds=count(len(result.seeds), "seed"),
        )
        + f" {seeds_note(result)}"
    ]
    lines.append(code_block("\n".join(_matrix(result)), _MAX_LINES))
    lines.append(
        _(
            "Perplexity per character, and area under the training loss in {unit} · steps."
            " Rows: model of a language; columns: text.",
            unit=_(current_unit()),
        )
        + f" {seeds_note(result)}"
    )
    lines.append(code_block("\n".join(perplexity_lines(result)), _MAX_LINES))
    lines += [
        f"{'✓' if check.passed else '✗'} {check.name.replace('_', '-')}: {_check(check, result)}"
        for check in result.validity.checks
    ]
    lines += _asymmetry(result) + _correlation(result) + _batteries(result)
    lines.append(
        _("{cells} done · `report.html` has all tables and intervals.", cells=count(status.cells_done, "cell"))
    )
    return lines


def seeds_note(result: ExperimentResult) -> str:
    """Return what intervals cover, in the reader's language."""
    n_seeds = len(result.seeds)
    return _(ONE_SEED) if n_seeds == 1 else _(SEVERAL_SEEDS, seeds=count(n_seeds, "seed"))


def _matrix(result: ExperimentResult) -> list[str]:
    """Return the headline matrix; listeners are rows."""
    rows, seeds = headline_rows(result), headline_seeds(result)

    def cell(listener: str, text: str) -> str:
        seed = seeds.get((listener, text))
        spread = "" if listener == text or seed is None or seed.excess_sd is None else f"±{figure(seed.excess_sd)}"
        return f"{figure(rows[listener, text].excess_cross_entropy)}{spread}"

    return matrix_lines(result.languages, result.languages, cell)


def perplexity_lines(result: ExperimentResult) -> list[str]:
    """Return the perplexities of the headline models on all texts, and the areas under their loss curves."""
    figures = {_listener(each): each for each in headline_figures(result)}
    area = _("area")

    def cell(listener: str, column: str) -> str:
        row, steps = figures[listener].perplexities.get(column), figures[listener].area
        if column == area:
            return MISSING if steps is None else figure(steps, SURPRISAL_DIGITS)
        return MISSING if row is None else numeral(row.perplexity, f".{PERPLEXITY_DIGITS}f")

    return matrix_lines(list(figures), [*result.text_languages, area], cell)


def _listener(figures: ListenerFigures) -> str:
    match figures.phase:
        case "first":
            return _("{language}, first phase", language=figures.language)
        case "second":
            return _("{language}, second phase", language=figures.language)
        case _:
            return figures.language


def matrix_lines(rows: Sequence[str], columns: Sequence[str], cell: Callable[[str, str], str]) -> list[str]:
    """Return a matrix with columns of equal width; `cell` returns the text of a row and a column."""
    shown, across = rows[:_MAX_COLUMNS], columns[:_MAX_COLUMNS]
    cells = [["", *across], *([row, *(cell(row, column) for column in across)] for row in shown)]
    first, width = max(map(len, shown)), max(len(text) for line in cells for text in line[1:])
    found = [" ".join([line[0].ljust(first), *(text.rjust(width) for text in line[1:])]) for line in cells]
    return found if len(across) == len(columns) else [*found, _("… the report has all languages")]


def _check(check: ValidityCheck, result: ExperimentResult) -> str:
    """Return the numbers of a validity check in the reader's unit, and what they should be."""
    gap, unit = check.gap, unit_per("char")
    if gap is None:
        return without_links(check.message)
    if check.name == "shuffled":
        text = _("With shuffled characters, the gap is {gap} {unit}.", gap=figure(gap.gap), unit=unit)
        held_out = [one.gap.gap for one in result.validity.checks if one.name == "held_out" and one.gap is not None]
        limits = [_("It should be below half of the {gap} of the held-out text.", gap=figure(one)) for one in held_out]
        return " ".join([text, *limits])
    if check.name == "control":
        nearest = min(gap.control_distances, key=gap.control_distances.__getitem__)
        return _(
            "The nearest control is {language}, {distance} {unit} away; that should be more than the mean across"
            " branches, {across}.",
            language=plain(nearest),
            distance=figure(gap.control_distances[nearest]),
            unit=unit,
            across=figure(gap.across),
        )
    tree = (
        _("The tree joins the languages of each branch first.")
        if check.joins_branches_first
        else _("The tree does not join the languages of each branch first.")
    )
    distances = _(
        "The mean distance is {within} {unit} within branches and {across} across; the gap, {gap}, should be above 0.",
        within=figure(gap.within),
        unit=unit,
        across=figure(gap.across),
        gap=figure(gap.gap),
    )
    return f"{distances} {tree}"


def _asymmetry(result: ExperimentResult) -> list[str]:
    rows = [row for row in result.models[0].tables.asymmetry if row.scoring_mode == result.modes[0]]
    by_size = {abs(row.asymmetry): row for row in rows}
    most = by_size[max(by_size)]
    first, second = (most.language_a, most.language_b) if most.asymmetry < 0 else (most.language_b, most.language_a)
    interval = ", ".join(map(figure, (most.interval_low, most.interval_high)))
    return [
        _(
            "Most asymmetric pair: the model of {first} is less surprised by {second} than that of {second} by {first}:"
            " {difference}, a 95 % interval",
            first=first,
            second=second,
            difference=f"{figure(most.asymmetry)} [{interval}] {unit_per('char')}",
        )
    ]


def _batteries(result: ExperimentResult) -> list[str]:
    """Return the accuracies of the headline models on the batteries of their own languages."""
    rows = battery_rows(result, result.headline[0])
    own = [_accuracy(title, row) for (language, title), row in rows.items() if language == row.battery_language]
    if not own:
        return []
    shown = clamp(" · ".join(own), _MAX_BATTERIES)
    return [_("Accuracy on batteries, each by the model of its language: {accuracies}", accuracies=shown)]


def _accuracy(title: str, row: BatteryRow) -> str:
    if row.accuracy is None or row.low is None or row.high is None:
        return f"{plain(title)} {MISSING}"
    interval = ", ".join(percent(end) for end in (row.low, row.high))
    return f"{plain(title)} **{percent(row.accuracy)}** [{interval}]"


def _correlation(result: ExperimentResult) -> list[str]:
    """Return the primary test of the human ratings."""
    row = primary_correlation(result)
    if row is None or row.r is None or row.p is None:
        return []
    return [
        _(
            "Human ratings, primary test: {statistic} {r}, p = {p} over {pairs} of {languages}."
            " Other tests are exploratory: {number}.",
            statistic=STATISTIC_WORDS[row.statistic],
            r=numeral(row.r, "z.2f"),
            p=numeral(row.p, ".4f"),
            pairs=count(row.n_pairs, "pair"),
            languages=count(row.n_languages, "language"),
            number=len(result.correlations) - 1,
        )
    ]
