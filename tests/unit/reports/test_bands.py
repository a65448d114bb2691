"""The band of several loss curves: mean and range where all of them have come to."""

import pytest

from trainer.reports.bands import Band, band_of


def test_band__has_mean_and_range_at_common_steps() -> None:
    band = band_of([[(10, 3.0), (20, 2.0)], [(10, 5.0), (20, 2.5)], [(10, 4.0), (20, 1.5)]])
    assert band == Band(mean=[(10, 4.0), (20, 2.0)], low=[(10, 3.0), (20, 1.5)], high=[(10, 5.0), (20, 2.5)])


def test_band__takes_the_line_between_two_steps_and_ends_with_the_shortest_curve() -> None:
    band = band_of([[(0, 4.0), (10, 2.0), (30, 1.0)], [(5, 3.0), (20, 1.5)]])
    assert [step for step, _ in band.mean] == [5, 10, 20]
    assert band.low == [(5, 3.0), (10, 2.0), (20, 1.5)]
    assert band.high == [(5, 3.0), (10, pytest.approx(2.5)), (20, 1.5)]


@pytest.mark.parametrize("curves", [[], [[], []], [[(1, 2.0)], [(2, 1.0)]]])
def test_curves_without_a_common_step__have_no_band(curves: list[list[tuple[int, float]]]) -> None:
    assert band_of(curves) == Band([], [], [])


def test_curve_without_points__does_not_end_the_band() -> None:
    assert band_of([[], [(1, 2.0), (2, 1.0)]]).mean == [(1, 2.0), (2, 1.0)]
