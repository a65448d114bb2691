"""Files of messages, new for each try, since a try to send reads them."""

from collections.abc import Callable
from io import BytesIO

import discord


def no_files() -> list[discord.File]:
    return []


def one_file(name: str, data: bytes) -> Callable[[], list[discord.File]]:
    """Return a function that makes a file to send."""
    return lambda: [discord.File(BytesIO(data), name)]
