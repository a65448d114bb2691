"""Tables of batteries, of a summary that was written by hand."""

import csv
from io import StringIO

from tests.support.battery_results import ONE, OTHER, RESULT, RIGHT, SEVERAL
from trainer.contracts.base import changed
from trainer.contracts.batteries import BatteryItem, ItemScores
from trainer.contracts.sequences import SequenceParts, SequenceScore
from trainer.reports.battery_tables import (
    accuracy_rows,
    comparison_rows,
    effect_rows,
    html_page,
    latex_table,
    notes,
    report_files,
    run_titles,
    seed_rows,
)


def test_one_run__has_all_measures_with_intervals() -> None:
    assert accuracy_rows(ONE) == [
        ["", "", "items", "ties", "by sum", "95 % interval", "per token", "per char", "per byte"],
        ["a&b", "all items", "5", "1", "75.0%", "30.1% to 95.4%", "–", "–", "–"],
        ["", "mean over paradigms", "", "", "50.0%", "", "–", "–", "–"],
        ["paradigm", "x", "5", "1", "75.0%", "30.1% to 95.4%", "–", "–", "–"],
        ["paradigm", "empty", "5", "", "–", "–", "–", "–", "–"],
    ]
    with_end = changed(RIGHT, measure="end")
    group = changed(RESULT.groups[1], accuracies=(RIGHT, with_end))
    rows = accuracy_rows(changed(ONE, measure="end", runs=(changed(RESULT, groups=(group,)),)))
    assert [row[4:7] for row in rows] == [
        ["with line end", "95 % interval", "by sum"],
        ["75.0%", "30.1% to 95.4%", "75.0%"],
    ]


def test_several_runs__stand_side_by_side_under_their_labels() -> None:
    assert accuracy_rows(SEVERAL)[:3] == [
        ["", "", "items", "first", "second"],
        ["a&b", "all items", "5", *["75.0% (30.1 to 95.4), 1 tie"] * 2],
        ["", "mean over paradigms", "", "50.0%", "50.0%"],
    ]
    assert accuracy_rows(SEVERAL)[4] == ["paradigm", "empty", "5", "–", "–"]
    only_ties = changed(SEVERAL, measure="char")
    assert accuracy_rows(only_ties)[1] == ["a&b", "all items", "5", *["–, 5 ties"] * 2]
    assert comparison_rows(SEVERAL)[1] == ["x", "first", "second", "4", "+25.0%", "-25.0% to +75.0%", "1", "1"]
    assert seed_rows(SEVERAL)[1] == ["a&b", "2", "75.0%", "0.0%", "75.0% to 75.0%"]
    alike = changed(SEVERAL, runs=(RESULT, changed(OTHER, run=changed(OTHER.run, label="first"))))
    assert [*run_titles(alike).values()] == ["lstm-1", "lstm-2"]


def test_notes__tell_of_odd_items_controls_and_leaks() -> None:
    assert [*notes(ONE)] == [
        "a&b: 1 item with two equal sequences, and no right answer",
        "a&b: 1 item with the sequences of an item before, which count twice",
        "a&b: 2 items with a sequence that begins another one, so that the sum favours the shorter one"
        " (the measure `end` does not)",
        "a&b: 2 items with a token that the tokenizer does not know",
        "a&b: 1 item with a sequence beyond the model's context",
        "a&b: untrained 75.0% (30.1% to 95.4%), at chance; chance is 50.0%",
        "a&b: unigrams of the training text 50.0% (15.0% to 85.0%), its 5-grams 75.0% (30.1% to 95.4%)",
        "a&b: 20.0% of the items stand in the training text, and 40.0% with eight words in a row",
    ]
    beginnings = ("second: a&b: untrained", "second: a&b: s: untrained", "second: a&b: unigrams")
    assert [note for note in notes(SEVERAL) if note.startswith(beginnings)] == [
        "second: a&b: untrained 75.0% (30.1% to 95.4%), NOT at chance; chance is 50.0%",
        "second: a&b: unigrams of the training text 50.0% (15.0% to 85.0%)",
        "second: a&b: s: untrained – (–), only ties; chance is 0.0%"
        " (no random item has all formulas: read each by itself)",
    ]


