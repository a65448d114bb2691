"""Numbers, limits and advice of run cards and final messages; their texts are in test_cards.py."""

from datetime import timedelta
from math import exp, log

import discord
import pytest
from hypothesis import strategies as st

from bot.messages.advice import advice, can_retry, retry_batch
from bot.messages.answers import files_answer
from bot.messages.run_card import attach_chart, final_message, progress_bar, run_card, sparkline, weight_count
from tests.support.baselines import BETTER, UNCLEAR, WORSE, WORSE_WARNING
from tests.support.cards import Read, within_limits
from tests.support.messages import CANCELLED, COMPLETED, FAILED, QUEUED, RUN, RUNNING, status_of
from tests.support.properties import for_all
from tests.support.stories import run_record
from trainer.artifacts.outcome import Outcome
from trainer.contracts.base import FileRecord, changed
from trainer.contracts.baselines import Baseline
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.runs import RunStatus

RECORD = run_record()
BIT = log(2)
"""Nats."""


def card(status: RunStatus) -> Read:
    return Read(run_card(RECORD, status, [3.0, 2.0]))


def failed(code: ErrorCode, checkpoint: int | None = 3) -> RunStatus:
    return changed(FAILED, error=RunError.of(AppError(code, "x")), last_checkpoint_step=checkpoint)


def test_card__of_a_running_run_has_its_losses_in_one_unit() -> None:
    lines = card(RUNNING).text.split("\n")  # two tokens per character; 25 of 100 steps
    assert lines[0].startswith("▰▰▰▰▱▱▱▱▱▱▱▱▱▱▱▱ **25 %** · epoch 2/5 · step 25 / 100")
    assert lines[1] == f"Loss **{2 / BIT:.3f}** bits/token · {4 / BIT:.3f} bits/char · perplexity {exp(2):.2f}  █▁"
    assert lines[2] == f"Validation {2.1 / BIT:.3f} bits/token · {4.2 / BIT:.3f} bits/char · best {2.1 / BIT:.3f}"
    assert max(map(len, lines)) <= 80, "a phone breaks longer lines twice"


def test_card__of_a_run_whose_worker_has_ended_is_queued_with_its_progress() -> None:
    shown = card(status_of(lambda story: story.start().step(25, 2.0).checkpoint(25).end_worker()))
    assert shown.title.startswith("⏳ Queued")
    assert shown.text.endswith("\n▰▰▰▰▱▱▱▱▱▱▱▱▱▱▱▱ 25 steps in 2 epochs\nKept: checkpoint at step 25")


@pytest.mark.parametrize("status", [RUNNING, COMPLETED])
def test_card__warns_of_figures_per_character_of_unknown_text(status: RunStatus) -> None:
    warning = "⚠ 0.2% of the characters are unknown to the tokenizer: figures per character are too low to compare."
    unread = card(changed(status, unknown_char_share=0.002)).text
    assert "bits/char ⚠" in unread and warning in unread.split("\n")
    assert "⚠" not in card(changed(status, unknown_char_share=0.001)).text


