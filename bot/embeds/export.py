"""Answers to `/mt export`."""

import discord

from bot.embeds.text import BLURPLE, byte_size, make_embed, relative_time, shown_name
from trainer.contracts.runs import RunRecord

_DEPRECATED = "PyTorch has deprecated TorchScript: prefer `format:hf`."


def exporting_answer(record: RunRecord, to: str) -> discord.Embed:
    """Return the answer while a model is exported."""
    lines = [f"As `{to}`. The file replaces this message. After a restart of the bot, run the command again."]
    return make_embed(BLURPLE, f"📦 Exporting… {shown_name(record)}", lines, record.run_id)


def export_answer(record: RunRecord, to: str, name: str, size: int) -> discord.Embed:
    """Return the note beside an attached export."""
    lines = [f"`{name}`, {byte_size(size)}"]
    lines += [_DEPRECATED] if to == "torchscript" else []
    return make_embed(BLURPLE, f"📦 Export: {shown_name(record)}", lines, record.run_id)


def export_link_answer(record: RunRecord, to: str, name: str, size: int, link: str, expires_at: int) -> discord.Embed:
    """Return the link to an export that is too large to be attached."""
    embed = export_answer(record, to, name, size)
    lines = [
        embed.description or "",
        f"[Download]({link})",
        f"The link ends {relative_time(expires_at)}. Whoever has it can download the file.",
    ]
    embed.description = "\n".join(lines)
    return embed
