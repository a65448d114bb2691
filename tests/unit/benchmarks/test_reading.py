"""The simulation of reading times: intervals cover the coefficients and the difference that were put in."""

import pytest

from benchmarks.reading import (
    CASES,
    EFFECT_CASES,
    analyse,
    analyse_effects,
    coverage,
    effects,
    effects_row,
    main,
    row,
)


def test_simulated_times__have_intervals_that_cover_the_truth() -> None:
    """By the exact binomial distribution, 95 % of 60 intervals are 52 or more in 99.7 % of the samples."""
    case = CASES[2]
    found = coverage(case, [analyse(case, seed) for seed in range(60)])
    assert min(found.coefficients) >= 52 / 60 and found.difference >= 52 / 60
    # b'Sb / (2 variance) - k / 2 nats: 2, 1 and 0.5 ms per bit, surprisals of 3 bits, 20 readers, k = 3
    gain = 0.5 * (2**2 + 1**2 + 0.5**2) * 3**2 / (20**2 + 120**2 / 20)
    assert found.true_difference == pytest.approx(gain - 1.5 / 760, rel=0.15)
    assert row(case, found).startswith("| means of units | 9")


def test_surprisal_without_effect__is_rarely_found() -> None:
    case = CASES[3]
    found = coverage(case, [analyse(case, seed) for seed in range(60)])
    assert found.surprisal_excludes_0 < 0.12 and found.difference_above_0 <= 0.05
    assert -3.0 / 760 < found.true_difference < -0.8 / 760, "half a nat for each coefficient"


def test_persons_who_differ_and_texts_that_differ__are_covered() -> None:
    for place, name in ((1, "mixed, 12 persons who differ"), (6, "means, 12 texts that differ")):
        case = EFFECT_CASES[place]
        found = effects(case, [analyse_effects(case, seed) for seed in range(60)])
        assert found.surprisal >= 52 / 60 and found.coefficients >= 0.9
        assert found.surprisal > found.surprisal_by_model
        assert effects_row(case, found).startswith(f"| {name} | ")


@pytest.mark.slow
def test_table__has_a_row_for_each_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["3"]) in (0, 1)
    shown = capsys.readouterr().out
    cases = [*CASES, *EFFECT_CASES]
    assert [shown.count(f"| {case.name} |") for case in cases] == [1] * len(cases)
