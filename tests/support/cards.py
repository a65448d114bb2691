"""The text, buttons and limits of Discord messages."""

import discord
from hypothesis import strategies as st

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


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
