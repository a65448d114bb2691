"""Number of threads of a computation: one for small products, else the one of two numbers that is measured faster.

Two threads share each product and wait for each other. Alone on a machine they nearly halve the time of large products.
Where other programs compute, one of the two waits for a core in each product: a step can take ten times as long as with
one thread. The other programs decide which number is faster, so both are measured while the work goes on.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Literal

import torch
from torch import Tensor

from trainer.models.linear import linear

Work = Literal["training", "evaluation", "scoring", "generation"]

MEASURED_THREADS = 2
"""Numbers are equal, bit for bit, with one and with two threads; with more, products may add in another order."""
MIN_ROWS = 16
"""Products with 5 to 11 rows or outputs add in another order if two threads share them: one computes 2 to 15.

Found by random products of MKL on a CPU of AMD; `products_are_equal` tries some on each machine.
"""
MIN_RECURRENT_PRODUCTS, MIN_PRODUCTS = 1 << 21, 1 << 27
"""Multiplications from which more than one thread can pay: of a time step of a recurrent model, else of a pass.

Below, the second thread gains less than a third on a quiet machine, or loses.
"""
MIN_READ_BYTES = 1 << 20
"""Bytes of weights, times rows, from which on a second thread can pay for a compiled step."""
_TRIED_PRODUCTS = ((1, 512, 2048), (17, 128, 512), (64, 96, 384), (1000, 250, 60), (1024, 256, 1024))
"""Rows, inputs and outputs."""
_MIN_SECONDS = 1e-9
_PERIOD_SECONDS, _MIN_TRIAL_SECONDS, _MIN_WAIT_SECONDS = 0.4, 0.05, 4.0
"""A number of threads is measured for a period. A trial that loses clearly is shorter, but the first calls wake threads
and may wait for a core.
"""
_WAITS_PER_TRIAL, _WAITS_AFTER_CHANGE, _WAITS_IF_BEATEN = 25, 12, 4
"""Times that a trial waits, in units of the last trial: usually; after a change of the speed; and while the speed is
below that of the other number in its last trial. Beside busy processes the speed changes all the time.
"""
_MIN_GAIN, _CHANGE, _OTHER_LOAD = 1.05, 1.4, 2.0
"""Ratios of speeds: of the number that wins; of a loser, or of a change; and of a change that is no noise."""


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Compute with so many threads."""
    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count != before:
            torch.set_num_threads(before)


class ThreadChoice:
    """Chooses the number of threads for one kind of work of a model, at most those that torch has."""

    def __init__(self, are_equal: Callable[[], bool] | None = None) -> None:
        """`are_equal` says if one and two threads give equal bits on this machine."""
        self._are_equal = are_equal or products_are_equal
        self._measured = MeasuredCount(MEASURED_THREADS)
        self._seconds: defaultdict[int, float] = defaultdict(float)

    @property
    def most(self) -> int | None:
        """The largest number of threads so far; None if nothing was computed."""
        return max(self._seconds, default=None)

    @property
    def mean(self) -> float | None:
        """The mean number of threads over the time of the work."""
        seconds = sum(self._seconds.values())
        return sum(count * each for count, each in self._seconds.items()) / seconds if seconds else None

    @contextmanager
    def computing(self, amount: float, *, is_small: bool, is_fixed: bool) -> Iterator[None]:
        """Compute an amount of work with the chosen number of threads."""
        most = torch.get_num_threads()
        is_measured = most == MEASURED_THREADS and not (is_small or is_fixed) and self._are_equal()
        count = self._measured.count if is_measured else 1 if is_small else most
        begin = perf_counter()
        with using_threads(count):
            yield
        seconds = perf_counter() - begin
        self._seconds[count] += seconds
        if is_measured:
            self._measured.add(amount, seconds)


class MeasuredCount:
    """One thread, or a larger number if that is faster: both are tried again, as the machine's load changes."""

    def __init__(self, larger: int) -> None:
        self._counts = (1, larger)
        self._best = 1
        self._is_trial = False
        self._best_speed: float | None = None
        self._other_speed = 0.0  # in the last trial
        self._amount = self._seconds = 0.0  # of this period
        self._since_trial = self._trial_seconds = 0.0

    @property
    def count(self) -> int:
        """The number of threads for the next piece of work."""
        return self._other if self._is_trial else self._best

    @property
    def _other(self) -> int:
        return sum(self._counts) - self._best

    def add(self, amount: float, seconds: float) -> None:
        """Add a piece of work that took so long with `count` threads."""
        self._amount += amount
        self._seconds += seconds
        speed = self._amount / max(self._seconds, _MIN_SECONDS)
        is_period = self._seconds >= _PERIOD_SECONDS
        if self._is_trial and self._best_speed is not None:
            is_lost = self._seconds >= _MIN_TRIAL_SECONDS and speed * _CHANGE < self._best_speed
            if is_period or is_lost:
                self._end_trial(speed, self._best_speed)
            return
        self._since_trial += seconds
        if is_period:
            before = self._best_speed or speed
            self._is_trial = self._since_trial >= self._wait(speed, before)
            is_like = before / _OTHER_LOAD < speed < before * _OTHER_LOAD
            self._best_speed = math.sqrt(speed * before) if is_like else speed  # single periods vary
            self._amount = self._seconds = 0.0

    def _wait(self, speed: float, before: float) -> float:
        """Return the seconds from the last trial to the next one."""
        if speed * _MIN_GAIN < self._other_speed:
            return _WAITS_IF_BEATEN * self._trial_seconds
        if not before / _CHANGE < speed < before * _CHANGE:
            return _WAITS_AFTER_CHANGE * self._trial_seconds
        return max(_MIN_WAIT_SECONDS, _WAITS_PER_TRIAL * self._trial_seconds) if self._trial_seconds else 0.0

    def _end_trial(self, speed: float, best_speed: float) -> None:
        self._trial_seconds = self._seconds
        self._other_speed = speed
        if speed > best_speed * _MIN_GAIN:
            self._best, self._best_speed, self._other_speed = self._other, speed, best_speed
        self._is_trial = False
        self._amount = self._seconds = self._since_trial = 0.0


_EQUAL: list[bool] = []
"""The answer of `products_are_equal`, once it is known."""


def products_are_equal() -> bool:
    """Return True if products and their gradients are equal, bit for bit, with one and two threads on this machine."""
    if not _EQUAL:
        _EQUAL.append(all(map(torch.equal, _products(1), _products(MEASURED_THREADS))))
    return _EQUAL[0]


def _products(threads: int) -> list[Tensor]:
    """Return products of the kinds that models have: with one row, many rows, few outputs, and gradients of weights."""
    generator = torch.Generator().manual_seed(0)
    found: list[Tensor] = []
    with using_threads(threads):
        for rows, inputs, outputs in _TRIED_PRODUCTS:
            left = torch.rand(rows, inputs, generator=generator)
            right = torch.rand(outputs, inputs, generator=generator)
            product = linear(left, right)
            found += [product, product @ right, product.t() @ left]
    return found
