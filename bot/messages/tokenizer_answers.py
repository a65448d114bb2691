"""Answers to commands about tokenizers."""

from collections.abc import Sequence

import discord

from bot.messages.answers import STATE_SIGNS
from bot.messages.text import BLURPLE, GREEN, GREY, RED, clamp, count, make_embed, plain, relative_time, without_links
from trainer.contracts.tokenizer_jobs import TokenizerStatus
from trainer.people.language import _, numeral

_COLOURS = {"queued": GREY, "running": BLURPLE, "completed": GREEN, "failed": RED}
_MAX_CORPORA = 500


def tokenizers_page(tokenizers: Sequence[TokenizerStatus], *, total: int, page: str) -> discord.Embed:
    """Return a page of the list of tokenizers; `page` ends its title."""
    lines = [_line(tokenizer) for tokenizer in tokenizers]
    lines = lines or [_("No tokenizers yet. Train one with `/mt tokenizer train`.")]
    return make_embed(BLURPLE, f"🔤 {count(total, 'tokenizer')}{page}", lines)


def tokenizer_answer(status: TokenizerStatus, corpora: Sequence[str], notes: Sequence[str] = ()) -> discord.Embed:
    """Return the state of a tokenizer with its corpora, and in the end its fit to held-out lines."""
    names = ", ".join(plain(corpus) for corpus in corpora)
    lines = [f"{status.method} · {_('corpus') if len(corpora) == 1 else _('corpora')} {clamp(names, _MAX_CORPORA)}"]
    if status.stats is None:
        lines.append(without_links(status.message))
    else:
        stats = status.stats
        lines += [
            _("Vocabulary {tokens}", tokens=count(status.vocab_size or 0, "token")),
            _(
                "Known in {lines} of {tokens}: {share}, of distinct characters {characters}",
                lines=count(stats.holdout_lines, "held-out line"),
                tokens=count(stats.token_count, "token"),
                share=numeral(stats.coverage, ".2%"),
                characters=numeral(stats.char_coverage, ".2%"),
            ),
            _(
                "{per_char} tokens per character, {per_word} per word",
                per_char=numeral(stats.avg_tokens_per_char, ".3f"),
                per_word=numeral(stats.avg_tokens_per_word, ".3f"),
            ),
            _("Train with it: {command}", command=f"`/mt train tokenizer:{status.tokenizer_id}`"),
        ]
    name = plain(status.label or status.tokenizer_id)
    title = f"{STATE_SIGNS[status.status]} {_('Tokenizer {name}: {state}', name=name, state=_(status.status))}"
    return make_embed(_COLOURS[status.status], title, [*lines, *notes], status.tokenizer_id)


def _line(status: TokenizerStatus) -> str:
    label = "" if status.label is None else f"**{plain(status.label)}** · "
    size = _(status.status) if status.vocab_size is None else count(status.vocab_size, "token")
    created = relative_time(status.created_at.timestamp())
    return f"{STATE_SIGNS[status.status]} {label}`{status.tokenizer_id}` · {size} · {created}"
