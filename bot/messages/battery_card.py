"""The card of a battery: its progress, and in the end the accuracies with the controls; and its line in a list."""

from collections.abc import Iterator, Sequence

import discord

from bot.messages.buttons import button
from bot.messages.run_card import progress_bar
from bot.messages.text import (
    BLURPLE,
    GREEN,
    GREY,
    RED,
    clamp,
    code_block,
    count,
    figure,
    figure_per_char,
    make_embed,
    percent,
    plain,
    unit_per,
    without_links,
)
from trainer.contracts.batteries import (
    Accuracy,
    BatteryStatus,
    BatterySummary,
    FormulaResult,
    GroupResult,
    Measure,
    RunResult,
)
from trainer.contracts.development import Acquisition, CurveMeasure, Development, DevelopmentRow
from trainer.lab.language import _, plural
from trainer.reports.battery_tables import battery_notes, control_name, run_titles
from trainer.reports.development_tables import by_age, spread

_MAX_COLUMNS, _MAX_WORDS, _MAX_ALT_TEXT = 4, 8, 1024
_SHOWN = ("battery", "split")
_MAX_NAME, _MAX_TABLE, _MAX_ROWS, _MAX_RUNS, _MAX_CELL = 100, 2500, 25, 5, 28
_MAX_CONTROLS = 10


def battery_card(
    status: BatteryStatus, summary: BatterySummary | None = None, development: Development | None = None
) -> discord.Embed:
    """Return the card of a battery in its current state, with the summary or the development of a completed one."""
    name, footer = plain(clamp(_title(status), _MAX_NAME)), status.battery_id
    match status.status:
        case "queued":
            return make_embed(GREY, f"⏳ {_('Queued: battery {name}', name=name)}", [status.message], footer)
        case "running":
            return make_embed(BLURPLE, f"🔎 {_('Running: battery {name}', name=name)}", [_progress(status)], footer)
        case "completed":
            lines = [status.message] if summary is None else [*_results(summary)]
            lines = lines if development is None else [*_development(development)]
            return make_embed(GREEN, f"🔎 {_('Completed: battery {name}', name=name)}", lines, footer)
        case "failed":
            lines = [without_links(status.message), _kept()]
            return make_embed(RED, f"❌ {_('Failed: battery {name}', name=name)}", lines, footer)
        case _:
            lines = [_progress(status), _kept()]
            return make_embed(GREY, f"⏹ {_('Cancelled: battery {name}', name=name)}", lines, footer)


def battery_items(status: BatteryStatus) -> Iterator[discord.ui.Item[discord.ui.View]]:
    """Yield the buttons that send one file of a completed battery."""
    battery_id = status.battery_id
    yield button("batpage", battery_id, _("Page"))
    yield button("batcsv" if status.development_of is None else "batcurves", battery_id, "CSV")
    yield button("battex", battery_id, "LaTeX")


def _kept() -> str:
    return _("Finished scores are stored. Starting the same battery again continues with them.")


def _progress(status: BatteryStatus) -> str:
    bar = progress_bar(100 * status.done / max(1, status.total))
    return f"{bar} {_('**{done} of {total}** items', done=count(status.done), total=count(status.total))}"


def battery_facts(status: BatteryStatus) -> str:
    """Return the facts of a battery in a list."""
    names = plain(clamp(_title(status), _MAX_NAME))
    return f"{names} · {count(len(status.runs), 'run')} · {_(status.status)}"


def alt_of(development: Development) -> str:
    """Return the picture of a development in words, for screen readers."""
    last = [row for row in development.curves if row.step == development.points[-1].step and row.level in _SHOWN]
    values = ", ".join(" ".join(filter(None, (row.name, _value(row), _unit(row.measure)))) for row in last)
    return clamp(_("Curves over the checkpoints. The last values: {values}.", values=values), _MAX_ALT_TEXT)


def _title(status: BatteryStatus) -> str:
    """Return what a job scores: its batteries, or the checkpoints of a run."""
    names = [] if status.development_of is None else [_("development of {run_id}", run_id=status.development_of)]
    return ", ".join([*names, *status.batteries])


def _development(development: Development) -> Iterator[str]:
    """Yield a row for each checkpoint, spread evenly if there are many, and the words that were acquired first."""
    shown = [row for row in development.curves if row.level in _SHOWN]
    columns = [*{(row.measure, row.name): None for row in shown}][:_MAX_COLUMNS]
    cells = {(row.step, row.measure, row.name): _value(row) for row in shown}
    titles = [_unit(measure) or name for measure, name in columns]
    rows = [[_("step"), _("words"), *(clamp(title, _MAX_CELL) for title in titles)]]
    for point in spread(development.points, _MAX_ROWS):
        words = "–" if point.words is None else count(point.words)
        rows.append([count(point.step), words, *(cells.get((point.step, *column), "–") for column in columns)])
    yield code_block("\n".join(_aligned(rows)), _MAX_TABLE)
    yield from (f"⚠ {plain(note)}" for note in development.notes)
    ages = by_age(development)
    if development.acquisitions:
        share = {"words": count(len(ages)), "all": count(len(development.acquisitions))}
        yield _("{words} of {all} words have an age of acquisition.", **share)
    if ages:
        named = ", ".join(f"{plain(word.word)} {_age(word)}" for word in ages[:_MAX_WORDS])
        yield _("The first, with their steps: {words}.", words=named)


