"""The report of surprisals: the same numbers in the table, the CSV, the JSON and the picture, whatever the text."""

import csv
import unicodedata
from io import StringIO
from math import log

import pytest
from hypothesis import strategies as st

from bot.report import (
    REPORT_CHARACTERS,
    Report,
    as_csv,
    as_json,
    expected_instead,
    heat_map_rows,
    report_of,
    summary_of,
    visible,
)
from tests.support.properties import for_all
from tests.support.scores import score_of
from trainer.reports.heatmap_html import heat_page
from trainer.reports.score_table import Unit

DISCORD_FILE_BYTES = 10 * 1024 * 1024
UNITS: tuple[Unit, ...] = ("bits", "nats")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60).map("x".__add__)


def test_report__gives_every_character_its_place_and_numbers() -> None:
    text = "aғ\nb"
    score = score_of(text, [log(2), 3 * log(2), log(4)], unknown="ғ", expected=(("a", 0.75), ("b", 0.25)))
    report = report_of(score, text, "bits")

    assert [(row.index, row.char, row.code_point, row.surprisal, row.unknown) for row in report.rows] == [
        (1, "a", "U+0061", 1.0, False),
        (2, "ғ", "U+0493", 3.0, True),
        (4, "b", "U+0062", 2.0, False),
    ]
    assert report.mean == pytest.approx(2.0)
    assert (report.rows[0].entropy, report.rows[0].rank) == (1.0, 2)
    assert [row.surprisal for row in report_of(score, text, "nats").rows] == pytest.approx(
        [0.693147, 2.079442, 1.386294], abs=1e-6
    )


def test_report__of_a_text_that_spells_the_unknown_token_does_not_call_it_unknown() -> None:
    score = score_of("ab", [1.0, 1.0]).model_copy(update=whole_token("[UNK]"))

    [row] = report_of(score, "[UNK]", "nats").rows

    assert (row.char, row.unknown) == ("[UNK]", False)


def test_report__leaves_out_a_token_without_a_score() -> None:
    unscored: dict[str, object] = {"surprisal": (None, 1.0), "rank": (None, 1), "entropy": (None, 1.0)}

    [row] = report_of(score_of("ab", [1.0, 1.0]).model_copy(update=unscored), "ab", "nats").rows

    assert (row.index, row.char) == (2, "b")


def whole_token(token: str) -> dict[str, object]:
    """A score of one token, as a subword model gives it."""
    return {
        "surprisal": (1.0,),
        "rank": (1,),
        "entropy": (1.0,),
        "tokens": (token,),
        "char_spans": ((0, len(token)),),
    }


def test_summary__is_what_the_rows_say() -> None:
    bits = [1.0, 7.0, 2.0, 7.0, 0.5, 6.0]
    summary = summary_of(
        report_of(score_of("abcdeғ", [value * log(2) for value in bits], unknown="ғ"), "abcdeғ", "bits")
    )

    assert summary.mean == pytest.approx(sum(bits) / 6) == summary.bits_per_char
    assert summary.median == pytest.approx(4.0)
    assert (summary.rows, summary.characters, summary.unknown, summary.high) == (6, 6, 1, 2)
    assert [row.index for row in summary.hardest] == [2, 4, 6, 3, 1, 5]  # the first of equals comes first


def test_summary__counts_what_is_above_six_bits_in_either_unit() -> None:
    score = score_of("abc", [5.9 * log(2), 6.1 * log(2), 9.0])

    assert [summary_of(report_of(score, "abc", unit)).high for unit in UNITS] == [2, 2]


def test_summary__names_the_eight_hardest() -> None:
    text = "abcdefghijkl"
    summary = summary_of(report_of(score_of(text, [float(k) for k in range(12)]), text, "nats"))

    assert "".join(row.char for row in summary.hardest) == "lkjihgfe"


def test_expected_instead__leaves_out_what_came() -> None:
    guesses = (("a", 0.5), ("[UNK]", 0.3), ("b", 0.1))
    known, unknown = report_of(score_of("aғ", [1.0, 9.0], unknown="ғ", expected=guesses), "aғ", "nats").rows

    assert expected_instead(known) == [("[UNK]", 0.3), ("b", 0.1)]
    assert expected_instead(unknown) == [("a", 0.5), ("b", 0.1)]


