"""Buttons whose custom id holds the action and the run id, so that they work after a restart of the bot."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import discord

from trainer.contracts.runs import RunRecord

_CUSTOM_ID = re.compile(
    r"mt:(?P<action>[a-z]{1,16}):(?P<run>[a-z0-9][a-z0-9_-]{0,63})(?::(?P<detail>[a-z0-9_-]{1,16}))?"
)
_SELECTED = "selected"


class ButtonPress(NamedTuple):
    """The content of a custom id. It proves no permission."""

    action: str
    run_id: str
    detail: str | None


def button(
    action: str,
    run_id: str,
    label: str,
    *,
    style: discord.ButtonStyle = discord.ButtonStyle.secondary,
    detail: str | None = None,
    disabled: bool = False,
) -> discord.ui.Button[discord.ui.View]:
    """Return a button for an action on a run."""
    own_id = custom_id(action, run_id, detail)
    return discord.ui.Button(label=label, style=style, custom_id=own_id, disabled=disabled)


def inference_buttons(run: RunRecord) -> list[discord.ui.Button[discord.ui.View]]:
    """Return the buttons of a completed run; a masked model generates no text."""
    score = button("score", run.run_id, "Score…")
    return [button("generate", run.run_id, "Generate"), score] if run.effective.objective == "causal_lm" else [score]


def run_select(action: str, label: str, runs: Sequence[discord.SelectOption]) -> discord.ui.Select[discord.ui.View]:
    """Return a list to select one run for an action; the selected one becomes `ButtonPress.run_id`."""
    return discord.ui.Select(custom_id=custom_id(action, _SELECTED), placeholder=label, options=[*runs])


def button_row(*items: discord.ui.Item[discord.ui.View]) -> discord.ui.View:
    """Return a message's buttons; `Bot.on_interaction` answers them, so that discord.py need not store the view."""
    view = discord.ui.View(timeout=None)
    for one in items:
        view.add_item(one)
    view.stop()
    return view


def custom_id(action: str, run_id: str, detail: str | None = None) -> str:
    return f"mt:{action}:{run_id}" + (f":{detail}" if detail else "")


def parse_custom_id(custom_id: str, selected: Sequence[str] = ()) -> ButtonPress | None:
    """Read a custom id, and the selected values of a list; return None for an id of another program."""
    found = _CUSTOM_ID.fullmatch(custom_id)
    if found is None:
        return None
    return ButtonPress(found["action"], selected[0] if selected else found["run"], found["detail"])
