"""The report of a development that was written by hand."""

import csv
from io import StringIO

from syrupy.assertion import SnapshotAssertion

from tests.support.battery_results import ONE
from tests.support.development_results import AGES, DEVELOPMENT, NO_ITEMS, WORDS, accuracies, development_of
from trainer.contracts.base import changed
from trainer.contracts.development import Acquisition, Development, DevelopmentRow
from trainer.contracts.reports import Note
from trainer.reports.development_report import by_age, development_report
from trainer.reports.development_tables import report_files
from trainer.reports.report_text import ENGLISH, Rows, rows_of, spread

EMPTY = Development(run_id="lstm-1", points=())


def rows(development: Development, name: str) -> Rows:
    [table] = [one for one in development_report(development, NO_ITEMS).tables() if one.name == name]
    return rows_of(table)


def notes(development: Development) -> list[str]:
    parts = development_report(development, NO_ITEMS).parts()
    return [ENGLISH.note(part) for part in parts if isinstance(part, Note)]


def files(development: Development, **images: bytes) -> dict[str, str | bytes]:
    return report_files(development, development_report(development, NO_ITEMS), WORDS, images)


def test_curves__have_a_row_for_each_checkpoint() -> None:
    header, first, *_, last = rows(DEVELOPMENT, "curves")
    assert header == ["step", "epoch", "words", "a&b", "test: nats per character"]
    assert first == ["0", "0", "0", "50.0% (40.0% to 60.0%)", "3.466 (3.431 to 3.500)"]  # 5 ± 0.05 bits
    assert last[:3] == ["1,024", "10", "122,880"]


def test_curves__show_what_is_unknown_as_a_dash() -> None:
    parts = changed(accuracies("phenomenon", "a&b: x")[0], low=None)
    loss = DevelopmentRow(step=1, measure="loss", level="split", name="test", value=2.5, n=10)
    points = tuple(changed(point, words=None) for point in DEVELOPMENT.points[:2])
    assert rows(Development(run_id="lstm-1", points=points, curves=(parts, loss)), "curves") == [
        ["step", "epoch", "words", "test: loss in nats per token"],
        ["0", "0", "–", "–"],
        ["1", "0", "–", "2.500"],
    ]


def test_ages__are_sorted() -> None:
    words = by_age(DEVELOPMENT)
    assert [word.word for word in words] == [*AGES]
    _, first, second, _ = rows(DEVELOPMENT, "words")
    assert first == ["early", "10", "100.0", "5.0 (5.0 to 5.1)", "600 (595 to 611)", "9.00", "3.00", "1.00"]
    assert second[:4] == ["ˈt͡ʃo$", "10", "0.0", "40.0 (39.5 to 40.6)"]
    older = changed(words[0], age_steps_low=None, age_words_high=None)
    assert rows(changed(DEVELOPMENT, acquisitions=(older,)), "words")[1][3:5] == ["5.0", "600"]


def test_spread__has_the_first_and_the_last_word() -> None:
    words = [Acquisition(word=f"{number}", n_contexts=1, fits=True) for number in range(100)]
    chosen = [int(word.word) for word in spread(words, 8)]
    assert chosen == [0, 14, 28, 42, 56, 70, 84, 99]
    assert spread(words[:8], 8) == words[:8]


def test_notes__tell_of_words_without_an_age_and_without_surprisals() -> None:
    assert notes(DEVELOPMENT) == [
        "3 of 4 words have an age of acquisition, at the median at step 40",
        "The 95 % intervals of ages cover how far the checkpoints are from the curve, not other seeds or contexts",
        "1 word without an age, the surprisal does not fall: never",
        "Not in the text: moon",
        "2 occurrences of words without a surprisal are left out",
    ]
    assert notes(development_of((0, 1, 4)))[:2] == [
        "0 of 4 words have an age of acquisition",
        "4 words without an age, fewer than 5 checkpoints after step 0: early ˈt͡ʃo$ كتاب never",
    ]
    assert notes(EMPTY) == []


def test_files__have_all_digits_of_every_row() -> None:
    made = files(DEVELOPMENT, words=b"PNG")
    tables = ["checkpoints.csv", "development.csv", "words.csv", "acquisition.csv"]
    assert [*made] == [*tables, "table.tex", "report.html", "report.json", "words.png"]
    found: list[dict[str, str]] = list(csv.DictReader(StringIO(str(made["acquisition.csv"]))))
    assert [(row["word"], row["fits"], row["reason"]) for row in found[2:]] == [
        ("كتاب", "true", ""),
        ("never", "false", "no_fall"),
    ]
    assert [row["age_steps"] for row in found] == [
        "" if word.age_steps is None else repr(word.age_steps) for word in DEVELOPMENT.acquisitions
    ]


def test_latex__has_both_tables_and_escapes_names(snapshot: SnapshotAssertion) -> None:
    assert files(DEVELOPMENT)["table.tex"] == snapshot
    words = tuple(changed(DEVELOPMENT.acquisitions[0], word=f"w{number}") for number in range(40))
    many = str(files(changed(DEVELOPMENT, acquisitions=words, curves=()))["table.tex"])
    assert "evenly spread over the 40 that have one" in many and many.count(r"\\") == 31
    assert files(EMPTY)["table.tex"] == ""


def test_items__have_their_accuracies_after_the_development() -> None:
    titles = [ENGLISH.note(section.title) for section in development_report(DEVELOPMENT, ONE).sections]
    assert titles[:4] == ["Over the checkpoints", "Ages of words", "To know", "Accuracy"]
