"""Model of an installation at 10, 1,000 and 100,000 runs a day: the load on each part, and which part is full first.

    python -m benchmarks.scale_model

Multiplies the unit costs of `benchmarks/results/scale.json` with a stated mix of runs. The wait for a training slot
comes from a simulation of one day, event by event. Prints the tables of `docs/scale.md`.
"""

import math
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from heapq import heapify, heapreplace
from itertools import islice
from operator import itemgetter
from statistics import mean
from typing import NamedTuple

from benchmarks.scale import RESULT, ScaleResults

RATES = (10, 1_000, 100_000)
DAY_SECONDS = 86_400
DISCORD_REQUESTS_PER_SECOND = 50.0
"""Discord's documented limit of a bot for all requests but answers to commands."""
EDIT_SECONDS = 5.0
"""The bot's least time between two messages or edits in one channel."""
BOT_REQUEST_SECONDS = 0.003
"""Processor time of one message or edit: half of a watcher's share of "the end of the run" in docs/performance.md."""
VALKEY_BYTES = 8e9
STORE_REQUESTS_PER_SECOND = 3_500.0
"""Documented limit of S3 for PUTs below one prefix."""
PUT_DOLLARS, GET_DOLLARS, GIGABYTE_MONTH_DOLLARS = 5e-6, 4e-7, 0.023
"""List prices of S3 Standard in its first region."""


class Mix(NamedTuple):
    """What an average run does."""

    run_seconds: float = 1200.0
    events: int = 100
    checkpoints: int = 10
    watchers: float = 1.2
    commands: float = 5.0
    """Commands in Discord per run."""
    small_file_bytes: float = 40e3
    """Head, event log, loss curve and log, as pushed each time: what changed."""
    weight_bytes: float = 4e6
    kept_checkpoints: int = 3
    """The last two and the best one; each has weights and two moments."""
    busy_hours: float = 8.0
    """The runs of a day are started in so many hours."""

    @property
    def checkpoint_bytes(self) -> float:
        return 3 * self.weight_bytes

    @property
    def kept_bytes(self) -> float:
        return self.weight_bytes + self.kept_checkpoints * self.checkpoint_bytes


class UnitCosts(NamedTuple):
    """Measured costs, in seconds and bytes."""

    enqueue_seconds: float
    claim_seconds: float
    """With `claim_depth` jobs in the queue; in proportion to the depth."""
    claim_depth: int
    publish_seconds: float
    accept_seconds: float
    valkey_bytes: float
    """Per run."""
    folder_bytes: float
    """Per queued run, without checkpoints."""
    bot_bytes: float
    """Per unfinished run."""
    refresh_seconds: float
    """Per unfinished run; each command refreshes the index."""


class Load(NamedTuple):
    """The load on one part, as a share of what it can do; above 1 it is overloaded."""

    part: str
    share: float
    figure: str


def unit_costs(results: ScaleResults) -> UnitCosts:
    """Return the unit costs of a measurement, at its largest size."""
    values = {figure.name: figure.values for figure in results.figures}
    runs, before = results.sizes[-1], results.sizes[-2]

    def per_run(name: str) -> float:
        return (values[name][-1] - values[name][-2]) / (runs - before)

    return UnitCosts(
        enqueue_seconds=values["enqueue a job, p50"][-1] / 1e3,
        claim_seconds=values["claim a job, p50"][-1] / 1e3,
        claim_depth=runs,
        publish_seconds=values["event: publish, p50"][-1] / 1e3,
        accept_seconds=values["accept a run, p50"][-1] / 1e3,
        valkey_bytes=per_run("Valkey, all keys") * 1e6,
        folder_bytes=values["folder of one queued run"][-1] * 1e3,
        bot_bytes=per_run("bot: resident memory") * 2**20,
        refresh_seconds=per_run("bot: refresh of its index") / 1e3,
    )


