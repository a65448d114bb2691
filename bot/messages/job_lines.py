"""Lines of the cards of jobs: their progress, and in the end the result, for the kinds with words of their own."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import get_args

from bot.messages.report_card import report_lines
from bot.messages.run_card import progress_bar
from bot.messages.text import clamp, code_block, count, percent, plain, said, without_links
from trainer.contracts.base import RunState
from trainer.contracts.batteries import BatteryStatus
from trainer.contracts.corpora import BuildProgress, BuildStatus, CorpusManifest
from trainer.contracts.experiments import Cell, CellKind, ExperimentStatus
from trainer.contracts.readings import ReadingStatus
from trainer.contracts.studies import StudyStatus
from trainer.contracts.tokenizer_jobs import TokenizerStatus
from trainer.lab.language import _, numeral
from trainer.reports.report_text import aligned
from trainer.reports.tokenizer_report import tokenizer_report

MAX_ERROR = 1500
_MAX_TABLE, _MAX_CORPORA, _MAX_CELLS = 3000, 500, 1500
_SIGNS: dict[RunState, str] = {
    **{"queued": "○", "running": "▶", "paused": "⏸"},
    **{"completed": "✓", "failed": "✗", "cancelled": "⊘"},
}
_KINDS: tuple[CellKind, ...] = get_args(CellKind)


def step_lines(status: BatteryStatus | ExperimentStatus | StudyStatus | ReadingStatus) -> list[str]:
    """Return the progress of a job of many steps, which a later job with the same request continues."""
    match status:
        case ExperimentStatus():
            progress = _cells(status)
        case StudyStatus():
            runs = _("**{done} of {total}** runs", done=count(status.runs_done), total=count(status.n_runs))
            progress = [f"{progress_bar(100 * status.runs_done / max(1, status.n_runs))} {runs}{_elapsed(status)}"]
        case ReadingStatus():
            steps = _("**{done} of {total}** steps", done=count(status.done), total=count(status.total))
            progress = [f"{progress_bar(status.percent)} {steps}{_elapsed(status)}"]
        case _:
            progress = [_items(status)]
    kept = _("Finished parts are stored. Starting the same job again continues with them.")
    match status.status:
        case "queued" | "completed":
            return [said(status.message)]
        case "running":
            return progress
        case "failed":
            return [without_links(said(status.message)), *progress, kept]
        case _:
            return [*progress, kept]


def _items(status: BatteryStatus) -> str:
    bar = progress_bar(status.percent)
    return f"{bar} {_('**{done} of {total}** items', done=count(status.done), total=count(status.total))}"


def _cells(status: ExperimentStatus) -> list[str]:
    """Return a bar, and for each model its languages with the states of their cells."""
    done, total = status.cells_done, len(status.cells)
    cells = _("**{done} of {total}** cells", done=done, total=total)
    return [
        f"{progress_bar(100 * done / max(1, total))} {cells}{_elapsed(status)}",
        clamp("\n".join(_cell_lines(status.cells)), _MAX_CELLS),
        _("✓ done · ▶ running · ○ waiting · ✗ failed"),
    ]


def _elapsed(status: ExperimentStatus | StudyStatus | ReadingStatus) -> str:
    seconds = status.elapsed_seconds
    if seconds is None:
        return ""
    if seconds < 60:
        return f" · {_('{number} s', number=numeral(seconds, '.0f'))}"
    return f" · {_('{number} min', number=numeral(seconds / 60, '.0f'))}"


def _cell_lines(cells: Sequence[Cell]) -> Iterator[str]:
    for (model, seed, kind), group in groupby(sorted(cells, key=_group_of), key=_group_of):
        shown = "  ".join(f"{_SIGNS[cell.status]} {cell.language}" for cell in group)
        names = {"model": f"**{plain(model)}**", "seed": seed, "cells": shown}
        match _KINDS[kind]:
            case "train":
                yield _("{model}, seed {seed}, trained: {cells}", **names)
            case "score":
                yield _("{model}, seed {seed}, scored: {cells}", **names)
            case _:
                yield _("{model}, seed {seed}, batteries: {cells}", **names)


def _group_of(cell: Cell) -> tuple[str, int, int]:
    return cell.model, cell.seed, _KINDS.index(cell.kind)


def tokenizer_lines(status: TokenizerStatus, corpora: Sequence[str] = ()) -> Iterator[str]:
    """Yield the method of a tokenizer, its corpora if they are given, and in the end its fit to held-out lines."""
    noun = _("corpus") if len(corpora) == 1 else _("corpora")
    names = clamp(", ".join(map(plain, corpora)), _MAX_CORPORA)
    if corpora or status.stats is None:
        yield f"{status.method} · {noun} {names}" if corpora else status.method
    if status.stats is None:
        code = "" if status.error is None else f"`{status.error.code}` "
        yield f"{code}{without_links(clamp(said(status.message), MAX_ERROR))}"
        return
    yield from report_lines(tokenizer_report(status))
    yield _("Next: {commands}", commands=f"`/mt train tokenizer:{status.tokenizer_id}`")


def build_lines(status: BuildStatus) -> Iterator[str]:
    """Yield the progress of each language of a build, or in the end the table of its corpora."""
    manifest = status.manifest
    if status.error is not None:
        yield without_links(said(status.error.message))
    elif manifest is not None:
        corpus = next(iter(manifest.languages.values())).file.path.removesuffix(".txt")
        yield code_block("\n".join(_table(manifest)), _MAX_TABLE)
        yield from _warnings(manifest)
        yield _("Next: {commands}", commands=f"`/mt train corpus:{corpus}`")
        return
    progress = {one.language: one for one in status.progress}
    for language in status.request.languages:
        yield f"**{language}** {_progress(progress[language], status) if language in progress else _('· waiting')}"


def _progress(one: BuildProgress, status: BuildStatus) -> str:
    most = status.request.characters
    bar = "" if most is None else f"{progress_bar(min(100.0, 100 * one.characters / most))} "
    counts = _(
        "{documents}, {rejected} rejected · kept {lines}, {characters}",
        documents=count(one.documents, "document"),
        rejected=count(one.rejected_documents),
        lines=count(one.lines, "line"),
        characters=count(one.characters, "character"),
    )
    return f"{bar}{counts}"


def _warnings(manifest: CorpusManifest) -> Iterator[str]:
    """Yield a line for each filter that removed much of a language."""
    for language, built in manifest.languages.items():
        for each in built.removed:
            if each.is_large:
                switch = "threshold:0" if each.step == "language_identification" else f"keep:{each.step}"
                text = _(
                    "**{language}**: `{filter}` removed {share} of the characters; `{switch}` leaves it out.",
                    language=language,
                    filter=each.step,
                    share=percent(each.share),
                    switch=switch,
                )
                yield f"⚠ {text}"


def _table(manifest: CorpusManifest) -> list[str]:
    rows = [["", _("documents"), _("rejected"), _("lines"), _("characters")]]
    for language, built in manifest.languages.items():
        share = percent(built.rejected_share)
        rows.append([language, numeral(built.documents), share, numeral(built.lines), numeral(built.characters)])
    return aligned(rows)
