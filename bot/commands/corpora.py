"""`/mt corpus list`, `show` and `add`: corpora by name."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import discord
from discord import app_commands

from bot.commands.pages import unfiltered_list
from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.run_options import corpus_name, suggested_corpora
from bot.messages.report_card import report_lines
from bot.messages.text import BLURPLE, GREEN, GREY, byte_size, count, make_embed, plain, said
from bot.rest.attachments import download_to
from bot.session.client import Bot
from trainer.config.validation import parse
from trainer.contracts.base import Frozen, changed
from trainer.contracts.corpora import CorpusOverview
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import LanguageCode
from trainer.contracts.parameters import CorpusPath
from trainer.contracts.reports import Report
from trainer.data.corpus_overview import corpus_overview, corpus_overviews
from trainer.data.tables import PlainText, as_text
from trainer.data.text import clean_corpus_name
from trainer.lab.calls import DELETE_CORPUS, REPORT_CORPUS
from trainer.lab.language import _, plural

corpus = app_commands.Group(name="corpus", description="Corpora.")


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
    path = parse(CorpusPath, {"corpus": await asyncio.to_thread(context.lab.stores.corpora.full_name, name)})
    report = await context.lab.call(REPORT_CORPUS, context.caller, path)
    return Answer(corpus_answer(corpus_name(context, path.corpus), report))


@corpus.command(name="delete", description="Delete a corpus that no run or job needs.")
@app_commands.describe(corpus="Name of the corpus")
@app_commands.autocomplete(corpus=suggested_corpora)
async def delete_corpus(interaction: discord.Interaction[Bot], corpus: str) -> None:
    await respond(interaction, "corpus delete", lambda context: _delete(context, corpus.strip()))


async def _delete(context: CommandContext, name: str) -> Answer:
    await context.lab.call(DELETE_CORPUS, context.caller, parse(CorpusPath, {"corpus": name}))
    await context.lab.index.refresh()
    return Answer(make_embed(GREY, f"🗑 {_('Deleted: {name}', name=plain(name))}", []))


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
        attached = await download_to(file, context.bot.settings, "file", folder)
        text: PlainText = await asyncio.to_thread(as_text, attached, Path(plain))
        is_new = await asyncio.to_thread(
            corpora.add,
            clean,
            text.path,
            language=options.language,
            is_ipa=options.ipa,
            owner=context.caller.owner,
        )
    overview: CorpusOverview = await asyncio.to_thread(corpus_overview, corpora, clean)
    return Answer(added_answer(changed(overview, notes=(*overview.notes, *text.notes)), is_new=is_new))


def clean_name(name: str) -> str:
    """Reduce a name to letters, digits, _, - and .; raises INVALID_INPUT if nothing is left."""
    clean = clean_corpus_name(name)
    if clean is None:
        raise AppError(ErrorCode.INVALID_INPUT, _("`name` must have a letter or a digit."))
    return clean


_LIST = unfiltered_list("corpora", "corpus list", _list)
BUTTONS, FORMS = _LIST.button_reactions, _LIST.form_reactions


def corpora_page(corpora: Sequence[CorpusOverview], *, total: int, page: str) -> discord.Embed:
    """Return a page of the list of corpora; `page` ends its title."""
    lines = [f"**{plain(corpus.name)}** · {_facts(corpus)}" for corpus in corpora]
    lines = lines or [_("No corpora yet. Add one with `/mt corpus add`.")]
    return make_embed(BLURPLE, f"📚 {plural('{count} corpus', '{count} corpora', total)}{page}", lines)


def corpus_answer(name: str, report: Report) -> discord.Embed:
    """Return the report of a corpus under its shown name."""
    return make_embed(BLURPLE, f"📄 {_('Corpus {name}', name=plain(name))}", [*report_lines(report)])


def added_answer(overview: CorpusOverview, *, is_new: bool) -> discord.Embed:
    name = plain(overview.name)
    title = f"✅ {_('Added: corpus {name}', name=name)}"
    if not is_new:
        title = f"📄 {_('Already there: corpus {name}', name=name)}"
    lines = [
        _facts(overview),
        *(plain(said(note)) for note in overview.notes),
        _("Train on it: {command}", command=f"`/mt train corpus:{overview.name}`"),
    ]
    return make_embed(GREEN, title, lines)


def _facts(corpus: CorpusOverview) -> str:
    lines = [] if corpus.lines is None else [count(corpus.lines, "line")]
    languages = [plain(", ".join(corpus.languages))] if corpus.languages else []
    spelling = [] if corpus.is_ipa is None else [_("IPA") if corpus.is_ipa else _("usual spelling")]
    return " · ".join([byte_size(corpus.bytes), *lines, *languages, *spelling])
