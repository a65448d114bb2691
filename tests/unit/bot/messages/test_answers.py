"""Answers about one run, and errors: their text, within Discord's limits."""

from collections.abc import Sequence
from pathlib import Path

import discord
import pytest

from bot.messages.answers import (
    accepted_answer,
    cancel_answer,
    cancel_question,
    error_answer,
    files_answer,
    logs_answer,
    status_answer,
)
from bot.messages.run_card import run_card
from tests.support.cards import Read, labelled, texts, within_limits
from tests.support.properties import for_all, for_all_pairs
from tests.support.stories import Story, run_record
from trainer.contracts.base import FileRecord
from trainer.contracts.cost import Cost
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem

RUN = "char_lstm-20261120-0a1b2c"


RECIPE = "char_lstm · 128/256/2 · char tokenizer · 5 epochs\nCorpus: kk\\_ipa, 1.2 MB · seed 42"


ASKED = "<t:1795176000:R>"  # 2026-11-20 12:00 UTC


def card(story: Story) -> Read:
    follower = story.follower()
    return Read(run_card(story.record, follower.refresh(), losses(story)))


def cancelling(*, has_ended: bool, has_started: bool) -> discord.Embed:
    return cancel_answer(run_record(), has_ended=has_ended, has_started=has_started)


def losses(story: Story) -> Sequence[float]:
    return [loss for _, loss in story.follower().train_losses]


