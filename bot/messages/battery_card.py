"""The card of a battery: its progress, and in the end the accuracies with the controls; and its line in a list."""

from collections.abc import Iterator

import discord

from bot.messages.buttons import button
from bot.messages.report_card import report_lines
from bot.messages.run_card import progress_bar
from bot.messages.text import (
    BLURPLE,
    GREEN,
    GREY,
    RED,
    clamp,
    count,
    make_embed,
    plain,
    without_links,
)
from trainer.contracts.batteries import BatteryStatus
from trainer.contracts.reports import Report
from trainer.lab.language import _

_MAX_NAME = 100


def battery_card(status: BatteryStatus, report: Report | None = None) -> discord.Embed:
    """Return the card of a battery in its current state, with the report of a completed one."""
    name, footer = plain(clamp(_title(status), _MAX_NAME)), status.battery_id
    match status.status:
        case "queued":
            return make_embed(GREY, f"⏳ {_('Queued: battery {name}', name=name)}", [status.message], footer)
        case "running":
            return make_embed(BLURPLE, f"🔎 {_('Running: battery {name}', name=name)}", [_progress(status)], footer)
        case "completed":
            lines = [status.message] if report is None else [*report_lines(report)]
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


def _title(status: BatteryStatus) -> str:
    """Return what a job scores: its batteries, or the checkpoints of a run."""
    names = [] if status.development_of is None else [_("development of {run_id}", run_id=status.development_of)]
    return ", ".join([*names, *status.batteries])
