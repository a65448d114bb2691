"""Forms (Discord's modals) whose custom id holds the action and the run id, as a button's does."""

from typing import NamedTuple

import discord
from pydantic import BaseModel

from bot.buttons import custom_id

MAX_TEXT, MAX_FORM_TITLE = 4000, 45  # Discord's limits


class Field(NamedTuple):
    """A text field of several lines."""

    name: str
    label: str
    value: str = ""
    is_required: bool = True


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


def parse_modal(data: object) -> dict[str, str]:
    """Return the values of a submitted form by field name."""
    return {part.component.custom_id: part.component.value for part in _Modal.model_validate(data).components}


class _Entry(BaseModel):
    custom_id: str
    value: str


class _Part(BaseModel):
    component: _Entry


class _Modal(BaseModel):
    components: list[_Part]
