"""Answers to score, generate and chat: their text, within Discord's limits."""

import re
import unicodedata
from collections import Counter
from math import log

import pytest
from hypothesis import strategies as st

from bot.messages.inference import (
    chat_answer,
    generate_answer,
    predict_answer,
    report_answer,
    report_files,
    score_answer,
)
from tests.support.cards import Read, labelled, texts, within_limits
from tests.support.properties import for_all, for_all_pairs
from tests.support.scores import Expected, score_of
from tests.support.stories import run_record
from trainer.contracts.inference import (
    ChatResponse,
    FinishReason,
    GenerateRequest,
    GenerateResponse,
    PredictResponse,
    ScoreResponse,
    Suggestion,
)
from trainer.reports.score_table import Unit
from trainer.reports.surprisal_report import ReportFiles, summarize

RUN = "char_lstm-20261120-0a1b2c"


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
    unknown_chars=5,
    unknown_char_share=0.0009,
)


GUESSES = (("a", 0.41), ("`", 0.224), ("[EOS]", 0.09))


FILES = {"surprisal.png": b"png", "surprisal.html": b"html", "surprisal.csv": b"csv", "surprisal.json": b"json"}


def made_of(text: str, bits: list[float], unknown: str = "", expected: Expected | None = GUESSES) -> ReportFiles:
    score = score_of(text, [value * log(2) for value in bits], unknown=unknown, expected=expected)
    return ReportFiles(summarize(score, text, "bits"), len(text), FILES)


def test_score__gives_loss_bits_and_perplexity_but_not_the_text() -> None:
    shown = Read(score_answer(run_record(), "ğ" * 1214, SCORE, "nats", 2.6, {}, "Ask <@1>."))
    assert shown.title == "📏 Score of 1\u202f214 characters with kk-ipa"
    assert shown.text.split("\n") == [
        "**2.000** nats/token · 2.88 bits/char · perplexity 7.39",
        "1.900 nats/token without line ends · 2306.6 nats in total · 1\u202f214 tokens · 5 unknown characters",
        "More surprised than on its own test set by 0.20 nats/char.",
        "🔒 Ask <@1>.",
    ]
    assert "ğ" not in shown.text


def test_score__in_bits() -> None:
    known: dict[str, object] = {"unknown_chars": 0, "loss": 2 * log(2), "bits_per_char": 2.0, "perplexity": 4.0}
    score = SCORE.model_copy(update=known | {"nats": 2428 * log(2), "mean_surprisal": 2 * log(2)})
    shown = Read(score_answer(run_record(), "a", score, "bits", None, {}))
    assert shown.text.split("\n") == [
        "**2.000** bits/token · 2.00 bits/char · perplexity 4.00",
        "2.000 bits/token without line ends · 2428.0 bits in total · 1\u202f214 tokens",
    ]


@pytest.mark.parametrize(
    ("own", "unit", "said"),
    [
        (2.385, "bits", "More surprised than on its own test set by 0.50 bits/char."),
        (3.885, "bits", "Less surprised than on its own test set by 1.00 bits/char."),
        (2.885 + 1 / log(2), "nats", "Less surprised than on its own test set by 1.00 nats/char."),
        (2.884, "bits", "As surprised as on its own test set."),
    ],
)
def test_score__compares_with_the_test_set_of_the_run(own: float, unit: Unit, said: str) -> None:
    shown = Read(score_answer(run_record(), "a", SCORE, unit, own, {}))
    assert shown.text.split("\n")[-1] == said


def test_score__of_unknown_text_warns_and_does_not_compare() -> None:
    unread: dict[str, object] = {"bits_per_char": 0.899, "unknown_char_share": 0.845}
    score = SCORE.model_copy(update=unread)
    shown = Read(score_answer(run_record(), "a", score, "nats", 2.6, {}))
    assert shown.text.split("\n")[0] == "**2.000** nats/token · 0.90 bits/char ⚠ · perplexity 7.39"
    assert shown.text.split("\n")[2:] == [
        "⚠ 84.5% of the characters are unknown to the tokenizer: bits per character are too low to compare."
    ]


def test_score__names_the_most_frequent_unknown_signs() -> None:
    unknown = {"ğ": 3, "*": 1, " ": 9, "x" * 30: 2}
    few = Read(score_answer(run_record(), "a", SCORE, "bits", None, unknown))
    many = Read(score_answer(run_record(), "a", SCORE, "bits", None, Counter("abcdefg")))
    assert f"5 unknown characters (␣ ×9, ğ ×3, {'x' * 19}… ×2, \\* ×1)" in few.text
    assert "(a ×1, b ×1, c ×1, d ×1, e ×1, …)" in many.text


def test_prediction__shows_each_token_with_its_probability_after_the_text() -> None:
    tokens = (("a`", 0.5), (" ", 0.25), ("[EOS]", 0.001))
    suggestions = tuple(Suggestion(token=token, prob=prob, logp=log(prob)) for token, prob in tokens)
    response = PredictResponse(request_id="f", run_id=RUN, status="completed", suggestions=suggestions, unk_count=1)
    shown = Read(predict_answer(run_record(), "the ```", response))

    assert shown.title == "🔮 Next tokens: kk-ipa"
    assert shown.text.split("\n") == [
        "```",
        "the `\u200b`\u200b`\u200b",
        "```",
        "```",
        " 50.00%  a`\u200b",
        " 25.00%  ␣",
        "  0.10%  [EOS]",
        "```",
        "1 unknown sign in the text",
    ]


