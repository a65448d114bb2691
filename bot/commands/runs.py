"""Commands about one run (status, watch, unwatch, cancel, resume, annotate, logs) and their buttons."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Literal

import discord
from discord import app_commands

from bot.commands.groups import Group, find_run_or_group, show_group
from bot.commands.responses import Answer, ButtonAnswer, CommandContext, Reactions, open_form, respond
from bot.commands.run_options import find_run, run_for_form, suggested_runs
from bot.commands.training import answer_accepted
from bot.messages.answers import cancel_answer, cancel_question, logs_answer, status_answer, watch_answer
from bot.messages.buttons import ButtonPress, Field, button, button_row, form
from bot.messages.files import no_files, one_file
from bot.messages.group_card import group_buttons, group_card
from bot.messages.option_names import in_option_names
from bot.messages.run_buttons import AGAIN, CARD, HERE, OWN_CARD, card_buttons, status_buttons, watch_button
from bot.messages.run_card import attach_chart, run_card
from bot.messages.text import GREY, make_embed, shown_name
from bot.people.user_settings import current_unit
from bot.people.watchers import read_ledger
from bot.session.client import Bot
from trainer.artifacts.outcome import last_lines
from trainer.config.validation import parse
from trainer.contracts.base import now
from trainer.contracts.errors import AppError
from trainer.contracts.operations import Role
from trainer.contracts.parameters import GroupPath, RunPath
from trainer.contracts.runs import Accepted, AnnotationChange
from trainer.contracts.training_options import MAX_LABEL_CHARACTERS, MAX_NOTE_CHARACTERS, LogLevel
from trainer.lab import calls
from trainer.lab.language import _

_Level = Literal["debug", "info", "warning", "error"]

_LEVELS: dict[_Level, LogLevel] = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR"}
_ALL = "all"
_LOG_LINES = 20
_MAX_SHOWN_CHARACTERS = 1900
_CONFIRMED = "sure"
_CONFIRM_AFTER = timedelta(minutes=10)


@app_commands.command(description="Show the progress or the result of a run.")
@app_commands.describe(run="Name or id of the run; default: your newest run")
@app_commands.autocomplete(run=suggested_runs("status"))
async def status(interaction: discord.Interaction[Bot], run: str | None = None) -> None:
    await respond(interaction, "status", lambda context: _status(context, run))


@app_commands.command(description="Follow a run: get a card with its progress and a final message.")
@app_commands.describe(run="Name or id of the run", where="Direct messages or this channel; default: dm")
@app_commands.autocomplete(run=suggested_runs("watch"))
async def watch(interaction: discord.Interaction[Bot], run: str, where: Literal["dm", "here"] = "dm") -> None:
    await respond(interaction, "watch", lambda context: _watch(context, run, is_here=where == "here"))


@app_commands.command(description="Stop notifications for a run.")
@app_commands.describe(run="Name or id of the run, or all")
@app_commands.autocomplete(run=suggested_runs("unwatch"))
async def unwatch(interaction: discord.Interaction[Bot], run: str) -> None:
    await respond(
        interaction, "unwatch", lambda context: _unwatch_all(context) if run == _ALL else _unwatch(context, run)
    )


@app_commands.command(description="Cancel a run; saved checkpoints remain.")
@app_commands.describe(run="Name or id of the run")
@app_commands.autocomplete(run=suggested_runs("cancel"))
async def cancel(interaction: discord.Interaction[Bot], run: str) -> None:
    await respond(interaction, "cancel", lambda context: _cancel(context, run, is_confirmed=False))


@app_commands.command(description="Resume a paused run; a failed or cancelled one from its checkpoint, as a new run.")
@app_commands.describe(
    run="Name or id of the run", epochs="Passes over the training split in all; default: 0, as before"
)
@app_commands.autocomplete(run=suggested_runs("resume"))
async def resume(interaction: discord.Interaction[Bot], run: str, epochs: app_commands.Range[int, 0, 1000] = 0) -> None:
    await respond(interaction, "resume", lambda context: _resume(context, run, epochs or None))


@app_commands.command(description="Change the name, the note and the tags of a run, in a form.")
@app_commands.describe(run="Name or id of the run; default: your newest run")
@app_commands.autocomplete(run=suggested_runs("annotate"))
async def annotate(interaction: discord.Interaction[Bot], run: str | None = None) -> None:
    await open_form(interaction, "annotate", lambda context: _annotation_form(context, run))


@app_commands.command(description="Show the last lines of a run's log.")
@app_commands.describe(
    run="Name or id of the run",
    lines=f"Number of lines; default: {_LOG_LINES}",
    level="Lowest level of a line; default: info",
)
@app_commands.autocomplete(run=suggested_runs("logs"))
async def logs(
    interaction: discord.Interaction[Bot],
    run: str,
    lines: app_commands.Range[int, 1, 200] = _LOG_LINES,
    level: _Level = "info",
) -> None:
    await respond(interaction, "logs", lambda context: _logs(context, run, lines, level))


async def _status(context: CommandContext, run_id: str | None, detail: str | None = None) -> Answer:
    """Answer with a run's status; with the detail of a card's Refresh button, with the card itself."""
    run = await find_run_or_group(context, "status", run_id)
    if isinstance(run, Group):
        return await show_group(context, run)
    status = context.lab.queue.states.steady(await context.lab.feeds.status(run.record.run_id))
    curves = (await context.lab.feeds.curves(run.record.run_id)).by_name
    losses = [loss for _, loss in curves["train"]]
    if detail in (CARD, OWN_CARD):
        embed = run_card(run.record, status, losses, is_brief=True)
        buttons = card_buttons(run.record, status, is_owner=detail == OWN_CARD)
    else:
        watcher = (await asyncio.to_thread(read_ledger, run.directory)).of(context.caller.user_id)
        embed = status_answer(run.record, status, losses, closed=None if watcher is None else watcher.closed_place)
        is_owner = context.lab.permissions.permits(Role.OWNER, context.caller, run.record)
        is_watching = watcher is not None and not watcher.is_done
        buttons = status_buttons(run.record, status, is_owner=is_owner, is_watching=is_watching)
    charts = context.bot.charts
    chart = await charts.loss_chart(
        curves["train"], curves["validation"], current_unit(), status.bits_per_nat, status.counted_val_loss
    )
    return Answer(embed, partial(attach_chart, embed, chart, status), button_row(*buttons))


async def _watch(context: CommandContext, run_id: str, *, is_here: bool) -> Answer:
    run = await find_run_or_group(context, "watch", run_id)
    channel_id = context.place.for_cards("where:dm") if is_here else None
    user_id, mention_id = context.caller.user_id, context.place.for_mentions
    watcher = await context.bot.notifier.watch(run.record.run_id, user_id, channel_id, mention_id)
    has_ended = await asyncio.to_thread(run.has_ended)
    place = _("by direct message") if channel_id is None else _("to {channel}", channel=f"<#{channel_id}>")
    closed = watcher.closed_place
    embed = watch_answer(run.record, place, has_ended=has_ended, has_final=watcher.has_final, closed=closed)
    return Answer(
        embed, view=None if has_ended else button_row(watch_button(run.record.run_id, is_watching=not watcher.is_done))
    )


async def _unwatch(context: CommandContext, run_id: str) -> Answer:
    record = (await find_run_or_group(context, "unwatch", run_id)).record
    await context.bot.notifier.unwatch(record.run_id, context.caller.user_id)
    lines = [_("Your card is no longer updated, and no final message is sent.")]
    embed = make_embed(GREY, f"🔕 {_('Not watching: {name}', name=shown_name(record))}", lines, record.run_id)
    return Answer(embed, view=button_row(watch_button(record.run_id, is_watching=False)))


async def _unwatch_all(context: CommandContext) -> Answer:
    bot, user_id = context.bot, context.caller.user_id
    run_ids = bot.notifier.watched_by(user_id)
    for run_id in run_ids:
        await bot.notifier.unwatch(run_id, user_id)
    lines = [_("No more messages about {run_id}.", run_id=f"`{run_id}`") for run_id in run_ids] or [
        _("You were not watching any run.")
    ]
    return Answer(make_embed(GREY, f"🔕 {_('Not watching any run')}", lines))


async def _cancel(context: CommandContext, run_id: str, *, is_confirmed: bool) -> Answer:
    """Cancel a run or a group; the caller confirms the cancellation of one that is older than ten minutes."""
    run = await find_run_or_group(context, "cancel", run_id)
    record, lab = run.record, context.lab
    if not is_confirmed and now() - record.created_at > _CONFIRM_AFTER and not await asyncio.to_thread(run.has_ended):
        confirm = button("cancel", record.run_id, _("Cancel it"), style=discord.ButtonStyle.danger, detail=_CONFIRMED)
        return Answer(cancel_question(record), view=button_row(confirm))
    if isinstance(run, Group):
        await lab.call(calls.CANCEL_GROUP, context.caller, GroupPath(group_id=record.run_id))
        group = await lab.feeds.group(record.run_id)
        return Answer(group_card(record, group), view=group_buttons(group, is_owner=True))
    status = (await lab.feeds.read(record.run_id)).follower.status
    await lab.call(calls.CANCEL_RUN, context.caller, RunPath(run_id=record.run_id))
    has_ended = await asyncio.to_thread(run.has_ended)
    return Answer(cancel_answer(record, has_ended=has_ended, has_started=status.status != "queued"))


async def _resume(context: CommandContext, run_id: str, epochs: int | None = None) -> Answer:
    path = RunPath(run_id=await context.lab.run_name(context.caller, run_id.strip()))

    async def accept() -> Accepted:
        try:
            return await context.lab.call(calls.RESUME_RUN, context.caller, path, calls.LocalResume(epochs=epochs))
        except AppError as error:
            raise in_option_names(error) from None

    return await answer_accepted(context, accept)


async def _annotation_form(context: CommandContext, run_id: str | None) -> discord.ui.Modal:
    run = await run_for_form(context, "annotate", run_id)
    status = (await context.lab.feeds.read(run.run_id)).follower.status  # without the state of the queue
    return form(
        "annotate",
        run.run_id,
        _("Name, note and tags: {name}", name=run.name),
        Field("label", _("Name"), status.label or "", is_required=False, max_characters=MAX_LABEL_CHARACTERS),
        Field("note", _("Note"), status.note or "", is_required=False, max_characters=MAX_NOTE_CHARACTERS),
        Field("tags", _("Tags, one per line"), "\n".join(status.tags), is_required=False),
    )


async def _annotate(context: CommandContext, press: ButtonPress) -> Answer:
    lines = {name: [line.strip() for line in text.splitlines() if line.strip()] for name, text in press.fields.items()}
    label, note = (" ".join(lines[name]) for name in ("label", "note"))
    change = parse(AnnotationChange, {"label": label or None, "note": note, "tags": lines["tags"]})
    await context.lab.call(calls.ANNOTATE_RUN, context.caller, RunPath(run_id=press.run_id), body=change)
    return await _status(context, press.run_id)


async def _logs(context: CommandContext, run_id: str, count: int, level: _Level = "info") -> Answer:
    run = await find_run(context, "logs", run_id)
    lines = await asyncio.to_thread(last_lines, run.directory, count, _LEVELS[level])
    text = "\n".join(lines)
    is_attached = len(text) > _MAX_SHOWN_CHARACTERS
    files = one_file(f"{run.record.run_id}.log.txt", text.encode()) if is_attached else no_files
    return Answer(logs_answer(run.record, lines, is_attached=is_attached), files)


BUTTONS: Reactions = {
    "status": ButtonAnswer(
        "status",
        lambda context, press: _status(context, press.run_id, press.detail),
        lambda press: press.detail in (AGAIN, CARD, OWN_CARD),
    ),
    "watch": ButtonAnswer("watch", lambda context, press: _watch(context, press.run_id, is_here=press.detail == HERE)),
    "unwatch": ButtonAnswer("unwatch", lambda context, press: _unwatch(context, press.run_id)),
    "cancel": ButtonAnswer(
        "cancel",
        lambda context, press: _cancel(context, press.run_id, is_confirmed=press.detail == _CONFIRMED),
        lambda press: press.detail == _CONFIRMED,
    ),
    "resume": ButtonAnswer("resume", lambda context, press: _resume(context, press.run_id)),
    "logs": ButtonAnswer("logs", lambda context, press: _logs(context, press.run_id, _LOG_LINES)),
}
FORMS = {"annotate": ButtonAnswer("annotate", _annotate)}
