"""The `run` option of commands: the named run, the default, and suggestions while a person types."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeAlias

import discord
from discord import app_commands

from bot.client import Bot
from bot.commands.responses import CommandContext
from bot.discord_errors import CALL_ERRORS
from bot.embeds.text import clamp, isolated
from bot.permissions import Caller
from bot.run_index import RunEntry, matching
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import RunRecord
from trainer.contracts.tokenizers import METHODS

RunFilter: TypeAlias = Callable[[RunEntry], bool]
Suggest: TypeAlias = Callable[[discord.Interaction[Bot], str], Coroutine[None, None, list[app_commands.Choice[str]]]]

_CONTENT_HASH = re.compile("[0-9a-f]{64}")
_MAX_CHOICES, _MAX_CHOICE_CHARACTERS = 25, 100  # Discord's limits
_PERMISSION_ERRORS: tuple[type[Exception], ...] = (AppError, *CALL_ERRORS)
"""Raised for a stranger, or if Discord does not respond."""


class Suggestion(NamedTuple):
    """An option's value and the text that is shown for it."""

    value: str
    name: str


class Run(NamedTuple):
    directory: RunDirectory
    record: RunRecord


def is_completed(run: RunEntry) -> bool:
    return run.state == "completed"


def can_generate(run: RunEntry) -> bool:
    return is_completed(run) and run.objective == "causal_lm"


def is_resumable(run: RunEntry) -> bool:
    return run.state in ("failed", "cancelled")


def is_unfinished(run: RunEntry) -> bool:
    return run.is_unfinished


def _is_any(run: RunEntry) -> bool:
    return True


async def named_run(context: CommandContext, command: str, run_id: str) -> Run:
    """Find a run for a command; raises RUN_NOT_FOUND or FORBIDDEN."""
    directory = context.bot.queue.runs.get(run_id.strip())
    record = await asyncio.to_thread(directory.record)
    context.bot.permissions.check_run(command, context.caller, record)
    return Run(directory, record)


async def named_or_newest_run(
    context: CommandContext, command: str, run_id: str | None, fits: RunFilter = _is_any, noun: str = "run"
) -> Run:
    """Find the named run, or the caller's newest run that fits, or else anybody's; `noun` is for the error.

    Raises RUN_NOT_FOUND or FORBIDDEN.
    """
    if run_id is None:
        index, permissions, caller = context.bot.index, context.bot.permissions, context.caller
        await index.refresh()
        runs = [run for run in index.runs if fits(run) and permissions.can_run(command, caller, run)]
        if not runs:
            raise AppError(ErrorCode.RUN_NOT_FOUND, f"There is no {noun} yet. Start one with `/mt train`.")
        run_id = next((run for run in runs if run.user_id == caller.user_id), runs[0]).run_id
    return await named_run(context, command, run_id)


async def completed_run(context: CommandContext, command: str, run_id: str | None) -> Run:
    """Find the named run, or the caller's newest completed run, or else anybody's."""
    return await named_or_newest_run(context, command, run_id, is_completed, "completed run")


async def generating_run(context: CommandContext, command: str, run_id: str | None) -> Run:
    """Find the named run, or the caller's newest run that can generate text, or else anybody's."""
    return await named_or_newest_run(context, command, run_id, can_generate, "completed run that can generate text")


def corpus_name(context: CommandContext, corpus: str) -> str:
    """Return the shown name of a corpus; an attached text is named after the first run that was trained on it."""
    for run in reversed(context.bot.index.runs):
        if run.has_attached_text and run.corpus == corpus and context.bot.permissions.may_see(context.caller, run):
            return f"{run.name} (attached)"
    return "attached text" if _CONTENT_HASH.fullmatch(corpus) else corpus


def run_names(run: RunEntry) -> Sequence[str]:
    """Return the names by which a run is found."""
    return (run.name, run.run_id) if run.has_attached_text else (run.name, run.run_id, run.corpus)


def suggested_runs(command: str, fits: RunFilter = _is_any) -> Suggest:
    """Suggest runs on which the caller may run a command, own runs first."""

    def suggestions(bot: Bot, caller: Caller, typed: str) -> Iterator[Suggestion]:
        runs = [run for run in bot.index.runs if fits(run) and bot.permissions.can_run(command, caller, run)]
        own = [run for run in runs if run.user_id == caller.user_id]
        others = [run for run in runs if run.user_id != caller.user_id]
        for run in matching(typed, own + others, run_names):
            loss = "" if run.loss_nats is None else f" · loss {run.loss_nats:.3f}"
            yield Suggestion(run.run_id, f"{isolated(run.name)} · {run.state}{loss} · {run.run_id}")

    return _autocomplete(suggestions)


def _corpora(bot: Bot, caller: Caller, typed: str) -> Iterator[Suggestion]:
    """Yield the corpora of the caller's own runs, then all named ones."""
    names: dict[str, str] = {}
    for run in bot.index.runs:
        if run.user_id == caller.user_id:
            names.setdefault(run.corpus, f"{run.name} (attached)" if run.has_attached_text else run.corpus)
    names |= {name: name for name in bot.index.corpora if name not in names}
    yield from matching(typed, [Suggestion(*pair) for pair in names.items()], lambda corpus: (corpus.name,))


def _tokenizers(bot: Bot, caller: Caller, typed: str) -> Iterator[Suggestion]:
    """Yield methods, then trained tokenizers without those that only private runs of other people use."""
    for method in matching(typed, METHODS, lambda method: (method,)):
        yield Suggestion(method, method)
    hidden = {run.tokenizer_id for run in bot.index.runs if not bot.permissions.may_see(caller, run)}
    hidden -= {run.tokenizer_id for run in bot.index.runs if bot.permissions.may_see(caller, run)}
    tokenizers = [one for one in bot.index.tokenizers if one.tokenizer_id not in hidden]
    for one in matching(typed, tokenizers, lambda one: (one.label or one.tokenizer_id, one.tokenizer_id)):
        label = f"{one.label} · " if one.label else ""
        yield Suggestion(one.tokenizer_id, f"{label}{one.tokenizer_id} · {one.vocab_size} tokens")


def _autocomplete(suggestions: Callable[[Bot, Caller, str], Iterator[Suggestion]]) -> Suggest:
    """Answer a person who types from memory; strangers get no suggestions."""

    async def suggest(interaction: discord.Interaction[Bot], typed: str) -> list[app_commands.Choice[str]]:
        bot = interaction.client
        try:
            caller = await bot.permissions.caller(interaction.user.id, interaction.guild_id)
        except _PERMISSION_ERRORS:
            return []
        await bot.index.catch_up()
        short = (one for one in suggestions(bot, caller, typed) if len(one.value) <= _MAX_CHOICE_CHARACTERS)
        return [
            app_commands.Choice(name=clamp(one.name, _MAX_CHOICE_CHARACTERS), value=one.value)
            for one in islice(short, _MAX_CHOICES)
        ]

    return suggest


suggested_corpora = _autocomplete(_corpora)
suggested_tokenizers = _autocomplete(_tokenizers)
