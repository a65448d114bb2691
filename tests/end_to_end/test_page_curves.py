"""Curves of a run in a browser: smoothed, over other axes, zoomed, read and downloaded; without a mouse."""

import csv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import exp
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.browser import Browser, browsing, needs_chromium
from tests.support.groups import GROUP, group_stories
from tests.support.http import inside, with_api
from tests.support.redis_servers import embedded
from tests.support.stories import Story, run_record
from tests.support.waiting import until

pytestmark = needs_chromium

FAULTS = (ROOT / "tests" / "fixtures" / "page_faults.js").read_text(encoding="utf-8")
LOSSES = [9.0 if step == 1500 else 4 * exp(-step / 800) + 1 + 0.2 * (step % 2) for step in range(1, 3001)]
LINE = "document.querySelector('path.line')?.getAttribute('d')"
FINER = "document.querySelector('.chart + input').max > 700"
"""The zoom to half of the steps or less has points between those of the whole curve."""


@asynccontextmanager
async def shown(folder: Path, *, is_group: bool = False) -> AsyncIterator[Browser]:
    """The page of a run of 3000 steps, or of a group of two whose losses differ by 1, which no worker trains."""
    if is_group:
        for more, told in enumerate(group_stories(folder / "artifacts", (1, 2))):
            told.start().steps([loss + more for loss in LOSSES])
        view = f"groups/{GROUP}"
    else:
        view = f"runs/{Story(folder / 'artifacts', run_record()).start().steps(LOSSES).run.run_id}"
    async with (
        embedded(folder) as (settings, queue, _),
        inside(queue, with_api(settings, keys="")) as (site, _),
        browsing(folder) as browser,
    ):
        await browser.open(str(site.url(f"/#/{view}")))
        await browser.see(LINE)
        await browser.evaluate("document.querySelector('.chart ~ details').open = true")
        yield browser
        assert browser.errors == []


@pytest.mark.slow
async def test_curves__are_smoothed_zoomed_and_read_by_the_keyboard(tmp_path: Path) -> None:
    async with shown(tmp_path) as browser:
        await browser.see_value("document.querySelector('path.raw')", None)
        await browser.tab_to("#smoothing")
        await browser.press("End")
        await browser.see("document.querySelector('path.raw') && document.querySelector('output').value === '0.99'")
        linear = await browser.evaluate(LINE)
        await browser.tab_to(".settings input[type=checkbox]")
        await browser.press(" ")
        await browser.see(f"{LINE} !== {linear!r}")
        await browser.tab_to(".chart + input")
        await browser.press("Home")
        await browser.see("document.querySelector('.readout').textContent.startsWith('step 1 train 7')")
        await browser.press("End")
        await browser.see("document.querySelector('.readout').textContent.startsWith('step 3,000 train ')")
        await browser.tab_to(".tools button")
        await browser.press("Enter")
        await browser.see("performance.getEntriesByType('resource').some(({name}) => name.includes('from_step=1500'))")
        await browser.see("document.querySelector('.chart + input').max > 700")
        await browser.evaluate("document.querySelector('.chart + input').focus()")
        await browser.press("Home")
        await browser.see("document.querySelector('.readout').textContent.startsWith('step 1,500 train ')")
        for width, dark in ((320, True), (1200, False)):
            await browser.screen(width, 800, dark=dark)
            assert await browser.evaluate(FAULTS) == []
        await choose(browser, 0, "grad_norm")
        await choose(browser, 1, "tokens")
        await browser.see("document.querySelector('svg').textContent.includes('gradient norm')")
        await browser.see("document.querySelector('svg').textContent.includes('160K')")
        await browser.open(str(await browser.evaluate("location.href")))
        await browser.see("document.querySelector('svg')?.textContent.includes('gradient norm')")
        await browser.see_value("document.querySelector('#smoothing').value", "0.99")


@pytest.mark.slow
async def test_zoomed_group__has_all_steps_of_its_means_and_bands(tmp_path: Path) -> None:
    async with shown(tmp_path, is_group=True) as browser:
        for _ in range(3):
            await browser.tab_to(".tools button")
            await browser.press("Enter")
        await browser.see("document.querySelector('.chart + input').max >= 375")
        await browser.evaluate("document.querySelector('.chart + input').focus()")
        await browser.press("Home")
        await browser.see("document.querySelector('.readout').textContent.startsWith('step 2,625 train, mean ')")
        await browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        await browser.evaluate("document.querySelector('button[aria-label=\"CSV: Loss\"]').click()")
        await until((tmp_path / "loss.csv").exists)
        with (tmp_path / "loss.csv").open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        names = ("train, mean", "train, mean, lowest", "train, mean, highest")
        assert head[:4] == ["step", *(f"{name} (nats per token)" for name in names)]
        numbers = {int(step): (float(mean), float(low), float(high)) for step, mean, low, high, *_ in rows}
        for step, loss in list(enumerate(LOSSES, 1))[2625:]:
            assert numbers[step] == pytest.approx((loss + 0.5, loss, loss + 1))


