"""The `run` option of commands: the named run, the default, and suggestions while a person types."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeAlias

import discord
from discord import app_commands

from bot.commands.responses import CommandContext, speak_to
from bot.messages.text import clamp, count, display_name, figure, isolated, per_char, plain, unit_of, unknown_mark
from bot.rest.errors import CALL_ERRORS
from bot.session.client import Bot
from trainer.artifacts.checkpoints import kept_steps, named_model
from trainer.artifacts.run_ids import LAST, without_model
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import model_name, now
from trainer.contracts.cost import rough_duration
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.models import PRESETS
from trainer.contracts.operations import CHAT_COMMANDS
from trainer.contracts.runs import RunRecord
from trainer.contracts.tokenizers import METHODS
from trainer.data.corpora import CONTENT_NAME
from trainer.lab.language import _, told
from trainer.queue.run_index import RunEntry, matching

Suggestion: TypeAlias = tuple[str, str]
"""An option's value, and the text that is shown for it."""
Suggestions: TypeAlias = Callable[[CommandContext, str], Iterator[Suggestion]]
Suggest: TypeAlias = Callable[[discord.Interaction[Bot], str], Coroutine[None, None, list[app_commands.Choice[str]]]]

MAX_CHOICES, MAX_CHOICE_CHARACTERS = 25, 100  # Discord's limits
_SUGGEST_SECONDS = 2.0
"""Limit for suggestions, some of which are read from the disk: a late answer is refused, so none is better."""
_PERMISSION_ERRORS: tuple[type[Exception], ...] = (AppError, *CALL_ERRORS)
"""Raised for a stranger, or if Discord does not respond."""


class Run(NamedTuple):
    directory: RunDirectory
    record: RunRecord
    model: str
    """The name of the model: the id of the run, or `RUN@1200` for a checkpoint."""

    @property
    def is_checkpoint(self) -> bool:
        return self.model != self.record.run_id

    def has_ended(self) -> bool:
        return self.directory.manifest() is not None


async def find_run(context: CommandContext, command: str, run_id: str | None) -> Run:
    """Find the named run, or the caller's newest run for which the command is meant, or else anybody's.

    Commands that use a model find a checkpoint too: `RUN@1200`. Raises the errors of `one_run_id`, FORBIDDEN if
    the caller may not run the command on this run, and DATA_NOT_FOUND for a checkpoint that was not kept.
    """
    operation = CHAT_COMMANDS[command]
    if run_id is None:
        await context.lab.index.refresh()
        runs = fitting_runs(context, command)
        default = context.bot.user_settings.of(context.caller.user_id).default_run
        if operation.takes_default:
            runs = [run for run in runs if run.run_id == default] or runs
        if not runs:
            needed = None if operation.chat is None else operation.chat.noun
            noun = needed or "run"
            unfinished = fitting_runs(context, "cancel") if needed else []
            if unfinished:
                message = _(
                    "There is no {kind} yet. {name} is not completed: `/mt status` shows its progress.",
                    kind=_(noun),
                    name=plain(unfinished[0].name),
                )
                raise AppError(ErrorCode.RUN_NOT_FOUND, message)
            raise AppError(
                ErrorCode.RUN_NOT_FOUND, _("There is no {kind} yet. Start one with `/mt train`.", kind=_(noun))
            )
        run_id = runs[0].run_id
    name = await context.lab.run_name(context.caller, run_id.strip(), or_checkpoint=operation.takes_model)
    directory = await context.lab.run(context.caller, name, operation.role)
    record = await asyncio.to_thread(directory.record)
    if name != record.run_id:
        name = (await asyncio.to_thread(named_model, context.lab.queue.runs, name)).name
    return Run(directory, record, name)


class FormRun(NamedTuple):
    """The run that a form is about."""

    run_id: str
    model: str
    """The name of the model: the id of the run, or `RUN@1200` for a checkpoint."""
    name: str
    """Its label, or else its id."""


