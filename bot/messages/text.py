"""Text of embeds: Discord's limits, inert user text, numbers and times."""

import re
import unicodedata
from collections.abc import Sequence
from io import BytesIO
from typing import Literal

import discord

from bot.people.user_settings import current_unit
from trainer.contracts.models import Objective
from trainer.contracts.runs import RunRecord, has_unknown_text
from trainer.contracts.units import LOSS_DIGITS, PERPLEXITY_DIGITS, SHARE_DIGITS, bits_in_unit, in_unit
from trainer.lab.language import _, current_language, numeral, plural, told

GREY, BLURPLE, GREEN, RED, AMBER, PURPLE = 0x95A5A6, 0x5865F2, 0x57F287, 0xED4245, 0xFAA61A, 0x9B59B6
MAX_DESCRIPTION, _MAX_TITLE, MAX_FILE_BYTES = 4096, 256, 10 << 20  # Discord's limits
CODE_BLOCK_MARKS = 8
_MINUTE, _HOUR = 60, 3600
_ZERO_WIDTH_SPACE, _REPLACEMENT = "\u200b", "\ufffd"
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters of terminals, line separators and marks of text direction."""
_FENCE = re.compile("`(?=``)")
Per = Literal["token", "masked token", "char"]
_MENTION = re.compile("(?<=@)(?=everyone|here)|(?<=<)(?=[@#:/]|a:|id:)")
"""The position in a mention of people, channels, commands or emojis where a sign makes it plain text."""
_QUOTED = re.compile(r"(?<!\w)'.*'(?!\w)", re.DOTALL)
"""A quoted part of a message, such as a name that a user typed. The bot mentions admins outside of quotes."""


_PLAIN_WORD = re.compile(r"[^\W\d_]+(?=[\s,:;.)]|$)")


def make_embed(colour: int, title: str, lines: Sequence[str], footer: str | None = None) -> discord.Embed:
    """Return an embed whose title and description are cut to Discord's limits; their sum is below the total limit."""
    title, description = clamp(_encodable(title), _MAX_TITLE), clamp(_encodable("\n".join(lines)), MAX_DESCRIPTION)
    return discord.Embed(colour=colour, title=title, description=description).set_footer(text=footer)


def attach_picture(embed: discord.Embed, png: bytes | None, name: str, description: str) -> list[discord.File]:
    """Show a picture in an embed; return the file to send with it, new for each try, since a try reads it."""
    if png is None:
        return []
    embed.set_image(url=f"attachment://{name}")
    return [discord.File(BytesIO(png), name, description=description)]


def figure(nats: float | None, digits: int = LOSS_DIGITS, sign: str = "") -> str:
    """Return a loss or a surprisal in the reader's unit, without the unit's name; `sign` is of a format."""
    return numeral(in_unit(nats, current_unit()), f"{sign}z.{digits}f")


def figure_per_char(bits: float, sign: str = "") -> str:
    """Return bits per character in the reader's unit, without the unit's name; `sign` is of a format."""
    return numeral(bits_in_unit(bits, current_unit()), f"{sign}z.{LOSS_DIGITS}f")


def unit_per(what: Per) -> str:
    """Return the reader's unit per token, masked token or character: bits/token."""
    return _(f"{current_unit()}/{what}")


def unit_of(objective: Objective) -> str:
    """Return the reader's unit of a model's losses."""
    return unit_per("token" if objective == "causal_lm" else "masked token")


def with_unit(
    loss: str, objective: Objective, bits_per_char: float | None = None, unknown_char_share: float | None = None
) -> str:
    """Return a written loss with its unit, and with the loss per character if that is known."""
    of_char = "" if bits_per_char is None else f" · {per_char(bits_per_char, unknown_char_share)}"
    return f"{loss} {unit_of(objective)}{unknown_mark(unknown_char_share)}{of_char}"


def unknown_mark(unknown_char_share: float | None) -> str:
    """Return the mark of figures that are too low to compare because of unknown characters; nothing for others."""
    return " ⚠" if has_unknown_text(unknown_char_share) else ""


def per_char(bits: float, unknown_char_share: float | None, deviation: str = "") -> str:
    """Return bits per character in the reader's unit, with a deviation if given; with ⚠ if too low to compare."""
    return f"{figure_per_char(bits)}{deviation} {unit_per('char')}{unknown_mark(unknown_char_share)}"


def percent(share: float) -> str:
    return numeral(share, f".{SHARE_DIGITS}%")


def shown_perplexity(number: float, unknown_char_share: float | None = None) -> str:
    shown = numeral(number, f".{PERPLEXITY_DIGITS}f") + unknown_mark(unknown_char_share)
    return _("perplexity {perplexity}", perplexity=shown)


