"""Measurements of contestants in turns, so that a change of the machine's speed meets all of them."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from subprocess import PIPE, Popen
from typing import NamedTuple

from trainer.config.settings import load_settings
from trainer.system.child_environment import tuned_environment
from trainer.system.hardware import has_bf16

MAX_FOREIGN_SHARE, MAX_TRIES = 0.12, 4
"""A slice is measured again while other programs use more of the processors, MAX_TRIES times at most."""

_PR_SET_CHILD_SUBREAPER = 36
_MIN_BF16_GAIN = 1.3
"""Products are this much faster in bf16 on a CPU that has the arithmetic."""


class Turns(NamedTuple):
    """Figures of all contestants, in the order of the rounds; a larger figure is faster."""

    figures: dict[str, list[float]]
    foreign_share: float
    """Largest share of the processors' time that other programs used in a slice."""

    def median(self, name: str) -> float:
        return median(self.figures[name])

    def ratio(self, name: str, other: str) -> float:
        """Return the median over the rounds of one contestant's figure divided by another's."""
        return median(a / b for a, b in zip(self.figures[name], self.figures[other], strict=True))

    def with_faster(self, again: "Turns") -> "Turns":
        """Return these turns, with the figures of contestants that were faster when they were measured again."""
        faster = {name: found for name, found in again.figures.items() if again.median(name) > self.median(name)}
        return Turns(self.figures | faster, max(self.foreign_share, again.foreign_share))


def in_turns(contestants: Mapping[str, Callable[[], float]], rounds: int, tries: int = MAX_TRIES) -> Turns:
    """Measure a slice of every contestant in each round; slices that other programs disturb are repeated."""
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    largest = 0.0
    for _ in range(rounds):
        for name, measure in contestants.items():
            share, figure = sorted(_tries(measure, tries))[0]
            figures[name].append(figure)
            largest = max(largest, share)
    return Turns(figures, largest)


def _tries(measure: Callable[[], float], most: int) -> list[tuple[float, float]]:
    """Measure until a slice is undisturbed; return the foreign share and the figure of each try."""
    tries: list[tuple[float, float]] = []
    while len(tries) < most and all(share > MAX_FOREIGN_SHARE for share, _ in tries):
        load = ForeignLoad()
        figure = measure()
        tries.append((load.share(), figure))
    return tries


class ForeignLoad:
    """Load of other programs since this object was made."""

    def __init__(self) -> None:
        self._there, self._used = machine_ticks()
        self._ours = own_ticks()

    def share(self) -> float:
        """Return the share of the processors' time that programs other than this one's processes used."""
        there, used = machine_ticks()
        foreign = used - self._used - (own_ticks() - self._ours)
        return max(0, foreign) / max(1, there - self._there)


class Contestant:
    """A process that measures a slice of its work each time it is called; its module calls `serve`."""

    def __init__(self, module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", module, *arguments]
        self._module = module
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=environment)
        self._answer()  # ready

    def __call__(self) -> float:
        if self._process.stdin is not None:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return self._answer()

    def __enter__(self) -> "Contestant":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> float:
        line: str = "" if self._process.stdout is None else self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._module} ended with exit code {self._process.wait()}")
        return float(line)


def started_products(running: ExitStack, kind: str = "gemm", name: str = "products") -> dict[str, Contestant]:
    """Start products in fp32, and in bf16 if the CPU has it: of large matrices, or those of a shape in their own sizes.

    A CPU without it needs most of a minute for one large product, and hours for a measurement.
    """
    kinds = {"": "fp32"} | ({" bf16": "bf16"} if has_bf16() else {})
    return {
        name + suffix: running.enter_context(products_alone(kind, precision)) for suffix, precision in kinds.items()
    }


def products_alone(kind: str, precision: str = "fp32") -> Contestant:
    """Start the products of `benchmarks.limits`, in the environment of the worker's children, as ours run."""
    return Contestant("benchmarks.limits", [kind, precision], tuned_environment(load_settings()))


def is_faster_in_bf16(products: Turns) -> bool:
    """Return True if this CPU multiplies faster in bf16, by the turns of `started_products`."""
    return "products bf16" in products.figures and products.ratio("products bf16", "products") >= _MIN_BF16_GAIN


def serve(measure: Callable[[], float]) -> None:
    """Answer each line of the input with a measurement, until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is not an answer
    measure()  # warms up
    answers.write("0\n")
    with open(0, encoding="ascii") as requests:
        for _ in requests:
            answers.write(f"{measure()}\n")


def repeated(work: Callable[[], int], seconds: float = 2.0) -> float:
    """Repeat work for some seconds; return its units per second."""
    units, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds:
        units += work()
    return units / elapsed


def adopt_orphans() -> None:
    """Make the descendants of this process its children when their parents end: the services of a command."""
    control_process: Callable[[int, int], int] = ctypes.CDLL(None).prctl
    control_process(_PR_SET_CHILD_SUBREAPER, 1)


def end_descendants() -> None:
    """Kill the descendants of this process until there are none; it has adopted the orphans among them."""
    while found := with_descendants(os.getpid())[1:]:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.wait()


def own_ticks() -> int:
    """Return the processor time of this process and its descendants, also of those that have ended, in ticks."""
    return sum(map(_ticks_of, with_descendants(os.getpid())))


def with_descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except FileNotFoundError:  # it has ended
        return []
    return [pid, *(found for child in children for found in with_descendants(int(child)))]


def machine_ticks() -> tuple[int, int]:
    """Return the processor time that was there, and what was used of it, in ticks since the machine started."""
    first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    ticks = [int(value) for value in first.split()[1:9]]
    return sum(ticks), sum(ticks) - ticks[3] - ticks[4]  # idle, waiting for a disk


def _ticks_of(pid: int) -> int:
    """Return the processor time of a process and of its children that have ended; 0 if it has."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(") ", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(field) for field in fields[11:15])