async def run_for_form(context: CommandContext, command: str, run_id: str | None) -> FormRun:
    """Return a run from memory, as a form is a first answer; one that is not there is found as `find_run` does.

    The command itself reads the run from the disk when the form is sent. Raises the errors of `find_run`, and
    RUN_NOT_READY for a run that has not completed where the command needs that.
    """
    await context.lab.index.catch_up()
    runs = fitting_runs(context, command)
    operation, default = CHAT_COMMANDS[command], context.bot.user_settings.of(context.caller.user_id).default_run
    if run_id is not None:
        runs = [run for run in runs if run.run_id == run_id.strip()]
    elif operation.takes_default:
        runs = [run for run in runs if run.run_id == default] or runs
    if runs:
        return FormRun(runs[0].run_id, runs[0].run_id, runs[0].name)
    run = await find_run(context, command, run_id)
    if operation.states == ("completed",) and not run.is_checkpoint:
        await asyncio.to_thread(run.directory.completed_manifest)
    return FormRun(run.record.run_id, run.model, display_name(run.record))


def fitting_runs(context: CommandContext, command: str) -> list[RunEntry]:
    """Return the runs for which a command is meant and on which the caller may run it.

    Own ones come first, and last the parts of experiments and studies; each newest first.
    """
    operation, lab, caller = CHAT_COMMANDS[command], context.lab, context.caller
    runs = [
        run
        for run in lab.index.runs
        if (not operation.states or run.state in operation.states)
        and (not operation.generates or run.objective == "causal_lm")
        and lab.permissions.permits(operation.role, caller, run)
    ]

    def order(run: RunEntry) -> tuple[bool, bool]:
        return run.is_part, run.user_id != caller.user_id

    return sorted(runs, key=order)


def corpus_name(context: CommandContext, corpus: str) -> str:
    """Return the shown name of a corpus; an attached text is named after the first run that was trained on it."""
    for run in reversed(context.lab.seen_runs(context.caller)):
        if run.has_attached_text and run.corpus == corpus:
            return _("{name} (attached)", name=without_model(run.name, run.family))
    return _("attached text") if CONTENT_NAME.fullmatch(corpus) else corpus


def described(run: RunEntry) -> str:
    """Return a run's state, age and loss per character, or per token where it has none: a list shows plain text."""
    mark = unknown_mark(run.unknown_char_share)
    loss = "" if run.loss_nats is None else f" · {figure(run.loss_nats)} {unit_of(run.objective)}{mark}"
    if run.bits_per_char is not None:
        loss = f" · {per_char(run.bits_per_char, run.unknown_char_share)}"
    age = _("{time} ago", time=told(rough_duration((now() - run.created_at).total_seconds())))
    return f"{_(run.state)} · {age}{loss}"


def _scorers(context: CommandContext, typed: str) -> Iterator[Suggestion]:
    for run in matching(typed.strip(), fitting_runs(context, "score"), lambda run: run.names):
        yield run.run_id, f"{isolated(run.name)} · {described(run)} · {run.run_id}"


def suggested_runs(command: str) -> Suggest:
    """Suggest runs for which a command is meant."""

    def suggestions(context: CommandContext, typed: str) -> Iterator[Suggestion]:
        if "@" in typed and CHAT_COMMANDS[command].takes_model:
            yield from _checkpoints(context, command, typed)
            return
        fitting = fitting_runs(context, command)
        newest = next((run for run in context.lab.seen_runs(context.caller) if not run.is_part), None)
        if newest is not None and typed.strip() and LAST.startswith(typed.strip()) and newest in fitting:
            yield LAST, f"{LAST} · {isolated(newest.name)} · {described(newest)}"
        found, groups = matching(typed, fitting, lambda run: run.names), set[str]()
        for run in found:
            if run.group_id is not None and CHAT_COMMANDS[command].takes_group and run.group_id not in groups:
                groups.add(run.group_id)
                n_seeds = sum(one.group_id == run.group_id for one in found)
                yield run.group_id, f"{isolated(run.name)} · {count(n_seeds, 'seed')} · {run.group_id}"
            yield run.run_id, f"{isolated(run.name)} · {described(run)} · {run.run_id}"

    return autocomplete(suggestions)


