"""Run cards and final messages: the text of every state, within Discord's limits."""

from collections.abc import Sequence
from datetime import timedelta
from math import log
from pathlib import Path

import discord
import pytest
from hypothesis import strategies as st

from bot.messages.advice import advice, can_retry, retry_batch
from bot.messages.answers import accepted_answer
from bot.messages.run_card import (
    attach_chart,
    chart_alt_text,
    final_message,
    progress_bar,
    run_card,
    sparkline,
    weight_count,
)
from tests.support.cards import Read, within_limits
from tests.support.properties import for_all
from tests.support.stories import Story, run_record
from trainer.artifacts.outcome import Outcome
from trainer.contracts.base import FileRecord, changed
from trainer.contracts.cost import Cost
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.inference import (
    Sample,
)
from trainer.contracts.leaks import Leak
from trainer.contracts.runs import EarlyStopping, RunStatus
from trainer.contracts.wording import WAIT_MESSAGES

RUN = "char_lstm-20261120-0a1b2c"


RECIPE = "char_lstm · 128/256/2 · char tokenizer · 5 epochs\nCorpus: kk\\_ipa, 1.2 MB · seed 42"


ASKED = "<t:1795176000:R>"  # 2026-11-20 12:00 UTC


def card(story: Story) -> Read:
    follower = story.follower()
    return Read(run_card(story.record, follower.refresh(), losses(story)))


def without_worker(folder: Path) -> RunStatus:
    waiting: dict[str, object] = {"queue_position": 2, "waits_for": "worker"}
    return Story(folder / "waiting", run_record()).follower().refresh().model_copy(update=waiting)


def losses(story: Story) -> Sequence[float]:
    return [loss for _, loss in story.follower().train_losses]


def test_card__queued(tmp_path: Path) -> None:
    shown = card(Story(tmp_path, run_record()))
    assert shown.colour == 0x95A5A6
    assert shown.title == "⏳ Queued: kk-ipa"
    assert shown.text == f"{RECIPE}\nrequested {ASKED}\nWaiting for a worker."
    assert Read(run_card(run_record(), without_worker(tmp_path), [])).text == (
        f"{RECIPE}\nPosition 2 in the queue · requested {ASKED}\n{WAIT_MESSAGES['worker']}"
    )
    assert shown.footer == RUN


def test_card__queued_with_a_place_in_the_queue(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record(label=None))
    place: dict[str, object] = {"queue_position": 2}
    status = story.follower().refresh().model_copy(update=place)
    shown = Read(run_card(story.record, status, []))
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
        "Gradient norm 1.00 · learning rate 0.002",
        f"ETA <t:1795176060:R> · checkpoint at step 25 {ASKED}",
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
        "grad_norm": None,
    }
    status = story.follower().refresh().model_copy(update=unknown)

    shown = Read(run_card(story.record, status, [3.0]))

    assert "step 10\n" in shown.text
    assert "Loss **3.000** nats/token · perplexity" in shown.text
    assert shown.text.endswith(f"checkpoint at step 10 {ASKED}")


