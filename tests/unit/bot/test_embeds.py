"""Cards of each run state, and Discord's limits for any content."""

import re
import unicodedata
from collections.abc import Sequence
from datetime import timedelta
from math import log
from pathlib import Path

import discord
import pytest
from hypothesis import strategies as st

from bot import embeds
from bot.outcome import Outcome
from bot.report import ReportFiles, summarize
from tests.support.cards import Read, labelled, texts, within_limits
from tests.support.measured_runs import OWN_TEXT, measured, of_fields
from tests.support.properties import for_all, for_all_pairs
from tests.support.scores import Expected, score_of
from tests.support.stories import Story, run_record
from trainer.contracts.base import FileRecord
from trainer.contracts.comparison import Measurement, compare
from trainer.contracts.cost import Cost
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.inference import (
    ChatResponse,
    FinishReason,
    GenerateRequest,
    GenerateResponse,
    Sample,
    ScoreResponse,
)
from trainer.contracts.runs import CorpusRef, RunStatus
from trainer.jobs.queue import NO_WORKER

RUN = "char_lstm-20261120-0a1b2c"
RECIPE = "char_lstm · 128/256/2 · char tokenizer · 5 epochs\nCorpus: kk\\_ipa, 1.2 MB · seed 42"
ASKED = "<t:1795176000:R>"  # 2026-11-20 12:00 UTC


def card(story: Story) -> Read:
    follower = story.follower()
    return Read(embeds.run_card(story.record, follower.refresh(), losses(story)))


def without_worker(folder: Path) -> RunStatus:
    waiting: dict[str, object] = {"queue_position": 2, "message": NO_WORKER}
    return Story(folder / "waiting", run_record()).follower().refresh().model_copy(update=waiting)


def cancel_answer(*, has_ended: bool, has_started: bool) -> discord.Embed:
    return embeds.cancel_answer(run_record(), has_ended=has_ended, has_started=has_started, request_id="0a1b2c3d")


def losses(story: Story) -> Sequence[float]:
    return [loss for _, loss in story.follower().train_losses]


def test_card__queued(tmp_path: Path) -> None:
    shown = card(Story(tmp_path, run_record()))

    assert shown.colour == 0x95A5A6
    assert shown.title == "⏳ Queued: kk-ipa"
    assert shown.text == f"{RECIPE}\nasked for {ASKED}\nWaiting for a worker."
    assert Read(embeds.run_card(run_record(), without_worker(tmp_path), [])).text == (
        f"{RECIPE}\nPosition 2 in the queue · asked for {ASKED}\n{NO_WORKER}"
    )
    assert shown.footer == RUN


def test_card__queued_with_a_place_in_the_queue(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record(label=None))
    place: dict[str, object] = {"queue_position": 2}
    status = story.follower().refresh().model_copy(update=place)

    shown = Read(embeds.run_card(story.record, status, []))

    assert shown.title == "⏳ Queued: char\\_lstm-20261120-0a1b2c"
    assert "Position 2 in the queue" in shown.text


def test_card__running_before_the_first_step(tmp_path: Path) -> None:
    shown = card(Story(tmp_path, run_record()).read_corpus())

    assert shown.colour == 0x5865F2
    assert shown.text == f"{'▱' * 16} **0 %**\nReading the corpus."