def _checkpoints(context: CommandContext, command: str, typed: str) -> Iterator[Suggestion]:
    """Yield the checkpoints of a run whose id was typed with an `@`, the newest first."""
    run_id, _at, step_start = typed.strip().partition("@")
    lab, role = context.lab, CHAT_COMMANDS[command].role
    for run in lab.index.runs:
        if run.run_id == run_id and lab.permissions.permits(role, context.caller, run):
            for step in reversed(kept_steps(lab.queue.runs.get(run_id))):
                if str(step).startswith(step_start):
                    yield model_name(run_id, step), f"{isolated(run.name)} · {_('step {step}', step=step)} · {run_id}"


def shown_as_typed(typed: str, names: Iterable[str]) -> Iterator[Suggestion]:
    """Yield the names that match, shown as they are typed."""
    return ((name, name) for name in matching(typed, names, lambda name: (name,)))


def names_in(text: str) -> list[str]:
    """Return the names between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def last_of(suggestions: Suggestions) -> Suggestions:
    """Suggest the typed names, between commas, with the last one completed."""

    def of_list(context: CommandContext, typed: str) -> Iterator[Suggestion]:
        before, comma, last = typed.rpartition(",")
        given = names_in(before)
        for name, shown in suggestions(context, last):
            if name not in given:
                yield f"{before}{comma}{name}", f"{before}{comma}{shown}"

    return of_list


def corpus_suggestions(context: CommandContext, typed: str) -> Iterator[Suggestion]:
    """Yield the corpora of the caller's own runs, then all named ones."""
    names: dict[str, str] = {}
    for run in context.lab.index.runs:
        if run.user_id == context.caller.user_id:
            stem = without_model(run.name, run.family)
            shown = _("{name} (attached)", name=stem) if run.has_attached_text else run.corpus
            names.setdefault(run.corpus, shown)
    for name in context.lab.index.corpora:
        names.setdefault(name, name)
    yield from matching(typed, names.items(), lambda suggestion: (suggestion[1],))


def _tokenizers(context: CommandContext, typed: str) -> Iterator[Suggestion]:
    """Yield methods, then trained tokenizers."""
    yield from shown_as_typed(typed, METHODS)
    yield from _trained_tokenizers(context, typed)


def size_suggestions(context: CommandContext, typed: str) -> Iterator[Suggestion]:
    """Yield the presets of sizes of all families."""
    yield from shown_as_typed(typed, {size: None for of_family in PRESETS.values() for size in of_family})


def _trained_tokenizers(context: CommandContext, typed: str) -> Iterator[Suggestion]:
    lab, is_usable = context.lab, context.lab.seen_tokenizers(context.caller)
    for one in matching(typed, lab.index.tokenizers, lambda one: (one.label or one.tokenizer_id, one.tokenizer_id)):
        if is_usable(lab.queue.tokenizers.directory(one.tokenizer_id)):
            label = f"{one.label} · " if one.label else ""
            yield one.tokenizer_id, f"{label}{one.tokenizer_id} · {count(one.vocab_size or 0, 'token')}"


def autocomplete(suggestions: Suggestions) -> Suggest:
    """Answer a person who types; strangers get no suggestions."""

    async def suggest(interaction: discord.Interaction[Bot], typed: str) -> list[app_commands.Choice[str]]:
        bot = interaction.client
        speak_to(interaction)
        try:
            caller = await bot.lab.permissions.caller(interaction.user.id, interaction.guild_id)
        except _PERMISSION_ERRORS:
            return []
        await bot.lab.index.catch_up()
        choices = (
            app_commands.Choice(name=clamp(name, MAX_CHOICE_CHARACTERS), value=value)
            for value, name in suggestions(CommandContext(bot, caller), typed)
            if len(value) <= MAX_CHOICE_CHARACTERS
        )
        finding = asyncio.create_task(asyncio.to_thread(lambda: list(islice(choices, MAX_CHOICES))))
        await asyncio.wait((finding,), timeout=_SUGGEST_SECONDS)
        return finding.result() if finding.done() else []

    return suggest


suggested_corpora = autocomplete(corpus_suggestions)
suggested_sizes = autocomplete(size_suggestions)
suggested_tokenizers = autocomplete(_tokenizers)
suggested_trained_tokenizers = autocomplete(_trained_tokenizers)
suggested_scorers = autocomplete(last_of(_scorers))