def test_score_of_a_masked_model__is_per_masked_token_without_bits_per_character() -> None:
    nothing: dict[str, object] = {"unknown_chars": 0, "loss": None, "bits_per_char": None, "perplexity": None}
    score = SCORE.model_copy(update=nothing)
    shown = Read(score_answer(run_record(), "a", score, "nats", None, {}))
    assert shown.text.split("\n") == [
        "**1.900** nats/masked token",
        "2306.6 nats in total · 1\u202f214 tokens",
    ]


def test_report__tells_the_spread_and_what_was_expected_instead_of_the_most_surprising() -> None:
    made = made_of("ab ғ", [1.0, 2.0, 6.0, 11.4], unknown="ғ")
    embed = report_answer(run_record(), made, left_out=0)
    shown = Read(embed)

    assert (shown.colour, shown.title) == (0x9B59B6, "🔬 Surprisal report: kk-ipa")
    assert embed.image.url == "attachment://surprisal.png"
    assert shown.text.split("\n") == [
        "Mean **5.10** bits · median 4.00 · max 11.40 at 4 «ғ» · above 6 bits: 1 of 4 characters",
        "5.10 bits/char ⚠ · perplexity 2.00 with line ends · 1 unknown character",
        "⚠ 25.0% of the characters are unknown to the tokenizer: bits per character are too low to compare.",
        "```",
        "Most surprising, and the expected tokens",
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
    shown = Read(report_answer(record, made, left_out=0))
    outside = re.sub("\u2068[^\u2068\u2069\n]*\u2069", "", f"{shown.title}\n{shown.text}")
    assert "max 9.50 at 5 «\u2068٣\u2069» · above 6 bits" in shown.text
    assert "     5   9.50  \u2068٣\u2069 unknown   \u2068ا\u2069 41%  [EOS] 20%" in shown.text
    assert shown.title == "🔬 Surprisal report: \u2068ئۇيغۇر تىلى\u2069"
    assert not any(unicodedata.bidirectional(char) in ("R", "AL", "AN", "FSI", "PDI") for char in outside)


def test_report__says_what_it_leaves_out() -> None:
    made = made_of("abcd", [1.0, 2.0, 3.0, 4.0])._replace(shown_characters=3)
    shown = Read(report_answer(run_record(), made, left_out=1200))
    assert "The picture shows the first 3 characters; the files contain all." in shown.text
    assert "The text is too long. The report leaves out the last 1\u202f200 characters." in shown.text


def test_report__says_where_its_pieces_are_tokens_of_several_characters() -> None:
    made = made_of("ab", [1.0, 2.0])
    made = made._replace(summary=made.summary._replace(n_characters=5))
    assert "of 2 tokens" in Read(report_answer(run_record(), made, left_out=0)).text


def test_report__without_guesses_has_a_table_all_the_same() -> None:
    made = made_of("ab", [1.0, 2.0], expected=None)
    shown = Read(report_answer(run_record(), made, left_out=0))
    assert "\nMost surprising\n     2   2.00  b\n     1   1.00  a\n" in shown.text


def test_report__of_a_masked_model_has_no_bits_per_character() -> None:
    made = made_of("ab", [1.0, 2.0])
    masked = made._replace(summary=made.summary._replace(bits_per_char=None, perplexity=None))
    shown = Read(report_answer(run_record(), masked, left_out=0))
    assert shown.text.split("\n")[1] == "```"


def test_report__comes_with_its_picture_told_to_those_who_do_not_see_it() -> None:
    files = report_files(made_of("ab", [1.0, 2.0]))
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
    embed = report_answer(labelled(text), made, left_out=10**6)
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
    shown = Read(generate_answer(run_record(), request, made))

    assert shown.title == "✍ kk-ipa · T 0.8 · top-k 40 · top-p 0.9 · seed 1187"
    assert shown.text.count("```") == 8
    assert shown.text.startswith("```\n@everyone a\n```\n1 token · ended by the model\n```\n@everyone b`")
    assert "2 tokens · stopped at the stop text" in shown.text
    assert "3 tokens · stopped at the maximum length" in shown.text
    assert shown.text.endswith("4 tokens · stopped at the end of the model's context")


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
    shown = Read(generate_answer(run_record(), request, made))
    assert shown.text.count("```\n…xxx") == 2
    assert "the end of it first first" in shown.text
    assert "the end of it second second" in shown.text


def test_chat__shows_what_was_said_and_what_had_no_room() -> None:
    queued = ChatResponse(request_id="f", run_id=RUN, session_id="s", status="queued")
    said: dict[str, object] = {"answer": "```\n@everyone", "steps": 3, "stop_reason": "eos", "turns_dropped": 2}
    shown = Read(chat_answer(run_record(), "hm " * 500, queued.model_copy(update=said)))
    bare = Read(chat_answer(run_record(), "a", queued))
    assert shown.title == "💬 kk-ipa"
    assert shown.text.startswith("```\n…") and shown.text.count("```") == 4
    assert shown.text.endswith("3 tokens · ended by the model · oldest 2 turns dropped · session `s`")
    assert bare.text.endswith("0 tokens · session `s`")


def test_generate__names_only_the_settings_that_are_on() -> None:
    made = GenerateResponse(request_id="f", run_id=RUN, status="completed")
    shown = Read(generate_answer(run_record(), GenerateRequest(prompt_text=""), made))
    assert shown.title == "✍ kk-ipa · T 1"


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
    embed = generate_answer(run_record(), GenerateRequest(prompt_text=prompt * 3), made)

    assert within_limits(embed)
    assert (embed.description or "").count("```") == 2 * count