def test_notes__tell_of_validation_text_ancestors_and_what_is_not_compared() -> None:
    leak = changed(RESULT.leaks[0], validation_whole=0.6, ancestors=("first",), unsearched=("deleted",))
    told = [*notes(changed(ONE, runs=(changed(RESULT, leaks=(leak,)),), notes=("These are not compared.",)))]
    assert told[-4:] == [
        "a&b: 20.0% of the items stand in the training text or in that of `first`, and 40.0% with eight words in a row",
        "a&b: 60.0% of the items stand in the validation text, which chooses the weights, and 0.0% with eight words in"
        " a row",
        "a&b: the training text of `deleted` is deleted or has changed, so the items were not searched for in it",
        "These are not compared",
    ]


def test_notes__say_where_the_training_text_is_gone() -> None:
    controls = tuple(changed(one, counts=None) for one in RESULT.controls)
    gone = changed(ONE, runs=(changed(RESULT, controls=controls, leaks=()),))
    *_, last = notes(gone)
    assert last == "the training text was neither searched for the items nor counted"


def test_effects__name_their_regions() -> None:
    assert effect_rows(ONE, RESULT)[1:] == [
        ["s", "(1;%c%) < 2", "", "5", "1", "50.0%", "15.0% to 85.0%", "49.0%"],
        ["s", "c", "1 verb", "4", "", "2.50", "2.00 to 3.00", ""],
        ["s", "(1;%c%) < 2", "", "1", "", "0.50", "–", ""],
    ]


def test_files__have_every_row_and_escape_names() -> None:
    item = BatteryItem(
        battery="a&b", name="f:1", paradigm="x", sequences=tuple(SequenceParts(parts=(text,)) for text in ("u", "v"))
    )
    score = SequenceScore(nats=1.5, part_nats=(1.5,), n_tokens=1, n_chars=1, n_bytes=1, unk_count=0, is_cut=False)
    files = report_files(SEVERAL, [item], {"lstm-1": [ItemScores(item=0, scores=(score, score))]}, {"s": b"PNG"})
    assert {*files} == {
        *("accuracy.csv", "items.csv", "table.tex", "report.html", "comparisons.csv", "seeds.csv"),
        *("formulas.csv", "effects.csv", "leaks.csv", "regions-1.png"),
    }
    rows: list[dict[str, str]] = list(csv.DictReader(StringIO(str(files["accuracy.csv"]))))
    assert [(row["run_id"], row["measure"], row["accuracy"], row["low"]) for row in rows[:2]] == [
        ("lstm-1", "sum", "0.750000", "0.301000"),
        ("lstm-1", "char", "", ""),
    ]
    leaked: list[dict[str, str]] = list(csv.DictReader(StringIO(str(files["leaks.csv"]))))
    assert [(row["run_id"], row["whole"], row["ancestors"]) for row in leaked] == [
        ("lstm-1", "0.200000", ""),
        ("lstm-2", "0.200000", ""),
    ]
    texts: list[dict[str, str]] = list(csv.DictReader(StringIO(str(files["items.csv"]))))
    assert [(row["text"], row["nats"]) for row in texts] == [("u", "1.500000"), ("v", "1.500000")]
    assert r"without ties. Intervals: Wilson (1927), 95\,\%.}" in latex_table(ONE)
    assert r"a\&b" in latex_table(ONE) and "a&amp;b" in html_page(ONE, {})
    page = html_page(SEVERAL, {})
    assert page.count('">75.0% (30.1 to 95.4), 1 tie</td>') == 4, "with their colours"
    assert "somebody/ab@1" in page and "cc-by-4.0" in page and "Regions: first" in page
