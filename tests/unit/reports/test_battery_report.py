"""The report of a battery, of a summary that was written by hand."""

import csv
from io import StringIO

from tests.support.battery_results import ONE, OTHER, RESULT, RIGHT, SEVERAL
from trainer.contracts.base import changed
from trainer.contracts.batteries import BatteryItem, BatterySummary, ItemScores
from trainer.contracts.reports import Note, note
from trainer.contracts.sequences import SequenceParts, SequenceScore
from trainer.reports.battery_report import accuracy_tables, battery_report
from trainer.reports.battery_tables import report_files
from trainer.reports.report_figures import pictures_of
from trainer.reports.report_text import ENGLISH, Rows, rows_of


def accuracies(summary: BatterySummary) -> Rows:
    """The accuracies that the report shows first."""
    return rows_of(accuracy_tables(summary)[0])


def rows(summary: BatterySummary, name: str) -> Rows:
    [table] = [one for one in battery_report(summary).tables() if one.name == name]
    return rows_of(table)[1:]


def notes(summary: BatterySummary) -> list[str]:
    return [ENGLISH.note(part) for part in battery_report(summary).parts() if isinstance(part, Note)]


def test_one_run__has_all_measures_with_intervals() -> None:
    assert accuracies(ONE) == [
        ["", "", "items", "ties", "by sum", "95 % interval", "per token", "per char", "per byte"],
        ["a&b", "all items", "5", "1", "75.0%", "30.1% to 95.4%", "–", "–", "–"],
        ["", "mean over paradigms", "", "", "50.0%", "", "–", "–", "–"],
        ["paradigm", "x", "5", "1", "75.0%", "30.1% to 95.4%", "–", "–", "–"],
        ["paradigm", "empty", "5", "", "–", "–", "–", "–", "–"],
    ]
    with_end = changed(RIGHT, measure="end")
    group = changed(RESULT.groups[1], accuracies=(RIGHT, with_end))
    found = accuracies(changed(ONE, measure="end", runs=(changed(RESULT, groups=(group,)),)))
    assert [row[4:7] for row in found] == [
        ["with line end", "95 % interval", "by sum"],
        ["75.0%", "30.1% to 95.4%", "75.0%"],
    ]


def test_suites__keep_their_sum_by_other_measures() -> None:
    group = changed(RESULT.groups[1], accuracies=(RIGHT,))
    whole = changed(RESULT.groups[0], accuracies=(RIGHT,), mean_over_paradigms={"sum": 0.5})
    alone = changed(ONE, measure="end", runs=(changed(RESULT, groups=(whole, group)),))
    assert [row[1:2] + row[4:7] for row in accuracies(alone)] == [
        ["", "with line end", "95 % interval", "by sum"],
        ["all items (by sum)", "75.0%", "30.1% to 95.4%", "75.0%"],
        ["mean over paradigms", "50.0%", "", "50.0%"],
        ["x (by sum)", "75.0%", "30.1% to 95.4%", "75.0%"],
    ]
    beside = changed(alone, runs=(*alone.runs, changed(OTHER, groups=(whole, group))))
    assert accuracies(beside)[1:] == [
        ["a&b", "all items (by sum)", "5", *["75.0% (30.1 to 95.4), 1 tie"] * 2],
        ["", "mean over paradigms", "", "50.0%", "50.0%"],
        ["paradigm", "x (by sum)", "5", *["75.0% (30.1 to 95.4), 1 tie"] * 2],
    ]


def test_formula__that_is_undecided_for_most_items_says_so() -> None:
    formula = changed(RESULT.formulas[0], n_items=24, n_undecided=13)
    found = changed(ONE, runs=(changed(RESULT, formulas=(formula,)),))
    text = f"{formula.paradigm}: {formula.formula} is undecided for 13 of 24 items"
    assert text in notes(found)
    half = changed(found, runs=(changed(RESULT, formulas=(changed(formula, n_undecided=12),)),))
    assert "undecided" not in " ".join(notes(half))


def test_several_runs__stand_side_by_side_under_their_labels() -> None:
    assert accuracies(SEVERAL)[:3] == [
        ["", "", "items", "first", "second"],
        ["a&b", "all items", "5", *["75.0% (30.1 to 95.4), 1 tie"] * 2],
        ["", "mean over paradigms", "", "50.0%", "50.0%"],
    ]
    assert accuracies(SEVERAL)[4] == ["paradigm", "empty", "5", "–", "–"]
    only_ties = changed(SEVERAL, measure="char")
    assert accuracies(only_ties)[1] == ["a&b", "all items", "5", *["–, 5 ties"] * 2]
    assert rows(SEVERAL, "comparisons") == [["x", "first", "second", "4", "+25.0%", "-25.0% to +75.0%", "1", "1"]]
    assert rows(SEVERAL, "seeds") == [["a&b", "2", "75.0%", "0.0%", "75.0% to 75.0%"]]
    alike = changed(SEVERAL, runs=(RESULT, changed(OTHER, run=changed(OTHER.run, label="first"))))
    assert accuracies(alike)[0][3:] == ["first (1)", "first (2)"]


def test_checkpoints_of_one_run__have_their_steps_as_titles() -> None:
    runs = [changed(RESULT, run=changed(RESULT.run, checkpoint=step)) for step in (20, 1200)]
    assert accuracies(changed(ONE, runs=tuple(runs)))[0][3:] == ["step 20", "step 1,200"]


def test_other_measures__are_tables_to_choose_from() -> None:
    assert [ENGLISH.note(one.title) for one in accuracy_tables(SEVERAL)] == [
        "Accuracy by sum of log-probabilities",
        "Accuracy by log-probability per character",
    ]


