"""The card of a tokenizer training."""

import discord

from bot.messages.text import BLURPLE, GREEN, GREY, RED, clamp, count, make_embed, plain, without_links
from trainer.contracts.tokenizer_jobs import TokenizerStatus
from trainer.contracts.tokenizers import TokenizerStats
from trainer.people.language import _, numeral

_MAX_ERROR = 1500


def tokenizer_card(status: TokenizerStatus) -> discord.Embed:
    """Return the card of a tokenizer in its current state."""
    name, footer = plain(status.label or status.tokenizer_id), status.tokenizer_id
    match status.status:
        case "queued":
            return make_embed(
                GREY, f"⏳ {_('Queued: tokenizer {name}', name=name)}", [status.method, status.message], footer
            )
        case "running":
            return make_embed(
                BLURPLE, f"🔤 {_('Training: tokenizer {name}', name=name)}", [status.method, status.message], footer
            )
        case "failed":
            code = "" if status.error is None else f"`{status.error.code}` "
            lines = [f"{code}{without_links(clamp(status.message, _MAX_ERROR))}"]
            return make_embed(RED, f"❌ {_('Failed: tokenizer {name}', name=name)}", lines, footer)
        case _:
            return make_embed(GREEN, f"✅ {_('Completed: tokenizer {name}', name=name)}", _result(status), footer)


def _result(status: TokenizerStatus) -> list[str]:
    lines = [f"{status.method} · {count(status.vocab_size or 0, 'token')}"]
    lines += [] if status.stats is None else [_fit(status.stats)]
    return [*lines, _("Next: {commands}", commands=f"`/mt train tokenizer:{status.tokenizer_id}`")]


def _fit(stats: TokenizerStats) -> str:
    return _(
        "Held-out text: {share} unknown characters · {per_char} tokens/character · {per_word} tokens/word",
        share=numeral(stats.unknown_char_share or 0.0, ".2%"),
        per_char=numeral(stats.avg_tokens_per_char, ".3f"),
        per_word=numeral(stats.avg_tokens_per_word, ".2f"),
    )
