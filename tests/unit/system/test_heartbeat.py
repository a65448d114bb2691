"""The stall detector of a child process: heartbeats, time, and the pipe that carries the heartbeats."""

import os
from itertools import count
from pathlib import Path

import pytest

from trainer.system.child_environment import memory_kills
from trainer.system.heartbeat import ALIVE, PHASE, STEP, Heartbeat, StallDetector, processor_ticks


def silence(watch: StallDetector) -> int:
    """The whole seconds without a mark after which a child counts as standing still."""
    return next(seconds for seconds in count(1) if watch.is_stalled(1.0))


def watch_of_steps(step_seconds: float, *, stall_seconds: float = 10) -> StallDetector:
    watch = StallDetector(stall_seconds, lambda: 0.0)
    watch.receive(ALIVE, 0.0)
    for number in range(1, 6):
        watch.receive(STEP, number * step_seconds)
    return watch


def test_silence__may_last_the_stall_limit_or_twenty_median_steps() -> None:
    assert silence(watch_of_steps(0.1)) == 11
    assert silence(watch_of_steps(2.0)) == 41
    busy = watch_of_steps(2.0)
    busy.receive(STEP, 10.0 + 1000)  # one slow step is not the median
    assert silence(busy) == 41
    stopped = watch_of_steps(0.1)
    stopped.receive(STEP * 100, 0.5 + 10)  # a supervisor that was stopped for 10 s hears 100 marks at once
    assert silence(stopped) == 11


def test_evaluation_and_saving__do_not_lengthen_the_steps() -> None:
    watch = watch_of_steps(0.1)
    watch.receive(PHASE, 0.5)
    watch.receive(STEP, 600.0)
    for number in range(100):
        watch.receive(ALIVE, 600.0 + number)
    assert silence(watch) == 11


@pytest.mark.parametrize(("mark", "ends"), [(STEP, True), (ALIVE, True), (PHASE, True), (b"x", False)])
def test_heartbeat__ends_the_silence_and_other_bytes_do_not(mark: bytes, ends: bool) -> None:
    watch = watch_of_steps(0.1)
    assert not any(watch.is_stalled(1.0) for _ in range(10))
    watch.receive(mark, 11.0)
    assert watch.is_stalled(1.0) is not ends


def test_use_of_the_processor__excuses_a_phase_but_not_an_endless_step() -> None:
    used = count()
    working, endless = (StallDetector(10, lambda: float(next(used))) for _ in range(2))
    assert not any(working.is_stalled(1.0) for _ in range(1000))
    assert silence(StallDetector(10, lambda: 0.0)) == 11
    endless.receive(ALIVE, 0.0)
    endless.receive(STEP, 0.1)
    assert silence(endless) == 11


def test_processor_time__is_read_or_always_grows() -> None:
    before = processor_ticks(os.getpid())
    while processor_ticks(os.getpid()) == before:
        sum(range(10_000))
    assert processor_ticks(os.getpid()) > before
    assert processor_ticks(0) < processor_ticks(0)


def test_beat__writes_few_marks_and_each_phase_and_never_waits() -> None:
    """Neither for a worker that is stopped, whose pipe is full, nor for one that is gone."""
    reading, writing = os.pipe()
    beat = Heartbeat(writing)
    for mark in (*[STEP] * 100, PHASE, PHASE, ALIVE):
        beat.beat(mark)
    assert os.read(reading, 1000) == b".~~-"
    for _ in range(1 << 17):
        beat.beat(PHASE)
    os.close(reading)
    beat.beat(PHASE)
    os.close(writing)


def test_memory_kills__are_counted_by_the_system_or_unknown(tmp_path: Path) -> None:
    counters = tmp_path / "vmstat"
    assert memory_kills(counters) is None
    for text, kills in (("oom_kill_other 1\n", None), ("pgfault 9\noom_kill 12\nzone 1\n", 12)):
        counters.write_text(text, encoding="ascii")
        assert memory_kills(counters) == kills
