"""Buttons under the messages about a run: its card, a status answer and its final message."""

from collections.abc import Iterator
from typing import TypeAlias

import discord

from bot.messages.advice import can_resume, can_retry, retry_batch
from bot.messages.buttons import button
from trainer.contracts.runs import RunRecord, RunStatus
from trainer.lab.language import _

_Button: TypeAlias = discord.ui.Button[discord.ui.View]

AGAIN, HERE, OWN_CARD, CARD = "again", "here", "own", "card"
"""Details of the buttons Refresh (of an answer, of the owner's card and of another card) and Watch here."""


def watch_button(run_id: str, *, is_watching: bool) -> _Button:
    return button("unwatch", run_id, _("Unwatch")) if is_watching else button("watch", run_id, _("Watch"))


def card_buttons(record: RunRecord, status: RunStatus, *, is_owner: bool) -> Iterator[_Button]:
    """Yield the buttons of a card; with `is_owner`, its watcher owns the run."""
    run_id = record.run_id
    if not status.has_ended:
        if is_owner:
            yield from _owner_items(run_id, status)
        yield watch_button(run_id, is_watching=True)
    yield button("status", run_id, _("Refresh"), detail=OWN_CARD if is_owner else CARD)
    if status.status == "queued":
        yield button("watch", run_id, _("Watch here"), detail=HERE)
        yield button("config", run_id, _("Copy config"))


def status_buttons(record: RunRecord, status: RunStatus, *, is_owner: bool, is_watching: bool) -> Iterator[_Button]:
    """Yield the buttons of a status answer: the caller's next commands."""
    run_id = record.run_id
    yield button("status", run_id, _("Refresh"), detail=AGAIN)
    if status.has_ended:
        yield from final_buttons(record, status, is_owner=is_owner)
    else:
        yield watch_button(run_id, is_watching=is_watching)
        yield button("watch", run_id, _("Watch here"), detail=HERE)
        if is_owner:
            yield from _owner_items(run_id, status)
    if status.status == "completed":
        if is_owner:
            yield button("logs", run_id, _("Logs"))
    else:
        yield button("config", run_id, _("Copy config"))
    yield button("change", run_id, _("Edit…"))


def _owner_items(run_id: str, status: RunStatus) -> Iterator[_Button]:
    """Yield the buttons of an unfinished run for its owner."""
    if status.status == "paused":
        yield button("resume", run_id, _("Resume"))
    yield button("cancel", run_id, _("Cancel"), style=discord.ButtonStyle.danger)
    yield button("logs", run_id, _("Logs"))


def final_buttons(record: RunRecord, status: RunStatus, *, is_owner: bool) -> Iterator[_Button]:
    """Yield the buttons of a final message: inference, Files, Compare…; or for the owner Resume, Retry and Logs."""
    run_id = record.run_id
    if status.status == "completed":
        if record.effective.objective == "causal_lm":  # a masked model generates no text
            yield button("generate", run_id, _("Generate"))
        yield button("score", run_id, _("Score…"))
        yield button("evalon", run_id, _("Eval on…"))
        if is_owner:
            yield button("files", run_id, _("Files"))
        yield button("compare", run_id, _("Compare…"))
        yield button("config", run_id, _("Copy config"))
        yield button("details", run_id, _("Details"))
    elif is_owner:
        if can_resume(status):
            yield button("resume", run_id, _("Resume"))
        if can_retry(status):
            batch = retry_batch(status)
            yield button("retry", run_id, _("Retry") if batch is None else _("Retry with batch {batch}", batch=batch))
        yield button("logs", run_id, _("Logs"))
