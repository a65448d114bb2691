"""Forms that open over the chat: like a button's, a form's custom id says what it is for, so it outlives the bot."""

from typing import NamedTuple

import discord
from pydantic import BaseModel

from bot.buttons import custom_id

LONGEST_TEXT, FORM_TITLE = 4000, 45  # Discord's limits


class Field(NamedTuple):
    """A field for text of any length."""

    name: str
    label: str
    value: str = ""
    is_required: bool = True


def form(action: str, run_id: str, title: str, *fields: Field, detail: str | None = None) -> discord.ui.Modal:
    """A form that does an action with a run; `Bot.on_interaction` takes what is filled in."""
    modal = discord.ui.Modal(title=title, custom_id=custom_id(action, run_id, detail))
    for field in fields:
        entry: discord.ui.TextInput[discord.ui.Modal] = discord.ui.TextInput(
            style=discord.TextStyle.paragraph,
            custom_id=field.name,
            default=field.value or None,
            required=field.is_required,
            max_length=LONGEST_TEXT,
        )
        label: discord.ui.Label[discord.ui.Modal] = discord.ui.Label(text=field.label, component=entry)
        modal.add_item(label)
    modal.stop()
    return modal


def filled(data: object) -> dict[str, str]:
    """What stands in the fields of a form that was sent."""
    return {part.component.custom_id: part.component.value for part in _Sent.model_validate(data).components}


class _Entry(BaseModel):
    custom_id: str
    value: str


class _Part(BaseModel):
    component: _Entry


class _Sent(BaseModel):
    """The part of a sent form that is used here."""

    components: list[_Part]
