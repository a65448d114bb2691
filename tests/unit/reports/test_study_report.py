"""What the report of a study says of its winner: than what it is better, what is not comparable, and counting."""

import pytest

from tests.support.studies import study_request
from trainer.contracts.base import changed
from trainer.contracts.baselines import Baseline
from trainer.contracts.looks import LookCount
from trainer.contracts.studies import (
    LossEstimate,
    StudyFinalist,
    StudyResult,
    StudySetting,
    StudyTest,
    Trial,
    WinnerDifference,
)
from trainer.reports.report_text import ENGLISH, plain_lines
from trainer.reports.study_report import study_report

LOSS = LossEstimate(value=2.0, low=1.9, high=2.1)
CLEAR = WinnerDifference(value=-0.1, low=-0.15, high=-0.05, p=0.01)
UNCLEAR = WinnerDifference(value=-0.01, low=-0.03, high=0.01, p=0.4)
TEST = StudyTest(run_ids=("a",), test_loss=LOSS, bits_per_char=LOSS, looks=None, baseline=None)
USUAL: dict[str, object] = {"settings": {}}


def finalist(number: int, difference: WinnerDifference | None = None, **fields: object) -> StudyFinalist:
    one = StudyFinalist(
        variant=number, name=f"v{number}", n_completed=2, n_lost=0, val_loss=LOSS, val_bits_per_char=LOSS
    )
    return changed(one, winner_difference=difference, **fields)


def trial(number: int, unknown: float | None = None, **fields: object) -> Trial:
    one = Trial(phase="round", round=1, variant=number, name=f"v{number}", seed=42, run_id="a", status="completed")
    return changed(one, unknown_char_share=unknown, **fields)


def result(*finalists: StudyFinalist, **fields: object) -> StudyResult:
    """A study of four settings that has not read the test split."""
    settings = tuple(StudySetting(number=n, name=f"v{n}", train={"learning_rate": n / 10}) for n in range(1, 5))
    found = StudyResult(
        study_id="rates-01234567",
        name="rates",
        objective="causal_lm",
        variants=settings,
        trials=(),
        finalists=finalists,
        winner=settings[finalists[0].variant - 1],
        test=None,
    )
    return changed(found, **fields)


def said(found: StudyResult, **request: object) -> str:
    return "\n".join(plain_lines(study_report(found, study_request(**request)), ENGLISH._replace(unit="bits")))


@pytest.mark.parametrize(
    ("others", "expected", "absent"),
    [
        ([finalist(2, UNCLEAR)], ["v3 is not clearly better than v2"], ["clearly better than v1", "only with an"]),
        (
            [finalist(2, CLEAR), finalist(1, UNCLEAR)],
            ["v3 is clearly better than v2", "v3 is not clearly better than v1"],
            ["only with an interval"],
        ),
        (
            [finalist(2, changed(CLEAR, low=None, high=None, p=None))],
            ["v3 is not clearly better than v2", "A difference is clear only with an interval"],
            ["adjusted for all pairs"],
        ),
        ([finalist(2, changed(CLEAR, value=0.1))], ["v3 is not clearly better than v2"], []),
        ([], ["Only one setting was trained in full"], ["clearly"]),
        ([finalist(2)], [], ["clearly", "Only one setting", "winner minus it"]),
    ],
)
def test_winner__is_clearly_better_where_the_adjusted_p_says_so(
    others: list[StudyFinalist], expected: list[str], absent: list[str]
) -> None:
    text = said(result(finalist(3), *others))
    assert [part for part in expected if part not in text] == [part for part in absent if part in text] == []


@pytest.mark.parametrize(
    ("objective", "title"),
    [("causal_lm", "winner minus it, bits per character"), ("masked_lm", "winner minus it, bits per token")],
)
def test_finalists__have_the_difference_of_the_winner(objective: str, title: str) -> None:
    found = result(finalist(3), finalist(2, UNCLEAR), objective=objective)
    [table] = [one for one in study_report(found, study_request()).tables() if one.name == "finalists"]
    assert [row[-1] for row in table.rows] == [None, 0.4]
    assert title in said(found) and "p is adjusted for all pairs of finalists" in said(found)


