"""The report of a comparison: verdicts, metrics of the runs, their differences, and settings that differ."""

from collections.abc import Iterator, Mapping, Sequence

from trainer.contracts.base import changed
from trainer.contracts.reports import (
    Cell,
    Column,
    Estimate,
    Form,
    Link,
    Note,
    Part,
    Quantity,
    Report,
    Table,
    column,
    note,
    section,
)
from trainer.contracts.runs import has_unknown_text, is_largely_unknown
from trainer.reports.comparison import Against, ComparedRun, Comparison, Figures
from trainer.reports.names import name_of_model, named, run_names
from trainer.reports.run_notes import counting_of_several, known_note, shown_figure

_MAX_SETTING_CHARACTERS = 40
_METRICS: Sequence[tuple[str, Column, Form]] = (
    ("loss", column("loss per token", "loss"), "loss_change"),
    ("bits_per_char", column("loss per character", "per_char"), "per_char_change"),
    ("perplexity", column("perplexity", "perplexity", is_detail=True), "perplexity_change"),
    ("top1_accuracy", column("top-1", "share"), "change"),
    ("top5_accuracy", column("top-5", "share", is_detail=True), "change"),
    ("params", column("parameters", "count", is_detail=True), "count_change"),
    ("tokens_per_second", column("tokens/s", "count", is_detail=True), "count_change"),
)
"""The field, the column and the form of the difference of each metric."""


def comparison_report(comparison: Comparison, *, in_channel: bool = False) -> Report:
    """Return the report of a comparison; in a channel without settings, corpora and commands of the terminal."""
    names = compared_names(comparison)
    title = note("Comparison of {run}", run=names[comparison.runs[0].run_id])
    verdicts = Report(
        title=title, sections=tuple(section("Verdict", _verdicts(comparison, has_commands=not in_channel)))
    )
    sections = [
        *named(verdicts, names).sections,
        *section("Metrics", _metrics(comparison)),
        *section("Settings", [] if in_channel else _settings(comparison)),
    ]
    return Report(title=title, sections=tuple(sections))


def verdict(one: Against, tolerance: float) -> Note:
    """Return the result of a comparison in a few words."""
    if one.rise is None:
        return note("not comparable")
    name = note("loss") if one.basis == "loss" else note("loss per character")
    if one.verdict == "equal":
        return note("equal: same {metric} within rounding", metric=name)
    change = note("{metric} {rise}", metric=name, rise=_rise(one.rise))
    if one.interval is not None:
        change = note(
            "{change} (95 % interval {low} to {high})",
            change=change,
            low=_rise(one.interval.low),
            high=_rise(one.interval.high),
        )
    if one.is_regression:
        most = Quantity(value=tolerance, form="hundredths_share")
        return note("✗ worse: {change}, more than {tolerance}", change=change, tolerance=most)
    match one.verdict:
        case "better":
            return note("better: {change}", change=change)
        case "worse" if one.rise <= tolerance:
            return note("worse within the tolerance: {change}", change=change)
        case "worse":
            return note("worse: {change}", change=change)
        case "no_interval":
            return note("no interval: {change}", change=change)
        case _:
            return note("no clear difference: {change}", change=change)


def _rise(share: float) -> Quantity:
    return Quantity(value=share, form="rise")


def _verdicts(comparison: Comparison, *, has_commands: bool) -> Iterator[Note]:
    first, names = comparison.runs[0], compared_names(comparison)
    shared = [each for each in comparison.against[0].notes if all(each in one.notes for one in comparison.against)]
    for one in comparison.against:
        found = verdict(one, comparison.tolerance)
        yield note("{run} against {other}: {verdict}", run=names[first.run_id], other=names[one.run_id], verdict=found)
        yield from (each for each in one.notes if each not in shared)
        if has_commands and comparison.split is not None and not one.is_on_one_text:
            yield note(
                "`mt compare {run} {other} --path FILE` measures both on one text.", run=first.run_id, other=one.run_id
            )
    yield from shared
    yield from counting_of_several(
        {names[run.run_id]: run.baseline for run in comparison.runs if run.baseline is not None}
    )
    for run in comparison.runs:
        if run.known is not None and is_largely_unknown(run.unknown_char_share):
            yield note("{run}: {text}", run=names[run.run_id], text=known_note(run.known))
    yield from comparison.notes


