"""The report of surprisals: the numbers of its summary, CSV and heat map for any text."""

import csv
import unicodedata
from io import StringIO
from math import log

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all
from tests.support.scores import score_of
from trainer.contracts.base import changed
from trainer.contracts.scores import ScoreResponse
from trainer.contracts.units import Unit
from trainer.reports.heatmap_html import heatmap_html
from trainer.reports.score_table import CellRow, TokenRow, heatmap_rows, token_rows
from trainer.reports.surprisal_report import MAX_REPORT_CHARACTERS, expected_instead, score_csv, summarize, visible

DISCORD_FILE_BYTES = 10 * 1024 * 1024
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60).map("x".__add__)


def rows_of(score: ScoreResponse, text: str) -> list[TokenRow]:
    return list(token_rows(score, text))


def cells_of(score: ScoreResponse, text: str, unit: Unit = "nats") -> list[CellRow]:
    return [*heatmap_rows(token_rows(score, text), text, unit)]


def test_rows__give_every_character_its_position_and_scores() -> None:
    text = "aғ\nb"
    score = score_of(text, [log(2), 3 * log(2), log(4)], unknown="ғ", expected=(("a", 0.75), ("b", 0.25)))
    assert [(row.line, row.start, row.text, row.surprisal, row.is_known) for row in rows_of(score, text)] == [
        (1, 0, "a", log(2), True),
        (1, 1, "ғ", 3 * log(2), False),
        (2, 3, "b", log(4), True),
    ]


def test_row__of_a_text_that_spells_the_unknown_token_is_known() -> None:
    score = changed(score_of("ab", [1.0, 1.0]), **whole_token("[UNK]"))
    [row] = rows_of(score, "[UNK]")
    assert (row.text, row.is_known) == ("[UNK]", True)


def test_summary_and_heat_map__leave_out_a_token_without_a_score() -> None:
    score = changed(score_of("ab", [1.0, 1.0]), surprisal=(None, 1.0), rank=(None, 1), entropy=(None, 1.0))
    summary = summarize(score, "ab")
    assert [row.start for row in summary.most_surprising] == [1]
    assert (summary.n_tokens, cells_of(score, "ab")) == (1, [(2, [("b", 1.0, True)])])
    assert cells_of(changed(score, surprisal=(None, None)), "ab") == []
    assert score_csv(score, "ab").splitlines()[1:] == [b"1,1,a,0,1,U+0061,,,", b"2,1,b,1,2,U+0062,1.0,1.0,1"]


def whole_token(token: str) -> dict[str, object]:
    """A score of one token, as a subword model gives it."""
    return {"surprisal": (1.0,), "rank": (1,), "entropy": (1.0,), "tokens": (token,), "char_spans": ((0, len(token)),)}


def test_summary__is_what_the_rows_say() -> None:
    bits = [1.0, 7.0, 2.0, 7.0, 0.5, 6.0]
    summary = summarize(score_of("abcdeғ", [value * log(2) for value in bits], unknown="ғ"), "abcdeғ")
    assert summary.bits_per_char == pytest.approx(sum(bits) / 6)
    assert (summary.mean, summary.median) == pytest.approx((sum(bits) / 6 * log(2), 4 * log(2)))
    assert (summary.n_tokens, summary.n_characters, summary.n_unknown, summary.n_high) == (6, 6, 1, 2)
    assert [row.start for row in summary.most_surprising] == [1, 3, 5, 2, 0, 4]  # the first of equals comes first
    above_six = score_of("abc", [5.9 * log(2), 6.1 * log(2), 9.0])
    assert summarize(above_six, "abc").n_high == 2
    text = "abcdefghijkl"
    summary = summarize(score_of(text, [float(k) for k in range(12)]), text)
    assert "".join(row.text for row in summary.most_surprising) == "lkjihgfe", "eight of them"


def test_expected_instead__leaves_out_the_token_of_the_text() -> None:
    guesses = (("a", 0.5), ("[UNK]", 0.3), ("b", 0.1))
    known, unknown = rows_of(score_of("aғ", [1.0, 9.0], unknown="ғ", expected=guesses), "aғ")
    assert expected_instead(known) == (("[UNK]", 0.3), ("b", 0.1))
    assert expected_instead(unknown) == (("a", 0.5), ("b", 0.1))


def test_csv__has_the_columns_of_the_command_line_in_nats() -> None:
    text = "a b\nғ"
    score = score_of(text, [1.0, 2.0, 3.0, 4.0], unknown="ғ", expected=(("a", 0.75), (",", 0.25)))
    lines = score_csv(score, text).decode().splitlines()
    assert lines[0] == (
        "index,line,unit,start,end,code_points,surprisal_nats,entropy_nats,rank,"
        "expected_1,probability_1,expected_2,probability_2"
    )
    assert lines[2] == f'2,1, ,1,2,U+0020,2.0,{log(2)},2,a,0.75,",",0.25'
    assert lines[4] == f'4,2,[UNK],0,1,U+0493,4.0,{log(2)},2,a,0.75,",",0.25'
    assert len(lines) == 5