@pytest.mark.slow
async def test_chart__is_zoomed_by_dragging_until_a_reset_or_another_axis(tmp_path: Path) -> None:
    async with shown(tmp_path) as browser:
        await browser.see("document.querySelector('.facts dd')")  # stands above the chart
        await browser.screen(1200, 800)
        whole = await browser.evaluate(LINE)
        await browser.evaluate("document.querySelector('.chart').scrollIntoView({block: 'center'})")
        box = "(({left, top, width}) => [left + width / 2, top + 100, left + width / 4])"
        place = await browser.evaluate(f"{box}(document.querySelector('.chart').getBoundingClientRect())")
        assert isinstance(place, list)
        start, height, end = (float(str(one)) for one in place)
        for kind, x in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            await browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=height, button="left", clickCount=1)
        await browser.see(f"{LINE} !== {whole!r}")
        await browser.see(FINER)
        await browser.evaluate("[...document.querySelectorAll('.tools button')][2].click()")
        await browser.see_value(LINE, whole)
        await choose(browser, 1, "tokens")
        whole = await browser.evaluate(LINE)
        await choose(browser, 1, "step")
        await browser.evaluate("document.querySelector('.tools button').click()")
        await browser.see(FINER)
        await choose(browser, 1, "tokens")
        await browser.see_value(LINE, whole)


@pytest.mark.slow
async def test_chart__is_downloaded_as_svg_png_and_csv(tmp_path: Path) -> None:
    async with shown(tmp_path) as browser:
        files = tmp_path / "files"
        await browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(files))
        for name, ending in (("SVG", "svg"), ("PNG", "png"), ("CSV", "csv")):
            await browser.evaluate(
                f"[...document.querySelectorAll('.tools button')].find((one) => one.textContent === '{name}').click()"
            )
            await until((files / f"loss.{ending}").exists)
        image = (files / "loss.svg").read_text(encoding="utf-8")
        assert 'stroke="rgb(11, 92, 173)"' in image and "class=" not in image and "var(" not in image
        picture = (files / "loss.png").read_bytes()
        width = int(str(await browser.evaluate("document.querySelector('svg').clientWidth")))
        assert picture.startswith(b"\x89PNG") and int.from_bytes(picture[16:20]) == 2 * width
        with (files / "loss.csv").open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        assert head == ["step", "train (nats per token)"] and 500 < len(rows) <= 1002
        assert {(int(step), float(loss)) for step, loss in rows} <= set(enumerate(LOSSES, 1))
        assert ["1500", "9"] in rows


@pytest.mark.slow
async def test_unit__is_changed_by_the_keyboard_and_leaves_the_view_in_its_place(tmp_path: Path) -> None:
    async with shown(tmp_path) as browser:
        files = tmp_path / "files"
        await browser.screen(1200, 400)
        await browser.see_value("localStorage.length", 0)
        await browser.see_value("document.querySelector('#unit').labels[0].innerText.split('\\n')[0].trim()", "Unit")
        await browser.evaluate("document.querySelector('.tools button').click()")
        await browser.see(FINER)
        await browser.evaluate("document.querySelector('.chart ~ details').open = true")
        await browser.see("document.querySelectorAll('.chart ~ details td').length > 100")
        await browser.evaluate("document.querySelector('.chart ~ details .scroll').scrollIntoView()")
        place = (
            "[scrollY, document.querySelector('.chart + input').max, document.querySelector('.chart ~ details').open]"
        )
        before, drawn = await browser.evaluate(place), await browser.evaluate(LINE)
        await browser.evaluate("document.querySelector('#unit').focus({preventScroll: true})")
        await browser.press("ArrowDown")
        await browser.see("document.querySelector('svg').textContent.includes('loss, nats per token')")
        await browser.see_value("localStorage.unit", "nats")
        readout = f"step 3,000: train {LOSSES[-1]:.3f}"
        await browser.see_value("document.querySelector('.chart + input').ariaValueText", readout)
        await browser.see(f"document.querySelector('.chart ~ details').innerText.endsWith('{LOSSES[-1]:.3f}')")
        await browser.see_value(place, before)
        await browser.see_value(LINE, drawn)
        await browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(files))
        await browser.evaluate("document.querySelector('button[aria-label=\"SVG: Loss\"]').click()")
        await until((files / "loss.svg").exists)
        assert "loss, nats per token" in (files / "loss.svg").read_text(encoding="utf-8")
        await browser.open(str(await browser.evaluate("location.href")))
        await browser.see("document.querySelector('svg')?.textContent.includes('nats per token')")
        await browser.see_value("document.querySelector('#unit').value", "nats")


async def choose(browser: Browser, number: int, value: str) -> None:
    """Choose an option of one of the settings."""
    await browser.evaluate(
        f"((select) => {{ select.value = '{value}'; select.dispatchEvent(new Event('change')); }})"
        f"(document.querySelectorAll('.settings select')[{number}])"
    )
