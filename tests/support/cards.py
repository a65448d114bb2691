"""The text, buttons and limits of Discord messages."""

from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

import discord
from hypothesis import strategies as st

from bot.people.user_settings import use_unit
from trainer.contracts.units import Unit
from trainer.lab.language import Language, use_language

T = TypeVar("T")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


def for_reader(make: Callable[[], T], unit: Unit, language: Language = "en") -> T:
    """Make something for a reader with this unit and this language."""

    def made() -> T:
        use_language(language)
        use_unit(unit)
        return make()

    return copy_context().run(made)


class Read:
    """An embed as a reader sees it."""

    def __init__(self, embed: discord.Embed) -> None:
        self.colour = embed.colour.value if embed.colour else None
        self.title = embed.title or ""
        self.text = embed.description or ""
        self.footer = embed.footer.text or ""


def within_limits(embed: discord.Embed) -> bool:
    """Discord's documented limits, counted in UTF-16 units, which no other way of counting exceeds."""
    parts = (embed.title or "", embed.description or "", embed.footer.text or "")
    sizes = [len(part.encode("utf-16-le")) // 2 for part in parts]
    fits = all(size <= limit for size, limit in zip(sizes, (256, 4096, 2048), strict=True))
    return fits and sum(sizes) <= 6000 and not embed.fields
