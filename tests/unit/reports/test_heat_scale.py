"""The colours of heat maps: readable text on each, from the first to the last of the scale."""

import pytest

from trainer.reports.experiment_tables import SCALE_COLOURS, HeatScale, contrast, luminance


@pytest.mark.parametrize("value", [-1.0, 0.0, 0.3, 0.5, 0.77, 1.0, 2.0])
def test_text__on_each_colour_has_the_contrast_that_can_be_read(value: float) -> None:
    scale = HeatScale(0.0, 1.0)
    assert contrast(luminance(scale.colour(value)), luminance(scale.text_colour(value))) >= 4.5


def test_scale__runs_from_its_first_to_its_last_colour() -> None:
    scale = HeatScale(1.0, 3.0)
    assert [scale.colour(value) for value in (1.0, 2.0, 3.0)] == [SCALE_COLOURS[0], SCALE_COLOURS[4], SCALE_COLOURS[-1]]
    assert HeatScale(2.0, 2.0).colour(2.0) == SCALE_COLOURS[0]
    assert contrast(luminance("#ffffff"), luminance("#000000")) == pytest.approx(21.0)