def test_card__running(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(10, 3.0).step(25, 2.0, 2.1).checkpoint(25)
    shown = card(story)

    assert shown.title == "🏃 Training: kk-ipa"
    assert shown.text.split("\n") == [
        "▰▰▰▰▱▱▱▱▱▱▱▱▱▱▱▱ **25 %** · epoch 2/5 · step 25 / 100",
        "Loss **2.000** nats/token · 5.77 bits/char · perplexity 7.39  █▁",
        "Validation 2.100 nats/token · 6.06 bits/char · best 2.100",
        "1\u202f000 characters/s · cpu · fp32",
        "ETA <t:1795176060:R> · checkpoint at step 25",
    ]


def test_card__running_with_little_known_yet(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(10, 3.0, 3.1).checkpoint(10)
    unknown: dict[str, object] = {
        "total_steps": None,
        "best_val_loss": None,
        "train_bits_per_char": None,
        "val_bits_per_char": None,
        "chars_per_second": None,
        "eta_seconds": None,
    }
    status = story.follower().refresh().model_copy(update=unknown)

    shown = Read(embeds.run_card(story.record, status, [3.0]))

    assert "step 10\n" in shown.text
    assert "Loss **3.000** nats/token · perplexity" in shown.text
    assert shown.text.endswith("checkpoint at step 10")


def test_card__running_without_checkpoint(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(10, 3.0)
    soon: dict[str, object] = {"eta_seconds": None}

    assert card(story).text.endswith("ETA <t:1795176060:R>")
    status = story.follower().refresh().model_copy(update=soon)
    assert Read(embeds.run_card(story.record, status, [])).text.endswith("cpu · fp32")


def test_card__completed(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(100, 1.1, 1.2).complete()
    shown = card(story)

    assert shown.colour == 0x57F287
    assert shown.title == "✅ Completed: kk-ipa in 11 min 8 s"
    assert shown.text.split("\n")[:3] == [
        "Test **1.000** nats/token · 1.50 bits/char · perplexity 2.72",
        "Validation 1.200 nats/token · 3.46 bits/char (best)",
        "100 steps in 5 epochs",
    ]
    assert shown.footer == RUN


def test_counts__of_one_are_in_the_singular(tmp_path: Path) -> None:
    record = run_record()
    once: dict[str, object] = {"num_epochs": 1}
    shorter: dict[str, object] = {"effective": record.effective.model_copy(update=once)}
    story = Story(tmp_path, record.model_copy(update=shorter)).start().step(1, 1.1).complete()
    one: dict[str, object] = {"step": 1, "epoch": 1, "test_loss": None, "best_val_loss": None}
    status = story.follower().refresh().model_copy(update=one)

    accepted = Read(embeds.accepted_answer(story.record, request_id="0"))
    ended = Read(embeds.run_card(story.record, status, []))

    assert " · 1 epoch\n" in accepted.text
    assert ended.text.startswith("1 step in 1 epoch")
    assert "epochs" not in accepted.text + ended.text


def test_card__completed_without_any_measurement(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(100, 1.1).complete()
    nothing: dict[str, object] = {"test_loss": None, "started_at": None}
    status = story.follower().refresh().model_copy(update=nothing)

    shown = Read(embeds.run_card(story.record, status, []))

    assert shown.title == "✅ Completed: kk-ipa"
    assert shown.text.startswith("100 steps in 5 epochs")


@pytest.mark.parametrize(("seconds", "said"), [(59, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min 0 s")])
def test_card__tells_how_long_a_run_took(tmp_path: Path, seconds: int, said: str) -> None:
    story = Story(tmp_path, run_record()).start().complete()
    status = story.follower().refresh()
    assert status.finished_at is not None
    began: dict[str, object] = {"started_at": status.finished_at - timedelta(seconds=seconds)}
    shown = Read(embeds.run_card(story.record, status.model_copy(update=began), []))

    assert shown.title.endswith(f" in {said}")


def test_card__failed(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(40, 2.0, 2.0).checkpoint(40).fail("9.8 GB wanted.")
    shown = card(story)

    assert shown.colour == 0xED4245
    assert shown.title == "❌ Failed: kk-ipa at step 40 (epoch 2)"
    assert shown.text.split("\n") == [
        "`OUT_OF_MEMORY` 9.8 GB wanted.",
        "Kept: the checkpoint of step 40 (best validation 2.000 nats/token · 5.77 bits/char)",
    ]


def test_card__failed_without_a_typed_error(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().checkpoint(3).fail("Gone.")
    untyped: dict[str, object] = {"error": None}
    status = story.follower().refresh().model_copy(update=untyped)

    assert Read(embeds.run_card(story.record, status, [])).text == "Gone.\nKept: the checkpoint of step 3"


def test_card__cancelled(tmp_path: Path) -> None:
    shown = card(Story(tmp_path, run_record()).cancel())

    assert shown.title == "⏹ Cancelled: kk-ipa"
    assert shown.text == "No checkpoint had been saved yet."


def test_final_message__says_what_to_do_next_and_is_told_from_the_card_by_its_footer(tmp_path: Path) -> None:
    told = {}
    for name, end in (("done", Story.complete), ("lost", Story.fail), ("ended", Story.cancel)):
        story = end(Story(tmp_path, run_record(f"char_lstm-{name}")).start())
        told[name] = Read(embeds.final_message(story.record, story.follower().refresh(), Outcome()))

    commands = " · ".join(f"`/mt {command} run:char_lstm-done`" for command in ("generate", "chat", "score"))
    assert told["done"].text == f"Test **1.000** nats/token · 1.50 bits/char · perplexity 2.72\nNext: {commands}"
    assert told["lost"].text.endswith("Give the run's id below when asking for help.")
    assert told["ended"].text.endswith("`/mt train` starts a new training.")
    assert told["done"].footer == "char_lstm-done · result"


def test_final_message__shows_what_the_model_writes_and_its_files(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().complete()
    files = [FileRecord(path=path, bytes=1_500_000, sha256="ab" * 32) for path in ("model.safetensors", "x", "y")]
    samples = [
        Sample(prompt=prompt, text=f"{text} ```@here", seed=1, steps=5, stop_reason="eos")
        for prompt, text in (("", "men bolamen"), ("al", "tyn"))
    ]
    shown = Read(embeds.final_message(story.record, story.follower().refresh(), Outcome(files, samples)))

    assert shown.text.split("\n")[1:-1] == [
        "The model writes:",
        "```",
        "men bolamen `\u200b`\u200b`\u200b@here",
        "```",
        "```",
        "altyn `\u200b`\u200b`\u200b@here",
        "```",
        "Files: `model.safetensors` 1.5 MB, sha256 `abababababab…` · 2 more, 3.0 MB",
    ]
    no_weights = embeds.final_message(story.record, story.follower().refresh(), Outcome(files[1:]))
    assert "Files" not in Read(no_weights).text


def test_final_message__of_a_masked_run_offers_only_what_it_can_do(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().complete()
    masked: dict[str, object] = {"objective": "masked_lm"}
    update: dict[str, object] = {"effective": story.record.effective.model_copy(update=masked)}
    shown = embeds.final_message(story.record.model_copy(update=update), story.follower().refresh(), Outcome())

    assert Read(shown).text.endswith(f"\nNext: `/mt score run:{RUN}`")


@pytest.mark.parametrize(("share", "is_warned"), [(0.97, True), (0.9, False)])
def test_run_that_learned_almost_nothing__is_no_plain_success(tmp_path: Path, share: float, is_warned: bool) -> None:
    story = Story(tmp_path, run_record()).start().complete()
    loss: dict[str, object] = {"test_loss": share * log(43)}  # the vocabulary of the story has 43 tokens
    status = story.follower().refresh().model_copy(update=loss)
    only_validated: dict[str, object] = {"test_loss": None, "best_val_loss": share * log(43)}

    for shown in (
        embeds.final_message(story.record, status, Outcome()),
        embeds.final_message(story.record, status.model_copy(update=only_validated), Outcome()),
        embeds.run_card(story.record, status, []),
    ):
        warning = (
            f"⚠ The model has learned almost nothing: its loss is {share * log(43):.2f} nats/token, and the uniform"
        )
        assert (warning in Read(shown).text) == is_warned
        assert Read(shown).title.startswith("⚠ Completed" if is_warned else "✅ Completed")
        assert Read(shown).colour == (0xFAA61A if is_warned else 0x57F287)


def test_final_message__of_a_failed_run_ends_with_the_last_lines_of_its_log(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().fail("Use `batch_size` 8.")
    lines = [*("x" * 200 for _ in range(9)), "Fatal Python error: Aborted"]
    shown = Read(embeds.final_message(story.record, story.follower().refresh(), Outcome(last_lines=lines)))

    assert "\n```\n…" in shown.text and "Fatal Python error: Aborted\n```\n" in shown.text
    assert shown.text.startswith("`OUT_OF_MEMORY` Use `batch_size` 8.\n"), "back-ticks are not escaped"


def test_step_of_a_cancelled_run__is_not_before_its_checkpoint(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(30, 2.0).checkpoint(34).cancel()

    assert card(story).title == "⏹ Cancelled: kk-ipa at step 34 (epoch 2)"
    assert card(story).text.startswith("Kept: the checkpoint of step 34")


def test_resumed_run__that_was_cancelled_before_it_started_names_no_epoch(tmp_path: Path) -> None:
    assert card(Story(tmp_path, run_record()).checkpoint(34).cancel()).title == "⏹ Cancelled: kk-ipa at step 34"


def test_card__of_a_run_whose_worker_is_not_responding_promises_no_end(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(25, 2.0).checkpoint(20)
    lost: dict[str, object] = {"reachable": False}
    shown = Read(embeds.run_card(story.record, story.follower().refresh().model_copy(update=lost), [2.0]))

    assert (shown.title, shown.colour) == ("⚠ Worker not responding: kk-ipa", 0xFAA61A)
    assert shown.text.split("\n") == [
        f"▰▰▰▰▱▱▱▱▱▱▱▱▱▱▱▱ **25 %** · step 25 of 100 · last sign of life {ASKED}",
        "The worker is not responding. The run resumes from its last checkpoint when a worker is available.",
        "Kept: the checkpoint of step 20",
    ]
    unknown: dict[str, object] = {"reachable": False, "last_heartbeat_ts": None, "total_steps": None}
    status = story.follower().refresh().model_copy(update=unknown)
    assert Read(embeds.run_card(story.record, status, [])).text.split("\n")[0].endswith("**25 %** · step 25")


def test_final_message__of_a_run_that_can_go_on_names_the_command(tmp_path: Path) -> None:
    told = {}
    for name, end in (("lost", Story.fail), ("ended", Story.cancel)):
        story = end(Story(tmp_path, run_record(f"char_lstm-{name}")).start().checkpoint(3))
        status = story.follower().refresh()
        told[name] = Read(embeds.final_message(story.record, status, Outcome())).text
        spoilt: dict[str, object] = {"error": RunError.of(AppError(ErrorCode.TRAINING_NAN_LOSS, "x"))}
        diverged = embeds.final_message(story.record, status.model_copy(update=spoilt), Outcome())
        assert "/mt resume" not in Read(diverged).text, "it would diverge again"

    assert told["lost"].endswith(
        "\n`/mt resume run:char_lstm-lost` resumes it from its checkpoint."
        " Give the run's id below when asking for help."
    )
    assert told["ended"].endswith(
        "\n`/mt resume run:char_lstm-ended` resumes it from its checkpoint. `/mt train` starts a new training."
    )


def test_status__adds_the_last_sign_of_life(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(10, 3.0)
    status = story.follower().refresh()
    lost: dict[str, object] = {"reachable": False}

    here = embeds.status_answer(story.record, status, [], request_id="0a1b2c3d", closed=None)
    gone = embeds.status_answer(story.record, status.model_copy(update=lost), [], request_id="0a1b2c3d", closed="dm")
    away = embeds.status_answer(story.record, status, [], request_id="0a1b2c3d", closed="channel")

    assert Read(here).text.endswith(f"\nLast sign of life {ASKED}")
    assert f"last sign of life {ASKED}\nThe worker is not responding." in Read(gone).text
    assert Read(gone).text.endswith(
        "\nThis bot cannot send you direct messages."
        " Use `/mt status` here, or allow direct messages and run `/mt watch`."
    )
    assert gone.title == "⚠ Worker not responding: kk-ipa" and here.title == "🏃 Training: kk-ipa"
    assert "This bot cannot write into the channel where you watch." in Read(away).text
    assert Read(here).footer == f"{RUN} · request 0a1b2c3d"


def test_status__of_a_run_that_does_not_run_has_no_sign_of_life(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record())
    shown = embeds.status_answer(story.record, story.follower().refresh(), [], request_id="0", closed=None)

    assert "sign of life" not in Read(shown).text


def test_accepted_and_cancel_answers() -> None:
    accepted = Read(embeds.accepted_answer(run_record(), request_id="0a1b2c3d"))
    cancelled = Read(cancel_answer(has_ended=False, has_started=True))

    assert accepted.text == f"{RECIPE}\nIts card comes by direct message and is kept up to date."
    assert cancelled.title == "⏹ Cancelling: kk-ipa" and "stops at its next step" in cancelled.text
    never = Read(cancel_answer(has_ended=True, has_started=False))
    assert (never.title, never.text) == ("⏹ Cancelled: kk-ipa", "It had not started: nothing was trained.")
    assert "not being trained at the moment" in Read(cancel_answer(has_ended=True, has_started=True)).text
    cost = Cost(params=968_299, memory_bytes=1 << 30, disk_bytes=1, steps=30, seconds=50.0, bf16_pays=True)
    estimated: dict[str, object] = {"cost": cost}
    with_cost = Read(embeds.accepted_answer(run_record().model_copy(update=estimated), request_id="0a1b2c3d"))
    assert with_cost.text == "\n".join([RECIPE, *cost.lines(), accepted.text.splitlines()[-1]])
    assert accepted.footer == cancelled.footer == f"{RUN} · request 0a1b2c3d"


@pytest.mark.parametrize(("size", "shown"), [(999, "999 bytes"), (1000, "1.0 kB"), (25_000_000, "25.0 MB")])
def test_recipe__of_an_attached_text_does_not_name_it(size: int, shown: str) -> None:
    record = run_record()
    content: dict[str, object] = {"name": "c" * 64, "bytes": size}
    attached: dict[str, object] = {
        "corpus": record.effective.corpus.model_copy(update=content),
        "model_size": "small",
    }
    effective: dict[str, object] = {"effective": record.effective.model_copy(update=attached)}

    text = Read(embeds.accepted_answer(record.model_copy(update=effective), request_id="0")).text

    assert text.startswith("char_lstm small · 128/256/2")
    assert f"Corpus: the attached text, {shown} · seed 42" in text


SCORE = ScoreResponse(
    request_id="f",
    run_id=RUN,
    status="completed",
    loss=2.0,
    perplexity=7.389,
    mean_surprisal=1.9,
    nats=2306.6,
    bits_per_char=2.885,
    n_tokens=1214,
    n_scored=1214,
    unk_count=3,
)


def test_score__gives_loss_bits_and_perplexity_but_not_the_text() -> None:
    shown = Read(
        embeds.score_answer(
            run_record(), "ğ" * 1214, SCORE, "nats", request_id="0a1b2c3d", own_bits_per_char=2.6, refused="Ask <@1>."
        )
    )

    assert shown.title == "📏 Score of 1\u202f214 characters with kk-ipa"
    assert shown.text.split("\n") == [
        "**2.000** nats/token · 2.88 bits/char · perplexity 7.39",
        "1.900 nats/token without line ends · 2306.6 nats in all over 1\u202f214 tokens · 3 unknown characters",
        "Its own test split: 2.60 bits/char",
        "🔒 Ask <@1>.",
    ]
    assert "ğ" not in shown.text


def test_score__in_bits() -> None:
    known: dict[str, object] = {"unk_count": 0, "loss": 2 * log(2), "bits_per_char": 2.0, "perplexity": 4.0}
    score = SCORE.model_copy(update=known | {"nats": 2428 * log(2), "mean_surprisal": 2 * log(2)})
    shown = Read(embeds.score_answer(run_record(), "a", score, "bits", request_id="0", own_bits_per_char=None))

    assert shown.text.split("\n") == [
        "**2.000** bits/token · 2.00 bits/char · perplexity 4.00",
        "2.000 bits/token without line ends · 2428.0 bits in all over 1\u202f214 tokens",
    ]


def test_score_of_a_masked_model__is_per_masked_token_without_bits_per_character() -> None:
    nothing: dict[str, object] = {"unk_count": 0, "loss": None, "bits_per_char": None, "perplexity": None}
    score = SCORE.model_copy(update=nothing)
    shown = Read(embeds.score_answer(run_record(), "a", score, "nats", request_id="0", own_bits_per_char=None))

    assert shown.text.split("\n") == [
        "**1.900** nats/masked token",
        "2306.6 nats in all over 1\u202f214 tokens",
    ]


GUESSES = (("a", 0.41), ("`", 0.224), ("[EOS]", 0.09))


def made_of(text: str, bits: list[float], unknown: str = "", expected: Expected | None = GUESSES) -> ReportFiles:
    score = score_of(text, [value * log(2) for value in bits], unknown=unknown, expected=expected)
    return ReportFiles(summarize(score, text, "bits"), len(text), b"png", b"html", b"csv", b"json")


def test_report__tells_the_spread_and_what_was_expected_instead_of_the_most_surprising() -> None:
    made = made_of("ab ғ", [1.0, 2.0, 6.0, 11.4], unknown="ғ")
    embed = embeds.report_answer(run_record(), made, left_out=0, request_id="0a1b2c3d")
    shown = Read(embed)

    assert (shown.colour, shown.title) == (0x9B59B6, "🔬 Surprisal report: kk-ipa")
    assert embed.image.url == "attachment://surprisal.png"
    assert shown.text.split("\n") == [
        "Mean **5.10** bits · median 4.00 · max 11.40 at 4 «ғ» · above 6 bits: 1 of 4 characters",
        "5.10 bits/char · perplexity 2.00 with line ends · 1 unknown character",
        "```",
        "Most surprising, and what was expected instead",
        "     4  11.40  ғ unknown   a 41%  `\u200b 22%  [EOS] 9%",
        "     3   6.00  ␣   a 41%  `\u200b 22%  [EOS] 9%",
        "     2   2.00  b   a 41%  `\u200b 22%  [EOS] 9%",
        "     1   1.00  a   `\u200b 22%  [EOS] 9%",
        "```",
        "Visible only to you; the text is not logged.",
    ]


def test_report__of_a_text_from_right_to_left_keeps_every_sign_where_its_numbers_are() -> None:
    record = run_record(label="ئۇيغۇر تىلى")
    made = made_of("بىر ٣", [1.0, 2.0, 3.0, 4.0, 9.5], unknown="٣", expected=(("ا", 0.41), ("[EOS]", 0.2)))
    shown = Read(embeds.report_answer(record, made, left_out=0, request_id="0a1b2c3d"))
    outside = re.sub("\u2068[^\u2068\u2069\n]*\u2069", "", f"{shown.title}\n{shown.text}")

    assert "max 9.50 at 5 «\u2068٣\u2069» · above 6 bits" in shown.text
    assert "     5   9.50  \u2068٣\u2069 unknown   \u2068ا\u2069 41%  [EOS] 20%" in shown.text
    assert shown.title == "🔬 Surprisal report: \u2068ئۇيغۇر تىلى\u2069"
    assert not any(unicodedata.bidirectional(char) in ("R", "AL", "AN", "FSI", "PDI") for char in outside)


def test_report__says_what_it_leaves_out() -> None:
    made = made_of("abcd", [1.0, 2.0, 3.0, 4.0])._replace(shown_characters=3)
    shown = Read(embeds.report_answer(run_record(), made, left_out=1200, request_id="0"))

    assert "The picture shows the first 3 characters; the files have them all." in shown.text
    assert "The text was too long: the report is without the last 1\u202f200 characters." in shown.text


def test_report__says_where_its_pieces_are_tokens_of_several_characters() -> None:
    made = made_of("ab", [1.0, 2.0])
    made = made._replace(summary=made.summary._replace(n_characters=5))

    assert "of 2 tokens" in Read(embeds.report_answer(run_record(), made, left_out=0, request_id="0")).text


def test_report__without_guesses_has_a_table_all_the_same() -> None:
    made = made_of("ab", [1.0, 2.0], expected=None)
    shown = Read(embeds.report_answer(run_record(), made, left_out=0, request_id="0"))

    assert "\nMost surprising\n     2   2.00  b\n     1   1.00  a\n" in shown.text


def test_report__of_a_masked_model_has_no_bits_per_character() -> None:
    made = made_of("ab", [1.0, 2.0])
    masked = made._replace(summary=made.summary._replace(bits_per_char=None, perplexity=None))
    shown = Read(embeds.report_answer(run_record(), masked, left_out=0, request_id="0"))

    assert shown.text.split("\n")[1] == "```"


def test_report__comes_with_its_picture_told_to_those_who_do_not_see_it() -> None:
    files = embeds.report_files(made_of("ab", [1.0, 2.0]))

    assert [(file.filename, file.fp.read()) for file in files] == [
        ("surprisal.png", b"png"),
        ("surprisal.html", b"html"),
        ("surprisal.csv", b"csv"),
        ("surprisal.json", b"json"),
    ]
    assert (files[0].description or "").endswith("mean 1.50 bits, highest 2.00 at 2.")


@for_all(texts.map("x".__add__))
def test_limits__hold_for_the_report_of_any_text(text: str) -> None:
    places = sum(char != "\n" for char in text)
    made = made_of(text, [9.0] * places, expected=((text[:50], 0.5),) * 10)
    embed = embeds.report_answer(labelled(text), made, left_out=10**6, request_id="0a1b2c3d")

    assert within_limits(embed)
    assert (embed.description or "").count("```") == 2


def test_generate__shows_each_text_in_a_code_block_that_it_cannot_leave() -> None:
    request = GenerateRequest(prompt_text="@everyone ", temperature=0.8, top_k=40, top_p=0.9)
    made = GenerateResponse(
        request_id="f",
        run_id=RUN,
        status="completed",
        outputs=("a", "b```c", "", "d"),
        steps=(1, 2, 3, 4),
        eos_terminated=(True, False, False, False),
        stop_reason=("eos", "stop_sequence", "max_new_tokens", "context_full"),
        seed_used=1187,
    )
    shown = Read(embeds.generate_answer(run_record(), request, made, request_id="0a1b2c3d"))

    assert shown.title == "✍ kk-ipa · T 0.8 · top-k 40 · top-p 0.9 · seed 1187"
    assert shown.text.count("```") == 8
    assert shown.text.startswith("```\n@everyone a\n```\n1 token · ended by the model\n```\n@everyone b`")
    assert "2 tokens · stopped by the stop text" in shown.text
    assert "3 tokens · stopped by length" in shown.text
    assert shown.text.endswith("4 tokens · stopped where the model's context ends")


def test_generate__shows_what_was_written_after_the_end_of_a_long_prompt() -> None:
    made = GenerateResponse(
        request_id="f",
        run_id=RUN,
        status="completed",
        outputs=("first " * 30, "second " * 30),
        steps=(1, 1),
        eos_terminated=(True, True),
        stop_reason=("eos", "eos"),
    )
    request = GenerateRequest(prompt_text="x" * 3990 + "the end of it ")
    shown = Read(embeds.generate_answer(run_record(), request, made, request_id="0"))

    assert shown.text.count("```\n…xxx") == 2
    assert "the end of it first first" in shown.text
    assert "the end of it second second" in shown.text


def test_chat__shows_what_was_said_and_what_had_no_room() -> None:
    queued = ChatResponse(request_id="f", run_id=RUN, session_id="s", status="queued")
    said: dict[str, object] = {"answer": "```\n@everyone", "steps": 3, "stop_reason": "eos", "turns_dropped": 2}

    shown = Read(embeds.chat_answer(run_record(), "hm " * 500, queued.model_copy(update=said), request_id="0"))
    bare = Read(embeds.chat_answer(run_record(), "a", queued, request_id="0"))

    assert shown.title == "💬 kk-ipa"
    assert shown.text.startswith("```\n…") and shown.text.count("```") == 4
    assert shown.text.endswith("3 tokens · ended by the model · no room for the oldest 2 turns")
    assert bare.text.endswith("0 tokens")


def test_generate__names_only_the_settings_that_are_on() -> None:
    made = GenerateResponse(request_id="f", run_id=RUN, status="completed")

    shown = Read(embeds.generate_answer(run_record(), GenerateRequest(prompt_text=""), made, request_id="0"))

    assert shown.title == "✍ kk-ipa · T 1"


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
    shown = Read(embeds.error_answer(AppError(code, "`epochs` must be 1 to 1000, you gave 0."), "0a1b2c3d"))

    assert shown.colour == colour
    assert shown.text.startswith("`epochs` must be 1 to 1000, you gave 0.")
    assert shown.footer == "request 0a1b2c3d"


def test_chart__is_attached_with_a_text_for_those_who_do_not_see_it(tmp_path: Path) -> None:
    status = Story(tmp_path, run_record()).start().step(10, 3.0, 3.1).follower().refresh()
    embed = discord.Embed()

    (file,) = embeds.attach_chart(embed, b"png", status)

    assert embed.image.url == "attachment://loss.png"
    assert file.filename == "loss.png"
    assert file.description == (
        "Loss over steps up to step 10: training loss 3.000 nats per token, validation loss 3.100."
    )


def test_chart__where_there_is_none_nothing_is_attached(tmp_path: Path) -> None:
    status = Story(tmp_path, run_record()).follower().refresh()
    embed = discord.Embed()

    assert embeds.attach_chart(embed, None, status) == []
    assert embed.image.url is None
    assert embeds.chart_alt_text(status) == "Loss over steps up to step 0."


def no_name(corpus: str) -> str:
    return corpus


def compared(new: Measurement, old: Measurement) -> discord.Embed:
    return embeds.compare_answer(compare([new, old], split="test"), no_name, request_id="0a1b2c3d")


@pytest.mark.parametrize(
    ("loss", "colour", "said"),
    [(2.5, 0xFAA61A, "✗ regression: loss +25.00%"), (1.9, 0x57F287, "better: loss -5.00%"), (2.0, 0x5865F2, "equal")],
)
def test_compare__has_the_verdict_the_numbers_and_what_differs(loss: float, colour: int, said: str) -> None:
    accuracies: dict[str, object] = {"loss": loss, "top1_accuracy": None}
    shown = Read(compared(measured("new", learning_rate=0.01, summary=accuracies), measured("old")))

    assert (shown.colour, shown.title) == (colour, "⚖ new against old")
    assert shown.footer == "new · old · request 0a1b2c3d"
    assert shown.text.startswith(f"**{said}")
    assert shown.text.split("\n", 2)[2] == "\n".join(
        [
            "**new** · old",
            "LSTM-2x16 · LSTM-2x16 · test split",
            f"Loss **{loss:.4f}** · 2.0000 ({loss - 2:+.4f})",
            "Perplexity **7.39** · 7.39 (+0.00)",
            "Bits/char **1.5000** · 1.5000 (+0.0000)",
            "Top-1 **–** · 25.0%",
            "Top-5 **50.0%** · 50.0% (+0.0%)",
            "Parameters **100** · 100 (+0)",
            "Tokens/s **1\u202f000** · 1\u202f000 (+0)",
            "",
            "**Settings that differ**",
            "learning rate: 0.01 · 0.0005",
        ]
    )


def test_compare__names_settings_and_texts_as_people_do() -> None:
    attached = {
        sign * 64: name
        for sign, name in (("1", "мәтін (attached)"), ("2", "ئۇيغۇر (attached)"), ("3", "мәтін (attached)"))
    }
    mine, other, namesake = (CorpusRef(name=sha256, sha256=sha256, bytes=1) for sha256 in attached)
    early: dict[str, object] = {"enabled": True, "patience": 3}
    new = measured("new", corpus=mine, test_corpus=OWN_TEXT, early_stopping=early, num_epochs=7, precision="fp32")
    renewed = CorpusRef(name="own", sha256="e" * 64, bytes=1)

    def settings(old: Measurement) -> list[str]:
        found = compare([new, old], split="test")
        shown = Read(embeds.compare_answer(found, lambda corpus: attached.get(corpus, corpus), request_id="0"))
        assert not re.search(r"[0-9a-f]{64}|_|null|true|false|`|--", shown.text)
        return shown.text.split("**Settings that differ**\n")[1].split("\n")

    assert settings(measured("old", corpus=other, test_corpus=renewed)) == [
        "epochs: 7 · 5",
        "early stop: yes · no",
        "early stop after: 3 · 2",
        "precision: fp32 · auto",
        "text: мәтін (attached) · \u2068ئۇيغۇر (attached)\u2069",
        "test text: other content under one name",
    ]
    of_another_family = settings(measured("old", family="gpt2", corpus=namesake))
    assert "model: lstm · gpt2" in of_another_family and "text: other content under one name" in of_another_family
    assert "test text: own · –" in of_another_family
    assert not any(line.startswith(("layers", "attention", "architecture")) for line in of_another_family)


def test_compare__of_what_does_not_compare_says_why() -> None:
    on_one_text = compare([measured("new", seed=1), measured("old")])
    shown = Read(embeds.compare_answer(on_one_text, no_name, request_id="0a1b2c3d"))
    assert shown.colour == 0x5865F2  # on one text they do
    shown = Read(compared(measured("new", seed=1), measured("old")))

    assert shown.colour == 0x95A5A6
    assert shown.text.startswith("**they do not compare**\nTheir test texts are not the same")


@for_all(texts)
def test_limits__hold_for_the_comparison_of_runs_of_any_name(label: str) -> None:
    name = {"label": label[:64]} if label[:64].isprintable() and label else {}
    one, two = of_fields("new", {**name, "seed": 1}), of_fields("old", {**name, "corpus": OWN_TEXT})

    assert within_limits(compared(one, two))


@for_all_pairs(texts, texts)
def test_limits__hold_for_any_error_message_and_any_name(name: str, message: str) -> None:
    record = labelled(name or "x")

    assert within_limits(embeds.error_answer(AppError(ErrorCode.INVALID_INPUT, message * 40 or "x"), "r" * 3000))
    assert within_limits(embeds.accepted_answer(record, request_id="0a1b2c3d"))


@for_all_pairs(st.lists(texts, min_size=1, max_size=4), texts)
def test_limits__hold_for_any_generated_text_and_every_block_is_closed(outputs: list[str], prompt: str) -> None:
    count = len(outputs)
    reasons: tuple[FinishReason, ...] = ("stop_sequence",)
    made = GenerateResponse(
        request_id="f",
        run_id=RUN,
        status="completed",
        outputs=tuple(output * 9 for output in outputs),
        steps=(512,) * count,
        eos_terminated=(False,) * count,
        stop_reason=reasons * count,
        seed_used=2**32 - 1,
    )
    embed = embeds.generate_answer(run_record(), GenerateRequest(prompt_text=prompt * 3), made, request_id="0a1b2c3d")

    assert within_limits(embed)
    assert (embed.description or "").count("```") == 2 * count


def test_limits__a_failed_run_with_ten_thousand_characters_keeps_its_hint(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().fail("*😀" * 5000)
    embed = embeds.final_message(story.record, story.follower().refresh(), Outcome(last_lines=["😀" * 5000] * 8))

    assert within_limits(embed)
    assert Read(embed).text.endswith("when asking for help.")


@for_all_pairs(texts, st.integers(min_value=1, max_value=100))
def test_clamp__keeps_short_texts_and_marks_what_was_cut(text: str, limit: int) -> None:
    units = len(text.encode("utf-16-le")) // 2
    clamped = embeds.clamp(text, limit)

    if units <= limit:
        assert clamped == text
    else:
        assert len(clamped.encode("utf-16-le")) // 2 <= limit
        assert clamped.endswith("…")
        assert text.startswith(clamped[:-1])


@for_all(st.floats(allow_nan=False))
def test_progress_bar__has_sixteen_cells_and_is_full_only_at_the_end(percent: float) -> None:
    bar = embeds.progress_bar(percent)

    assert len(bar) == 16
    assert bar == "▰" * bar.count("▰") + "▱" * bar.count("▱")
    assert (bar == "▰" * 16) == (percent >= 100)


@for_all(st.lists(st.floats(min_value=0, max_value=20), max_size=200))
def test_sparkline__is_short_and_follows_the_curve(values: list[float]) -> None:
    line = embeds.sparkline(values)

    assert len(line) == min(12, len(values))
    assert set(line) <= set("▁▂▃▄▅▆▇█")
    if 0 < len(values) <= 12 and max(values) > min(values):
        assert line[values.index(max(values))] == "█"
        assert line[values.index(min(values))] == "▁"


def test_sparkline__of_a_fall_falls() -> None:
    assert embeds.sparkline([7, 6, 5, 4, 3, 2, 1, 0]) == "█▇▆▅▄▃▂▁"


def test_plain__leaves_no_mention_link_or_markdown_alive() -> None:
    assert embeds.plain("<@1> @here https://x *a*") == "<\u200b@\u200b1> @\u200bhere https:\u200b//x \\*a\\*"
