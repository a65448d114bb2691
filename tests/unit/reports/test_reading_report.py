"""The report of an analysis of reading times, of fits that were written by hand."""

from math import sqrt

import pytest

from tests.support.readings import reading_record
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.readings import (
    Coefficient,
    DeltaLogLikelihood,
    Excluded,
    Predictor,
    ReadingComparison,
    ReadingFit,
    ReadingOptions,
    ReadingResult,
    Reason,
)
from trainer.contracts.reports import Estimate, Figure, Report
from trainer.contracts.runs import Leak
from trainer.reports.reading_report import reading_report
from trainer.reports.report_text import ENGLISH

LSTM, GPT2 = "a" * 64, "b" * 64
T_OF_ONE_DEGREE = 12.706204736
FIT = ReadingFit(
    model="lstm-1",
    family="lstm",
    params=1000,
    step=20,
    series=LSTM,
    measure="gaze",
    analysis="means",
    n_observations=56,
    n_texts=8,
    excluded=(),
    perplexity=100.0,
    coefficients=(Coefficient(predictor="surprisal", unit="ms per bit", estimate=3.5, low=2.5, high=4.5),),
    delta_log_likelihood=DeltaLogLikelihood(estimate=0.01, low=0.005, high=0.02),
    spline_delta_log_likelihood=DeltaLogLikelihood(estimate=0.02, low=0.01, high=0.03),
    person_sd=None,
    unit_sd=None,
    residual_sd=60.0,
    collinearity=0.5,
)


def fit(model: str, gain: float, perplexity: float, **changes: object) -> ReadingFit:
    known: dict[str, object] = {"low": gain - 0.001, "high": gain + 0.001}
    likelihood = parse(DeltaLogLikelihood, {"estimate": gain, **known})
    return changed(FIT, model=model, delta_log_likelihood=likelihood, perplexity=perplexity, **changes)


def report_of(*fits: ReadingFit, **options: object) -> Report:
    return report_with(*fits, options=parse(ReadingOptions, options))


def report_with(
    *fits: ReadingFit,
    options: ReadingOptions | None = None,
    compared: tuple[ReadingComparison, ...] = (),
    differing: tuple[Predictor, ...] = (),
) -> Report:
    record, _ = reading_record("reading-1", "lstm-1")
    record = changed(record, options=options or record.options)
    result = ReadingResult(
        reading_id="reading-1", data=record.data, fits=fits, comparisons=compared, differing=differing
    )
    return reading_report(result, record, {})


def notes_of(report: Report) -> str:
    return "\n".join(ENGLISH.note(part) for part in report.sections[-1].parts if part.kind == "note")


def figures(report: Report) -> dict[str, Figure]:
    return {figure.name: figure for figure in report.figures()}


def lines(figure: Figure) -> dict[str, dict[float, Estimate]]:
    """The estimates of each line of a figure by their places."""
    places = figure.axes[0].places
    return {
        one.name: {at: value for at, value in zip(places, one.values, strict=True) if value is not None}
        for one in figure.series
    }


FITS = (
    fit("lstm-1", 0.02, 100.0),
    fit("lstm-1@10", 0.01, 200.0, step=10, params=None),
    fit("lstm-2", 0.04, 400.0),
    fit("lstm-2@10", 0.01, 800.0, step=10, params=None),
    fit("gpt2-1", 0.03, 50.0, family="gpt2", series=GPT2, params=3000),
    fit("lstm-9", 0.05, 40.0, series="c" * 64, params=9000),
    fit("lstm-1", 0.06, 30.0, counts="ngram"),
)