def test_unknown_token_of_another_name__is_not_expected_instead() -> None:
    name = "<x>"
    score = score_of("aғ", [1.0, 9.0], expected=(("a", 0.5), (name, 0.3)))
    score = changed(score, tokens=("a", name), unknown_token=name)
    known, unknown = rows_of(score, "aғ")
    assert (known.is_known, unknown.is_known) == (True, False)
    assert expected_instead(unknown) == (("a", 0.5),)


@for_all(texts)
def test_csv__of_any_text_is_read_back_as_the_same_characters(text: str) -> None:
    count = sum(char != "\n" for char in text)
    score = score_of(text, [0.5] * count, unknown=text[:1], expected=((text[:1], 1.0),))
    [_, *table] = csv.reader(StringIO(score_csv(score, text).decode(), newline=""))
    shown = [chr(int(line[5].removeprefix("U+"), 16)) for line in table]
    assert shown == [char for char in text if char != "\n"]
    assert [line[2] for line in table] == ["[UNK]" if char == text[:1] else char for char in shown]


def test_files__of_the_longest_report_are_within_discords_limit() -> None:
    text = "\U0010ffff" * MAX_REPORT_CHARACTERS
    guesses = (("\x01", 0.12345678901234567),) * 10
    score = score_of(text, [12.345678901234567] * MAX_REPORT_CHARACTERS, unknown=text[0], expected=guesses)
    assert len(heatmap_html(score, text).encode()) < DISCORD_FILE_BYTES
    assert len(score_csv(score, text)) < DISCORD_FILE_BYTES
    assert len(score.model_dump_json()) < DISCORD_FILE_BYTES


def test_picture__has_forty_cells_in_a_row_and_begins_a_row_with_each_line() -> None:
    text = "a" * 85 + "\n\n" + "b ғ"
    rows = cells_of(score_of(text, [1.0] * 88, unknown="ғ"), text)
    assert [(first, len(cells)) for first, cells in rows] == [(1, 40), (41, 40), (81, 5), (88, 3)]
    assert rows[3][1] == [("b", 1.0, True), ("␣", 1.0, True), ("ғ", 1.0, False)]
    long = "a" * 3000
    rows = cells_of(score_of(long, [log(2)] * 3000), long, "bits")
    assert [first for first, _ in rows] == list(range(1, 1000, 40)), "the first 25 rows"
    assert all(cells == [("a", 1.0, True)] * 40 for _, cells in rows)
    of_several = changed(score_of("ab", [1.0, 1.0]), **whole_token("bal"))
    assert cells_of(of_several, "bal") == [(1, [(char, 1.0, True) for char in "bal"])]


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("क्षि a", ["क्षि", "", "", "", "␣", "a"]),
        ("\u0301t͡s", ["◌\u0301", "t͡s", "", ""]),
        ("بب", ["\ufe91", "\ufe90"]),
    ],
)
def test_picture__has_a_cell_for_each_character_and_a_letter_at_its_first(text: str, letters: list[str]) -> None:
    values = [float(place) for place in range(len(text))]
    [(first, cells)] = cells_of(score_of(text, values), text)
    assert (first, [sign for sign, _, _ in cells], [value for _, value, _ in cells]) == (1, letters, values)
    unscored = changed(score_of(text, values), surprisal=(None, *values[1:]))
    assert [value for _, row in cells_of(unscored, text) for _, value, _ in row] == values[1:]


def test_picture__keeps_a_letter_in_one_row() -> None:
    text = "a" * 39 + "ि" + "क्षि" + "\u0301" * 90
    rows = cells_of(score_of(text, [1.0] * len(text)), text)
    assert [(first, len(cells)) for first, cells in rows] == [(1, 40), (41, 40), (81, 40), (121, 14)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        *((" ", "␣"), ("ғ", "ғ"), ("\u0303", "◌\u0303"), ("\u200d", "U+200D"), ("\t", "U+0009")),
        *(("\u00a0", "U+00A0"), ("\u2067ئ", "U+2067ئ"), ("[EOS]", "[EOS]")),
    ],
)
def test_visible__shows_what_cannot_be_seen(text: str, shown: str) -> None:
    assert visible(text) == shown


@for_all(texts)
def test_visible__is_one_line_of_printable_signs(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert not any(unicodedata.category(char) == "Zs" for char in shown)
