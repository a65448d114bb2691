"""Pictures of the regions of a suite."""

from tests.support.battery_results import ONE, RESULT, SEVERAL
from trainer.contracts.base import changed
from trainer.reports.battery_charts import region_figures


def test_regions__have_a_picture_for_each_run_and_suite() -> None:
    figures = region_figures(SEVERAL)
    assert [*figures] == ["first: s", "second: s"]
    assert all(png.startswith(b"\x89PNG") for png in figures.values())
    assert region_figures(SEVERAL) == figures, "the same numbers give the same bytes"


def test_picture__depends_on_numbers_and_names_of_regions() -> None:
    [png] = region_figures(ONE).values()
    effect = RESULT.effects[0]
    other = changed(RESULT, effects=(effect, changed(effect, what="d", nats=4.0, low=None, high=None)))
    [battery] = ONE.batteries
    regions = {number: "a very long name " * 8 for number in range(1, 5)}
    long = changed(battery, suites={"s": changed(battery.suites["s"], regions=regions)})
    effects = tuple(changed(effect, region=number) for number in regions)
    crowded = changed(ONE, batteries=(long,), runs=(changed(RESULT, effects=effects),))
    for summary in (changed(ONE, runs=(other,)), crowded):
        assert [*region_figures(summary).values()] != [png]