def test_figures__have_a_line_for_all_seeds_with_the_interval_of_the_mean() -> None:
    found = figures(report_of(*FITS))
    assert [*found] == ["perplexity-gaze", "training-gaze", "sizes-gaze"]
    half = T_OF_ONE_DEGREE * (0.02 / sqrt(2)) / sqrt(2)
    mean = [pytest.approx(number) for number in (0.03, 0.03 - half, 0.03 + half)]

    training = lines(found["training-gaze"])
    assert [*training] == ["lstm aaaaaa"], "the others have one step"
    equal, last = training["lstm aaaaaa"].values()
    assert (equal.value, equal.low, equal.high) == pytest.approx((0.01, 0.009, 0.011)), "not narrower than that of one"
    assert [last.value, last.low, last.high] == mean
    assert [*training["lstm aaaaaa"]] == [10, 20]

    of_perplexity = lines(found["perplexity-gaze"])
    places = {line: [*values] for line, values in of_perplexity.items()}
    assert places.pop("lstm aaaaaa") == pytest.approx([200, 400]), "geometric means"
    others = {"gpt2-1": 50, "lstm-9": 40, "ngram of lstm-1": 30}
    assert places == {line: pytest.approx([place]) for line, place in others.items()}
    [alone] = of_perplexity["gpt2-1"].values()
    assert (alone.value, alone.low, alone.high) == pytest.approx((0.03, 0.029, 0.031)), "that of the table"

    sizes = lines(found["sizes-gaze"])
    assert {line: [*values] for line, values in sizes.items()} == {"lstm": [1000, 9000], "gpt2": [3000]}
    of_seeds = sizes["lstm"][1000]
    assert [of_seeds.value, of_seeds.low, of_seeds.high] == mean


def test_sizes__of_trainings_that_differ_in_more_than_their_seeds_are_apart() -> None:
    others = [fit(f"lstm-{gain}", gain, 40.0, series="d" * 64, params=9000) for gain in (0.07, 0.09)]
    sizes = lines(figures(report_of(*FITS, *others))["sizes-gaze"])
    values = {line: {at: one.value for at, one in of_line.items()} for line, of_line in sizes.items()}
    assert values == {
        "lstm": {1000: pytest.approx(0.03)},
        "gpt2": {3000: 0.03},
        "lstm-9": {9000: 0.05},
        "lstm dddddd": {9000: pytest.approx(0.08)},
    }


def test_checkpoint_of_the_last_step__is_no_other_seed() -> None:
    last = fit("lstm-1@20", 0.02, 100.0)
    report = report_of(FITS[0], last, fit("lstm-1@0", 0.001, 900.0, step=0, params=None))
    assert [table.name for table in report.tables()] == ["gains-gaze", "effects-gaze"]
    [training] = lines(figures(report)["training-gaze"]).values()
    assert {at: one.value for at, one in training.items()} == {0: 0.001, 20: 0.02}


def test_table_over_seeds__has_means_of_equal_steps_by_the_name_of_the_group() -> None:
    group = "sayings-20261130-0123abcd"
    grouped = [fit(f"{group}-s{seed}", gain, 100.0, series="d" * 64) for seed, gain in ((0, 0.01), (1, 0.02))]
    tables = {table.name: table for table in report_of(*FITS, *grouped).tables()}
    *rows, of_group = tables["seeds-gaze"].rows
    assert [row[:3] for row in rows] == [("lstm aaaaaa", 10, 2), ("lstm aaaaaa", 20, 2)]
    assert of_group[:3] == (group, 20, 2)
    mean, half = of_group[3], T_OF_ONE_DEGREE * (0.01 / sqrt(2)) / sqrt(2)
    assert isinstance(mean, Estimate)
    assert (mean.value, mean.low, mean.high) == pytest.approx((0.015, 0.015 - half, 0.015 + half))
    by_rows = {"low": None, "high": None}
    of_rows = [changed(one, delta_log_likelihood=changed(one.delta_log_likelihood, **by_rows)) for one in grouped]
    [row] = next(table.rows for table in report_of(*of_rows).tables() if table.name == "seeds-gaze")
    assert row[3] == Estimate(value=0.015), "folds by rows have no intervals"
    assert "seeds-gaze" not in {table.name for table in report_of(FIT, FITS[1]).tables()}


def test_one_model__has_no_figure_of_many() -> None:
    assert figures(report_of(FIT)) == {}


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"n_cut": 2}, {}, "lstm-1: 2 texts longer than its context, scored by windows"),
        ({"bound_bits": 0.25}, {}, "lstm-1: a surprisal may be lower by 0.25 bits at most, given the tokenizations"),
        ({"n_unknown": 3}, {}, "lstm-1: 3 tokens unknown to its tokenizer, whose surprisal is not that of the words"),
        (
            {"leak": Leak(lines=0, covered=0.4)},
            {},
            "0.0% of the lines and 40.0% of the words (in complete lines) of the text of the table stand in the",
        ),
        ({"is_masked": True}, {}, "Warning: lstm-1 is a masked model: its surprisals are given the text after a unit"),
        ({}, {"fold_by": "row"}, "Warning: folds are by row, so a text stands in training and test at once."),
        ({}, {}, "The largest correlation of a column of surprisal with one of the baseline is 0.50, of lstm-1"),
    ],
)
def test_notes__say_what_a_reader_has_to_know(
    changes: dict[str, object], options: dict[str, object], said: str
) -> None:
    assert said in notes_of(report_of(changed(FIT, **changes), **options))
    assert said not in notes_of(report_of(FIT, baseline=[]))


