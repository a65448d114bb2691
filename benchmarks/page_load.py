"""The page with 10,000 runs in Chromium: first paint, the time of each interaction, and its memory.

    python -m benchmarks.page_load

Writes the runs into a temporary folder, a tenth of them in groups over seeds, and serves them with
`python -m bot --no-discord`. Exits 1 if a goal is missed.
"""

import asyncio
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from tests.support.api_process import ApiProcess, api_process
from tests.support.browser import Browser, browsing
from tests.support.stories import BEGIN, run_record
from tests.support.unsynced_disk import UnsyncedDisk
from trainer.artifacts.runs import RunDirectory, RunStore, manifest_of
from trainer.contracts.base import changed
from trainer.contracts.events import ArtifactRef, JobCompleted, JobStarted, MetricsCompleted, MetricsProgress, stamp
from trainer.contracts.http_answers import RunPage
from trainer.contracts.runs import RunManifest, RunMetrics, RunRecord, Timings
from trainer.contracts.seeds import RunGroup

RUNS, SEEDS, STEPS = 10_000, 5, 30
PAINT_SECONDS, INTERACTION_SECONDS, MEMORY_MEBIBYTES = 0.3, 0.1, 300.0
REPEATS = 5
FAMILIES = ("char_lstm", "gpt2", "gru", "llama")
_SHOWN = "document.querySelectorAll('.runs tbody a').length"
_FIRST = "document.querySelector('.runs tbody:not(.space) tr')?.textContent"
_IS_LOADED = f"{_SHOWN} > 5 && !document.querySelector('.runs tbody').textContent.includes('…')"


class Figure(NamedTuple):
    """A measured figure and the most that it may be."""

    name: str
    value: float
    goal: float
    unit: str


def write_runs(root: Path, count: int) -> None:
    """Write completed runs with their events and manifests; each tenth begins a group of SEEDS runs."""
    store = RunStore(root, UnsyncedDisk())
    draw = random.Random(1)
    for number in range(count):
        place = number % (10 * SEEDS)
        group = None if place >= SEEDS else RunGroup(group_id=f"group-{number - place}", seeds=tuple(range(SEEDS)))
        record = run_record(f"run-{number}", user_id=None, label=f"experiment {number // SEEDS} of the lab")
        family = FAMILIES[number // SEEDS % len(FAMILIES)]
        effective = changed(record.effective, model_family=family, label=record.effective.label, seed=number % SEEDS)
        created = BEGIN + timedelta(minutes=number)
        _complete(
            store.create(changed(record, created_at=created, effective=effective, group=group)), draw.uniform(1.0, 4.0)
        )


def _complete(run: RunDirectory, loss: float) -> None:
    """Write the events and the manifest of a run with this loss at its end."""
    record = run.record()
    end = record.created_at + timedelta(hours=1)
    artifact = ArtifactRef(id=run.run_id, bytes=1, sha256="a" * 64)
    bits = 2 * loss / math.log(2)
    with run.open_log() as log:
        log.append(JobStarted(**stamp(run.run_id, None, "started"), queue="training", attempt=1))
        for step in range(1, STEPS + 1):
            log.append(_progress(record, step, loss * (1 + 1 / step)))
        result = {"test_loss": loss, "test_perplexity": math.exp(loss), "bits_per_char": bits, "train_loss": loss}
        log.append(MetricsCompleted(**stamp(run.run_id, None, "metrics"), artifact=artifact, **result))
        log.append(JobCompleted(**stamp(run.run_id, None, "completed", end), result_id=run.run_id, result_bytes=1))
    metrics = RunMetrics(train=loss, val=loss, best=loss, test=loss, bits_per_char=bits)
    run.write_manifest(_manifest(record, metrics))


def _manifest(record: RunRecord, metrics: RunMetrics) -> RunManifest:
    timings = Timings(created=record.created_at, finished=record.created_at + timedelta(hours=1))
    return changed(manifest_of(record, "completed"), metrics=metrics, timings=timings)


def _progress(record: RunRecord, step: int, loss: float) -> MetricsProgress:
    return MetricsProgress(
        **stamp(record.run_id, None, f"progress:{step}"),
        epoch=1,
        total_epochs=1,
        step=step,
        total_steps=STEPS,
        progress=100.0 * step / STEPS,
        train_loss=loss,
        train_perplexity=math.exp(loss),
        learning_rate=1e-3,
        grad_norm=1.0,
        tokens_per_second=1e4,
        chars_per_second=5e3,
        eta_seconds=60.0,
        val_loss=loss,
        best_val_loss=loss,
    )


async def first_paint_seconds(browser: Browser, address: str) -> float:
    """Load a page anew, and return the time of its first text."""
    await browser.open(address)
    await browser.see("performance.getEntriesByName('first-contentful-paint').length")
    found = await browser.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return TypeAdapter(float).validate_python(found) / 1000


async def seconds_until(browser: Browser, action: str, is_done: str) -> float:
    """Run a script in the page, and return the time until an expression holds in a frame that was drawn after it."""
    script = f"""(async () => {{
        const before = {_FIRST};
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
    for column in ("test_loss", "label", "status", "created_at", "bits_per_char"):
        click = f"document.querySelector('th[data-column={column}] button').click()"
        is_sorted = f"document.querySelector('th[data-column={column}]').ariaSort"
        for direction in ("first", "second"):
            is_done = f"{is_sorted} && ({changes})" if column != "status" else f"{is_sorted} && {_IS_LOADED}"
            seconds = await seconds_until(browser, click, is_done)
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
    heap, process = await memory_mebibytes(browser)
    figures.append(Figure("list: JavaScript memory after scrolling", heap, MEMORY_MEBIBYTES, "MiB"))
    figures.append(Figure("list: memory of the page's process", process, MEMORY_MEBIBYTES, "MiB"))
    return figures


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
        print(f"{RUNS:,} runs written in {time.monotonic() - begin:.0f} s", flush=True)
        with api_process(folder, QUEUE__EMBEDDED_WORKERS="0", SECURITY__API_KEYS="") as api:
            async with browsing(folder) as browser:
                figures = await list_figures(browser, api)
                errors = browser.errors
    for name, value, goal, unit in figures:
        print(f"{'ok  ' if value <= goal else 'MISS'} {name}: {value:.3f} {unit} (at most {goal:g})")
    print(f"errors in the console: {errors}")
    return 1 if errors or any(figure.value > figure.goal for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(measure()))
