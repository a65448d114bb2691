"""The loss chart: a picture of the right size whatever the curve, and a smoothing that tells the truth."""

from struct import unpack

import pytest

from trainer.charts import Curve, loss_chart, smoothed

CURVES: dict[str, tuple[Curve, Curve]] = {
    "nothing": ([], []),
    "one point": ([(10, 3.0)], []),
    "equal losses": ([(10, 3.0), (20, 3.0)], [(20, 3.0)]),
    "validation only": ([], [(10, 3.0)]),
    "more points than pixels": ([(step, 3.0 + 1 / step) for step in range(1, 5000)], [(4000, 3.1)]),
}


@pytest.mark.parametrize("name", CURVES)
def test_chart__is_a_png_of_800_by_400(name: str) -> None:
    png = loss_chart(*CURVES[name])

    size: tuple[int, int] = unpack(">II", png[16:24])
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert size == (800, 400)


def test_chart__of_equal_numbers_is_equal() -> None:
    assert loss_chart([(1, 2.0), (2, 1.0)], []) == loss_chart([(1, 2.0), (2, 1.0)], [])
    assert loss_chart([(1, 2.0), (2, 1.0)], []) != loss_chart([(1, 2.0), (2, 1.5)], [])


def test_smoothed__keeps_a_straight_line_and_its_ends() -> None:
    line = [float(value) for value in range(200)]

    assert smoothed(line) == pytest.approx(line)


def test_smoothed__takes_noise_away() -> None:
    noisy = [1.5 - index % 2 for index in range(200)]

    assert all(abs(value - 1.0) < 0.1 for value in smoothed(noisy)[20:-20])


def test_smoothed__of_few_losses_is_the_losses() -> None:
    assert smoothed([3.0, 1.0, 2.0]) == [3.0, 1.0, 2.0]
    assert smoothed([]) == []
