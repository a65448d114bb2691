"""The model of many runs: its waits against closed forms of queues, its loads against counts by hand."""

import math
import random
from itertools import islice, repeat
from statistics import mean

import pytest

from benchmarks import scale_model as model
from benchmarks.scale import RESULT, Measured, ScaleResults, exponents_of, figures_of, table
from benchmarks.scale_model import Mix, UnitCosts, busy_rate, erlang_wait, exponential, loads, waits

JOBS = 200_000
COSTS = UnitCosts(
    enqueue_seconds=0.001,
    claim_seconds=0.05,
    claim_depth=10_000,
    publish_seconds=0.002,
    accept_seconds=0.01,
    valkey_bytes=70_000,
    folder_bytes=50_000,
    bot_bytes=60_000,
    refresh_seconds=0.00004,
)


@pytest.mark.parametrize(("slots", "use"), [(1, 0.5), (1, 0.8), (3, 0.7), (14, 0.9)])
def test_simulated_wait__is_that_of_erlangs_formula(slots: int, use: float) -> None:
    draw = random.Random(slots)
    rate = use * slots / 100.0
    found = mean(islice(waits(exponential(1 / rate, draw), exponential(100.0, draw), slots), JOBS))
    assert found == pytest.approx(erlang_wait(rate, 100.0, slots), rel=0.1)


def test_erlangs_formula__is_that_of_one_server_and_that_of_two() -> None:
    assert erlang_wait(0.8, 1.0, 1) == pytest.approx(0.8 / (1 - 0.8))
    assert erlang_wait(1.0, 1.0, 2) == pytest.approx(0.5**2 / (1 - 0.5**2))  # u^2 / (1 - u^2) with use u
    assert erlang_wait(2.0, 1.0, 2) == math.inf


def test_simulated_wait__of_runs_of_one_length_is_half_of_that() -> None:
    """M/D/1, by Pollaczek and Khinchine. Jobs of 10 s at 1, 2, 3 and 4 s at two slots: by hand."""
    assert list(waits(iter([1.0] * 4), repeat(10.0), 2)) == [0.0, 0.0, 8.0, 8.0]
    use, draw = 0.75, random.Random(5)
    found = mean(islice(waits(exponential(1 / use, draw), repeat(1.0), 1), JOBS))
    assert found == pytest.approx(use / (2 * (1 - use)), rel=0.05)


def test_loads__are_those_counted_by_hand() -> None:
    """2,880 runs a day: one every 10 s of eight hours, of 1,000 s each: 100 run at the same time on 200 slots."""
    mix = Mix(run_seconds=1000.0, events=100, checkpoints=10, watchers=2.0, commands=1.0)
    found = {load.part: load for load in loads(2_880, mix, COSTS, 200)}
    assert busy_rate(2_880, mix) == pytest.approx(0.1)
    assert found["training slots"].share == pytest.approx(0.5)
    # 200 watched cards, an edit each 10 s, and three more requests per run and watcher
    assert model.discord_requests(100.0, 0.1, mix) == pytest.approx(200 / 10 + 3 * 2 * 0.1)
    assert found["Discord, all requests"].share == pytest.approx(20.6 / 50)
    # 10 events per second at 2 ms, an enqueued job each 10 s, a claim of an empty queue each 10 s
    assert found["Valkey, one command after another"].share == pytest.approx(0.02 + 0.0001 + 0.1 * 0.05 / 10_000)
    assert found["common event stream"].figure == "holds the last 1,000 s"
    # 100 events and 10 checkpoints: 2 and 4 PUTs each
    assert model.store_puts(mix) == 240
    assert found["object store, PUTs of one prefix"].share == pytest.approx(24 / 3500)


def test_overload__fills_the_queue_and_not_discord() -> None:
    """One slot trains 28.8 runs in eight hours; the others of 1,000 wait."""
    mix = Mix(run_seconds=1000.0)
    found = {load.part: load for load in loads(1_000, mix, COSTS, 1)}
    assert found["training slots"].share == pytest.approx(1_000 / 28.8)
    assert found["bot's processor"].figure == "972 unfinished runs"
    assert found["Discord, all requests"].share < 0.01


def test_slots__are_the_least_that_keep_the_mean_wait_below_a_minute() -> None:
    mix = Mix()
    rate = busy_rate(1_000, mix)
    slots = model.slots_for(rate, mix)
    assert erlang_wait(rate, mix.run_seconds, slots) <= 60 < erlang_wait(rate, mix.run_seconds, slots - 1)


def test_first_full_part__is_full_at_its_rate() -> None:
    mix = Mix()
    part, runs = model.first_full(mix, COSTS)[0]
    enough = math.ceil(2 * busy_rate(runs, mix) * mix.run_seconds) + 1
    assert {load.part: load.share for load in loads(runs, mix, COSTS, enough)}[part] == pytest.approx(1, rel=0.01)
    assert all(load.share <= 1 for load in loads(runs, mix, COSTS, enough))


def test_day__costs_what_its_requests_and_bytes_cost() -> None:
    """1,000 runs of 4 MB with three checkpoints of 12 MB; 240 PUTs and 200 GETs each."""
    disk, valkey, lasts, puts, requests, month = model.cost_lines(1_000, Mix(), COSTS)
    assert (disk, valkey, lasts, puts) == ("40 GB", "70 MB", "114 days", "240,000")
    assert requests == f"${240_000 * 0.005 / 1000 + 200_000 * 0.0004 / 1000:.3g}" == "$1.28"
    assert month == f"${40.05 * 30 * 0.023:.3g}"


def test_page__has_the_tables_of_the_record() -> None:
    page = (RESULT.parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    results = ScaleResults.model_validate_json(RESULT.read_bytes())
    assert table(results) in page
    assert model.tables(Mix(), model.unit_costs(results)) in page


def test_growth__between_sizes_is_an_exponent() -> None:
    assert exponents_of([10, 100, 1000], [1.0, 10.0, 1000.0]) == pytest.approx((1.0, 2.0))
    assert exponents_of([10, 100], [0.0, 3.0]) == (0.0,)
    small = [Measured("a", "ms", 1.0), Measured("b", "ms", 1.0), Measured("c", "ms", 5.0, 6.0)]
    large = [Measured("a", "ms", 10.0), Measured("b", "ms", 30.0), Measured("c", "ms", 7.0, 6.0)]
    assert [one.verdict for one in figures_of([10, 100], [small, large])] == ["ok", "ABOVE", "MISSED"]
