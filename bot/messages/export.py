"""Answers to `/mt export`."""

import discord

from bot.messages.text import BLURPLE, byte_size, make_embed, relative_time, shown_name
from trainer.contracts.runs import RunRecord
from trainer.people.language import _


def exporting_answer(record: RunRecord, to: str) -> discord.Embed:
    """Return the answer while a model is exported."""
    note = _(
        "As {format}. The file replaces this message. After a restart of the bot, run the command again.",
        format=f"`{to}`",
    )
    return make_embed(BLURPLE, f"📦 {_('Exporting… {name}', name=shown_name(record))}", [note], record.run_id)


def export_answer(record: RunRecord, to: str, name: str, size: int) -> discord.Embed:
    """Return the note beside an attached export."""
    lines = [f"`{name}`, {byte_size(size)}"]
    lines += [_("PyTorch has deprecated TorchScript: prefer `format:hf`.")] if to == "torchscript" else []
    return make_embed(BLURPLE, f"📦 {_('Export: {name}', name=shown_name(record))}", lines, record.run_id)


def export_link_answer(record: RunRecord, to: str, name: str, size: int, link: str, expires_at: int) -> discord.Embed:
    """Return the link to an export that is too large to be attached."""
    embed = export_answer(record, to, name, size)
    lines = [
        embed.description or "",
        f"[{_('Download')}]({link})",
        _("The link ends {time}. Whoever has it can download the file.", time=relative_time(expires_at)),
    ]
    embed.description = "\n".join(lines)
    return embed