@pytest.mark.parametrize(
    ("request_fields", "first", "expected"),
    [
        (USUAL, 3, "v1, the setting without changes, was not trained in full"),
        (USUAL, 1, "v1 is the setting without changes"),
        ({"settings": {"v1": {"learning_rate": 0.1}, "v4": {}}}, 3, "v4, the setting without changes, was not trained"),
        ({"settings": {"v3": {"learning_rate": 0.3}, "v5": {}}}, 3, "v3 is the setting without changes"),
        ({}, 1, None),
        ({"settings": {}, "space": {"learning_rate": [0.1, 0.2]}}, 1, None),
    ],
)
def test_setting_without_changes__is_named(request_fields: dict[str, object], first: int, expected: str | None) -> None:
    found = result(finalist(first), finalist(2, UNCLEAR))
    v1, v2, v3, v4 = found.variants
    found = changed(found, variants=(v1, v2, changed(v3, equals=("v5",)), changed(v4, train={})))
    text = said(found, **request_fields)
    assert expected in text if expected else "without changes" not in text


def test_settings_with_unknown_characters__are_named_with_their_shares() -> None:
    trials = (
        trial(1, 0.365),
        trial(2, 0.577),
        trial(3, 0.001),
        trial(4, 0.365),
        trial(2, status="failed", reason="Lost."),
    )
    text = said(result(finalist(3), finalist(2), trials=trials))
    assert "Settings with more than 0.1% unknown characters come after the others" in text
    assert "v1, v4: ranked last, because 36.5% of the characters of the validation text are unknown" in text
    assert "v2: ranked last, because 57.7%" in text and "Every setting" not in text
    assert text.count("unknown characters: ") == 3 and "Lost." in text
    assert "(!)" not in said(result(finalist(3), trials=trials, test=TEST))
    all_unknown = said(result(finalist(1), finalist(2), trials=(trial(1, 0.365), trial(2, 0.577)), test=TEST))
    assert "Every setting has unknown characters, 36.5% of the validation text with v1" in all_unknown
    assert all_unknown.count("(!)") == 2 + 2 * 2  # of the winner on the test split, and of both finalists
    assert "v2: ranked last, because 57.7%" in all_unknown


def test_equal_settings__are_named_with_the_trained_one() -> None:
    found = result(finalist(3))
    settings = changed(found.variants[0], equals=("b", "c")), *found.variants[1:]
    text = said(changed(found, variants=settings))
    assert "b is equal to v1: trained once" in text and "c is equal to v1: trained once" in text


def test_counting__stands_beside_the_winner_without_the_test_split_too() -> None:
    counts: dict[str, object] = {"order": 3, "counted_tokens": 9, "train_tokens": 9, "unigram_loss": 3.0}
    counts |= {"unigram_bits_per_char": 3.0, "ngram_loss": 0.5, "ngram_bits_per_char": 0.7, "bits_per_char": 2.4}
    baseline = Baseline.model_validate(counts)
    text = said(result(finalist(3, baseline=baseline)))
    assert "Validation: 3-gram: 0.700 bits per character; this model 2.400 (+1.700)" in text
    assert "Warning: This model is worse than counting" in text
    assert "counting" not in said(result(finalist(3)))
    looks = LookCount(test_id="0" * 64, looks=1, runs=5)
    tested = StudyTest(run_ids=("a",), test_loss=LOSS, bits_per_char=LOSS, looks=looks, baseline=baseline)
    once = said(result(finalist(3, baseline=baseline), test=tested))
    assert "Validation: " not in once and "Warning: This model is worse" in once and "Earlier looks" not in once
    again = said(result(finalist(3), test=changed(tested, looks=changed(looks, looks=11))))
    assert "11 looks at this test text" in again and "Earlier looks may have chosen these settings" in again