def busy_rate(runs_per_day: float, mix: Mix) -> float:
    """Return the runs that are started per second in the busy hours."""
    return runs_per_day / (mix.busy_hours * 3600)


def loads(runs_per_day: float, mix: Mix, costs: UnitCosts, slots: int) -> list[Load]:
    """Return the load on each part in the busy hours, with so many training slots."""
    rate = busy_rate(runs_per_day, mix)
    running = min(rate * mix.run_seconds, slots)
    finished = min(rate, slots / mix.run_seconds)
    waiting = max(0.0, (rate - finished) * mix.busy_hours * 3600)
    events = finished * mix.events
    claim = costs.claim_seconds * max(waiting, 1) / costs.claim_depth
    valkey = rate * costs.enqueue_seconds + finished * claim + events * costs.publish_seconds
    edits = discord_requests(running, finished, mix)
    puts = store_puts(mix) * finished
    refreshes = rate * mix.commands * costs.refresh_seconds * (waiting + running)
    bot = edits * BOT_REQUEST_SECONDS + rate * costs.accept_seconds + refreshes
    covered = math.inf if events == 0 else 10_000 / events
    return [
        Load("training slots", rate * mix.run_seconds / slots, f"{rate * mix.run_seconds:,.1f} busy of {slots:,}"),
        Load("Discord, all requests", edits / DISCORD_REQUESTS_PER_SECOND, f"{edits:.3g} requests per second"),
        Load("Valkey, one command after another", valkey, f"{events:.3g} events per second"),
        Load("common event stream", 5.0 / covered, f"holds the last {covered:,.0f} s"),
        Load("bot's processor", bot, f"{waiting + running:,.0f} unfinished runs"),
        Load("object store, PUTs of one prefix", puts / STORE_REQUESTS_PER_SECOND, f"{puts:.3g} PUTs per second"),
    ]


def discord_requests(running: float, finished: float, mix: Mix) -> float:
    """Return requests per second: an edit per event or per interval, and a card, a final message and its edit."""
    interval = max(EDIT_SECONDS, mix.run_seconds / mix.events)
    return mix.watchers * (running / interval + 3 * finished)


def store_puts(mix: Mix) -> float:
    """Return the PUTs of a run: a head and a changed file per push, and three files and a head per checkpoint."""
    pushes = min(mix.events, mix.run_seconds / 1.5)
    return 2 * pushes + 4 * mix.checkpoints


def first_full(mix: Mix, costs: UnitCosts) -> list[tuple[str, float]]:
    """Return the runs per day at which each part is full if there are always enough training slots, lowest first."""

    def share(place: int, runs_per_day: float) -> float:
        slots = math.ceil(2 * busy_rate(runs_per_day, mix) * mix.run_seconds) + 1
        return loads(runs_per_day, mix, costs, slots)[place].share

    names = [load.part for load in loads(1, mix, costs, 1)]
    found = [(name, _root(partial(share, place))) for place, name in enumerate(names) if place]
    return sorted(found, key=itemgetter(1))


def _root(share: Callable[[float], float]) -> float:
    """Return the number at which a growing share reaches 1, to three digits."""
    low, high = 1.0, 1e9
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if share(middle) < 1 else (low, middle)
    return low


def waits(arrivals: Iterator[float], services: Iterator[float], slots: int) -> Iterator[float]:
    """Simulate a queue with `slots` servers, first come, first served; yield the wait of each job without end.

    `arrivals` has the times between jobs.
    """
    free_at = [0.0] * slots
    heapify(free_at)
    now = 0.0
    for gap, service in zip(arrivals, services, strict=False):
        now += gap
        start = max(now, free_at[0])
        heapreplace(free_at, start + service)
        yield start - now


def exponential(mean_seconds: float, draw: random.Random) -> Iterator[float]:
    while True:
        yield draw.expovariate(1 / mean_seconds)


