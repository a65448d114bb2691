"""The report of a word segmentation, of a result that was written by hand."""

from trainer.contracts.base import changed
from trainer.contracts.reports import Note
from trainer.contracts.runs import Leak, Shares
from trainer.contracts.segmentation import BoundaryScore, SegmentationResult, Share
from trainer.reports.report_text import ENGLISH, rows_of
from trainer.reports.segmentation_report import segmentation_report

THIRD = Share(value=1 / 3, low=0.25, high=0.5)
PEAKS = BoundaryScore(
    model="run",
    cue="entropy",
    rule="peak",
    threshold_nats=None,
    n_predicted=1500,
    n_right=500,
    precision=THIRD,
    recall=Share(value=0.5, low=0.5, high=0.5),
    f1=Share(value=0.4, low=0.3, high=0.5),
)
NONE = BoundaryScore(
    model="run, 3-gram",
    cue="surprisal",
    rule="threshold",
    threshold_nats=2.5,
    n_predicted=0,
    n_right=0,
    precision=None,
    recall=Share(value=0, low=0, high=0),
    f1=Share(value=0, low=0, high=0),
)
RANDOM = changed(PEAKS, model="random", cue=None, rule=None)
RESULT = SegmentationResult(n_lines=8, n_tuning_lines=1, n_places=4000, n_boundaries=1000, scores=(PEAKS, NONE, RANDOM))

SHARES = ["40.0% (30.0% to 50.0%)", "33.3% (25.0% to 50.0%)", "50.0% (50.0% to 50.0%)"]
NOTHING = "0.0% (0.0% to 0.0%)"


def test_report__has_a_row_for_each_model_cue_and_rule() -> None:
    report = segmentation_report(RESULT, "tale.txt")
    [table] = report.tables()
    assert rows_of(table) == [
        ["model", "cue", "boundaries at", "F1", "precision", "recall", "predicted", "threshold (nats)"],
        ["run", "branching entropy", "peaks", *SHARES, "1,500", ""],
        ["run, 3-gram", "surprisal", "above a threshold", NOTHING, "–", NOTHING, "0", "2.50"],
        ["random", "", "", *SHARES, "1,500", ""],
    ]


def test_report__has_the_differences_from_the_ngram() -> None:
    better = changed(PEAKS, f1_minus_ngram=Share(value=0.05, low=-0.01, high=0.11))
    _, table = segmentation_report(changed(RESULT, scores=(better, NONE, RANDOM)), "tale.txt").tables()
    assert rows_of(table)[1:] == [["run", "branching entropy", "peaks", "+5.0% (-1.0% to +11.0%)"]]


def test_report__has_chance_and_the_difference_from_it_and_how_many_rules_are_above() -> None:
    chance = Share(value=0.36, low=0.34, high=0.41)
    noise = changed(PEAKS, chance=chance, f1_minus_chance=Share(value=0.04, low=-0.01, high=0.09))
    above = changed(noise, rule="threshold", f1_minus_chance=Share(value=0.04, low=0.01, high=0.07))
    above = changed(above, f1_minus_ngram=Share(value=0.02, low=0.01, high=0.03))
    report = segmentation_report(changed(RESULT, scores=(above, noise), n_tuning_lines=0, n_inside=2), "tale.txt")
    table, differences = report.tables()
    assert rows_of(table)[0][3:6] == ["F1", "chance", "precision"]
    assert rows_of(table)[2][3:5] == [SHARES[0], "36.0% (34.0% to 41.0%)"]
    assert rows_of(differences) == [
        ["model", "cue", "boundaries at", "minus chance", "minus n-gram"],
        ["run", "branching entropy", "above a threshold", "+4.0% (+1.0% to +7.0%)", "+2.0% (+1.0% to +3.0%)"],
        ["run", "branching entropy", "peaks", "+4.0% (-1.0% to +9.0%)", "–"],
    ]
    assert [ENGLISH.note(part) for part in report.parts() if isinstance(part, Note)][1:] == [
        "Chance is the F1 of the same rule on the values of the cue shuffled within each line, the mean of many. Each"
        " fifth of the lines is scored with the threshold that is best on the other four.",
        "1 of 2 rules are above chance: the interval of their difference is above 0.",
        "Left out: 2 places between words that are inside a letter with its marks without the space.",
    ]


def test_report__says_what_was_scored() -> None:
    report = segmentation_report(RESULT, "tale.txt")
    assert ENGLISH.note(report.title) == "Word segmentation of tale.txt"
    assert [ENGLISH.note(part) for part in report.parts() if isinstance(part, Note)] == [
        "8 lines without their spaces: 25.0% of 4,000 places between two letters with their marks are boundaries.",
        "Thresholds and the rate of random boundaries were chosen on 1 line, beside the scored ones.",
    ]


def test_report__warns_of_lines_of_the_training_text() -> None:
    leak = Leak(lines=0, plain_lines=0.25, validation=Shares(lines=0.5), unsearched=("old-1",))
    report = segmentation_report(changed(RESULT, leak=leak), "tale.txt")
    assert [ENGLISH.note(part) for part in report.parts() if isinstance(part, Note)][2:] == [
        "0.0% of the lines and 25.0% of the lines without case, punctuation and spaces of this text stand in the"
        " training text of the run: surprisals are lower than in unseen text.",
        "50.0% of the lines of this text stand in the validation text, which chooses the weights: surprisals are a"
        " little too low.",
        "The training text of `old-1` is deleted or has changed, so this text was not searched for in it.",
    ]


def test_report__says_what_the_run_has_and_lacks() -> None:
    odd = changed(
        RESULT, is_trained_with_spaces=True, has_ngram=False, is_ngram=True, n_unknown=1, n_cut=2, bound_nats=0.0042
    )
    notes = [ENGLISH.note(part) for part in segmentation_report(odd, "tale.txt").parts() if isinstance(part, Note)]
    assert notes[2:] == [
        "The training text of the run has spaces between words, so that the run expects them here too. Train a run on a"
        " text without spaces.",
        "The run is the best n-gram of its training text itself.",
        "No n-gram: the training text of the run is deleted, has changed, or is not yours.",
        "1 character unknown to the run.",
        "2 lines beyond the run's context, scored by windows.",
        "Surprisals are summed over all tokenizations. That of a character is at most 0.004 nats too high, given the"
        " tokenizations before it that were continued.",
    ]
