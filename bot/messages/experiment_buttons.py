"""Buttons under the messages about an experiment."""

from collections.abc import Iterator

import discord

from bot.messages.buttons import button, button_row, option, select
from bot.messages.experiment_answers import METRICS
from trainer.contracts.experiments import ExperimentStatus
from trainer.people.language import _

REFRESH = "again"


def experiment_buttons(status: ExperimentStatus) -> discord.ui.View:
    """Return the buttons of an experiment's message: the next commands in its state."""
    return button_row(*_items(status))


def _items(status: ExperimentStatus) -> Iterator[discord.ui.Item[discord.ui.View]]:
    experiment_id = status.experiment_id
    if status.status == "completed":
        options = [option(metric, metric) for metric in METRICS]
        yield select("expmetric", experiment_id, _("Metric"), options)
        yield button("expcsv", experiment_id, "CSV")
        yield button("exptex", experiment_id, "LaTeX")
        return
    yield button("experiment", experiment_id, _("Refresh"), detail=REFRESH)
    if status.status in ("queued", "running"):
        yield button("expcancel", experiment_id, _("Cancel"), style=discord.ButtonStyle.danger)
    else:
        yield button("exprerun", experiment_id, _("Rerun missing"))
