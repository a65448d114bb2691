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
    assert rows_of(table)[1:] == [["branching entropy", "peaks", "+5.0% (-1.0% to +11.0%)"]]


def test_report__says_what_was_scored() -> None:
    report = segmentation_report(RESULT, "tale.txt")
    assert ENGLISH.note(report.title) == "Word segmentation of tale.txt"
    assert [ENGLISH.note(part) for part in report.parts() if isinstance(part, Note)] == [
        "8 lines without their spaces: 25.0% of 4,000 places between two characters are boundaries.",
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
    odd = changed(RESULT, is_trained_with_spaces=True, has_ngram=False, n_unknown=1, n_cut=2, bound_nats=0.0042)
    notes = [ENGLISH.note(part) for part in segmentation_report(odd, "tale.txt").parts() if isinstance(part, Note)]
    assert notes[2:] == [
        "The training text of the run has spaces between words, so that the run expects them here too. Train a run on a"
        " text without spaces.",
        "No n-gram: the training text of the run is deleted, has changed, or is not yours.",
        "1 character unknown to the run.",
        "2 lines beyond the run's context, scored by windows.",
        "Surprisals are summed over all tokenizations. That of a character is at most 0.004 nats too high, given the"
        " tokenizations before it that were continued.",
    ]
