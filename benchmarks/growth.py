"""Growth of time and memory with model width, context, corpus, runs, events, queue and watchers.

    python -m benchmarks.growth [--quick] [FOLDER]

Measures each cost at six sizes, each double the last, and fits its exponent. Prints a table, writes `growth.json` and
`growth.png` to the folder, and exits 1 if an exponent is more than 0.1 above its theory.

Time is processor time, the least of some measurements, because a busy machine only adds to it. A cost whose theory is
constant is fitted as c n^p: its fixed part is the cost. Any other cost is fitted as a + c n^p, so that a fixed part a
does not hide growth.
"""

import argparse
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from math import log, pow, sqrt
from pathlib import Path
from statistics import linear_regression
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from pydantic import TypeAdapter

from benchmarks import growth_costs as costs
from benchmarks.growth_costs import Cost
from benchmarks.rows import Row

TOLERANCE = 0.1
HEADER = ("| axis | work | | smallest | largest | exponent | theory | |", "|---|---|---|---|---|---|---|---|")
SWEEPS, QUICK_SWEEPS = 3, 1
SIZES = 6
_LINE, _THEORY, _BAD = "#0072b2", "#8a8a8a", "#d55e00"


class Case(NamedTuple):
    """Work that grows with one axis; a theory of None leaves its time or memory out."""

    axis: str
    work: str
    smallest: int
    measure: Callable[[int], Cost]
    time_theory: float | None
    memory_theory: float | None

    @property
    def sizes(self) -> list[int]:
        return [self.smallest << doubling for doubling in range(SIZES)]


class Growth(NamedTuple):
    """Measured growth of one quantity, in seconds or bytes."""

    axis: str
    work: str
    quantity: str
    sizes: list[int]
    costs: list[float]
    theory: float
    exponent: float

    @property
    def is_met(self) -> bool:
        return self.exponent <= self.theory + TOLERANCE


_growths_adapter: TypeAdapter[list[Growth]] = TypeAdapter(list[Growth])
CASES = (
    Case("model width", "LSTM training", 32, costs.lstm_of_width, 2, 2),
    Case("model width", "GPT-2 training", 32, costs.gpt2_of_width, 2, 2),
    Case("context (tokens)", "LSTM training", 32, costs.lstm_of_context, 0, 1),
    Case("context (tokens)", "GPT-2 training", 128, costs.gpt2_of_context, 1, 0),
    Case("corpus (MB)", "preparation", 4, costs.corpus_of_megabytes, 1, 0),
    Case("runs", "`mt runs`", 16, costs.listing_of_runs, 1, 1),
    Case("runs", "index of the bot", 16, costs.index_of_runs, 1, 1),
    Case("runs", "reconciler, all queued", 16, costs.reconciliation_of_runs, 1, 1),
    Case("events of a run", "reading the log", 250, costs.reading_of_events, 1, 1),
    Case("events of a run", "one more event", 250, costs.next_of_events, 0, None),
    Case("jobs in the queue", "one job", 256, costs.job_of_queue, 0, 1),
    Case("watchers of a run", "the end of the run", 2, costs.end_of_watched_run, 1, 1),
)


def growth_rows(is_quick: bool) -> list[Row]:
    """Measure the exponents of all cases."""
    growths = [growth for case in CASES for growth in growths_of(case, QUICK_SWEEPS if is_quick else SWEEPS)]
    return [
        Row(
            case=f"growth: {growth.quantity} of {growth.work} with {growth.axis}",
            value=growth.exponent,
            unit="exponent",
            goal=growth.theory + TOLERANCE,
            better="less",
            details={f"at {growth.sizes[i]:,}": growth.costs[i] for i in (0, -1)},
        )
        for growth in growths
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SWEEPS} measurement per size, not {SWEEPS}")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("growth"), help="for the figures and the chart")
    options = _Options()
    parser.parse_args(namespace=options)
    growths: list[Growth] = []
    print(*HEADER, sep="\n")
    for case in CASES:
        found = growths_of(case, QUICK_SWEEPS if options.quick else SWEEPS)
        print(*map(row, found), sep="\n", flush=True)
        growths += found
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / "growth.json").write_bytes(_growths_adapter.dump_json(growths, indent=1) + b"\n")
    chart(growths).savefig(options.folder / "growth.png", dpi=80)
    return 0 if all(growth.is_met for growth in growths) else 1


class _Options(argparse.Namespace):
    quick: bool
    folder: Path