def test_status__adds_the_last_sign_of_life(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(10, 3.0)
    status = story.follower().refresh()
    lost: dict[str, object] = {"reachable": False}

    here = status_answer(story.record, status, [], closed=None)
    gone = status_answer(story.record, status.model_copy(update=lost), [], closed="dm")
    away = status_answer(story.record, status, [], closed="channel")

    assert Read(here).text.endswith(f"\nLast heartbeat {ASKED}")
    assert f"last heartbeat {ASKED}\nThe worker is not responding." in Read(gone).text
    assert Read(gone).text.endswith(
        "\nThis bot cannot send you direct messages."
        " Use `/mt status` here, or allow direct messages and run `/mt watch`."
    )
    assert gone.title == "⚠ Worker not responding: kk-ipa" and here.title == "🏃 Training: kk-ipa"
    assert "This bot cannot post in the channel of your messages." in Read(away).text
    assert Read(here).footer == RUN


def test_status__of_a_run_that_does_not_run_has_no_sign_of_life(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record())
    shown = status_answer(story.record, story.follower().refresh(), [], closed=None)
    assert "heartbeat" not in Read(shown).text


def test_accepted_and_cancel_answers() -> None:
    accepted = Read(accepted_answer(run_record()))
    here, off = Read(accepted_answer(run_record(), notify="here")), Read(accepted_answer(run_record(), notify="off"))
    cancelled = Read(cancelling(has_ended=False, has_started=True))

    assert accepted.text == f"{RECIPE}\nA card in your direct messages shows the progress."
    assert here.text == f"{RECIPE}\nA card in this channel shows the progress."
    assert off.text == f"{RECIPE}\nNo messages about this run are sent. `/mt status` shows the progress."
    assert cancelled.title == "⏹ Cancelling: kk-ipa" and "stops after the current step" in cancelled.text
    never = Read(cancelling(has_ended=True, has_started=False))
    assert (never.title, never.text) == ("⏹ Cancelled: kk-ipa", "The run had not started.")
    assert "was not training" in Read(cancelling(has_ended=True, has_started=True)).text
    cost = Cost(params=968_299, memory_bytes=1 << 30, disk_bytes=1, steps=30, seconds=50.0, bf16_pays=True)
    estimated: dict[str, object] = {"cost": cost}
    with_cost = Read(accepted_answer(run_record().model_copy(update=estimated)))
    assert with_cost.text == "\n".join([RECIPE, *cost.lines(), accepted.text.splitlines()[-1]])
    assert accepted.footer == cancelled.footer == RUN


@pytest.mark.parametrize(("size", "shown"), [(999, "999 bytes"), (1000, "1.0 kB"), (25_000_000, "25.0 MB")])
def test_recipe__of_an_attached_text_does_not_name_it(size: int, shown: str) -> None:
    record = run_record()
    content: dict[str, object] = {"name": "c" * 64, "bytes": size}
    attached: dict[str, object] = {
        "corpus": record.effective.corpus.model_copy(update=content),
        "model_size": "small",
    }
    effective: dict[str, object] = {"effective": record.effective.model_copy(update=attached)}
    text = Read(accepted_answer(record.model_copy(update=effective))).text
    assert text.startswith("char_lstm small · 128/256/2")
    assert f"Corpus: attached text, {shown} · seed 42" in text


@pytest.mark.parametrize(
    ("code", "colour"),
    [
        (ErrorCode.INVALID_INPUT, 0xFAA61A),
        (ErrorCode.FORBIDDEN, 0xFAA61A),
        (ErrorCode.SERVICE_UNAVAILABLE, 0x95A5A6),
        (ErrorCode.INTERNAL_ERROR, 0xED4245),
    ],
)
def test_error__has_the_colour_of_its_kind_and_the_request_id(code: ErrorCode, colour: int) -> None:
    shown = Read(error_answer(AppError(code, "`epochs` must be 1 to 1000, you gave 0."), "0a1b2c3d"))
    assert shown.colour == colour
    assert shown.text.startswith("`epochs` must be 1 to 1000, you gave 0.")
    assert shown.footer == "request 0a1b2c3d"


@for_all_pairs(texts, texts)
def test_limits__hold_for_any_error_message_and_any_name(name: str, message: str) -> None:
    record = labelled(name or "x")
    assert within_limits(error_answer(AppError(ErrorCode.INVALID_INPUT, message * 40 or "x"), "0a1b2c3d"))
    assert within_limits(accepted_answer(record))


@for_all(texts)
def test_limits__hold_for_any_log(line: str) -> None:
    embed = logs_answer(labelled("x" * 64), [line * 9] * 9, is_attached=False)
    assert within_limits(embed)
    assert (embed.description or "").count("```") == 2


def test_logs__that_are_not_there_yet_or_come_as_a_file() -> None:
    none = Read(logs_answer(run_record(), [], is_attached=False))
    long = Read(logs_answer(run_record(), ["x", "y"], is_attached=True))
    assert none.text == "No log yet. The log starts when a worker starts the run."
    assert (long.title, long.text) == ("📜 Last 2 lines of the log of kk-ipa", "See the attached file.")


def test_cancel_question__tells_since_when_and_what_stays() -> None:
    asked = Read(cancel_question(run_record()))
    assert asked.title == "⏹ Cancel kk-ipa?"
    assert asked.text == "The run was requested <t:1795176000:R>. Saved checkpoints remain."
    assert asked.colour == 0xFAA61A


def test_error__with_several_problems_tells_each_on_a_line() -> None:
    problems = tuple(FieldProblem(path=name, message=f"`{name}` must be text") for name in ("a", "b"))
    several = Read(error_answer(AppError(ErrorCode.INVALID_INPUT, "All of it.", problems), "0"))
    one = Read(error_answer(AppError(ErrorCode.INVALID_INPUT, "All of it.", problems[:1]), "0"))
    assert several.text == "• `a` must be text\n• `b` must be text"
    assert one.text == "All of it."


def test_error__above_a_limit_is_busy_and_grey() -> None:
    shown = Read(error_answer(AppError(ErrorCode.RATE_LIMIT_EXCEEDED, "Try again later."), "0"))
    assert (shown.title, shown.colour, shown.text) == ("⏳ Rate limit exceeded", 0x95A5A6, "Try again later.")


def test_files__of_a_run_with_many_checkpoints_are_cut_with_their_number() -> None:
    files = [FileRecord(path=f"checkpoints/step-{number}/x", bytes=1000, sha256="ab" * 32) for number in range(500)]
    embed = files_answer(run_record(), files)
    *shown, last = Read(embed).text.split("\n")
    assert within_limits(embed)
    assert shown[0] == "`checkpoints/step-0/x` 1.0 kB · sha256 `abababababab…`"
    assert last == f"{500 - len(shown)} more files."
    assert Read(embed).title == "📁 500 files of kk-ipa, 500.0 kB"