@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_csv__names_its_unit_and_has_a_column_for_each_guess(unit: Unit) -> None:
    text = "a b"
    score = score_of(text, [log(2), log(4), log(8)], expected=(("a", 0.75), (",", 0.25)))
    lines = as_csv(report_of(score, text, unit)).decode().splitlines()

    assert lines[0] == (
        f"index,char,code_point,surprisal_{unit},entropy_{unit},rank,unknown,"
        "expected_1,probability_1,expected_2,probability_2"
    )
    if unit == "bits":
        assert lines[1:3] == ['1,a,U+0061,1.0,1.0,2,0,a,0.75,",",0.25', '2, ,U+0020,2.0,1.0,2,0,a,0.75,",",0.25']
    assert len(lines) == 4


def test_unknown_token_of_another_name__is_unknown_and_was_not_expected_instead() -> None:
    renamed: dict[str, object] = {"tokens": ("a", "<x>"), "unknown_token": "<x>"}
    score = score_of("aғ", [1.0, 9.0], expected=(("a", 0.5), ("<x>", 0.3))).model_copy(update=renamed)

    known, unknown = report_of(score, "aғ", "nats").rows

    assert (known.unknown, unknown.unknown) == (False, True)
    assert expected_instead(unknown) == [("a", 0.5)]


def test_csv__without_guesses_ends_with_the_unknown_flag() -> None:
    lines = as_csv(report_of(score_of("a", [1.0]), "a", "nats")).decode().splitlines()

    assert lines[0].endswith(",rank,unknown")
    assert lines[1] == "1,a,U+0061,1.0,0.693147,2,0"


@for_all(texts)
def test_files__of_any_text_are_read_back_as_the_same_rows(text: str) -> None:
    count = sum(char != "\n" for char in text)
    score = score_of(text, [0.5] * count, unknown=text[:1], expected=((text[:1], 1.0),))
    report = report_of(score, text, "bits")
    table = list(csv.reader(StringIO(as_csv(report).decode(), newline="")))

    assert Report.model_validate_json(as_json(report)) == report
    assert [line[1] for line in table[1:]] == [char for char in text if char != "\n"]
    assert [chr(int(line[2].removeprefix("U+"), 16)) for line in table[1:]] == [line[1] for line in table[1:]]


def test_files__of_the_longest_report_are_within_discords_limit() -> None:
    text = "\U0010ffff" * REPORT_CHARACTERS
    guesses = (("\x01", 0.123456),) * 10
    score = score_of(text, [12.3456789] * REPORT_CHARACTERS, unknown=text[0], expected=guesses)
    report = report_of(score, text, "bits")

    assert len(heat_page(score, text).encode()) < DISCORD_FILE_BYTES
    assert len(as_csv(report)) < DISCORD_FILE_BYTES
    assert len(as_json(report)) < DISCORD_FILE_BYTES


def test_picture__has_forty_cells_in_a_row_and_begins_a_row_with_each_line() -> None:
    text = "a" * 85 + "\n\n" + "b ғ"
    report = report_of(score_of(text, [1.0] * 88, unknown="ғ"), text, "nats")
    rows = heat_map_rows(report, text)

    assert [(first, len(cells)) for first, cells in rows] == [(1, 40), (41, 40), (81, 5), (88, 3)]
    assert rows[3][1] == [("b", 1.0, True), ("␣", 1.0, True), ("ғ", 1.0, False)]


def test_picture__of_a_long_text_shows_its_first_25_rows() -> None:
    text = "a" * 3000
    rows = heat_map_rows(report_of(score_of(text, [1.0] * 3000), text, "bits"), text)

    assert [first for first, _ in rows] == list(range(1, 1000, 40))
    assert all(len(cells) == 40 for _, cells in rows)


def test_picture__of_a_token_of_several_characters_has_a_cell_for_each() -> None:
    score = score_of("ab", [1.0, 1.0]).model_copy(update=whole_token("bal"))

    assert heat_map_rows(report_of(score, "bal", "nats"), "bal") == [(1, [(char, 1.0, True) for char in "bal"])]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" ", "␣"),
        ("ғ", "ғ"),
        ("\u0303", "◌\u0303"),
        ("\u200d", "U+200D"),
        ("\t", "U+0009"),
        ("\u00a0", "U+00A0"),
        ("\u2067ئ", "U+2067ئ"),
        ("[EOS]", "[EOS]"),
    ],
)
def test_visible__shows_what_cannot_be_seen(text: str, shown: str) -> None:
    assert visible(text) == shown


@for_all(texts)
def test_visible__is_one_line_of_printable_signs(text: str) -> None:
    shown = visible(text)

    assert shown.isprintable()
    assert not any(unicodedata.category(char) == "Zs" for char in shown)
