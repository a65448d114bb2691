"""The simulation of finalists: equal settings are seldom told apart, and a much better one is found."""

import numpy as np
import pytest

from benchmarks.finalists import CASES, Case, main, row_of, simulate


def test_simulated_winner__is_clearly_better_in_few_studies_of_equal_settings() -> None:
    """By the exact binomial distribution, 5 % of 200 studies are 20 or fewer in 99.9 % of the samples."""
    rng = np.random.default_rng(5)
    outcomes = [simulate(Case(2, 40), 3, 0.0, rng) for _ in range(200)]
    assert sum(one.any for one in outcomes) <= 20 and all(one.any == one.second for one in outcomes)
    assert 60 <= sum(one.has_first for one in outcomes) <= 140
    row = row_of(Case(2, 40), 5, rng)
    assert row.any == row.second and 0 <= row.found <= 1
    assert all(simulate(Case(2, 40), 5, 1.0, rng) == (True, True, True) for _ in range(5)), "better by a nat"


def test_table__has_a_row_for_each_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["1"]) in (0, 1)
    shown = capsys.readouterr().out
    assert shown.count("%") >= 4 * len(CASES) and "12 studies of equal settings:" in shown
    assert "| 3 | 100 | 0.01, 0.06 |" in shown
