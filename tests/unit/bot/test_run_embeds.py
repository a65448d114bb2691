"""Embeds of lists, logs and inference requests: within Discord's limits for any run name."""

import pytest
from hypothesis import strategies as st

from bot import embeds
from bot.commands.list_runs import PAGE_RUNS
from bot.run_index import RunEntry
from tests.support.cards import Read, labelled, texts, within_limits
from tests.support.properties import for_all, for_all_pairs
from tests.support.stories import BEGIN, run_record
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem

ENTRY = RunEntry("lstm-1", 7, BEGIN, "kk-ipa", "lstm", "kk_ipa", has_attached_text=False)
LABELS = st.text(st.sampled_from("*_`~|<@>😀x"), min_size=1, max_size=64)


def page(*runs: RunEntry) -> Read:
    return Read(embeds.runs_page(runs, wanted="Your runs", count=len(runs), page=1, pages=1, request_id="0a1b2c3d"))


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        (ENTRY, "⏳ **kk-ipa** · queued\n`lstm-1` · kk\\_ipa · <@7> · <t:1795176000:R>"),
        (
            ENTRY._replace(state="running", progress=41.6, loss_nats=2.5, user_id=None),
            "🏃 **kk-ipa** · running 42 % · 2.500 nats/token\n`lstm-1` · kk\\_ipa · command line · <t:1795176000:R>",
        ),
        (
            ENTRY._replace(state="completed", loss_nats=1.5, bits_per_char=2.164, has_attached_text=True, label=None),
            "✅ **lstm-1** · completed · 1.500 nats/token · 2.16 bits/char\n"
            "`lstm-1` · an attached text · <@7> · <t:1795176000:R>",
        ),
    ],
)
def test_page__tells_of_a_run_how_it_stands_and_what_it_is(entry: RunEntry, shown: str) -> None:
    assert page(entry).text == shown
    assert page(entry).title == "📋 Your runs: 1"


def test_page__without_runs_says_what_to_do() -> None:
    assert page().text == "There is none. `/mt train` starts one; `mine:False` shows the runs of others too."


def test_page__of_several_says_which_it_is() -> None:
    shown = embeds.runs_page([ENTRY], wanted="Your runs", count=17, page=2, pages=3, request_id="0a1b2c3d")

    assert Read(shown).footer == "page 2 of 3 · request 0a1b2c3d"


@for_all_pairs(st.lists(LABELS, min_size=PAGE_RUNS, max_size=PAGE_RUNS), texts)
def test_limits__hold_for_a_full_page_of_any_names(names: list[str], corpus: str) -> None:
    runs = [ENTRY._replace(label=name, corpus=corpus * 4, run_id="x" * 64) for name in names]
    embed = embeds.runs_page(runs, wanted=f"Your runs with «{corpus}»", count=8, page=1, pages=2, request_id="0a1b2c3d")

    assert within_limits(embed)
    assert (embed.description or "").count("`" + "x" * 64 + "`") == PAGE_RUNS


@for_all(texts)
def test_limits__hold_for_any_log(line: str) -> None:
    embed = embeds.logs_answer(labelled("x" * 64), [line * 9] * 9, is_attached=False, request_id="0a1b2c3d")

    assert within_limits(embed)
    assert (embed.description or "").count("```") == 2


def test_logs__that_are_not_there_yet_or_come_as_a_file() -> None:
    none = Read(embeds.logs_answer(run_record(), [], is_attached=False, request_id="0"))
    long = Read(embeds.logs_answer(run_record(), ["x", "y"], is_attached=True, request_id="0"))

    assert none.text == "It has written no log yet: the log begins when a worker starts the run."
    assert (long.title, long.text) == ("📜 The last 2 lines of kk-ipa", "They are in the file.")


def test_cancel_question__tells_since_when_and_what_stays() -> None:
    asked = Read(embeds.cancel_question(run_record(), request_id="0"))

    assert asked.title == "⏹ Cancel kk-ipa?"
    assert asked.text == "It was asked for <t:1795176000:R>. What it has saved is kept."
    assert asked.colour == 0xFAA61A


def test_error__with_several_problems_tells_each_on_a_line() -> None:
    problems = tuple(FieldProblem(path=name, message=f"`{name}` must be text") for name in ("a", "b"))
    several = Read(embeds.error_answer(AppError(ErrorCode.INVALID_INPUT, "All of it.", problems), "0"))
    one = Read(embeds.error_answer(AppError(ErrorCode.INVALID_INPUT, "All of it.", problems[:1]), "0"))

    assert several.text == "• `a` must be text\n• `b` must be text"
    assert one.text == "All of it."


def test_error__above_a_limit_is_busy_and_grey() -> None:
    shown = Read(embeds.error_answer(AppError(ErrorCode.RATE_LIMIT_EXCEEDED, "Try again later."), "0"))

    assert (shown.title, shown.colour, shown.text) == ("⏳ Busy", 0x95A5A6, "Try again later.")
