"""The page in Chromium with 10,000 runs and with a million points: first paint, interactions, and memory.

    python -m benchmarks.page_load

Writes the runs into a temporary folder, a tenth of them in groups over seeds, and serves them with
`python -m bot --no-discord`. Exits 1 if a goal is missed.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from tests.support.api_process import ApiProcess, api_process
from tests.support.browser import Browser, browsing
from tests.support.many_runs import write_long_run, write_runs
from trainer.contracts.http_answers import Curve, RunPage

RUNS, POINTS = 10_000, 1_000_000
LONG_RUN = "run-long"
PAINT_SECONDS, INTERACTION_SECONDS, MEMORY_MEBIBYTES = 0.3, 0.1, 300.0
REPEATS = 5
_SHOWN = "document.querySelectorAll('.runs tbody a').length"
_FIRST = "document.querySelector('.runs tbody:not(.space) tr')?.textContent"
_IN_VIEW = """[...document.querySelectorAll('.runs tbody:not(.space) tr')].filter((row) => {
    const place = row.getBoundingClientRect(), all = row.closest('.rows').getBoundingClientRect();
    return place.bottom > all.top && place.top < all.bottom;
})"""
_IS_LOADED = f"{_SHOWN} > 5 && {_IN_VIEW}.every((row) => !row.textContent.includes('…'))"
_CHART = "document.querySelector('.chart svg')?.outerHTML"


class Figure(NamedTuple):
    """A measured figure and the most that it may be."""

    name: str
    value: float
    goal: float
    unit: str


async def first_paint_seconds(browser: Browser, address: str) -> float:
    """Load a page anew, and return the time of its first text."""
    await browser.open(address)
    await browser.see("performance.getEntriesByName('first-contentful-paint').length")
    found = await browser.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return TypeAdapter(float).validate_python(found) / 1000


async def seconds_until(browser: Browser, action: str, is_done: str, before: str = _FIRST) -> float:
    """Run a script in the page, and return the time until an expression holds in a frame that was drawn after it.

    The expression can compare with `before`, the value of another expression when the script began.
    """
    script = f"""(async () => {{
        const before = {before};
        const start = performance.now();
        {action};
        const frame = () => new Promise(requestAnimationFrame);
        do await frame(); while (!({is_done}) && performance.now() - start < 20000);
        return (performance.now() - start) / 1000;
    }})()"""
    return TypeAdapter(float).validate_python(await browser.evaluate(script))


async def memory_mebibytes(browser: Browser) -> tuple[float, float]:
    """Return the memory of the page's JavaScript, after a collection, and of its process."""
    await browser.call("HeapProfiler.collectGarbage")
    await browser.call("Performance.enable")
    metrics = TypeAdapter(list[dict[str, float | str]]).validate_python(
        (await browser.call("Performance.getMetrics"))["metrics"]
    )
    heap = next(float(metric["value"]) for metric in metrics if metric["name"] == "JSHeapUsedSize")
    return heap / 2**20, max(_resident_mebibytes(pid) for pid in _descendants(os.getpid()) if _is_page(pid))


def _descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text(encoding="ascii").split()):
            yield child
            yield from _descendants(child)


def _is_page(pid: int) -> bool:
    return b"--type=renderer" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _resident_mebibytes(pid: int) -> float:
    fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def list_figures(browser: Browser, api: ApiProcess) -> list[Figure]:
    """Measure the list of runs: first paint, sorting, filtering, scrolling through everything, and memory."""
    while (total := api.get("/runs?limit=1", RunPage).total) < RUNS:
        print(f"{total} runs are indexed")
        await asyncio.sleep(1)
    await browser.screen(1280, 900)
    figures: list[Figure] = []
    address = f"{api.url}/"
    for _ in range(REPEATS):
        paint = await first_paint_seconds(browser, address)
        await browser.see(_IS_LOADED)
        figures.append(Figure("list: first paint", paint, PAINT_SECONDS, "s"))
    changes = f"{_IS_LOADED} && {_FIRST} !== before"
    for column in ("test_loss", "created_at", "bits_per_char", "label"):  # another run is the first after each click
        click = f"document.querySelector('th[data-column={column}] button').click()"
        is_sorted = f"document.querySelector('th[data-column={column}]').ariaSort"
        for direction in ("first", "second"):
            seconds = await seconds_until(browser, click, f"{is_sorted} && ({changes})")
            figures.append(Figure(f"list: sort by {column}, {direction} click", seconds, INTERACTION_SECONDS, "s"))
    script = (
        "const box = document.querySelector('#status'); box.value = 'running'; box.dispatchEvent(new Event('change'))"
    )
    seconds = await seconds_until(browser, script, f"{_SHOWN} === 0")
    figures.append(Figure("list: filter without rows", seconds, INTERACTION_SECONDS, "s"))
    script = script.replace("running", "completed")
    figures.append(Figure("list: filter", await seconds_until(browser, script, _IS_LOADED), INTERACTION_SECONDS, "s"))
    jumps = []
    for share in (0.5, 0.9, 0.1, 1.0):
        jump = f"const rows = document.querySelector('.rows'); rows.scrollTop = {share} * rows.scrollHeight"
        jumps.append(await seconds_until(browser, jump, changes))
    figures.append(Figure("list: jump to another place", max(jumps), INTERACTION_SECONDS, "s"))
    longest, steps = await _scroll_through(browser)
    figures.append(Figure(f"list: longest frame of {steps} while scrolling", longest, INTERACTION_SECONDS, "s"))
    return [*figures, *memory_figures("list", [await memory_mebibytes(browser)])]