def compared_names(comparison: Comparison) -> dict[str, str]:
    """Return the names of the compared runs, groups and checkpoints for people, by their ids."""
    names = run_names((run.run_id, run.label) for run in comparison.runs)
    return {run.run_id: name_of_model(run.run_id, names) for run in comparison.runs}


def _metrics(comparison: Comparison) -> Iterator[Table]:
    """Yield the metrics of each run, with deviations over the runs of a group, and the differences from the others."""
    where = note("on {dataset}", dataset=comparison.dataset or "")
    if comparison.split is not None:
        where = note("on their {split} splits", split=note(comparison.split))
    names = compared_names(comparison)
    titles = (column("run"), column("id", is_detail=True), column("model", is_detail=True))
    yield Table(
        name="metrics",
        title=note("Metrics"),
        caption=note("Metrics {where}; losses in {unit}.", where=where),
        columns=(*titles, *(shown for _, shown, _ in _METRICS), column("n-gram", "per_char", is_detail=True)),
        rows=tuple(
            (
                Link(text=names[run.run_id], address=f"runs/{run.run_id.split('@')[0]}"),
                *(run.run_id, run.model, *_figures(run)),
                shown_figure(run.ngram_bits_per_char, run.unknown_char_share, has_known=run.known is not None),
            )
            for run in comparison.runs
        ),
        n_titles=3,
    )
    yield Table(
        name="differences",
        title=note("Differences"),
        caption=note("{run} less the other run; losses in {unit}.", run=names[comparison.runs[0].run_id]),
        columns=(
            column("from"),
            *(Column(title=shown.title, form=form, is_detail=shown.is_detail) for _, shown, form in _METRICS),
        ),
        rows=tuple((names[one.run_id], *_cells(one.delta)) for one in comparison.against),
    )


def _cells(figures: Figures, deviations: Figures | None = None) -> Iterator[Cell]:
    for name, _, _ in _METRICS:
        value: float | None = getattr(figures, name)
        deviation: float | None = getattr(deviations, name, None)
        yield value if value is None or deviation is None else Estimate(value=value, deviation=deviation)


def _figures(run: ComparedRun) -> Iterator[Cell]:
    """Yield the figures of a run, marked or left out where unknown tokens make them too low."""
    share = run.unknown_char_share
    for (name, _, _), cell in zip(_METRICS, _cells(run, run.deviations), strict=True):
        is_hidden = name != "loss" and run.known is not None and is_largely_unknown(share)
        if name in ("params", "tokens_per_second") or cell is None or not has_unknown_text(share):
            yield cell
        elif is_hidden:
            yield None
        elif isinstance(cell, Estimate):
            yield changed(cell, is_marked=True)
        elif isinstance(cell, float):
            yield Estimate(value=cell, is_marked=True)


def _settings(comparison: Comparison) -> list[Part]:
    """Return the settings that differ: a column for each run, empty where a run does not have the setting."""
    of_others: list[Mapping[str, str]] = [
        {each.field: each.other for each in one.differences} for one in comparison.against
    ]
    first = {each.field: each.run for one in comparison.against for each in one.differences}
    if not first:
        return [note("Their settings are equal")]
    rows = [
        (field, _short(value), *(_short(others.get(field, value)) for others in of_others))
        for field, value in first.items()
    ]
    runs = [Column(title=note("{run}", run=name)) for name in compared_names(comparison).values()]
    return [
        Table(name="settings", title=note("Settings that differ"), columns=(column("setting"), *runs), rows=tuple(rows))
    ]


def _short(value: str) -> str:
    if value == "null":
        return ""
    return value if len(value) <= _MAX_SETTING_CHARACTERS else f"{value[:_MAX_SETTING_CHARACTERS]}…"