def _age(word: Acquisition) -> str:
    """Return the age of a word in steps, with its interval."""
    low, high = word.age_steps_low, word.age_steps_high
    interval = "" if low is None or high is None else f" ({count(round(low))}–{count(round(high))})"
    return f"{count(round(word.age_steps or 0))}{interval}"


def _unit(measure: CurveMeasure) -> str:
    """Return the unit of a measure; empty for a share."""
    return "" if measure == "accuracy" else unit_per("token" if measure == "loss" else "char")


def _value(row: DevelopmentRow) -> str:
    if row.measure == "accuracy":
        return percent(row.value)
    return figure(row.value) if row.measure == "loss" else figure_per_char(row.value)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _results(summary: BatterySummary) -> Iterator[str]:
    yield code_block("\n".join(_table(summary)), _MAX_TABLE)
    yield from map(plain, battery_notes(summary))
    titles = run_titles(summary)
    for result in summary.runs[:_MAX_RUNS]:
        where = f"**{plain(titles[result.run.name])}** · " if len(summary.runs) > 1 else ""
        yield from (f"{where}{line}" for line in _odd_items(result, summary.measure))
        yield from (f"{where}{line}" for line in _controls(result))
    yield from (f"⚠ {plain(note)}" for note in summary.notes[:_MAX_RUNS])


def _table(summary: BatterySummary) -> list[str]:
    """Return the accuracies: of one run with their intervals, or of several runs side by side."""
    runs, titles = summary.runs[:_MAX_RUNS], run_titles(summary)
    names = [_("accuracy"), _("95 % interval")] if len(runs) == 1 else [titles[one.run.name] for one in runs]
    rows = [["", *(clamp(name, _MAX_CELL) for name in names)]]
    shown = [place for place, group in enumerate(runs[0].groups) if group.level in ("battery", "paradigm")]
    for place in shown[:_MAX_ROWS]:
        group = runs[0].groups[place]
        numbers = _numbers([one.groups[place].by(summary.measure) for one in runs])
        rows.append([clamp(group.name or group.battery, _MAX_CELL), *numbers])
        rows += _formulas(group, runs)
    lines = _aligned(rows)
    return lines if len(shown) <= _MAX_ROWS else [*lines, "…"]


def _formulas(group: GroupResult, runs: Sequence[RunResult]) -> Iterator[list[str]]:
    """Yield a row for each formula of a suite that has several: an item is right if all of them hold."""
    of_runs = [
        [one for one in result.formulas if (one.battery, one.paradigm) == (group.battery, group.name)]
        for result in runs
    ]
    n_formulas = len(of_runs[0])
    for place in range(n_formulas if n_formulas > 1 and group.level == "paradigm" else 0):
        name = _("formula {number}", number=place + 1)
        yield [f"  {name}", *_numbers([of_run[place] for of_run in of_runs])]


def _numbers(found: Sequence[Accuracy | FormulaResult | None]) -> list[str]:
    """Return the accuracies of runs with their intervals; of one run in two cells, of several in one cell each."""
    cells: list[str] = []
    for one in found:
        share, low, high = (None, None, None) if one is None else (one.accuracy, one.low, one.high)
        if share is None or low is None or high is None:
            cells += ["–", "–"] if len(found) == 1 else ["–"]
            continue
        text, ends = percent(share), (percent(low), percent(high))
        cells += [text, " … ".join(ends)] if len(found) == 1 else [f"{text} ({'…'.join(ends)})"]
    return cells


def _odd_items(result: RunResult, measure: Measure) -> Iterator[str]:
    for group in (one for one in result.groups if one.level == "battery"):
        found = group.by(measure)
        if found is not None and found.n_ties:
            yield f"{plain(group.battery)}: {plural('{count} tie', '{count} ties', found.n_ties)}"
        if group.n_prefix and measure == "sum":
            items = count(group.n_prefix, "item")
            text = _(
                "{items} with one text that begins the other: the shorter one wins. Try `measure:end`.", items=items
            )
            yield f"{plain(group.battery)}: ⚠ {text}"


def _controls(result: RunResult) -> Iterator[str]:
    for control in result.controls[:_MAX_CONTROLS]:
        name, untrained = plain(control_name(control)), control.untrained
        if untrained.accuracy is not None:
            numbers = {"share": untrained.accuracy, "low": untrained.low or 0.0, "high": untrained.high or 0.0}
            shown = {key: percent(number) for key, number in (*numbers.items(), ("chance", control.chance))}
            note = _("untrained {share} ({low} … {high}), chance {chance}", **shown)
            sign = "" if control.is_at_chance else f" ⚠ {_('not at chance')}"
            yield f"{name}: {note}{sign}"
        if control.counts is not None and control.counts.unigram.accuracy is not None:
            unigram, ngram = control.counts.unigram, control.counts.ngram
            shares = [percent(one.accuracy or 0.0) for one in (unigram, ngram)]
            note = _("counts: unigrams {share}", share=shares[0])
            if control.counts.order > 1:
                note += _(", {order}-grams {share}", order=control.counts.order, share=shares[1])
            yield f"{name}: {note}"
    if len(result.controls) > _MAX_CONTROLS:
        yield "…"
    for leak in result.leaks:
        text = _(
            "{whole} of the items stand in the training text, {ngrams} with eight words in a row",
            whole=percent(leak.whole),
            ngrams=percent(leak.ngrams),
        )
        yield f"{plain(leak.battery)}: {text}"
        yield from (f"⚠ {plain(note)}" for note in [*leak.described()][1:])
