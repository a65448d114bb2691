"""Which run a command means, the one that is named or the newest that fits, and what is suggested while it is typed."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeAlias

import discord
from discord import app_commands

from bot.client import Bot
from bot.commands.responses import Call
from bot.discord_errors import CALL_ERRORS
from bot.embeds import clamp, isolated
from bot.permissions import Caller
from bot.run_index import RunEntry, matching
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import RunRecord

Fits: TypeAlias = Callable[[RunEntry], bool]
Suggest: TypeAlias = Callable[[discord.Interaction[Bot], str], Coroutine[None, None, list[app_commands.Choice[str]]]]

_CONTENT_HASH = re.compile("[0-9a-f]{64}")
_MOST_CHOICES, _CHOICE_CHARACTERS = 25, 100  # Discord's limits
_NOT_KNOWN: tuple[type[Exception], ...] = (AppError, *CALL_ERRORS)
"""Raised where somebody is a stranger, or Discord does not say whether."""


def _is_any(run: RunEntry) -> bool:
    return True


class Named(NamedTuple):
    """Something that can be given for an option, and what a person reads of it."""

    value: str
    name: str


class ChosenRun(NamedTuple):
    directory: RunDirectory
    record: RunRecord


async def named_run(call: Call, command: str, run_id: str) -> ChosenRun:
    """Find a run that the caller may give this command on; raises RUN_NOT_FOUND or FORBIDDEN."""
    directory = call.bot.queue.runs.get(run_id.strip())
    record = await asyncio.to_thread(directory.record)
    call.bot.permissions.check_run(command, call.caller, record)
    return ChosenRun(directory, record)


async def named_or_newest_run(
    call: Call, command: str, run_id: str | None, fits: Fits = _is_any, wanted: str = "run"
) -> ChosenRun:
    """Return the named run, else the caller's newest run that fits, else anybody's; `wanted` names it in an error.

    Raises RUN_NOT_FOUND or FORBIDDEN.
    """
    if run_id is None:
        await call.bot.index.refresh()
        run_id = _newest(call, command, fits, wanted)
    return await named_run(call, command, run_id)


async def completed_run(call: Call, command: str, run_id: str | None) -> ChosenRun:
    """Return the named run, else the caller's newest completed run, else anybody's."""
    return await named_or_newest_run(call, command, run_id, is_completed, "finished run")


async def generating_run(call: Call, command: str, run_id: str | None) -> ChosenRun:
    """Return the named run, else the caller's newest run that can generate text, else anybody's."""
    return await named_or_newest_run(call, command, run_id, can_generate, "finished run that can generate text")


def suggested_runs(command: str, fits: Fits = _is_any) -> Suggest:
    """Suggest the runs that the one who types may give a command on, own ones first."""

    def fitting(bot: "Bot", caller: Caller, typed: str) -> Iterator[Named]:
        runs = [run for run in bot.index.runs if fits(run) and bot.permissions.may_give(command, caller, run)]
        own = [run for run in runs if run.user_id == caller.user_id]
        others = [run for run in runs if run.user_id != caller.user_id]
        for run in matching(typed, own + others, run_names):
            yield Named(run.run_id, f"{isolated(run.name)} · {run.state}{_loss(run)} · {run.run_id}")

    return _suggested(fitting)


def text_name(call: Call, corpus: str) -> str:
    """Return the name of a corpus; an attached one has that of the first run that it was attached for."""
    for run in reversed(call.bot.index.runs):
        if run.has_attached_text and run.corpus == corpus and call.bot.permissions.may_see(call.caller, run):
            return f"{run.name} (attached)"
    return "an attached text" if _CONTENT_HASH.fullmatch(corpus) else corpus


def run_names(run: RunEntry) -> Sequence[str]:
    """What a run is found by."""
    return (run.name, run.run_id) if run.has_attached_text else (run.name, run.run_id, run.corpus)


def is_completed(run: RunEntry) -> bool:
    return run.state == "completed"


def can_generate(run: RunEntry) -> bool:
    return is_completed(run) and run.objective == "causal_lm"


def is_resumable(run: RunEntry) -> bool:
    return run.state in ("failed", "cancelled")


def is_unfinished(run: RunEntry) -> bool:
    return run.is_unfinished


def _fitting_corpora(bot: "Bot", caller: Caller, typed: str) -> Iterator[Named]:
    """The texts of the caller's own runs, then all that have names."""
    shown: dict[str, str] = {}
    for run in bot.index.runs:
        if run.user_id == caller.user_id:
            shown.setdefault(run.corpus, f"{run.name} (attached)" if run.has_attached_text else run.corpus)
    texts = [Named(value, name) for value, name in shown.items()]
    texts += [Named(name, name) for name in bot.index.corpora if name not in shown]
    yield from matching(typed, texts, lambda text: (text.name,))


def _fitting_tokenizers(bot: "Bot", caller: Caller, typed: str) -> Iterator[Named]:
    """All but those that only runs have made which the caller may not see."""
    hidden = {run.tokenizer_id for run in bot.index.runs if not bot.permissions.may_see(caller, run)}
    hidden -= {run.tokenizer_id for run in bot.index.runs if bot.permissions.may_see(caller, run)}
    tokenizers = [one for one in bot.index.tokenizers if one.tokenizer_id not in hidden]
    for one in matching(typed, tokenizers, lambda one: (one.label or one.tokenizer_id, one.tokenizer_id)):
        label = f"{one.label} · " if one.label else ""
        yield Named(one.tokenizer_id, f"{label}{one.tokenizer_id} · {one.vocab_size} tokens")


def _suggested(fitting: Callable[["Bot", Caller, str], Iterator[Named]]) -> Suggest:
    """Answer somebody who is typing from what is in memory; strangers get nothing."""

    async def suggest(interaction: discord.Interaction[Bot], typed: str) -> list[app_commands.Choice[str]]:
        bot = interaction.client
        try:
            caller = await bot.permissions.caller(interaction.user.id, interaction.guild_id)
        except _NOT_KNOWN:
            return []
        await bot.index.catch_up()
        fit = (one for one in fitting(bot, caller, typed) if len(one.value) <= _CHOICE_CHARACTERS)
        return [
            app_commands.Choice(name=clamp(one.name, _CHOICE_CHARACTERS), value=one.value)
            for one in islice(fit, _MOST_CHOICES)
        ]

    return suggest


suggested_corpora = _suggested(_fitting_corpora)
suggested_tokenizers = _suggested(_fitting_tokenizers)


def _loss(run: RunEntry) -> str:
    return "" if run.loss_nats is None else f" · loss {run.loss_nats:.3f}"


def _newest(call: Call, command: str, fits: Fits, wanted: str) -> str:
    runs = [
        run for run in call.bot.index.runs if fits(run) and call.bot.permissions.may_give(command, call.caller, run)
    ]
    if not runs:
        raise AppError(ErrorCode.RUN_NOT_FOUND, f"There is no {wanted} yet: start one with `/mt train`.")
    return next((run for run in runs if run.user_id == call.caller.user_id), runs[0]).run_id