def unknown_warning(unknown_char_share: float | None) -> list[str]:
    """Warn about figures that are too low to compare, because of unknown characters."""
    if unknown_char_share is None or not has_unknown_text(unknown_char_share):
        return []
    return [
        _(
            "⚠ {share} of the characters are unknown to the tokenizer: figures with ⚠ or (!) are too low to compare.",
            share=percent(unknown_char_share),
        )
    ]


def said(message: str) -> str:
    """Return a message that the program words in English in the reader's language, as a sentence."""
    shown = told(message)
    if " " not in shown or _PLAIN_WORD.match(shown) is None:  # it begins with a name
        return shown
    first = "İ" if current_language() == "tr" and shown[0] == "i" else shown[0].upper()
    return f"{first}{shown[1:]}"


def shown_name(record: RunRecord) -> str:
    """Return a run's name for an embed."""
    return plain(display_name(record))


def display_name(record: RunRecord) -> str:
    return record.effective.label or record.run_id


def utf16_length(text: str) -> int:
    """Return the length in UTF-16 units, as Discord's clients count; never less than the number of characters."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _encodable(text: str) -> str:
    """Replace halves of surrogate pairs, which Discord refuses."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def clamp(text: str, limit: int) -> str:
    """Cut a text to at most `limit` UTF-16 units, with … at the cut."""
    if utf16_length(text) <= limit:
        return text
    cut = text.encode("utf-16-le", "surrogatepass")[: (limit - 1) * 2]
    return cut.decode("utf-16-le", "ignore").rstrip() + "…"


def clamp_start(text: str, limit: int) -> str:
    """Return the last `limit` UTF-16 units of a text, with … at the cut."""
    if utf16_length(text) <= limit:
        return text
    cut = text.encode("utf-16-le", "surrogatepass")[-(limit - 1) * 2 :]
    return "…" + cut.decode("utf-16-le", "ignore")


def code_block(text: str, limit: int) -> str:
    """Return a code block of at most `limit` UTF-16 units that its text cannot close."""
    safe = text.replace("`", f"`{_ZERO_WIDTH_SPACE}")
    return f"```\n{clamp(safe, limit - CODE_BLOCK_MARKS) or _ZERO_WIDTH_SPACE}\n```"


def plain(text: str) -> str:
    """Make markdown, mentions, links and text direction of a user's text inert, on one line."""
    # between two links, discord.py would escape nothing
    line = _CONTROLS.sub(_REPLACEMENT, text.replace("\n", " ")).replace("](", f"]{_ZERO_WIDTH_SPACE}(")
    inert = discord.utils.escape_markdown(line, ignore_links=False).replace("<", f"<{_ZERO_WIDTH_SPACE}")
    return isolated(inert.replace("@", f"@{_ZERO_WIDTH_SPACE}").replace("://", f":{_ZERO_WIDTH_SPACE}//"))


def isolated(text: str) -> str:
    """Isolate right-to-left text, so that it does not reorder the text around it."""
    is_right_to_left = any(unicodedata.bidirectional(char) in ("R", "AL", "AN") for char in text)
    return f"\N{FIRST STRONG ISOLATE}{text}\N{POP DIRECTIONAL ISOLATE}" if is_right_to_left else text


def without_links(message: str) -> str:
    """Disable links, code blocks and quoted mentions in a message of the bot that can quote a user."""
    inert = _CONTROLS.sub(_REPLACEMENT, message).replace("](", f"]{_ZERO_WIDTH_SPACE}(")
    inert = _QUOTED.sub(_without_mentions, inert)
    return _FENCE.sub(f"`{_ZERO_WIDTH_SPACE}", inert)


def _without_mentions(quoted: re.Match[str]) -> str:
    text: str = quoted[0]
    return _MENTION.sub(_ZERO_WIDTH_SPACE, text)


def relative_time(unix_seconds: float) -> str:
    """Return a time that each reader's client shows as 'in 5 minutes'."""
    return f"<t:{round(unix_seconds)}:R>"


def rough_time(seconds: float) -> str:
    """Return a time in its largest fitting unit, without decimals."""
    if seconds >= 2 * _HOUR:
        return _("{number} h", number=numeral(seconds / _HOUR, ".0f"))
    if seconds >= 2 * _MINUTE:
        return _("{number} min", number=numeral(seconds / _MINUTE, ".0f"))
    return _("{number} s", number=numeral(max(1.0, seconds), ".0f"))


def count(number: int, noun: str | None = None) -> str:
    """Return a number, or a number of things, in the reader's form; the catalogues have each noun."""
    return numeral(number) if noun is None else plural(f"{{count}} {noun}", f"{{count}} {noun}s", number)


def byte_size(size: int) -> str:
    if size < 1000:
        return count(size, "byte")
    if size < 1_000_000:
        return _("{number} kB", number=numeral(size / 1000, ".1f"))
    return _("{number} MB", number=numeral(size / 1_000_000, ".1f"))
