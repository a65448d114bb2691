"""The card of an experiment: its progress by cell, and in the end the matrix, the tree and the validity checks."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import get_args

import discord

from bot.messages.buttons import button
from bot.messages.report_card import report_lines
from bot.messages.run_card import progress_bar
from bot.messages.text import AMBER, BLURPLE, GREEN, GREY, RED, clamp, count, make_embed, plain, without_links
from trainer.contracts.base import RunState
from trainer.contracts.experiments import Cell, CellKind, ExperimentStatus
from trainer.contracts.reports import Report
from trainer.lab.language import _, numeral

_SIGNS: dict[RunState, str] = {
    **{"queued": "○", "running": "▶", "paused": "⏸"},
    **{"completed": "✓", "failed": "✗", "cancelled": "⊘"},
}
_MAX_LINES = 1500
_KINDS: tuple[CellKind, ...] = get_args(CellKind)


def experiment_card(status: ExperimentStatus, report: Report | None = None) -> discord.Embed:
    """Return the card of an experiment in its current state, with the report of a completed one."""
    name, footer = plain(status.name), status.experiment_id
    match status.status:
        case "queued":
            return make_embed(GREY, f"⏳ {_('Queued: experiment {name}', name=name)}", [status.message], footer)
        case "running":
            return make_embed(BLURPLE, f"🧪 {_('Running: experiment {name}', name=name)}", _progress(status), footer)
        case "completed":
            colour = AMBER if status.is_valid is False else GREEN
            lines = [status.message] if report is None else [*report_lines(report)]
            return make_embed(colour, f"🧪 {_('Completed: experiment {name}', name=name)}", lines, footer)
        case "failed":
            lines = [without_links(status.message), *_progress(status)[1:]]
            return make_embed(RED, f"❌ {_('Failed: experiment {name}', name=name)}", [*lines, _kept()], footer)
        case _:
            return make_embed(
                GREY, f"⏹ {_('Cancelled: experiment {name}', name=name)}", [*_progress(status)[1:], _kept()], footer
            )


def _kept() -> str:
    return _("Finished trainings and scores are stored. Starting the same experiment again continues with them.")


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


def experiment_facts(status: ExperimentStatus) -> str:
    """Return the facts of an experiment in a list."""
    done = _("{done} of {cells}", done=status.cells_done, cells=count(status.n_cells, "cell"))
    return f"{_(status.status)} · {done}"


def experiment_items(status: ExperimentStatus) -> Iterator[discord.ui.Item[discord.ui.View]]:
    """Yield the buttons that only an experiment has."""
    experiment_id = status.experiment_id
    if status.status == "completed":
        yield button("expcsv", experiment_id, "CSV")
        yield button("exptex", experiment_id, "LaTeX")
    elif status.has_ended:
        yield button("exprerun", experiment_id, _("Rerun missing"))
