"""The card of a group of runs over seeds: a line for each run, and the mean of their numbers with its deviation."""

from collections.abc import Iterator

import discord

from bot.messages.answers import STATE_COLOURS, STATE_SIGNS, state_counts
from bot.messages.buttons import button, button_row
from bot.messages.report_card import reader_of_names
from bot.messages.run_buttons import CARD, OWN_CARD, watch_button
from bot.messages.run_card import leak_warnings, notes_of, progress_bar, recipe
from bot.messages.text import (
    GREY,
    count,
    figure,
    figure_per_char,
    make_embed,
    per_char,
    shown_name,
    unit_of,
    unknown_mark,
    unknown_warning,
    with_unit,
)
from trainer.contracts.base import RunState
from trainer.contracts.groups import GroupStatus
from trainer.contracts.intervals import Spread
from trainer.contracts.runs import RunRecord, RunStatus
from trainer.lab.language import _, numeral
from trainer.reports.run_notes import SEEDLESS, counting_note

_MAX_LINES = 20


def group_card(record: RunRecord, group: GroupStatus) -> discord.Embed:
    """Return the card of a group; `record` is that of its first run."""
    name = f"{shown_name(record)} · {count(len(group.seeds), 'seed')}"
    titles: dict[RunState, str] = {
        "queued": _("Queued: {name}", name=name),
        "running": _("Training: {name}", name=name),
        "paused": _("Paused: {name}", name=name),
        "completed": _("Completed: {name}", name=name),
        "failed": _("Failed: {name}", name=name),
        "cancelled": _("Cancelled: {name}", name=name),
    }
    states: list[RunState] = [*titles]
    found = state_counts({state: len(group.of_state(state)) for state in states})
    lines = [found if group.has_ended else f"{progress_bar(group.progress)} **{int(group.progress)} %** · {found}"]
    lines += _numbers(group)
    lines += unknown_warning(group.unknown_char_share)
    lines += [_line(member) for member in group.members[:_MAX_LINES]]
    lines += ["…"] if len(group.members) > _MAX_LINES else []
    lines += [*notes_of(group.members[0].notes), *leak_warnings(record, group.members[0].leaks), recipe(record)[0]]
    title = f"{STATE_SIGNS[group.status]} {titles[group.status]}"
    return make_embed(STATE_COLOURS.get(group.status, GREY), title, lines, group.group_id)


def group_buttons(group: GroupStatus, *, is_owner: bool, is_watching: bool = True) -> discord.ui.View:
    """Return the buttons of a card or an answer about a group."""
    refresh = button("status", group.group_id, _("Refresh"), detail=OWN_CARD if is_owner else CARD)
    if group.has_ended:
        return button_row(refresh)
    cancel = button("cancel", group.group_id, _("Cancel"), style=discord.ButtonStyle.danger)
    watch = watch_button(group.group_id, is_watching=is_watching)
    return button_row(*([cancel] if is_owner else []), watch, refresh)


def _numbers(group: GroupStatus) -> Iterator[str]:
    """Yield the means of the completed runs, with deviation, 95 % interval and range."""
    test, bits = group.numbers.get("test_loss"), group.numbers.get("bits_per_char")
    if test is not None:
        yield _("Test {loss}", loss=_spread(group, test, bits))
        yield from _interval(test)
    if not group.depends_on_seeds:
        yield reader_of_names().note(SEEDLESS)
    baseline = group.baseline if group.has_ended else None
    if baseline is not None:
        yield reader_of_names().note(counting_note(baseline))
        yield from (f"⚠ {_(warning)}" for warning in baseline.warnings())
    best, bits = group.numbers.get("best_val_loss"), group.numbers.get("best_val_bits_per_char")
    if best is not None:
        yield _("Validation {loss} (best)", loss=_spread(group, best, bits))


def _spread(group: GroupStatus, loss: Spread, bits: Spread | None) -> str:
    deviation = "" if loss.deviation is None else f" ± {figure(loss.deviation)}"
    mark = unknown_mark(group.unknown_char_share)
    shown = f"**{figure(loss.mean)}{deviation}** {unit_of(group.members[0].objective)}{mark}"
    if bits is None:
        return shown
    deviation = "" if bits.deviation is None else f" ± {figure_per_char(bits.deviation)}"
    return f"{shown} · {per_char(bits.mean, group.unknown_char_share, deviation)}"


def _interval(found: Spread) -> Iterator[str]:
    if found.low is not None and found.high is not None:
        yield _(
            "95 % interval of the mean over seeds {low} to {high}, range {least} to {most}",
            low=figure(found.low),
            high=figure(found.high),
            least=figure(found.minimum),
            most=figure(found.maximum),
        )


def _line(run: RunStatus) -> str:
    """Return the line of a run: its state, its seed, and its progress or its losses."""
    loss = run.train_loss if run.test_loss is None else run.test_loss
    bits = run.train_bits_per_char if run.test_loss is None else run.bits_per_char
    parts = [f"{STATE_SIGNS[run.status]} `s{run.seed}`"]
    if run.status in ("running", "paused"):
        parts.append(f"{numeral(run.progress, '.0f')} %")
    if loss is not None:
        parts.append(with_unit(figure(loss), run.objective, bits, run.unknown_char_share))
    if run.error is not None:
        parts.append(run.error.code)
    return " · ".join(parts)


def group_alt_text(group: GroupStatus) -> str:
    """Describe a group's loss chart for screen readers."""
    return _(
        "Training and validation losses of {runs} over steps: mean and range.", runs=count(len(group.members), "run")
    )
