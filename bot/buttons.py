"""Buttons and forms whose custom id holds the action and the run id, so that they work after a restart of the bot."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import discord
from pydantic import BaseModel

from trainer.contracts.runs import RunRecord

MAX_TEXT, MAX_FORM_TITLE = 4000, 45  # Discord's limits
_CUSTOM_ID = re.compile(
    r"mt:(?P<action>[a-z]{1,16}):(?P<run>[a-z0-9][a-z0-9_-]{0,63})(?::(?P<detail>[a-z0-9_-]{1,16}))?"
)
_SELECTED = "selected"


class ButtonPress(NamedTuple):
    """A pressed button, or a submitted form with its values by field name. It proves no permission."""

    action: str
    run_id: str
    detail: str | None
    fields: Mapping[str, str] = {}


class Field(NamedTuple):
    """A text field of several lines."""

    name: str
    label: str
    value: str = ""
    is_required: bool = True


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


def form(action: str, run_id: str, title: str, *fields: Field, detail: str | None = None) -> discord.ui.Modal:
    """Return a form for an action on a run; `Bot.on_interaction` receives its values."""
    modal = discord.ui.Modal(title=title, custom_id=custom_id(action, run_id, detail))
    for field in fields:
        entry: discord.ui.TextInput[discord.ui.Modal] = discord.ui.TextInput(
            style=discord.TextStyle.paragraph,
            custom_id=field.name,
            default=field.value or None,
            required=field.is_required,
            max_length=MAX_TEXT,
        )
        label: discord.ui.Label[discord.ui.Modal] = discord.ui.Label(text=field.label, component=entry)
        modal.add_item(label)
    modal.stop()
    return modal


def custom_id(action: str, run_id: str, detail: str | None = None) -> str:
    return f"mt:{action}:{run_id}" + (f":{detail}" if detail else "")


class _Entry(BaseModel):
    custom_id: str
    value: str


class _Labelled(BaseModel):
    component: _Entry


class _Sent(BaseModel):
    """The data of an interaction with a button, a list or a form."""

    custom_id: str
    values: list[str] = []
    components: list[_Labelled] = []


def parse_press(data: object) -> ButtonPress | None:
    """Read a pressed button, a selection from a list or a submitted form; return None for one of another program."""
    sent = _Sent.model_validate(data)
    found = _CUSTOM_ID.fullmatch(sent.custom_id)
    if found is None:
        return None
    fields = {part.component.custom_id: part.component.value for part in sent.components}
    return ButtonPress(found["action"], sent.values[0] if sent.values else found["run"], found["detail"], fields)
