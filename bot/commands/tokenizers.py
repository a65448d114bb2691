"""`/mt tokenizer train`, `list` and `show`: tokenizers that several runs can share."""

import asyncio
from collections.abc import Iterator, Sequence

import discord
from discord import app_commands

from bot.commands.pages import unfiltered_list
from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.run_options import (
    Suggestion,
    autocomplete,
    corpus_name,
    corpus_suggestions,
    suggested_trained_tokenizers,
)
from bot.commands.started_jobs import watched
from bot.messages.answers import STATE_SIGNS
from bot.messages.text import (
    BLURPLE,
    GREEN,
    GREY,
    RED,
    clamp,
    count,
    make_embed,
    percent,
    plain,
    relative_time,
    without_links,
)
from bot.session.client import Bot
from trainer.artifacts.tokenizers import TokenizerDirectory
from trainer.config.validation import parse
from trainer.contracts.tokenizer_jobs import TokenizerStatus, TokenizerTrainRequest
from trainer.contracts.tokenizers import TokenizerMethod
from trainer.lab import calls
from trainer.lab.language import _, numeral
from trainer.lab.waits import all_pages

tokenizer = app_commands.Group(name="tokenizer", description="Tokenizers.")
_COLOURS = {"queued": GREY, "running": BLURPLE, "completed": GREEN, "failed": RED}
_MAX_CORPORA = 500


def _last_corpus(context: CommandContext, typed: str) -> Iterator[Suggestion]:
    """Yield the typed corpora with the last one completed."""
    before, comma, last = typed.rpartition(",")
    given = [name.strip() for name in before.split(",")]
    for name, shown in corpus_suggestions(context, last):
        if name not in given:
            yield f"{before}{comma}{name}", f"{before}{comma}{shown}"


@tokenizer.command(name="train", description="Train a tokenizer that several runs can share.")
@app_commands.describe(
    corpora="Names of corpora, with commas; the vocabulary covers all of them",
    method="Tokenizer method; default: char",
    vocab_size="Largest vocabulary; default: by the text, char and word: all",
    name="Name of the tokenizer in lists",
)
@app_commands.autocomplete(corpora=autocomplete(_last_corpus))
async def train_tokenizer(
    interaction: discord.Interaction[Bot],
    corpora: str,
    method: TokenizerMethod = "char",
    vocab_size: app_commands.Range[int, 16, 200_000] | None = None,
    name: app_commands.Range[str, 1, 32] | None = None,
) -> None:
    names = [corpus.strip() for corpus in corpora.split(",") if corpus.strip()]
    fields: dict[str, object] = {"method": method, "corpora": names, "vocab_size": vocab_size, "label": name}
    await respond(interaction, "tokenizer train", lambda context: _train(context, fields))


async def _train(context: CommandContext, fields: dict[str, object]) -> Answer:
    request = parse(TokenizerTrainRequest, fields)
    accepted = await context.lab.call(calls.TRAIN_TOKENIZER, context.caller, body=request)
    tokenizer = context.lab.queue.tokenizers.get(accepted.tokenizer_id)
    answer = await _shown(context, tokenizer)
    return answer if accepted.status == "completed" else await watched(context, answer, tokenizer, "tokenizer show")


@tokenizer.command(name="list", description="List the tokenizers, newest first.")
async def list_tokenizers(interaction: discord.Interaction[Bot]) -> None:
    await respond(interaction, "tokenizer list", lambda context: _list(context, 0))


async def _list(context: CommandContext, number: int) -> Answer:
    found = await all_pages(lambda query: context.lab.call(calls.TOKENIZERS.list, context.caller, query=query))
    page = _LIST.page_of(found.tokenizers, number)
    return Answer(tokenizers_page(page.items, total=len(found.tokenizers), page=page.title), view=page.buttons)


@tokenizer.command(name="show", description="Show a tokenizer: vocabulary, corpora and fit to held-out text.")
@app_commands.describe(tokenizer="Id of the tokenizer")
@app_commands.autocomplete(tokenizer=suggested_trained_tokenizers)
async def show_tokenizer(interaction: discord.Interaction[Bot], tokenizer: str) -> None:
    await respond(interaction, "tokenizer show", lambda context: _show(context, tokenizer.strip()))


async def _show(context: CommandContext, given: str) -> Answer:
    tokenizer_id = await context.lab.full_id(context.caller, "tokenizer_id", given)
    return await _shown(context, await context.lab.tokenizer(context.caller, tokenizer_id))


async def _shown(context: CommandContext, tokenizer: TokenizerDirectory) -> Answer:
    status = await asyncio.to_thread(tokenizer.status)
    corpora = await asyncio.to_thread(_corpora_of, tokenizer, status)
    return Answer(tokenizer_answer(status, [corpus_name(context, corpus) for corpus in corpora]))


def _corpora_of(tokenizer: TokenizerDirectory, status: TokenizerStatus) -> list[str]:
    """Return the names of the corpora: of the request, or of a tokenizer that a run has trained."""
    if status.status == "completed":
        return [corpus.name for corpus in tokenizer.completed_manifest().corpus]
    return [corpus.name for corpus in tokenizer.record().corpora]


_LIST = unfiltered_list("tokenizers", "tokenizer list", _list)
BUTTONS, FORMS = _LIST.button_reactions, _LIST.form_reactions


def tokenizers_page(tokenizers: Sequence[TokenizerStatus], *, total: int, page: str) -> discord.Embed:
    """Return a page of the list of tokenizers; `page` ends its title."""
    lines = [_line(tokenizer) for tokenizer in tokenizers]
    lines = lines or [_("No tokenizers yet. Train one with `/mt tokenizer train`.")]
    return make_embed(BLURPLE, f"🔤 {count(total, 'tokenizer')}{page}", lines)


def tokenizer_answer(status: TokenizerStatus, corpora: Sequence[str]) -> discord.Embed:
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
                share=percent(stats.coverage),
                characters=percent(stats.char_coverage),
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
    return make_embed(_COLOURS[status.status], title, lines, status.tokenizer_id)


def _line(status: TokenizerStatus) -> str:
    label = "" if status.label is None else f"**{plain(status.label)}** · "
    size = _(status.status) if status.vocab_size is None else count(status.vocab_size, "token")
    created = relative_time(status.created_at.timestamp())
    return f"{STATE_SIGNS[status.status]} {label}`{status.tokenizer_id}` · {size} · {created}"