def test_left_out_rows__have_a_line_for_each_reason() -> None:
    reasons: tuple[Reason, ...] = ("missing", "beginning", "gap", "inside_token", "no_predictor")
    excluded = tuple(Excluded(reason=reason, n_rows=number) for number, reason in enumerate(reasons, 10))
    shown = notes_of(report_of(changed(FIT, excluded=excluded)))
    assert [line for line in shown.splitlines() if line.startswith("Left out")] == [
        "Left out: 10 rows without a time",
        "Left out: 11 rows at the beginning of a text, where units before are missing",
        "Left out: 12 rows behind a gap in positions",
        "Left out: 13 rows of units inside a token of a model, or behind them",
        "Left out: 14 rows without a predictor: at the beginning of a text, behind a gap or inside a token",
    ]


OTHER = fit("lstm-2", 0.04, 400.0)


@pytest.mark.parametrize(
    ("p_holm", "p_smallest", "said"),
    [
        (0.0625, 0.0625, ["p is 0.0625 or more"]),
        (1.0, 0.125, ["p is 0.125 or more", "A p of 1 is that of equal gains"]),
        (1.0, 0.03, ["A p of 1 is that of equal gains"]),
        (0.04, 0.03, []),
        (0.5, None, []),
    ],
)
def test_p__of_few_texts_is_explained(p_holm: float, p_smallest: float | None, said: list[str]) -> None:
    compared = ReadingComparison(
        measure="gaze",
        first="lstm-1",
        second="lstm-2",
        difference=0.02,
        p_value=p_holm,
        p_holm=p_holm,
        p_smallest=p_smallest,
    )
    shown = notes_of(report_with(FIT, OTHER, compared=(compared,)))
    assert [text for text in ("p is 0.0625 or more", "p is 0.125 or more", "A p of 1 is that of") if text in shown] == [
        text.removesuffix(" equal gains") for text in said
    ]


def test_baselines_of_different_texts__are_told_with_the_option_and_in_the_figures() -> None:
    report = report_with(FIT, OTHER, differing=("log_frequency", "unigram"))
    shown = notes_of(report)
    assert "Warning: `log_frequency`, `unigram` of the baseline are counted in different texts" in shown
    assert "`frequencies` names one run" in shown
    [figure] = report.figures()
    assert "Not comparable" in ENGLISH.note(figure.text)
    [same] = report_of(FIT, OTHER).figures()
    assert "Not comparable" not in ENGLISH.note(same.text)


@pytest.mark.parametrize(
    ("analysis", "is_of_persons", "is_clustered", "intervals", "said"),
    [
        ("means", False, True, "by errors clustered by texts, by all", ["for these persons"]),
        ("mixed", False, True, "by errors clustered by texts, by all", ["for these persons", "Random slopes"]),
        ("mixed", True, True, "by errors clustered by texts and persons, by all", ["Random slopes"]),
        ("mixed", False, False, "with 95 % intervals, by all", ["for these persons", "Random slopes"]),
    ],
)
def test_intervals_of_effects__say_for_whom_they_hold(
    analysis: str, is_of_persons: bool, is_clustered: bool, intervals: str, said: list[str]
) -> None:
    """The last row is a result of an earlier version."""
    [effect] = FIT.coefficients
    effect = changed(effect, standard_error=0.5, clustered_error=0.6) if is_clustered else effect
    report = report_of(changed(FIT, analysis=analysis, is_of_persons=is_of_persons, coefficients=(effect,)))
    [table] = [table for table in report.tables() if table.name == "effects-gaze"]
    assert table.caption is not None and intervals in ENGLISH.note(table.caption)
    assert [text for text in ("for these persons", "Random slopes") if text in notes_of(report)] == said