def test_notes__tell_of_sources_odd_items_and_leaks() -> None:
    assert notes(ONE) == [
        "a&b: 5 items, somebody/ab@1, cc-by-4.0",
        "a&b: 1 item with two equal sequences, and no right answer",
        "a&b: 1 item with the sequences of an item before, which count twice",
        "a&b: 2 items with a sequence that begins another one, so that the sum favours the shorter one"
        " (the measure `end` does not)",
        "a&b: 2 items with a token that the tokenizer does not know",
        "a&b: 1 item with a sequence beyond the model's context",
        "a&b: 20.0% of the items stand in the training text, and 40.0% with eight words in a row",
    ]
    assert "second: a&b: s: no random item has all formulas, so chance is 0: read each by itself" in notes(SEVERAL)


def test_controls__are_the_untrained_model_and_counts() -> None:
    right, half = "75.0% (30.1 to 95.4), 1 tie", "50.0% (15.0 to 85.0), 1 tie"
    assert rows(SEVERAL, "controls") == [
        ["first", "a&b", "5", "50.0%", right, "at chance", half, right, "5"],
        ["second", "a&b", "5", "50.0%", right, "NOT at chance", half, half, "1"],
        ["second", "a&b: s", "5", "0.0%", "–, 5 ties", "only ties", "not counted", "–", "–"],
    ]


def test_notes__tell_of_validation_text_ancestors_and_what_is_not_compared() -> None:
    leak = changed(RESULT.leaks[0], validation_whole=0.6, ancestors=("first",), unsearched=("deleted",))
    told = notes(changed(ONE, runs=(changed(RESULT, leaks=(leak,)),), notes=(note("These are not compared."),)))
    assert told[-4:] == [
        "a&b: 20.0% of the items stand in the training text or in that of `first`, and 40.0% with eight words in a row",
        "a&b: 60.0% of the items stand in the validation text, which chooses the weights, and 0.0% with eight words in"
        " a row",
        "a&b: the training text of `deleted` is deleted or has changed, so the items were not searched for in it",
        "These are not compared.",
    ]


def test_notes__say_where_the_training_text_is_gone() -> None:
    controls = tuple(changed(one, counts=None) for one in RESULT.controls)
    gone = changed(ONE, runs=(changed(RESULT, controls=controls, leaks=()),))
    *_, last = notes(gone)
    assert last == "the training text was neither searched for the items nor counted"


def test_regions__have_their_names_and_the_formulas_their_shares() -> None:
    assert rows(ONE, "formulas") == [["first", "s", "(1;%c%) < 2", "5", "1", "50.0%", "15.0% to 85.0%", "49.0%"]]
    assert rows(ONE, "effects") == [
        ["first", "s", "c", "1 verb", "4", "2.50", "2.00 to 3.00"],
        ["first", "s", "(1;%c%) < 2", "", "1", "0.50", "–"],
    ]


def test_regions__have_a_picture_for_each_run_and_suite() -> None:
    report = battery_report(SEVERAL)
    assert [ENGLISH.note(one.text) for one in report.figures()] == [
        "Mean surprisal by region, first: s.",
        "Mean surprisal by region, second: s.",
    ]
    pictures = pictures_of(report)
    assert [*pictures] == ["regions-1", "regions-2"] and pictures == pictures_of(report), "the same bytes"
    assert all(png.startswith(b"\x89PNG") for png in pictures.values())


def test_picture__depends_on_numbers_and_names_of_regions() -> None:
    [png] = pictures_of(battery_report(ONE)).values()
    effect = RESULT.effects[0]
    other = changed(RESULT, effects=(effect, changed(effect, what="d", nats=4.0, low=None, high=None)))
    [battery] = ONE.batteries
    regions = {number: "a very long name " * 8 for number in range(1, 5)}
    long = changed(battery, suites={"s": changed(battery.suites["s"], regions=regions)})
    effects = tuple(changed(effect, region=number) for number in regions)
    crowded = changed(ONE, batteries=(long,), runs=(changed(RESULT, effects=effects),))
    for summary in (changed(ONE, runs=(other,)), crowded):
        assert [*pictures_of(battery_report(summary)).values()] != [png]


def test_files__have_every_row_and_escape_names() -> None:
    item = BatteryItem(
        battery="a&b", name="f:1", paradigm="x", sequences=tuple(SequenceParts(parts=(text,)) for text in ("u", "v"))
    )
    score = SequenceScore(nats=1.5, part_nats=(1.5,), n_tokens=1, n_chars=1, n_bytes=1, unk_count=0, is_cut=False)
    scores = {"lstm-1": [ItemScores(item=0, scores=(score, score))]}
    files = report_files(SEVERAL, battery_report(SEVERAL), [item], scores, {"regions-1": b"PNG"})
    assert {*files} == {
        *("accuracy.csv", "items.csv", "table.tex", "report.html", "report.json", "comparisons.csv", "seeds.csv"),
        *("formulas.csv", "effects.csv", "leaks.csv", "regions-1.png"),
    }
    shares: list[dict[str, str]] = list(csv.DictReader(StringIO(str(files["accuracy.csv"]))))
    assert [(row["run_id"], row["measure"], row["accuracy"], row["low"]) for row in shares[:2]] == [
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
    latex, page = str(files["table.tex"]), str(files["report.html"])
    assert r"Accuracy on a\&b by sum of log-probabilities, without ties. Intervals: Wilson (1927), 95\,\%.}" in latex
    assert page.count('">75.0% (30.1 to 95.4), 1 tie</td>') == 4, "with their colours"
    assert "a&amp;b" in page and "somebody/ab@1, cc-by-4.0" in page and page.count("<img") == 1
