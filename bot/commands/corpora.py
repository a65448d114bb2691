"""`/mt corpus list`, `show` and `add`: corpora by name."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import discord
from discord import app_commands

from bot.commands.corpus_build import build_corpora
from bot.commands.pages import unfiltered_list
from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.run_options import corpus_name, suggested_corpora
from bot.commands.training import clean_label, download_to
from bot.messages.corpus_answers import added_answer, corpora_page, corpus_answer
from bot.session.client import Bot
from trainer.config.validation import parse
from trainer.contracts.base import Frozen
from trainer.contracts.corpora import CorpusNote
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import LanguageCode
from trainer.data.corpora import CorpusStore
from trainer.data.corpus_overview import CorpusOverview, corpus_overview, corpus_statistics
from trainer.data.tables import as_text
from trainer.data.text import count_lines
from trainer.people.language import _

_MOST_FREQUENT = 10
_MAX_NAME = 48
"""Shorter than the hash by which an attached text is stored; in UTF-8 not longer than file systems allow."""
_HASH = re.compile("[0-9a-f]{64}")


class AddOptions(Frozen):
    """Options of `/mt corpus add` besides file and name."""

    language: LanguageCode | None = None
    ipa: bool | None = None


@app_commands.command(name="list", description="List the corpora.")
async def list_corpora(interaction: discord.Interaction[Bot]) -> None:
    await respond(interaction, "corpus list", lambda context: _list(context, 0))


async def _list(context: CommandContext, number: int) -> Answer:
    corpora = context.bot.queue.corpora
    names = await asyncio.to_thread(corpora.names)
    page = _LIST.page_of(names, number)
    shown = await asyncio.to_thread(lambda: [*_overviews(corpora, page.items)])
    return Answer(corpora_page(shown, total=len(names), page=page.title), view=page.buttons)


def _overviews(corpora: CorpusStore, names: Sequence[str]) -> Iterator[CorpusOverview]:
    for name in names:
        try:
            yield corpus_overview(corpora, name)
        except AppError:  # deleted a moment ago
            continue


@app_commands.command(name="show", description="Show a corpus: size, characters, and the runs trained on it.")
@app_commands.describe(corpus="Name of the corpus")
@app_commands.autocomplete(corpus=suggested_corpora)
async def show_corpus(interaction: discord.Interaction[Bot], corpus: str) -> None:
    await respond(interaction, "corpus show", lambda context: _show(context, corpus.strip()))


async def _show(context: CommandContext, name: str) -> Answer:
    bot, caller = context
    await bot.index.refresh()
    runs = [run for run in bot.index.runs if run.corpus == name and bot.permissions.may_see(caller, run)]
    corpora = bot.queue.corpora
    if _HASH.fullmatch(name) and not runs:
        raise AppError(ErrorCode.DATA_NOT_FOUND, _("You have no run on an attached text with this hash."))
    overview = await asyncio.to_thread(corpus_overview, corpora, name)
    statistics = await asyncio.to_thread(corpus_statistics, corpora.find(name), _MOST_FREQUENT)
    return Answer(corpus_answer(corpus_name(context, name), overview, statistics, [run.name for run in runs]))


@app_commands.command(name="add", description="Add a text as a corpus that everybody here can train on.")
@app_commands.describe(
    file="Text: .txt with a sentence per line, or .jsonl or .tsv with a field `text`",
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
    bot, clean = context.bot, clean_name(name)
    with TemporaryDirectory() as folder, TemporaryDirectory() as plain:
        path = await asyncio.to_thread(as_text, await download_to(context, file, "file", folder), Path(plain))
        is_new = await asyncio.to_thread(_store, bot.queue.corpora, clean, path, options)
    return Answer(added_answer(await asyncio.to_thread(corpus_overview, bot.queue.corpora, clean), is_new=is_new))


def _store(corpora: CorpusStore, name: str, path: Path, options: AddOptions) -> bool:
    size, lines = path.stat().st_size, count_lines(path)
    return corpora.add(name, path, CorpusNote(language=options.language, is_ipa=options.ipa, lines=lines, bytes=size))


def clean_name(name: str) -> str:
    """Reduce a name to letters, digits, _, - and .; raises INVALID_INPUT if nothing is left."""
    clean = (clean_label(name.removesuffix(".txt")) or "").replace(" ", "_")[:_MAX_NAME].strip("-_.")
    if not clean:
        raise AppError(ErrorCode.INVALID_INPUT, _("`name` must have a letter or a digit."))
    return clean


_LIST = unfiltered_list("corpora", "corpus list", _list)
CORPUS_BUTTONS, CORPUS_FORMS = _LIST.button_reactions, _LIST.form_reactions


def corpus_group(parent: app_commands.Group) -> app_commands.Group:
    """Return `/mt corpus` with its commands."""
    group = app_commands.Group(name="corpus", description="Corpora.", parent=parent)
    group.add_command(list_corpora)
    group.add_command(show_corpus)
    group.add_command(add_corpus)
    group.add_command(build_corpora)
    return group
