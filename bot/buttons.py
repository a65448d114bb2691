"""Buttons under messages: what is pressed and for which run stands in the custom id, so they outlive every process."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import discord

from trainer.contracts.runs import RunRecord

_CUSTOM_ID = re.compile(
    r"mt:(?P<action>[a-z]{1,16}):(?P<run>[a-z0-9][a-z0-9_-]{0,63})(?::(?P<detail>[a-z0-9_-]{1,16}))?"
)
_CHOSEN = "chosen"


class Pressed(NamedTuple):
    """What a custom id says; it says nothing of who may press it."""

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
    """A button that does an action with a run."""
    own_id = custom_id(action, run_id, detail)
    return discord.ui.Button(label=label, style=style, custom_id=own_id, disabled=disabled)


def question_buttons(run: RunRecord) -> list[discord.ui.Button[discord.ui.View]]:
    """What one may ask a finished run: one that fills gaps continues no text."""
    score = button("score", run.run_id, "Score…")
    return [button("generate", run.run_id, "Generate"), score] if run.effective.objective == "causal_lm" else [score]


def choice_of_run(action: str, label: str, runs: Sequence[discord.SelectOption]) -> discord.ui.Select[discord.ui.View]:
    """A list from which one run is chosen to do an action with: `Pressed.run_id` is the chosen one."""
    return discord.ui.Select(custom_id=custom_id(action, _CHOSEN), placeholder=label, options=[*runs])


def row(*items: discord.ui.Item[discord.ui.View]) -> discord.ui.View:
    """The buttons of a message; `Bot.on_interaction` answers them, so the library need not remember the view."""
    view = discord.ui.View(timeout=None)
    for one in items:
        view.add_item(one)
    view.stop()
    return view


def custom_id(action: str, run_id: str, detail: str | None = None) -> str:
    return f"mt:{action}:{run_id}" + (f":{detail}" if detail else "")


def pressed(custom_id: str, chosen: Sequence[str] = ()) -> Pressed | None:
    """Read a custom id, and what was chosen from a list; None for an id that is not ours."""
    found = _CUSTOM_ID.fullmatch(custom_id)
    if found is None:
        return None
    return Pressed(found["action"], chosen[0] if chosen else found["run"], found["detail"])