def erlang_wait(rate: float, service_seconds: float, slots: int) -> float:
    """Return the mean wait of M/M/c, by Erlang's formula; infinite where the slots do not suffice."""
    offered = rate * service_seconds
    if offered >= slots:
        return math.inf
    blocked = 1.0
    for servers in range(1, slots + 1):
        blocked = offered * blocked / (servers + offered * blocked)
    waits_at_all = blocked / (1 - offered / slots * (1 - blocked))
    return waits_at_all * service_seconds / (slots - offered)


def slots_for(rate: float, mix: Mix, longest_mean_wait_seconds: float = 60.0) -> int:
    """Return the least slots with which a job waits no longer than a minute on average."""
    slots = max(1, math.ceil(rate * mix.run_seconds))
    while erlang_wait(rate, mix.run_seconds, slots) > longest_mean_wait_seconds:
        slots += 1
    return slots


def day_of_waits(runs_per_day: int, mix: Mix, slots: int, seed: int = 1) -> list[float]:
    """Simulate the runs of a busy day, with exponential lengths; return their waits, sorted."""
    draw = random.Random(seed)
    gaps = exponential(1 / busy_rate(runs_per_day, mix), draw)
    return sorted(islice(waits(gaps, exponential(mix.run_seconds, draw), slots), runs_per_day))


def cost_lines(runs_per_day: int, mix: Mix, costs: UnitCosts) -> list[str]:
    """Return what a day adds to the disk, the store and Valkey, and what the store costs."""
    gigabytes = runs_per_day * (mix.kept_bytes + costs.folder_bytes) / 1e9
    puts, gets = runs_per_day * store_puts(mix), runs_per_day * 2 * mix.events
    dollars = puts * PUT_DOLLARS + gets * GET_DOLLARS
    return [
        f"{gigabytes:,.3g} GB",
        f"{runs_per_day * costs.valkey_bytes / 1e6:,.3g} MB",
        f"{VALKEY_BYTES / (runs_per_day * costs.valkey_bytes):,.3g} days",
        f"{puts:,.0f}",
        f"${dollars:,.3g}",
        f"${gigabytes * 30 * GIGABYTE_MONTH_DOLLARS:,.3g}",
    ]


def tables(mix: Mix, costs: UnitCosts) -> str:
    """Return the tables of the page."""
    needed = [slots_for(busy_rate(rate, mix), mix) for rate in RATES]
    header = f"| | {' | '.join(f'{rate:,} runs a day' for rate in RATES)} |\n|---|{'---|' * len(RATES)}"
    columns = [loads(rate, mix, costs, slots) for rate, slots in zip(RATES, needed, strict=True)]
    lines = [header]
    for place, first in enumerate(columns[0]):
        cells = [f"{column[place].share:.2%}: {column[place].figure}" for column in columns]
        lines += [f"| {first.part} | {' | '.join(cells)} |"]
    simulated = [_shown_waits(day_of_waits(rate, mix, slots)) for rate, slots in zip(RATES, needed, strict=True)]
    lines.append(f"| wait for a slot, simulated | {' | '.join(simulated)} |")
    lines += ["", header.replace("| |", "| a day adds |", 1)]
    titles = (
        "disk or store",
        "Valkey",
        "8 GB of Valkey last for",
        "PUTs",
        "requests to the store",
        "a month of 30 such days stored",
    )
    days = [cost_lines(rate, mix, costs) for rate in RATES]
    lines += [f"| {title} | {' | '.join(day[row] for day in days)} |" for row, title in enumerate(titles)]
    lines += ["", "| part | full at runs a day |", "|---|---|"]
    lines += [f"| {part} | {runs:,.0f} |" for part, runs in first_full(mix, costs)]
    return "\n".join(lines)


def _shown_waits(waits_seconds: Sequence[float]) -> str:
    return f"{mean(waits_seconds):,.0f} s, p99 {waits_seconds[int(len(waits_seconds) * 0.99)]:,.0f} s"


def main() -> int:
    results = ScaleResults.model_validate_json(RESULT.read_bytes())
    print(tables(Mix(), unit_costs(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
