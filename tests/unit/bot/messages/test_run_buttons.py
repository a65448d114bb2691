"""Buttons under the messages about a run, by its state and by who sees them."""

from collections.abc import Iterable

import discord
import pytest

from bot.messages.run_buttons import card_buttons, final_buttons, status_buttons
from tests.support.messages import CANCELLED, COMPLETED, FAILED, QUEUED, RUNNING, status_of
from tests.support.stories import run_record
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode, RunError

RUN = run_record()

STATUSES = {
    "queued": QUEUED,
    "running": RUNNING,
    "paused": status_of(lambda story: story.start().pause()),
    "completed": COMPLETED,
    "failed": changed(FAILED, error=RunError.of(AppError(ErrorCode.CRASH_LOOP, "x"))),
    "cancelled": CANCELLED,
}


def labels(buttons: Iterable[discord.ui.Button[discord.ui.View]]) -> str:
    return " · ".join(str(one.label) for one in buttons)


@pytest.mark.parametrize(
    ("state", "is_owner", "card", "final"),
    [
        ("queued", True, "Cancel · Logs · Unwatch · Refresh · Watch here · Copy config", None),
        ("queued", False, "Unwatch · Refresh · Watch here · Copy config", None),
        ("running", True, "Cancel · Logs · Unwatch · Refresh", None),
        ("running", False, "Unwatch · Refresh", None),
        ("paused", True, "Resume · Cancel · Logs · Unwatch · Refresh", None),
        ("completed", True, "Refresh", "Generate · Score… · Eval on… · Files · Compare… · Copy config · Details"),
        ("completed", False, "Refresh", "Generate · Score… · Eval on… · Compare… · Copy config · Details"),
        ("failed", True, "Refresh", "Resume · Retry · Logs"),
        ("failed", False, "Refresh", ""),
        ("cancelled", True, "Refresh", "Retry · Logs"),
        ("cancelled", False, "Refresh", ""),
    ],
)
def test_messages__have_the_buttons_of_their_state(state: str, is_owner: bool, card: str, final: str | None) -> None:
    now = STATUSES[state]
    assert labels(card_buttons(RUN, now, is_owner=is_owner)) == card
    if final is not None:
        assert labels(final_buttons(RUN, now, is_owner=is_owner)) == final


@pytest.mark.parametrize(
    ("code", "batch", "shown"),
    [
        (ErrorCode.OUT_OF_MEMORY, 64, "Resume · Retry with batch 32 · Logs"),
        (ErrorCode.OUT_OF_MEMORY, 1, "Resume · Logs"),
        (ErrorCode.INSUFFICIENT_STORAGE, 64, "Resume · Retry · Logs"),
        (ErrorCode.TRAINING_NAN_LOSS, 64, "Logs"),
    ],
)
def test_failed_run__has_the_buttons_of_its_error(code: ErrorCode, batch: int, shown: str) -> None:
    status = changed(FAILED, error=RunError.of(AppError(code, "x")), batch_size=batch)
    assert labels(final_buttons(RUN, status, is_owner=True)) == shown


@pytest.mark.parametrize(
    ("state", "is_owner", "shown"),
    [
        ("queued", True, "Refresh · Watch · Watch here · Cancel · Logs · Copy config · Edit…"),
        ("running", False, "Refresh · Watch · Watch here · Copy config · Edit…"),
        (
            "completed",
            True,
            "Refresh · Generate · Score… · Eval on… · Files · Compare… · Copy config · Details · Logs · Edit…",
        ),
        ("completed", False, "Refresh · Generate · Score… · Eval on… · Compare… · Copy config · Details · Edit…"),
        ("failed", True, "Refresh · Resume · Retry · Logs · Copy config · Edit…"),
        ("cancelled", False, "Refresh · Copy config · Edit…"),
    ],
)
def test_status_answer__has_the_caller_s_next_commands(state: str, is_owner: bool, shown: str) -> None:
    now = STATUSES[state]
    assert labels(status_buttons(RUN, now, is_owner=is_owner, is_watching=False)) == shown
    watching = labels(status_buttons(RUN, now, is_owner=is_owner, is_watching=True))
    assert ("Unwatch" in watching) == (state in ("queued", "running"))


def test_final_message__of_a_masked_model_offers_no_generation() -> None:
    masked = changed(RUN, effective=changed(RUN.effective, objective="masked_lm"))
    assert (
        labels(final_buttons(masked, COMPLETED, is_owner=False))
        == "Score… · Eval on… · Compare… · Copy config · Details"
    )


@pytest.mark.parametrize("state", STATUSES)
def test_messages__have_no_two_buttons_with_one_id_and_room_for_more(state: str) -> None:
    now = STATUSES[state]
    for buttons in (
        card_buttons(RUN, now, is_owner=True),
        final_buttons(RUN, now, is_owner=True),
        status_buttons(RUN, now, is_owner=True, is_watching=True),
    ):
        ids = [one.custom_id for one in buttons]
        assert len(ids) == len(set(ids)) <= 10
