"""`/mt corpus list`, `show` and `add`: corpora by name."""

import asyncio
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import discord
from discord import app_commands

from bot.commands.corpus_build import build_corpora
from bot.commands.pages import unfiltered_list
from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.run_options import corpus_name, suggested_corpora
from bot.commands.training import download_to
from bot.messages.text import BLURPLE, GREEN, byte_size, clamp, code_block, count, make_embed, percent, plain
from bot.session.client import Bot
from trainer.config.validation import parse
from trainer.contracts.base import Frozen, changed
from trainer.contracts.corpora import CorpusOverview
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import LanguageCode
from trainer.data.corpus_overview import CorpusStatistics, corpus_overview, corpus_overviews, corpus_statistics
from trainer.data.tables import PlainText, as_text
from trainer.data.text import clean_corpus_name
from trainer.lab.language import _, numeral, plural

corpus = app_commands.Group(name="corpus", description="Corpora.")
_MOST_FREQUENT = 10
_HASH = re.compile("[0-9a-f]{64}")

_MAX_RUNS_CHARACTERS, _MAX_TABLE = 1000, 1500
_HIDDEN = ("C", "M", "Z")
"""Unicode categories of characters that are named by their code point alone: controls, marks, separators."""


class AddOptions(Frozen):
    """Options of `/mt corpus add` besides file and name."""

    language: LanguageCode | None = None
    ipa: bool | None = None


@corpus.command(name="list", description="List the corpora.")
async def list_corpora(interaction: discord.Interaction[Bot]) -> None:
    await respond(interaction, "corpus list", lambda context: _list(context, 0))


async def _list(context: CommandContext, number: int) -> Answer:
    corpora = context.lab.queue.corpora
    names = await asyncio.to_thread(corpora.names)
    page = _LIST.page_of(names, number)
    shown = await asyncio.to_thread(corpus_overviews, corpora, page.items)
    return Answer(corpora_page(shown, total=len(names), page=page.title), view=page.buttons)


@corpus.command(name="show", description="Show a corpus: size, characters, and the runs trained on it.")
@app_commands.describe(corpus="Name of the corpus")
@app_commands.autocomplete(corpus=suggested_corpora)
async def show_corpus(interaction: discord.Interaction[Bot], corpus: str) -> None:
    await respond(interaction, "corpus show", lambda context: _show(context, corpus.strip()))


async def _show(context: CommandContext, name: str) -> Answer:
    lab, corpora = context.lab, context.lab.queue.corpora
    await lab.index.refresh()
    name = await asyncio.to_thread(corpora.full_name, name)
    runs = [run for run in lab.seen_runs(context.caller) if run.corpus == name]
    if _HASH.fullmatch(name) and not runs:
        raise AppError(ErrorCode.DATA_NOT_FOUND, _("You have no run on an attached text with this hash."))
    overview = await asyncio.to_thread(corpus_overview, corpora, name)
    statistics = await asyncio.to_thread(corpus_statistics, corpora.find(name), _MOST_FREQUENT)
    return Answer(corpus_answer(corpus_name(context, name), overview, statistics, [run.name for run in runs]))


@corpus.command(name="add", description="Add a text as a corpus that everybody here can train on.")
@app_commands.describe(
    file="Text: .txt with a sentence per line, or .jsonl, .csv or .tsv with a field `text`",
    name="Name of the corpus",
    language="Code of the language, as kk",
    ipa="True for text in IPA, False for text in its usual spelling",
)
async def add_corpus(
    interaction: discord.Interaction[Bot],
    file: discord.Attachment,
    name: app_commands.Range[str, 1, 100],
    language: str | None = None,
    ipa: bool | None = None,
) -> None:
    values: dict[str, object] = {"language": language, "ipa": ipa}
    await respond(interaction, "corpus add", lambda context: _add(context, file, name, parse(AddOptions, values)))


async def _add(context: CommandContext, file: discord.Attachment, name: str, options: AddOptions) -> Answer:
    corpora, clean = context.lab.queue.corpora, clean_name(name)
    with TemporaryDirectory() as folder, TemporaryDirectory() as plain:
        attached = await download_to(context, file, "file", folder)
        text: PlainText = await asyncio.to_thread(as_text, attached, Path(plain))
        is_new = await asyncio.to_thread(corpora.add, clean, text.path, language=options.language, is_ipa=options.ipa)
    overview: CorpusOverview = await asyncio.to_thread(corpus_overview, corpora, clean)
    return Answer(added_answer(changed(overview, notes=(*overview.notes, *text.notes)), is_new=is_new))


def clean_name(name: str) -> str:
    """Reduce a name to letters, digits, _, - and .; raises INVALID_INPUT if nothing is left."""
    clean = clean_corpus_name(name)
    if clean is None:
        raise AppError(ErrorCode.INVALID_INPUT, _("`name` must have a letter or a digit."))
    return clean


corpus.add_command(build_corpora)
_LIST = unfiltered_list("corpora", "corpus list", _list)
BUTTONS, FORMS = _LIST.button_reactions, _LIST.form_reactions


def corpora_page(corpora: Sequence[CorpusOverview], *, total: int, page: str) -> discord.Embed:
    """Return a page of the list of corpora; `page` ends its title."""
    lines = [f"**{plain(corpus.name)}** · {_facts(corpus)}" for corpus in corpora]
    lines = lines or [_("No corpora yet. Add one with `/mt corpus add`.")]
    return make_embed(BLURPLE, f"📚 {plural('{count} corpus', '{count} corpora', total)}{page}", lines)


def corpus_answer(
    name: str, overview: CorpusOverview, statistics: CorpusStatistics, runs: Sequence[str]
) -> discord.Embed:
    """Return the statistics of a corpus and the names of the runs that were trained on it."""
    counted = changed(overview, lines=statistics.lines)
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
    lines = [
        _facts(overview),
        *map(plain, overview.notes),
        _("Train on it: {command}", command=f"`/mt train corpus:{overview.name}`"),
    ]
    return make_embed(GREEN, title, lines)


def _facts(corpus: CorpusOverview) -> str:
    lines = [] if corpus.lines is None else [count(corpus.lines, "line")]
    languages = [plain(", ".join(corpus.languages))] if corpus.languages else []
    spelling = [] if corpus.is_ipa is None else [_("IPA") if corpus.is_ipa else _("usual spelling")]
    return " · ".join([byte_size(corpus.bytes), *lines, *languages, *spelling])


def _table(statistics: CorpusStatistics) -> list[str]:
    rows = [
        (_shown(char), f"U+{ord(char):04X}", numeral(number), percent(number / statistics.characters))
        for char, number in statistics.most_frequent
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (2, 3)]
    return [f"{char} {code:<8} {number:>{widths[0]}} {share:>{widths[1]}}" for char, code, number, share in rows]


def _shown(char: str) -> str:
    """Return a character for a table, or a space for one that is not visible by itself."""
    return " " if unicodedata.category(char)[0] in _HIDDEN else char
