"""Answers to commands about corpora; of a corpus's text, they show only single characters."""

import unicodedata
from collections.abc import Sequence

import discord

from bot.messages.text import BLURPLE, GREEN, byte_size, clamp, code_block, count, make_embed, plain
from trainer.data.corpus_overview import CorpusOverview, CorpusStatistics
from trainer.people.language import _, numeral, plural

_MAX_RUNS_CHARACTERS, _MAX_TABLE = 1000, 1500
_HIDDEN = ("C", "M", "Z")
"""Unicode categories of characters that are named by their code point alone: controls, marks, separators."""


def corpora_page(corpora: Sequence[CorpusOverview], *, total: int, page: str) -> discord.Embed:
    """Return a page of the list of corpora; `page` ends its title."""
    lines = [f"**{plain(corpus.name)}** · {_facts(corpus)}" for corpus in corpora]
    lines = lines or [_("No corpora yet. Add one with `/mt corpus add`.")]
    return make_embed(BLURPLE, f"📚 {plural('{count} corpus', '{count} corpora', total)}{page}", lines)


def corpus_answer(
    name: str, overview: CorpusOverview, statistics: CorpusStatistics, runs: Sequence[str]
) -> discord.Embed:
    """Return the statistics of a corpus and the names of the runs that were trained on it."""
    counted = overview._replace(lines=statistics.lines)
    names = clamp(", ".join(map(plain, runs)), _MAX_RUNS_CHARACTERS)
    lines = [
        _facts(counted),
        _(
            "{characters}, {number} distinct. The most frequent:",
            characters=count(statistics.characters, "character"),
            number=count(statistics.distinct),
        ),
        code_block("\n".join(_table(statistics)), _MAX_TABLE),
        plural("{count} run trained on it: {names}", "{count} runs trained on it: {names}", len(runs), names=names)
        if runs
        else _("No run was trained on it."),
    ]
    return make_embed(BLURPLE, f"📄 {_('Corpus {name}', name=plain(name))}", lines)


def added_answer(overview: CorpusOverview, *, is_new: bool) -> discord.Embed:
    name = plain(overview.name)
    title = f"✅ {_('Added: corpus {name}', name=name)}"
    if not is_new:
        title = f"📄 {_('Already there: corpus {name}', name=name)}"
    lines = [_facts(overview), _("Train on it: {command}", command=f"`/mt train corpus:{overview.name}`")]
    return make_embed(GREEN, title, lines)


def _facts(corpus: CorpusOverview) -> str:
    lines = [] if corpus.lines is None else [count(corpus.lines, "line")]
    languages = [plain(", ".join(corpus.languages))] if corpus.languages else []
    spelling = [] if corpus.is_ipa is None else [_("IPA") if corpus.is_ipa else _("usual spelling")]
    return " · ".join([byte_size(corpus.bytes), *lines, *languages, *spelling])


def _table(statistics: CorpusStatistics) -> list[str]:
    rows = [
        (_shown(char), f"U+{ord(char):04X}", numeral(number), numeral(number / statistics.characters, ".2%"))
        for char, number in statistics.most_frequent
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (2, 3)]
    return [f"{char} {code:<8} {number:>{widths[0]}} {share:>{widths[1]}}" for char, code, number, share in rows]


def _shown(char: str) -> str:
    """Return a character for a table, or a space for one that is not visible by itself."""
    return " " if unicodedata.category(char)[0] in _HIDDEN else char
