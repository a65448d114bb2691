"""`/mt status`, `/mt cancel`, `/mt resume` and their buttons."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import discord
from discord import app_commands

from bot.buttons import ButtonPress, button, button_row, inference_buttons
from bot.client import Bot
from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.run_options import is_resumable, is_unfinished, named_or_newest_run, named_run, suggested_runs
from bot.commands.training import answer_accepted, with_option_names
from bot.commands.watch import watch_button
from bot.embeds.answers import cancel_answer, cancel_question, status_answer
from bot.embeds.run_card import attach_chart
from bot.ledger import Watcher, read_ledger
from trainer.contracts.base import now
from trainer.contracts.errors import AppError
from trainer.contracts.runs import Accepted, RunRecord, RunStatus

_REFRESH, _CONFIRMED = "again", "sure"
_CONFIRM_AFTER = timedelta(minutes=10)


@app_commands.command(description="Show the progress or the result of a run.")
@app_commands.describe(run="Id of the run; default: your newest run")
@app_commands.autocomplete(run=suggested_runs("status"))
async def status(interaction: discord.Interaction[Bot], run: str | None = None) -> None:
    await respond(interaction, "status", lambda context: _status(context, run))


@app_commands.command(description="Cancel a run; saved checkpoints remain.")
@app_commands.describe(run="Id of the run")
@app_commands.autocomplete(run=suggested_runs("cancel", is_unfinished))
async def cancel(interaction: discord.Interaction[Bot], run: str) -> None:
    await respond(interaction, "cancel", lambda context: _cancel(context, run, is_confirmed=False))


@app_commands.command(description="Resume a failed or cancelled run from its last checkpoint, as a new run.")
@app_commands.describe(run="Id of the run")
@app_commands.autocomplete(run=suggested_runs("resume", is_resumable))
async def resume(interaction: discord.Interaction[Bot], run: str) -> None:
    await respond(interaction, "resume", lambda context: _resume(context, run))


async def resume_clicked(interaction: discord.Interaction[Bot], press: ButtonPress) -> None:
    await respond(interaction, "resume", lambda context: _resume(context, press.run_id))


async def status_clicked(interaction: discord.Interaction[Bot], press: ButtonPress) -> None:
    """Refresh the same message, or show a run that was selected from a list in a new one."""
    in_place = press.detail == _REFRESH
    await respond(interaction, "status", lambda context: _status(context, press.run_id), in_place=in_place)


async def cancel_clicked(interaction: discord.Interaction[Bot], press: ButtonPress) -> None:
    """Cancel a run as the command does, or confirm its question."""
    confirmed = press.detail == _CONFIRMED
    await respond(
        interaction,
        "cancel",
        lambda context: _cancel(context, press.run_id, is_confirmed=confirmed),
        in_place=confirmed,
    )


async def _status(context: CommandContext, run_id: str | None) -> Answer:
    run = await named_or_newest_run(context, "status", run_id)
    follower = await asyncio.to_thread(run.directory.follow)
    status = await context.bot.queue.steady_status(await asyncio.to_thread(follower.refresh))
    watcher = (await asyncio.to_thread(read_ledger, run.directory)).of(context.caller.user_id)
    embed = status_answer(
        run.record,
        status,
        [loss for _, loss in follower.train_losses],
        request_id=context.request_id,
        closed=None if watcher is None else watcher.closed_place,
    )
    chart = await context.bot.charts.loss_chart(follower.train_losses, follower.val_losses, status.bits_per_nat)
    buttons = button_row(*_status_buttons(context, run.record, status, watcher))
    return Answer(embed, attach_chart(embed, chart, status), buttons)


def _status_buttons(
    context: CommandContext, record: RunRecord, status: RunStatus, watcher: Watcher | None
) -> Iterator[discord.ui.Button[discord.ui.View]]:
    """Yield the buttons of the caller's next commands."""
    is_owner = context.bot.permissions.can_run("cancel", context.caller, record)
    if status.status in ("queued", "running"):
        yield button("status", status.run_id, "Refresh", detail=_REFRESH)
        yield watch_button(status.run_id, watcher)
        if is_owner:
            yield button("cancel", status.run_id, "Cancel", style=discord.ButtonStyle.danger)
    if status.status == "completed":
        yield from inference_buttons(record)
    if is_owner:
        yield button("logs", status.run_id, "Logs")


async def _cancel(context: CommandContext, run_id: str, *, is_confirmed: bool) -> Answer:
    """Cancel a run; the caller confirms the cancellation of a run that is older than ten minutes."""
    run = await named_run(context, "cancel", run_id)
    record = run.record
    if not is_confirmed and now() - record.created_at > _CONFIRM_AFTER and run.directory.manifest() is None:
        confirm = button("cancel", record.run_id, "Cancel it", style=discord.ButtonStyle.danger, detail=_CONFIRMED)
        return Answer(cancel_question(record, request_id=context.request_id), view=button_row(confirm))
    status = await asyncio.to_thread(lambda: run.directory.follow().refresh())
    has_ended = await context.bot.queue.cancel(record.run_id)
    has_started = status.status != "queued"
    return Answer(cancel_answer(record, has_ended=has_ended, has_started=has_started, request_id=context.request_id))


async def _resume(context: CommandContext, run_id: str) -> Answer:
    run = await named_run(context, "resume", run_id)

    async def accept() -> Accepted:
        try:
            return await context.bot.queue.resume(run.record.run_id, user_id=context.caller.user_id)
        except AppError as error:
            raise with_option_names(error) from None

    return await answer_accepted(context, accept)