def growths_of(case: Case, sweeps: int) -> list[Growth]:
    """Measure all sizes of a case `sweeps` times, each in a new process, and fit its time and its memory."""
    measured: dict[int, list[Cost]] = {size: [] for size in case.sizes}
    for size in case.sizes * sweeps:
        measured[size].append(_measure(case.measure, size))
    seconds = [min(cost.seconds for cost in found) for found in measured.values()]
    memory_bytes = [min(cost.memory_bytes for cost in found) for found in measured.values()]
    quantities = (("time", seconds, case.time_theory), ("memory", memory_bytes, case.memory_theory))
    return [
        Growth(case.axis, case.work, quantity, case.sizes, values, theory, exponent_of(case.sizes, values, theory))
        for quantity, values, theory in quantities
        if theory is not None
    ]


def _measure(function: Callable[[int], Cost], size: int) -> Cost:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([costs.__name__])
    with ProcessPoolExecutor(1, mp_context=context, initializer=costs.quiet) as pool:
        return pool.submit(function, size).result()


def exponent_of(sizes: Sequence[int], costs: Sequence[float], theory: float) -> float:
    """Return p of the least-squares fit c n^p, in logarithms, if the theory is 0; else of a + c n^p with a, c >= 0.

    The second fit minimizes the squares of relative errors.
    """
    if theory == 0:
        return linear_regression([log(size) for size in sizes], [log(max(cost, 1e-9)) for cost in costs]).slope
    exponents = [step / 100 for step in range(1, 400)]
    errors = [_squared_error(sizes, costs, exponent) for exponent in exponents]
    return exponents[errors.index(min(errors))]


def _squared_error(sizes: Sequence[int], costs: Sequence[float], exponent: float) -> float:
    """Return the squared relative errors of the best a + c n^exponent with a, c >= 0."""
    costs = [max(cost, 1e-9) for cost in costs]
    fixed = [1 / cost for cost in costs]
    growing = [pow(size / sizes[-1], exponent) / cost for size, cost in zip(sizes, costs, strict=True)]
    ff, fg, gg = _dot(fixed, fixed), _dot(fixed, growing), _dot(growing, growing)
    f, g = sum(fixed), sum(growing)
    both = ff * gg - fg * fg
    candidates = [(f / ff, 0.0), (0.0, g / gg)]
    if both > 0:
        candidates.append(((f * gg - g * fg) / both, (g * ff - f * fg) / both))
    return min(
        sum(pow(a * u + c * v - 1, 2) for u, v in zip(fixed, growing, strict=True))
        for a, c in candidates
        if a >= 0 and c >= 0
    )


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def row(growth: Growth) -> str:
    """Return a growth as a row of a Markdown table."""
    ends = [f"{shown(growth, growth.costs[i])} at {growth.sizes[i]:,}" for i in (0, -1)]
    numbers = f"{growth.exponent:.2f} | {growth.theory:g} | {'ok' if growth.is_met else 'ABOVE'}"
    return f"| {growth.axis} | {growth.work} | {growth.quantity} | {' | '.join(ends)} | {numbers} |"


def shown(growth: Growth, cost: float) -> str:
    """Return a cost with its unit."""
    units = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")) if growth.quantity == "time" else ((1e6, "MB"), (1e3, "kB"))
    size, unit = next(((size, unit) for size, unit in units if cost >= size), units[-1])
    return f"{cost / size:.3g} {unit}"


def chart(growths: Sequence[Growth]) -> Figure:
    """Return one small panel per growth, with logarithmic axes and the theory as a dashed line."""
    columns = 4
    rows = -(-len(growths) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.5 * rows), layout="constrained", facecolor="white")
    for place, growth in enumerate(growths, start=1):
        _draw(figure, rows, columns, place, growth)
    return figure


def _draw(figure: Figure, rows: int, columns: int, place: int, growth: Growth) -> None:
    axes = figure.add_subplot(rows, columns, place)
    colour = _LINE if growth.is_met else _BAD
    sizes, last = growth.sizes, growth.costs[-1]
    theory = [last * pow(size / sizes[-1], growth.theory) for size in sizes]
    axes.plot(sizes, theory, color=_THEORY, linestyle="--", linewidth=1.2)
    axes.plot(sizes, growth.costs, color=colour, marker="o", markersize=4, linewidth=1.8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    middle = sqrt(min(growth.costs) * max(growth.costs))
    reach = max(max(growth.costs) / middle * 1.5, 5.6)
    axes.set_ylim(middle / reach, middle * reach)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda cost, _: shown(growth, cost)))
    axes.set_title(
        f"{growth.work}\n{growth.quantity}: exponent {growth.exponent:.2f} (theory {growth.theory:g})",
        fontsize=9,
        color="black" if growth.is_met else _BAD,
    )
    axes.set_xlabel(growth.axis, fontsize=8.5)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, color="#e3e3e3", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    sys.exit(main())
