"""The page of texts in Chromium with 100,000 characters and one or two models: paint, interactions, and memory.

    python -m benchmarks.page_text

Trains two models of characters in a temporary folder, so that each character is a token. Exits 1 if a goal is missed.
"""

import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

from pydantic import TypeAdapter

from benchmarks.page_load import (
    INTERACTION_SECONDS,
    PAINT_SECONDS,
    Figure,
    memory_figures,
    memory_mebibytes,
    report,
    seconds_until,
)
from tests.support import add_corpus
from tests.support.api_process import api_process
from tests.support.browser import Browser, browsing
from tests.support.lab import Lab, running_worker
from tests.support.served_page import finish

CHARACTERS, LINE_CHARACTERS, REPEATS = 100_000, 80, 5
_TABLE = "document.querySelector('.score details')"
# true where each block of a map in view has its units, once they are laid out and painted
_IS_SHOWN = """(await new Promise((painted) => setTimeout(painted)), document.querySelector('.heat') &&
    [...document.querySelectorAll('.heat > div')].every((block) => {
        const { top, bottom } = block.getBoundingClientRect();
        return bottom < 0 || top > innerHeight || block.querySelector('[role=option]');
    }))"""

Measuring = Callable[[str, str, str], Awaitable[None]]
"""Measures an interaction: its name, its script, and the expression that holds afterwards."""


async def text_figures(browser: Browser, url: str, models: tuple[str, str]) -> list[Figure]:
    """Measure the page of texts of a server with one model, and then with both.

    Each round loads the page anew and does each interaction once; the figures are the medians over the rounds, and the
    largest one for the memory.
    """
    await browser.screen(1280, 900)
    figures: list[Figure] = []
    for count, title in ((1, "text, one model"), (2, "text, two models")):
        paints: list[float] = []
        interactions: dict[str, list[float]] = {}
        memories: list[tuple[float, float]] = []

        async def measure(name: str, action: str, is_done: str, found: dict[str, list[float]] = interactions) -> None:
            found.setdefault(name, []).append(await seconds_until(browser, action, f"({_IS_SHOWN} && {is_done})"))
            await asyncio.sleep(0.2)

        for _ in range(REPEATS):
            paints.append(await paint_seconds(browser, f"{url}/#/text/{','.join(models[:count])}"))
            await asyncio.sleep(0.5)
            await interact(browser, measure)
            memories.append(await memory_mebibytes(browser))
        figures.append(Figure(f"{title}: paint after the answers", median(paints), PAINT_SECONDS, "s"))
        for name, seconds in interactions.items():
            figures.append(Figure(f"{title}: {name}", median(seconds), INTERACTION_SECONDS, "s"))
        figures += memory_figures(title, memories)
    return figures


async def paint_seconds(browser: Browser, address: str) -> float:
    """Score a text on the page, and return the time from the last byte of the answers until the maps are painted."""
    await browser.open(address)
    await browser.see("document.querySelector('#text')")
    script = f"""(async () => {{
        document.querySelector('#text').value = {json.dumps(text_of(CHARACTERS // LINE_CHARACTERS))};
        document.querySelector('#text').form.requestSubmit();
        const frame = () => new Promise(requestAnimationFrame);
        do await frame(); while (!document.querySelector('.heat') || !{_IS_SHOWN});
        const end = performance.now();
        const requests = performance.getEntriesByType('resource').filter((entry) => entry.initiatorType === 'fetch');
        return (end - Math.max(...requests.map((entry) => entry.responseEnd))) / 1000;
    }})()"""
    return TypeAdapter(float).validate_python(await browser.evaluate(script))


async def interact(browser: Browser, measure: Measuring) -> None:
    """Do each interaction with a scored text once."""
    for unit in ("words", "characters", "tokens"):
        await measure(f"unit: {unit}", _choice("#unit", unit), "true")
    for scale, text in (("fixed", "7+"), ("quantiles", "–")):
        done = f"document.querySelector('.scale').textContent.includes('{text}')"
        await measure(f"colours: {scale}", _choice("#scale", scale), done)
    await measure("table: open", f"{_TABLE}.open = true", f"{_TABLE}.querySelector('tbody')")
    for column, name in enumerate(("text", "code points", "start", "nats")):
        button = f"{_TABLE}.querySelectorAll('.sort')[{column}]"
        for direction, sign in (("ascending", "▲"), ("descending", "▼")):
            done = f"{button}.textContent.includes('{sign}')"
            await measure(f"table: sort by {name}, {direction}", f"{button}.click()", done)
    await browser.evaluate(f"{_TABLE}.open = false")
    await browser.evaluate("document.querySelector('.heat [role=option]').focus()")
    for key in ("ArrowRight", "End", "ArrowLeft", "Home"):
        event = f"new KeyboardEvent('keydown', {{ key: '{key}', bubbles: true, cancelable: true }})"
        action = f"const focused = document.activeElement; focused.dispatchEvent({event})"
        await measure(f"key: {key}", action, "document.activeElement !== focused")
    for share in (0.3, 0.9, 0.1):
        await measure(f"scroll to {share:.0%}", f"scrollTo(0, {share} * document.body.scrollHeight)", "true")
    await browser.evaluate("scrollTo(0, 0)")


def text_of(lines: int) -> str:
    """Lines of random letters and spaces."""
    chosen = random.Random(1)
    return "".join(f"{''.join(chosen.choices('abcdefgh ', k=LINE_CHARACTERS - 1))}\n" for _ in range(lines))


def _choice(selector: str, value: str) -> str:
    return (
        f"const field = document.querySelector('{selector}'); field.value = '{value}';"
        " field.dispatchEvent(new Event('change'))"
    )


async def measure() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        add_corpus(folder, text_of(200))
        with running_worker(folder):
            async with Lab(folder).queue() as queue:
                models = (await finish(queue, "first"), await finish(queue, "second", seed=2))
            with api_process(folder, QUEUE__EMBEDDED_WORKERS="0", SECURITY__API_KEYS="") as api:
                async with browsing(folder) as browser:
                    figures = await text_figures(browser, api.url, models)
                    return report(figures, browser.errors)


if __name__ == "__main__":
    sys.exit(asyncio.run(measure()))
