"""`/mt status`, `/mt cancel` and `/mt resume`, and their buttons."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import discord
from discord import app_commands

from bot.buttons import Pressed, button, question_buttons, row
from bot.client import Bot
from bot.commands.responses import Answer, Call, respond
from bot.commands.run_options import is_resumable, is_unfinished, named_or_newest_run, named_run, suggested_runs
from bot.commands.training import answer_accepted, in_options
from bot.commands.watch import watch_button
from bot.embeds import attach_chart, cancel_answer, cancel_question, status_answer
from bot.ledger import Watcher, read_ledger
from trainer.contracts.base import now
from trainer.contracts.errors import AppError
from trainer.contracts.runs import Accepted, RunRecord, RunStatus

_AGAIN, _SURE = "again", "sure"
_ASKED_AFTER = timedelta(minutes=10)


@app_commands.command(description="How a run stands.")
@app_commands.describe(run="The run's id; without one, your newest run")
@app_commands.autocomplete(run=suggested_runs("status"))
async def status(interaction: discord.Interaction[Bot], run: str | None = None) -> None:
    await respond(interaction, "status", lambda call: _status(call, run))


@app_commands.command(description="Stop a run; what it has saved is kept.")
@app_commands.describe(run="The run's id")
@app_commands.autocomplete(run=suggested_runs("cancel", is_unfinished))
async def cancel(interaction: discord.Interaction[Bot], run: str) -> None:
    await respond(interaction, "cancel", lambda call: _cancel(call, run, is_sure=False))


@app_commands.command(description="Go on with a failed or cancelled run where its last checkpoint is, as a new run.")
@app_commands.describe(run="The run's id")
@app_commands.autocomplete(run=suggested_runs("resume", is_resumable))
async def resume(interaction: discord.Interaction[Bot], run: str) -> None:
    await respond(interaction, "resume", lambda call: _resume(call, run))


async def resume_clicked(interaction: discord.Interaction[Bot], pressed: Pressed) -> None:
    """The Resume button of a last message: the same rights and the same answer as the command."""
    await respond(interaction, "resume", lambda call: _resume(call, pressed.run_id))


async def status_clicked(interaction: discord.Interaction[Bot], pressed: Pressed) -> None:
    """Refresh, in the same message; or the run that was chosen from a list, in a new one."""
    in_place = pressed.detail == _AGAIN
    await respond(interaction, "status", lambda call: _status(call, pressed.run_id), in_place=in_place)


async def cancel_clicked(interaction: discord.Interaction[Bot], pressed: Pressed) -> None:
    """The Cancel button: the same rights and the same answer as the command; and the answer to its question."""
    is_sure = pressed.detail == _SURE
    await respond(interaction, "cancel", lambda call: _cancel(call, pressed.run_id, is_sure=is_sure), in_place=is_sure)


async def _status(call: Call, run_id: str | None) -> Answer:
    chosen = await named_or_newest_run(call, "status", run_id)
    follower = await asyncio.to_thread(chosen.directory.follow)
    status = await call.bot.queue.steady_status(await asyncio.to_thread(follower.refresh))
    watcher = (await asyncio.to_thread(read_ledger, chosen.directory)).of(call.caller.user_id)
    embed = status_answer(
        chosen.record,
        status,
        [loss for _, loss in follower.train_losses],
        request_id=call.request_id,
        closed=None if watcher is None else watcher.closed_place,
    )
    chart = await call.bot.charts.loss_chart(follower.train_losses, follower.val_losses, status.bits_per_nat)
    return Answer(
        embed, attach_chart(embed, chart, status), row(*_status_buttons(call, chosen.record, status, watcher))
    )


def _status_buttons(
    call: Call, record: RunRecord, status: RunStatus, watcher: Watcher | None
) -> Iterator[discord.ui.Button[discord.ui.View]]:
    """What the caller may do next with a run."""
    is_own = call.bot.permissions.may_give("cancel", call.caller, record)
    if status.status in ("queued", "running"):
        yield button("status", status.run_id, "Refresh", detail=_AGAIN)
        yield watch_button(status.run_id, watcher)
        if is_own:
            yield button("cancel", status.run_id, "Cancel", style=discord.ButtonStyle.danger)
    if status.status == "completed":
        yield from question_buttons(record)
    if is_own:
        yield button("logs", status.run_id, "Logs")


async def _cancel(call: Call, run_id: str, *, is_sure: bool) -> Answer:
    """End a run; one that has gone on for long only when the caller is sure."""
    chosen = await named_run(call, "cancel", run_id)
    record = chosen.record
    if not is_sure and now() - record.created_at > _ASKED_AFTER and chosen.directory.manifest() is None:
        sure = button("cancel", record.run_id, "Cancel it", style=discord.ButtonStyle.danger, detail=_SURE)
        return Answer(cancel_question(record, request_id=call.request_id), view=row(sure))
    status = await asyncio.to_thread(lambda: chosen.directory.follow().refresh())
    has_ended = await call.bot.queue.cancel(record.run_id)
    has_started = status.status != "queued"
    return Answer(cancel_answer(record, has_ended=has_ended, has_started=has_started, request_id=call.request_id))


async def _resume(call: Call, run_id: str) -> Answer:
    chosen = (await named_run(call, "resume", run_id)).record.run_id
    return await answer_accepted(call, lambda: _accept_resumed(call, chosen))


async def _accept_resumed(call: Call, run_id: str) -> Accepted:
    try:
        return await call.bot.queue.resume(run_id, user_id=call.caller.user_id)
    except AppError as error:
        raise in_options(error) from None