async def curve_figures(browser: Browser, api: ApiProcess) -> list[Figure]:
    """Measure the page of a run with a million points: first paint, its curves, and memory."""
    begin = time.monotonic()
    api.get(f"/runs/{LONG_RUN}/curve?points=1000", Curve)
    print(f"the server has read {POINTS:,} points in {time.monotonic() - begin:.1f} s", flush=True)
    figures: list[Figure] = []
    for _ in range(REPEATS):
        paint = await first_paint_seconds(browser, f"{api.url}/#/runs/{LONG_RUN}")
        figures.append(Figure("curve: first paint", paint, PAINT_SECONDS, "s"))
    await browser.see(_CHART)
    settings = {
        "smoothing": ("document.querySelector('#smoothing')", "input", "0.9"),
        "over tokens": ("document.querySelectorAll('.settings select')[1]", "change", "tokens"),
        "logarithmic": ("document.querySelector('.settings input[type=checkbox]')", "click", ""),
        "gradient norm": ("document.querySelector('.settings select')", "change", "grad_norm"),
        "zoom": ("document.querySelector('.tools button')", "click", ""),
        "earlier": ("document.querySelectorAll('.tools button')[2]", "click", ""),
    }
    for name, (element, event, value) in settings.items():
        act = "element.click()" if event == "click" else f"element.dispatchEvent(new Event('{event}'))"
        script = f"const element = {element}; if ('{value}') element.value = '{value}'; {act}"
        seconds = await seconds_until(browser, script, f"{_CHART} !== before", _CHART)
        figures.append(Figure(f"curve: {name}", seconds, INTERACTION_SECONDS, "s"))
    return [*figures, *memory_figures("curve", [await memory_mebibytes(browser)])]


def memory_figures(page: str, measured: Sequence[tuple[float, float]]) -> list[Figure]:
    """Return the largest of some measurements of `memory_mebibytes`."""
    heap, process = max(heap for heap, _ in measured), max(process for _, process in measured)
    return [
        Figure(f"{page}: memory of JavaScript", heap, MEMORY_MEBIBYTES, "MiB"),
        Figure(f"{page}: memory of the page's process", process, MEMORY_MEBIBYTES, "MiB"),
    ]


def report(figures: Sequence[Figure], errors: Sequence[str]) -> int:
    """Print figures and the errors in the console; return 1 if there are errors, or a goal is missed."""
    for name, value, goal, unit in figures:
        print(f"{'ok  ' if value <= goal else 'MISS'} {name}: {value:.3f} {unit} (at most {goal:g})")
    print(f"errors in the console: {errors}")
    return 1 if errors or any(figure.value > figure.goal for figure in figures) else 0


async def _scroll_through(browser: Browser) -> tuple[float, int]:
    """Scroll from the first row to the last one, a window at a time; return the longest frame, and how many."""
    script = """(async () => {
        const rows = document.querySelector('.rows');
        const frame = () => new Promise(requestAnimationFrame);
        rows.scrollTop = 0;
        await frame();
        let longest = 0, steps = 0, before = performance.now();
        while (rows.scrollTop + rows.clientHeight < rows.scrollHeight - 1 && steps < 5000) {
            rows.scrollTop += rows.clientHeight;
            await frame();
            longest = Math.max(longest, performance.now() - before);
            before = performance.now();
            steps += 1;
        }
        return [longest / 1000, steps];
    })()"""
    longest, steps = TypeAdapter(tuple[float, int]).validate_python(await browser.evaluate(script))
    await browser.see(_IS_LOADED)
    return longest, steps


async def measure() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begin = time.monotonic()
        write_runs(folder / "artifacts", RUNS)
        write_long_run(folder / "artifacts", LONG_RUN, POINTS)
        print(f"{RUNS:,} runs and {POINTS:,} points written in {time.monotonic() - begin:.0f} s", flush=True)
        with api_process(folder, QUEUE__EMBEDDED_WORKERS="0", SECURITY__API_KEYS="") as api:
            async with browsing(folder) as browser:
                figures = [*await curve_figures(browser, api), *await list_figures(browser, api)]
                return report(figures, browser.errors)


if __name__ == "__main__":
    sys.exit(asyncio.run(measure()))