@pytest.mark.parametrize(("seconds", "shown"), [(59, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min 0 s")])
def test_card__shows_the_duration_of_a_run(seconds: int, shown: str) -> None:
    assert COMPLETED.finished_at is not None
    started_at = COMPLETED.finished_at - timedelta(seconds=seconds)
    assert card(changed(COMPLETED, started_at=started_at)).title.endswith(f" in {shown}")


@pytest.mark.parametrize(("share", "is_warned"), [(0.97, True), (0.9, False)])
@pytest.mark.parametrize("measured", ["test_loss", "best_val_loss"])
def test_run_that_learned_almost_nothing__is_no_plain_success(share: float, is_warned: bool, measured: str) -> None:
    loss = share * log(43)  # the vocabulary of the story has 43 tokens
    status = changed(COMPLETED, **{"test_loss": None, "best_val_loss": None, measured: loss})
    for shown in (Read(final_message(RECORD, status, Outcome())), card(status)):
        warning = f"⚠ The model has learned almost nothing: its loss is {loss / BIT:.3f} bits/token, and the uniform"
        assert (warning in shown.text) == is_warned
        assert shown.title.startswith("⚠ Completed" if is_warned else "✅ Completed")
        assert shown.colour == (0xFAA61A if is_warned else 0x57F287)


@pytest.mark.parametrize(
    ("baseline", "line", "warning"),
    [
        (BETTER, "5-gram: 1.813 bits/char; this model 1.500 (−0.313)", None),
        (WORSE, "5-gram: 1.250 bits/char; this model 1.500 (+0.250)", WORSE_WARNING),
        (UNCLEAR, "unigram: 1.531 bits/char; this model 1.500 (−0.031)", "is not clearly better than counting"),
    ],
)
def test_run_that_is_no_better_than_counting__is_no_plain_success(
    baseline: Baseline, line: str, warning: str | None
) -> None:
    status = status_of(lambda story: story.start().step(100, 2.0, 2.1).complete(baseline=baseline))
    for shown in (Read(final_message(RECORD, status, Outcome())), card(status)):
        assert line in shown.text.split("\n")
        assert shown.title.startswith("✅ Completed" if warning is None else "⚠ Completed")
        assert "than counting" not in shown.text if warning is None else warning in shown.text


def test_final_message__does_not_advise_to_resume_into_the_same_failure() -> None:
    for code, is_resumed in ((ErrorCode.CRASH_LOOP, True), (ErrorCode.TRAINING_NAN_LOSS, False)):
        ends = (failed(code), changed(failed(code), status="cancelled"))
        shown = [Read(final_message(RECORD, status, Outcome())).text for status in ends]
        assert ["/mt resume" in text for text in shown] == [is_resumed, is_resumed]
    resumed = changed(CANCELLED, last_checkpoint_step=3)
    assert "/mt resume" in Read(final_message(RECORD, resumed, Outcome())).text


def test_chart__is_attached_with_a_text_for_those_who_do_not_see_it() -> None:
    assert attach_chart(discord.Embed(), None, QUEUED) == []
    embed = discord.Embed()
    (file,) = attach_chart(embed, b"png", RUNNING)
    assert embed.image.url == "attachment://loss.png" and file.filename == "loss.png"
    losses = f"training loss {2 / BIT:.3f} bits/token, validation loss {2.1 / BIT:.3f}"
    assert file.description == f"Loss over steps up to step 25: {losses}."
    (file,) = attach_chart(embed, b"png", QUEUED)
    assert file.description == "Loss over steps up to step 0."


def test_final_message__of_a_failure_with_a_long_error_keeps_its_hint() -> None:
    long = changed(FAILED, error=RunError.of(AppError(ErrorCode.CRASH_LOOP, "*😀" * 5000)))
    embed = final_message(RECORD, long, Outcome(last_lines=["😀" * 5000] * 8))
    assert within_limits(embed) and Read(embed).text.endswith("include the run id below.")


@for_all(st.floats(allow_nan=False))
def test_progress_bar__has_sixteen_cells_and_is_full_only_at_the_end(percent: float) -> None:
    bar = progress_bar(percent)
    assert len(bar) == 16
    assert bar == "▰" * bar.count("▰") + "▱" * bar.count("▱")
    assert (bar == "▰" * 16) == (percent >= 100)


@for_all(st.lists(st.floats(min_value=0, max_value=20), max_size=200))
def test_sparkline__is_short_and_follows_the_curve(values: list[float]) -> None:
    line = sparkline(values)
    assert len(line) == min(12, len(values))
    assert set(line) <= set("▁▂▃▄▅▆▇█")
    if 0 < len(values) <= 12 and max(values) > min(values):
        assert line[values.index(max(values))] == "█"
        assert line[values.index(min(values))] == "▁"
    assert sparkline([7, 6, 5, 4, 3, 2, 1, 0]) == "█▇▆▅▄▃▂▁"


def test_weights__are_counted_to_three_figures() -> None:
    assert (weight_count(34_123), weight_count(7), weight_count(961_234)) == ("34.1 k", "0.007 k", "0.961 M")


_RESUME = f"`/mt resume run:{RUN}`"


@pytest.mark.parametrize(
    ("code", "checkpoint", "advised"),
    [
        (ErrorCode.TRAINING_NAN_LOSS, 3, "`/mt train` with a smaller `learning_rate` than 0.002."),
        (ErrorCode.CORPUS_TOO_SHORT, None, "`/mt train` with a longer text."),
        (ErrorCode.CRASH_LOOP, None, f"`/mt logs run:{RUN}`, then `/mt train`."),
        (ErrorCode.CRASH_LOOP, 3, f"{_RESUME}; it continues from the last checkpoint."),
        (
            ErrorCode.INSUFFICIENT_STORAGE,
            3,
            f"{_RESUME} when the disk works again; it continues from the last checkpoint.",
        ),
    ],
)
def test_failed_run__names_the_command_that_helps(code: ErrorCode, checkpoint: int | None, advised: str) -> None:
    assert f"\nTry: {advised}\n" in card(failed(code, checkpoint)).text


@pytest.mark.parametrize(
    ("batch", "advised"), [(64, "`batch_size:32` instead of 64, or `size:tiny`."), (1, "`size:tiny`.")]
)
def test_run_without_memory__is_retried_with_less(batch: int, advised: str) -> None:
    status = changed(FAILED, batch_size=batch)
    assert advice(status) == f"Try: `/mt train` with {advised}"
    assert (retry_batch(status), can_retry(status)) == ((32, True) if batch == 64 else (None, False))


def test_files__of_a_run_with_many_checkpoints_are_cut_with_their_number() -> None:
    files = [FileRecord(path=f"checkpoints/step-{number}/x", bytes=1000, sha256="ab" * 32) for number in range(500)]
    embed = files_answer(RECORD, files)
    *shown, last = Read(embed).text.split("\n")
    assert within_limits(embed)
    assert shown[0] == "`checkpoints/step-0/x` 1.0 kB · sha256 `abababababab…`"
    assert last == f"{500 - len(shown)} more files."
    assert Read(embed).title == "📁 500 files of kk-ipa, 500.0 kB"