def test_card__running_without_checkpoint(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(10, 3.0)
    soon: dict[str, object] = {"eta_seconds": None}
    assert card(story).text.endswith("ETA <t:1795176060:R>")
    status = story.follower().refresh().model_copy(update=soon)
    assert Read(run_card(story.record, status, [])).text.endswith("learning rate 0.002")


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


def test_card__of_unknown_text_warns_about_its_bits_per_character(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(100, 1.1, 1.2)
    running = story.follower().refresh()
    ended = story.complete().follower().refresh()
    warning = "⚠ 0.2% of the characters are unknown to the tokenizer: bits per character are too low to compare."
    for status, figures in ((running, "Loss **1.100** nats/token · 3.17 bits/char ⚠"), (ended, "1.50 bits/char ⚠")):
        unread = Read(run_card(story.record, changed(status, unknown_char_share=0.002), [])).text
        assert figures in unread and warning in unread.split("\n")
        assert "⚠" not in Read(run_card(story.record, changed(status, unknown_char_share=0.001), [])).text


def test_counts__of_one_are_in_the_singular(tmp_path: Path) -> None:
    record = run_record()
    once: dict[str, object] = {"num_epochs": 1}
    shorter: dict[str, object] = {"effective": record.effective.model_copy(update=once)}
    story = Story(tmp_path, record.model_copy(update=shorter)).start().step(1, 1.1).complete()
    one: dict[str, object] = {"step": 1, "epoch": 1, "test_loss": None, "best_val_loss": None}
    status = story.follower().refresh().model_copy(update=one)
    accepted = Read(accepted_answer(story.record))
    ended = Read(run_card(story.record, status, []))
    assert " · 1 epoch\n" in accepted.text
    assert ended.text.startswith("1 step in 1 epoch")
    assert "epochs" not in accepted.text + ended.text


def test_card__warns_of_test_text_that_stands_in_the_training_text(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start({"test": Leak(lines=0.5)}).step(100, 1.1, 1.2).complete()
    status = story.follower().refresh()
    warning = (
        "50.0% of the lines of the test split stand in the training split: its loss says little about unseen text."
        " Remove repeated text from the corpus."
    )

    final = Read(final_message(story.record, status, Outcome()))

    assert status.warnings == (warning,)
    for shown in (card(story), final):
        assert shown.colour == 0xFAA61A
        assert shown.title.startswith("⚠ Completed: kk-ipa")
        assert f"⚠ {warning}" in shown.text
    accepted = changed(story.record, leaks={"test": Leak(lines=0.5)})
    assert f"⚠ {warning}" in Read(accepted_answer(accepted)).text
    assert Story(tmp_path / "queued", accepted).follower().refresh().warnings == (warning,)


def test_card__completed_without_any_measurement(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(100, 1.1).complete()
    nothing: dict[str, object] = {"test_loss": None, "started_at": None}
    status = story.follower().refresh().model_copy(update=nothing)
    shown = Read(run_card(story.record, status, []))
    assert shown.title == "✅ Completed: kk-ipa"
    assert shown.text.startswith("100 steps in 5 epochs")


@pytest.mark.parametrize(("seconds", "said"), [(59, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min 0 s")])
def test_card__tells_how_long_a_run_took(tmp_path: Path, seconds: int, said: str) -> None:
    story = Story(tmp_path, run_record()).start().complete()
    status = story.follower().refresh()
    assert status.finished_at is not None
    began: dict[str, object] = {"started_at": status.finished_at - timedelta(seconds=seconds)}
    shown = Read(run_card(story.record, status.model_copy(update=began), []))
    assert shown.title.endswith(f" in {said}")


def test_card__failed(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(40, 2.0, 2.0).checkpoint(40).fail("9.8 GB wanted.")
    shown = card(story)
    assert shown.colour == 0xED4245
    assert shown.title == "❌ Failed: kk-ipa at step 40 (epoch 2)"
    assert shown.text.split("\n") == [
        "`OUT_OF_MEMORY` 9.8 GB wanted.",
        "Try: `/mt train` with `batch_size:32` instead of 64, or `size:tiny`.",
        "Kept: checkpoint at step 40 (best validation 2.000 nats/token · 5.77 bits/char)",
    ]


def test_card__failed_without_a_typed_error(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().checkpoint(3).fail("Gone.")
    untyped: dict[str, object] = {"error": None}
    status = story.follower().refresh().model_copy(update=untyped)
    assert Read(run_card(story.record, status, [])).text == (
        f"Gone.\nTry: `/mt resume run:{RUN}`; it continues from the last checkpoint.\nKept: checkpoint at step 3"
    )


def test_card__paused(tmp_path: Path) -> None:
    shown = card(Story(tmp_path, run_record()).start().step(50, 2.0).checkpoint(50).pause())
    assert shown.title == "⏸ Paused: kk-ipa"
    assert shown.text == (
        f"▰▰▰▰▰▰▰▰▱▱▱▱▱▱▱▱ 50 steps in 3 epochs\nKept: checkpoint at step 50\n`/mt resume run:{RUN}` resumes the run."
    )


def test_card__cancelled(tmp_path: Path) -> None:
    shown = card(Story(tmp_path, run_record()).cancel())
    assert shown.title == "⏹ Cancelled: kk-ipa"
    assert shown.text == "No checkpoint was saved."


def test_final_message__says_what_to_do_next_and_is_told_from_the_card_by_its_footer(tmp_path: Path) -> None:
    told = {}
    for name, end in (("done", Story.complete), ("lost", Story.fail), ("ended", Story.cancel)):
        story = end(Story(tmp_path, run_record(f"char_lstm-{name}")).start())
        told[name] = Read(final_message(story.record, story.follower().refresh(), Outcome()))
    assert told["done"].text.split("\n") == [
        "Test **1.000** nats/token · 1.50 bits/char · perplexity 2.72",
        "0 steps in 0 epochs",
        "Reproduce: `/mt train config:char_lstm-done.yaml`, the file of **Copy config**.",
        "Chat with it: `/mt chat run:char_lstm-done`",
    ]
    assert told["lost"].text.endswith("When you ask for help, include the run id below.")
    assert told["ended"].text.endswith("`/mt train` starts a new run.")
    assert told["done"].footer == "char_lstm-done · result"


def test_final_message__shows_what_the_model_writes_and_its_files(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().complete()
    files = [FileRecord(path=path, bytes=1_500_000, sha256="ab" * 32) for path in ("model.safetensors", "x", "y")]
    samples = [
        Sample(prompt=prompt, text=f"{text} ```@here", seed=1, steps=5, stop_reason="eos")
        for prompt, text in (("", "men bolamen"), ("al", "tyn"))
    ]
    shown = Read(final_message(story.record, story.follower().refresh(), Outcome(files, samples)))

    assert shown.text.split("\n")[2:-2] == [
        "Generated text:",
        "```",
        "men bolamen `\u200b`\u200b`\u200b@here",
        "```",
        "```",
        "altyn `\u200b`\u200b`\u200b@here",
        "```",
        "Files: `model.safetensors` 1.5 MB, sha256 `abababababab…` · 3 files in all, 4.5 MB",
    ]
    no_weights = final_message(story.record, story.follower().refresh(), Outcome(files[1:]))
    assert "Files" not in Read(no_weights).text


def test_final_message__of_a_masked_run_offers_only_what_it_can_do(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().complete()
    masked: dict[str, object] = {"objective": "masked_lm"}
    update: dict[str, object] = {"effective": story.record.effective.model_copy(update=masked)}
    shown = final_message(story.record.model_copy(update=update), story.follower().refresh(), Outcome())
    assert Read(shown).text.endswith("the file of **Copy config**.")


@pytest.mark.parametrize(("share", "is_warned"), [(0.97, True), (0.9, False)])
def test_run_that_learned_almost_nothing__is_no_plain_success(tmp_path: Path, share: float, is_warned: bool) -> None:
    story = Story(tmp_path, run_record()).start().complete()
    loss: dict[str, object] = {"test_loss": share * log(43)}  # the vocabulary of the story has 43 tokens
    status = story.follower().refresh().model_copy(update=loss)
    only_validated: dict[str, object] = {"test_loss": None, "best_val_loss": share * log(43)}

    for shown in (
        final_message(story.record, status, Outcome()),
        final_message(story.record, status.model_copy(update=only_validated), Outcome()),
        run_card(story.record, status, []),
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
    shown = Read(final_message(story.record, story.follower().refresh(), Outcome(last_lines=lines)))
    assert "\n```\n…" in shown.text and "Fatal Python error: Aborted\n```\n" in shown.text
    assert shown.text.startswith("`OUT_OF_MEMORY` Use `batch_size` 8.\n"), "back-ticks are not escaped"


def test_step_of_a_cancelled_run__is_not_before_its_checkpoint(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(30, 2.0).checkpoint(34).cancel()
    assert card(story).title == "⏹ Cancelled: kk-ipa at step 34 (epoch 2)"
    assert card(story).text.startswith("Kept: checkpoint at step 34")


def test_resumed_run__that_was_cancelled_before_it_started_names_no_epoch(tmp_path: Path) -> None:
    assert card(Story(tmp_path, run_record()).checkpoint(34).cancel()).title == "⏹ Cancelled: kk-ipa at step 34"


def test_card__of_a_run_whose_worker_is_not_responding_promises_no_end(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(25, 2.0).checkpoint(20)
    lost: dict[str, object] = {"reachable": False}
    shown = Read(run_card(story.record, story.follower().refresh().model_copy(update=lost), [2.0]))
    assert (shown.title, shown.colour) == ("⚠ Worker not responding: kk-ipa", 0xFAA61A)
    assert shown.text.split("\n") == [
        f"▰▰▰▰▱▱▱▱▱▱▱▱▱▱▱▱ **25 %** · step 25 of 100 · last heartbeat {ASKED}",
        "The worker is not responding. The run resumes from its last checkpoint when a worker is available.",
        "Kept: checkpoint at step 20",
    ]
    unknown: dict[str, object] = {"reachable": False, "last_heartbeat_ts": None, "total_steps": None}
    status = story.follower().refresh().model_copy(update=unknown)
    assert Read(run_card(story.record, status, [])).text.split("\n")[0].endswith("**25 %** · step 25")


def test_final_message__of_a_run_that_can_go_on_names_the_command(tmp_path: Path) -> None:
    told = {}
    for name, end in (("lost", Story.fail), ("ended", Story.cancel)):
        story = end(Story(tmp_path, run_record(f"char_lstm-{name}")).start().checkpoint(3))
        status = story.follower().refresh()
        told[name] = Read(final_message(story.record, status, Outcome())).text
        spoilt: dict[str, object] = {"error": RunError.of(AppError(ErrorCode.TRAINING_NAN_LOSS, "x"))}
        diverged = final_message(story.record, status.model_copy(update=spoilt), Outcome())
        assert "/mt resume" not in Read(diverged).text, "it would diverge again"
    assert "batch_size:32" in told["lost"], "it would run out of memory again"
    assert told["ended"].endswith(
        "\n`/mt resume run:char_lstm-ended` resumes the run from its last checkpoint. `/mt train` starts a new run."
    )


def test_chart__is_attached_with_a_text_for_those_who_do_not_see_it(tmp_path: Path) -> None:
    status = Story(tmp_path, run_record()).start().step(10, 3.0, 3.1).follower().refresh()
    embed = discord.Embed()
    (file,) = attach_chart(embed, b"png", status)
    assert embed.image.url == "attachment://loss.png"
    assert file.filename == "loss.png"
    assert file.description == (
        "Loss over steps up to step 10: training loss 3.000 nats per token, validation loss 3.100."
    )


def test_chart__where_there_is_none_nothing_is_attached(tmp_path: Path) -> None:
    status = Story(tmp_path, run_record()).follower().refresh()
    embed = discord.Embed()
    assert attach_chart(embed, None, status) == []
    assert embed.image.url is None
    assert chart_alt_text(status) == "Loss over steps up to step 0."


def test_limits__a_failed_run_with_ten_thousand_characters_keeps_its_hint(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().fail("*😀" * 5000)
    embed = final_message(story.record, story.follower().refresh(), Outcome(last_lines=["😀" * 5000] * 8))
    assert within_limits(embed)
    assert Read(embed).text.endswith("include the run id below.")


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


def test_sparkline__of_a_fall_falls() -> None:
    assert sparkline([7, 6, 5, 4, 3, 2, 1, 0]) == "█▇▆▅▄▃▂▁"


def test_card__of_a_long_training_shows_all_that_is_measured(tmp_path: Path) -> None:
    record = run_record()
    rule: dict[str, object] = {"early_stopping": EarlyStopping(enabled=True, patience=3)}
    stopping: dict[str, object] = {"effective": record.effective.model_copy(update=rule)}
    story = Story(tmp_path, record.model_copy(update=stopping)).start().step(25, 2.0, 2.1)
    measured: dict[str, object] = {
        "grad_norm": 0.8249,
        "learning_rate": 7.4e-4,
        "gpu_memory_bytes": (3_149_000_000, 2_951_000_000),
        "best_epoch": 2,
        "evals_without_gain": 1,
        "device": "cuda:0",
    }
    shown = Read(run_card(story.record, story.follower().refresh().model_copy(update=measured), [3.0, 2.0]))

    assert shown.text.split("\n")[2:] == [
        "Validation 2.100 nats/token · 6.06 bits/char · best 2.100 (epoch 2)",
        "1\u202f000 characters/s · cuda:0 · fp32 · 3.1/3.0 GB",
        "Gradient norm 0.82 · learning rate 0.00074",
        "ETA <t:1795176060:R> · early stop 1/3",
    ]
    assert max(map(len, shown.text.split("\n"))) <= 72, "a phone breaks longer lines twice"


def test_card__while_the_best_weights_are_evaluated_is_a_state_of_its_own(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(100, 1.1, 1.2).evaluate()
    shown = card(story)
    assert shown.title == "🧮 Evaluating: kk-ipa"
    assert shown.text.split("\n") == [
        f"{'▰' * 16} 100 steps in 5 epochs",
        "Validation 1.200 nats/token · 3.46 bits/char (best)",
        "The best weights are evaluated on the test split.",
    ]
    fresh = card(Story(tmp_path / "other", run_record()).start().evaluate())
    assert "Validation" not in fresh.text


def test_card__of_a_queued_run_tells_its_position_its_weights_and_its_origin(tmp_path: Path) -> None:
    record = run_record()
    cost = Cost(params=961_234, memory_bytes=1, disk_bytes=1, steps=1)
    warm: dict[str, object] = {"init_from_run_id": "lstm-1", "freeze_embeddings": True}
    effective: dict[str, object] = {"cost": cost, "effective": record.effective.model_copy(update=warm)}
    started = record.model_copy(update=effective)
    place: dict[str, object] = {"queue_position": 2}
    status = Story(tmp_path, record).follower().refresh().model_copy(update=place)

    assert Read(run_card(started, status, [])).text.split("\n") == [
        "char_lstm · 128/256/2 · char tokenizer · 5 epochs · 0.961 M weights",
        "Corpus: kk\\_ipa, 1.2 MB · seed 42",
        "Warm start from `lstm-1`, embeddings frozen",
        "Position 2 in the queue · requested <t:1795176000:R>",
        "Waiting for a worker.",
    ]
    again: dict[str, object] = {"resumed_from_run_id": "lstm-0"}
    assert "Resumes `lstm-0`" in Read(run_card(started.model_copy(update=again), status, [])).text
    assert (weight_count(34_123), weight_count(7)) == ("34.1 k", "0.007 k")


def test_card__of_a_completed_run_tells_its_curve_its_best_epoch_and_why_it_stopped(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(100, 1.1, 1.2).complete()
    known: dict[str, object] = {"auc": 201.44, "early_stopped": True, "best_epoch": 4, "best_val_margin": 0.05}
    status = story.follower().refresh().model_copy(update=known)
    for shown in (run_card(story.record, status, []), final_message(story.record, status, Outcome())):
        assert Read(shown).text.split("\n")[1:4] == [
            "Validation 1.200 ± 0.050 (95 %) nats/token · 3.46 bits/char (best, epoch 4)",
            "100 steps in 5 epochs · stopped early: yes",
            "Area under the loss curve: 201.4 nats · steps",
        ]


@pytest.mark.parametrize(
    ("code", "checkpoint", "said"),
    [
        (ErrorCode.TRAINING_NAN_LOSS, 3, "`/mt train` with a smaller `learning_rate` than 0.002."),
        (ErrorCode.CORPUS_TOO_SHORT, None, "`/mt train` with a longer text."),
        (ErrorCode.CRASH_LOOP, None, f"`/mt logs run:{RUN}`, then `/mt train`."),
        (ErrorCode.CRASH_LOOP, 3, f"`/mt resume run:{RUN}`; it continues from the last checkpoint."),
        (
            ErrorCode.INSUFFICIENT_STORAGE,
            3,
            f"`/mt resume run:{RUN}` when the disk works again; it continues from the last checkpoint.",
        ),
    ],
)
def test_failed_run__names_the_command_that_helps(
    tmp_path: Path, code: ErrorCode, checkpoint: int | None, said: str
) -> None:
    story = Story(tmp_path, run_record()).start().step(10, 2.0).fail()
    failed: dict[str, object] = {"error": RunError.of(AppError(code, "x")), "last_checkpoint_step": checkpoint}
    status = story.follower().refresh().model_copy(update=failed)
    assert f"\nTry: {said}\n" in Read(run_card(story.record, status, [])).text


@pytest.mark.parametrize(
    ("batch", "said"), [(64, "`batch_size:32` instead of 64, or `size:tiny`."), (1, "`size:tiny`.")]
)
def test_run_without_memory__is_retried_with_half_the_batch_or_a_smaller_model(
    tmp_path: Path, batch: int, said: str
) -> None:
    sized: dict[str, object] = {"batch_size": batch}
    status = Story(tmp_path, run_record()).start().fail().follower().refresh().model_copy(update=sized)
    assert advice(status) == f"Try: `/mt train` with {said}"
    assert (retry_batch(status), can_retry(status)) == ((32, True) if batch == 64 else (None, False))


def test_diverged_run__without_a_step_names_no_rate(tmp_path: Path) -> None:
    status = Story(tmp_path, run_record()).start().fail().follower().refresh()
    diverged: dict[str, object] = {"error": RunError.of(AppError(ErrorCode.TRAINING_NAN_LOSS, "x"))}
    assert advice(status.model_copy(update=diverged)) == "Try: `/mt train` with a smaller `learning_rate`."
