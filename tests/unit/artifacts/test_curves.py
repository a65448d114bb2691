"""Curves are columns of numbers by step, and are thinned without losing a spike."""

import random
import tracemalloc
from pathlib import Path

import pytest

from tests.support.stories import Story, run_record
from trainer.artifacts.curves import Points


def points_of(values: list[float]) -> Points:
    return Points.of(enumerate(values, 1))


def value_of(point: tuple[int, float]) -> float:
    return point[1]


@pytest.mark.parametrize("wanted", [2, 3, 10, 64, 999, 1000, 5000])
@pytest.mark.parametrize(("start", "end"), [(0, None), (1, 1000), (250, 733), (990, 2000), (2000, 3000)])
def test_thinning__keeps_the_lowest_and_highest_of_each_bucket(wanted: int, start: int, end: int | None) -> None:
    values = [random.Random(step).random() for step in range(1000)]
    values[500] = 50.0
    chosen = [(step, value) for step, value in enumerate(values, 1) if start <= step <= (end or 1000)]
    found = points_of(values).thinned(wanted, start, end)
    if len(chosen) <= wanted:
        assert found == chosen
        return
    n_buckets = wanted // 2
    expected = {chosen[0], chosen[-1]}
    for bucket in range(n_buckets):
        part = chosen[bucket * len(chosen) // n_buckets : (bucket + 1) * len(chosen) // n_buckets]
        expected |= {min(part, key=value_of), max(part, key=value_of)}
    assert found == sorted(expected) and len(found) <= wanted + 2


def test_points__are_a_sequence_in_the_order_of_the_steps() -> None:
    points = Points()
    for step in (1, 5, 9, 3):  # a resumed training is at an earlier step
        points.extend([(step, step / 2)])
    assert list(points) == [(1, 0.5), (3, 1.5), (5, 2.5), (9, 4.5)]
    assert (points[1], points[-1], points[1:3], len(points)) == ((3, 1.5), (9, 4.5), [(3, 1.5), (5, 2.5)], 4)
    with pytest.raises(IndexError):
        points[4]


def test_curves__have_all_numbers_of_the_progress(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start()
    story.step(1, 3.0, grad_norm=2.0, learning_rate=0.5, tokens_per_second=10.0)
    story.step(2, 2.0, val_loss=2.5, tokens=64, words=20, gpu_memory_bytes=(5, 7), cpu_cores=1.5, memory_bytes=9)
    curves = story.curves()
    assert {name: list(points) for name, points in curves.by_name.items()} == {
        "train": [(1, 3.0), (2, 2.0)],
        "validation": [(2, 2.5)],
        "grad_norm": [(1, 2.0), (2, 1.0)],
        "learning_rate": [(1, 0.5), (2, 2e-3)],
        "tokens_per_second": [(1, 10.0), (2, 2000.0)],
        "gpu_memory_bytes": [(2, 7.0)],
        "cpu_cores": [(2, 1.5)],
        "memory_bytes": [(2, 9.0)],
        "tokens": [(2, 64.0)],
        "words": [(2, 20.0)],
        "seconds": [(1, 0.0), (2, 0.0)],
    }


def test_seconds__leave_out_the_time_between_attempts(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().wait(10).step(1, 3.0).wait(20).step(2, 3.0).wait(5).pause()
    story.wait(860).restart(2).wait(5).step(3, 3.0)
    assert list(story.curves().by_name["seconds"]) == [(1, 10.0), (2, 30.0), (3, 35.0)]


def test_curves_of_an_ended_run__have_all_rows_of_its_log_unless_it_is_damaged(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(20, 2.0, tokens_per_second=10.0)
    rows = (
        '{"step":0,"epoch":0,"lr":0.5,"tokens":0,"elapsed_seconds":0.0,"val_loss":4.0}',
        '{"step":10,"epoch":1,"train_loss":3.0,"lr":0.4,"grad_norm":2.0,"tokens":9,"elapsed_seconds":1.5}',
        '{"step":20,"epoch":1,"train_loss":2.0,"lr":0.3,"grad_norm":1.0,"tokens":9,"elapsed_seconds":2.5,"val_loss":2.5}',
    )
    story.run.loss_curve.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    assert list(story.curves().by_name["train"]) == [(20, 2.0)], "while it trains, the page follows its events"
    story.cancel()
    found = {name: list(points) for name, points in story.curves().by_name.items()}
    assert (found["train"], found["validation"]) == ([(10, 3.0), (20, 2.0)], [(0, 4.0), (20, 2.5)])
    assert (found["grad_norm"], found["tokens_per_second"]) == ([(10, 2.0), (20, 1.0)], [(20, 10.0)])
    assert found["learning_rate"] == [(0, 0.5), (10, 0.4), (20, 0.3)]
    assert found["seconds"] == [(0, 0.0), (10, 1.5), (20, 2.5)]
    story.run.loss_curve.write_text("no row\n", encoding="utf-8")
    assert list(story.curves().by_name["train"]) == [(20, 2.0)]


def test_curves__leave_out_a_damaged_event(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().steps([3.0, 2.0, 1.0])
    log = story.run.path / "events.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"train_loss":2.0', b'"train_loss":"two"'))
    curves = story.curves()
    assert (list(curves.by_name["train"]), curves.last_seq) == ([(1, 3.0), (3, 1.0)], 6)


def test_points__take_at_most_20_bytes_each() -> None:
    tracemalloc.start()
    points = points_of([0.5] * 100_000)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(points) == 100_000 and used < 20 * 100_000
