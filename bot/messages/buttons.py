"""Buttons and forms whose custom id holds the action and the run id, so that they work after a restart of the bot."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import discord
from pydantic import BaseModel

from bot.messages.text import clamp

MAX_TEXT, _MAX_FORM_LABEL = 4000, 45  # Discord's limits
MAX_OPTIONS, MAX_OPTION_CHARACTERS = 25, 100  # Discord's limits of a list
_SHORT = 100
_LINE: discord.TextStyle = discord.TextStyle.short
_LINES: discord.TextStyle = discord.TextStyle.paragraph
_CUSTOM_ID = re.compile(
    r"mt:(?P<action>[a-z_]{1,32}):(?P<run>[a-z0-9][a-z0-9_-]{0,63}(?:@[0-9]{1,10})?)(?::(?P<detail>[a-z0-9_-]{1,16}))?"
)
_SELECTED = "selected"


class ButtonPress(NamedTuple):
    """A pressed button, or a submitted form with its values by field name. It proves no permission."""

    action: str
    run_id: str
    detail: str | None
    fields: Mapping[str, str] = {}
    selected: str | None = None
    """The selected value of a list that belongs to a run."""
    files: Sequence[discord.Attachment] = ()
    """The files of the message that has the button."""


class Field(NamedTuple):
    """A text field, of several lines unless `max_characters` are few."""

    name: str
    label: str
    value: str = ""
    is_required: bool = True
    max_characters: int = MAX_TEXT


class Selection(NamedTuple):
    """A list of which one option is selected."""

    name: str
    label: str
    options: Sequence[discord.SelectOption]
    note: str | None = None
    """A sentence below the label."""


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


def run_select(action: str, label: str, runs: Sequence[discord.SelectOption]) -> discord.ui.Select[discord.ui.View]:
    """Return a list to select one run for an action; the selected one becomes `ButtonPress.run_id`."""
    return discord.ui.Select(custom_id=custom_id(action, _SELECTED), placeholder=label, options=[*runs])


def select(
    action: str, run_id: str, label: str, options: Sequence[discord.SelectOption], detail: str | None = None
) -> discord.ui.Select[discord.ui.View]:
    """Return a list to select one value for an action on a run; the value becomes `ButtonPress.selected`."""
    return discord.ui.Select(custom_id=custom_id(action, run_id, detail), placeholder=label, options=[*options])


def option(value: str, label: str, description: str | None = None, *, default: bool = False) -> discord.SelectOption:
    """Return an option of a list, with its texts cut to Discord's limit."""
    shown = None if description is None else clamp(description, MAX_OPTION_CHARACTERS)
    return discord.SelectOption(
        label=clamp(label, MAX_OPTION_CHARACTERS), value=value, description=shown, default=default
    )


def button_row(*items: discord.ui.Item[discord.ui.View]) -> discord.ui.View:
    """Return a message's buttons; `Bot.on_interaction` answers them, so that discord.py need not store the view."""
    view = discord.ui.View(timeout=None)
    for one in items:
        view.add_item(one)
    view.stop()
    return view


def form(
    action: str, run_id: str, title: str, *fields: Field | Selection, detail: str | None = None
) -> discord.ui.Modal:
    """Return a form for an action on a run, cut to Discord's limits; `Bot.on_interaction` receives its values."""
    modal = discord.ui.Modal(title=clamp(title, _MAX_FORM_LABEL), custom_id=custom_id(action, run_id, detail))
    for field in fields:
        modal.add_item(_labelled(field))
    modal.stop()
    return modal


def _labelled(field: Field | Selection) -> discord.ui.Label[discord.ui.Modal]:
    if isinstance(field, Selection):
        selection: discord.ui.Select[discord.ui.Modal] = discord.ui.Select(
            custom_id=field.name, options=[*field.options]
        )
        return discord.ui.Label(text=field.label, component=selection, description=field.note)
    entry: discord.ui.TextInput[discord.ui.Modal] = discord.ui.TextInput(
        style=_LINE if field.max_characters <= _SHORT else _LINES,
        custom_id=field.name,
        default=clamp(field.value, field.max_characters) or None,
        required=field.is_required,
        max_length=field.max_characters,
    )
    return discord.ui.Label(text=clamp(field.label, _MAX_FORM_LABEL), component=entry)


def custom_id(action: str, run_id: str, detail: str | None = None) -> str:
    return f"mt:{action}:{run_id}" + (f":{detail}" if detail else "")


class _Entry(BaseModel):
    """A text field with its value, or a list with its selected values."""

    custom_id: str
    value: str = ""
    values: list[str] = []


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
    entries = (part.component for part in sent.components)
    fields = {entry.custom_id: entry.values[0] if entry.values else entry.value for entry in entries}
    run_id: str = found["run"]
    value = next(iter(sent.values), None)
    if run_id == _SELECTED and value is not None:
        return ButtonPress(found["action"], value, found["detail"], fields)
    return ButtonPress(found["action"], run_id, found["detail"], fields, value)
