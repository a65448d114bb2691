"""The plan and the numbers of a study: rounds, drawn settings, who goes on, the winner, and intervals."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from tests.support.studies import study_record
from trainer.config.studies import (
    Round,
    drawn,
    finalists_of,
    full_runs,
    loss_of,
    of_trial,
    planned,
    ranked,
    rounds,
    winner_of,
)
from trainer.config.validation import value_at
from trainer.contracts.base import changed
from trainer.contracts.intervals import LineLosses
from trainer.contracts.studies import StudyRecord, Trial, TrialKey, TrialPhase, ValueRange, Values


def trial(key: TrialKey, loss: float | None, **fields: object) -> Trial:
    """A training that has completed with a loss, or failed without one."""
    ended = Trial(
        phase=key.phase,
        round=key.round,
        variant=key.variant,
        name=f"v{key.variant}",
        seed=42 + key.place,
        run_id=f"rates-{key}",
        status="failed" if loss is None else "completed",
        val_loss=loss,
        val_bits_per_char=loss,
        train_seconds=1.0,
    )
    return changed(ended, **fields)


def in_round(number: int, *losses: float | None) -> dict[TrialKey, Trial]:
    keys = [TrialKey("round", number, variant, 0) for variant in range(1, len(losses) + 1)]
    return {key: trial(key, loss) for key, loss in zip(keys, losses, strict=True)}


def in_full(phase: TrialPhase, variant: int, places: Sequence[int], *losses: float | None) -> dict[TrialKey, Trial]:
    keys = [TrialKey(phase, 0, variant, place) for place in places]
    return {key: trial(key, loss) for key, loss in zip(keys, losses, strict=True)}


def names(keys: Sequence[TrialKey]) -> list[str]:
    return [str(key) for key in keys]


@pytest.mark.parametrize(
    ("variants", "finalists", "expected"),
    [
        (8, 3, [(1, 8, 0.25), (2, 4, 0.5)]),
        (30, 3, [(1, 30, 0.0625), (2, 15, 0.125), (3, 8, 0.25), (4, 4, 0.5)]),
        (4, 3, [(1, 4, 0.5)]),
        (3, 3, []),
        (2, 3, []),
    ],
)
def test_rounds__halve_the_settings_and_double_the_length(
    variants: int, finalists: int, expected: list[tuple[int, int, float]]
) -> None:
    assert rounds(variants, finalists) == [Round(*each) for each in expected]
    whole = [Round(1, variants, 1.0)] if expected else []
    assert rounds(variants, finalists, halving=False) == whole


def test_trial_of_a_round__has_its_share_of_the_steps_and_no_early_stop() -> None:
    record = study_record(n_variants=8, halving=True)
    keys = TrialKey("round", 1, 3, 0), TrialKey("round", 2, 3, 0), TrialKey("final", 0, 3, 2)
    first, second, full = (of_trial(record, key) for key in keys)
    assert [first.max_steps, second.max_steps] == [2, 4], "a quarter and a half of 8 steps"
    assert (first.seed, full.seed, full.max_steps) == (42, 44, record.variants[2].effective.max_steps)
    assert first.tags == full.tags == (record.study_id,)
    assert first.label == "rates v3 r1-v3" and full.label == "rates v3 final-v3-2"
    timed = changed(record.variants[2], effective=changed(record.variants[2].effective, minutes=8.0, max_seconds=100.0))
    record = changed(record, variants=(*record.variants[:2], timed, *record.variants[3:]))
    short = of_trial(record, TrialKey("round", 1, 3, 0))
    assert (short.minutes, short.max_seconds) == (2.0, 25.0)


def values_at(settings: Sequence[Mapping[str, object]], path: str) -> list[float]:
    return [value for one in settings if isinstance(value := value_at(one, path), int | float)]


def test_space__of_lists_is_taken_as_a_whole_if_it_is_small() -> None:
    space: dict[str, Values] = {"learning_rate": (0.1, 0.01), "model.dropout": (0.0, 0.5)}
    expected = [
        {"learning_rate": rate, "model": {"dropout": dropout}} for rate in (0.1, 0.01) for dropout in (0.0, 0.5)
    ]
    assert drawn(space, 4, seed=1) == expected
    some = drawn(space, 3, seed=1)
    assert len(some) == 3 and all(one in expected for one in some)


def test_space__with_fewer_settings_than_asked_for_gives_each_once() -> None:
    layers: dict[str, Values] = {"model.num_layers": ValueRange(low=1, high=3)}
    assert sorted(values_at(drawn(layers, 8, seed=1), "model.num_layers")) == [1, 2, 3]
    widths: dict[str, Values] = {"model.hidden_size": ValueRange(low=16, high=256, scale="log")}
    found = values_at(drawn(widths, 16, seed=1), "model.hidden_size")
    assert all(isinstance(width, int) and 16 <= width <= 256 for width in found)
    assert 6 <= sum(width < 64 for width in found) <= 10, "half of them in the lower half of the scale"


@pytest.mark.parametrize("seed", [1, 2])
def test_space__is_covered_evenly_on_its_scale(seed: int) -> None:
    space: dict[str, Values] = {
        "learning_rate": ValueRange(low=0.0001, high=1.0, scale="log"),
        "model.dropout": ValueRange(low=0.0, high=0.5),
        "model.num_layers": ValueRange(low=1, high=4),
    }
    settings = drawn(space, 64, seed)
    assert settings == drawn(space, 64, seed) and settings != drawn(space, 64, seed + 1)
    rates = [math.log10(rate) for rate in values_at(settings, "learning_rate")]
    dropouts, layers = values_at(settings, "model.dropout"), values_at(settings, "model.num_layers")
    for found, low, high in ((rates, -4, 0), (dropouts, 0, 0.5)):
        quarters = [min(3, int(4 * (value - low) / (high - low))) for value in found]
        assert all(12 <= quarters.count(number) <= 20 for number in range(4)), "16 of 64 in each, nearly"
    assert {*layers} == {1, 2, 3, 4} and all(12 <= layers.count(number) <= 20 for number in range(1, 5))


def test_plan__goes_on_with_the_better_half_then_the_finalists_then_the_winner() -> None:
    record = study_record(n_variants=6)
    assert full_runs(record) == 6 + 3 + 4 + 2
    trials = in_round(1, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
    assert names(planned(record, {})) == [f"r1-v{number}" for number in range(1, 7)]
    some = {key: one for key, one in trials.items() if key.variant != 3}
    assert len(planned(record, some)) == 6, "the second round waits for the end of the first"
    second = ["r2-v6", "r2-v5", "r2-v4"]
    assert names(planned(record, trials))[6:] == second
    begun = {key: trial(key, 9.0, status="running") for key in planned(record, trials)[6:8]}
    assert names(planned(record, trials | begun))[6:] == second, "nothing else while they run, or if they get worse"
    assert names(planned(record, trials | {key: trial(key, None) for key in begun}))[6:] == second
    trials |= {
        TrialKey("round", 2, number, 0): trial(TrialKey("round", 2, number, 0), 1.0 * number) for number in (4, 5, 6)
    }
    finals = ["final-v4-1", "final-v4-2", "final-v5-1", "final-v5-2"]
    assert names(planned(record, trials))[9:] == finals
    trials |= in_full("final", 4, (1, 2), 0.3, 0.5) | in_full("final", 5, (1, 2), 0.1, 0.6)
    assert (finalists_of(record, trials), winner_of(record, trials)) == ([5, 4], 5), "means of 0.35 and 0.4"
    assert names(planned(record, trials))[13:] == ["test-v5-3", "test-v5-4"]
    assert names(planned(changed(record, request=changed(record.request, read_test=False)), trials))[13:] == []


def test_failed_trial__loses_and_its_place_goes_to_the_next_one() -> None:
    record = study_record()
    trials = in_round(1, None, 0.3, 0.2, None)
    assert ranked(record, trials) == [3, 2]
    trials |= in_full("final", 3, (1, 2), None, 0.1) | in_full("final", 2, (1, 2), 0.3, 0.3)
    assert finalists_of(record, trials) == [2, 3], "one that failed with a seed comes after those that did not"
    only = in_round(1, None, 0.3, None, None) | in_full("final", 2, (1, 2), None, None)
    assert (winner_of(record, only), names(planned(record, only))[4:]) == (None, ["final-v2-1", "final-v2-2"])
    assert (ranked(record, in_round(1, None, None, None, None)), winner_of(record, {})) == ([], None)


def test_equal_losses__the_first_setting_wins() -> None:
    record = study_record()
    trials = in_round(1, 0.5, 0.5, 0.5, 0.5)
    assert ranked(record, trials) == [1, 2, 3, 4]
    trials |= in_full("final", 2, (1, 2), 0.1, 0.3) | in_full("final", 1, (1, 2), 0.2, 0.2)
    assert winner_of(record, trials) == 1


def test_setting_with_unknown_characters__loses_against_those_that_know_the_text() -> None:
    record = study_record()
    shares = 0.365, 0.001, 0.0, 0.577  # the limit is 0.001
    known = [0.2, 0.5, 0.4, 0.1]
    trials = {key: changed(one, unknown_char_share=shares[key.variant - 1]) for key, one in in_round(1, *known).items()}
    assert ranked(record, trials) == [3, 2, 1, 4]
    finals = in_full("final", 3, (1, 2), 0.4, None) | in_full("final", 2, (1, 2), None, None)
    finals |= {
        key: changed(one, unknown_char_share=0.365) for key, one in in_full("final", 1, (1, 2), 0.1, 0.1).items()
    }
    assert finalists_of(record, finals) == [3, 1, 2], "one failed seed counts for less, and no training for nothing"
    unknown = {
        key: changed(one, unknown_char_share=0.3 if key.variant < 3 else 0.2)
        for number, loss in enumerate((0.2, 0.1, 0.5), 1)
        for key, one in in_full("final", number, (1,), loss).items()
    }
    assert finalists_of(record, unknown) == [3, 2, 1], "the lowest share, then the lowest loss of equal shares"


def test_runs__limit_the_trials_of_the_rounds_and_not_the_end() -> None:
    record = study_record(n_variants=6, runs=6 + 5)
    assert len(planned(record, {})) == 5
    assert full_runs(record) == 11
    trials = in_round(1, 0.5, 0.4, 0.3, 0.2, 0.1)
    assert names(planned(record, trials))[5:] == [f"final-v{number}-{place}" for number in (5, 4) for place in (1, 2)]


def test_minutes__end_the_rounds_when_the_last_runs_need_the_rest() -> None:
    record = study_record(minutes=1.0)
    assert record.n_last_runs == 6
    for seconds, is_enough in ((4.0, True), (5.0, False)):  # a half takes so long: 6 full runs and the trials so far
        trials = {key: changed(one, train_seconds=seconds) for key, one in in_round(1, 0.5, 0.4).items()}
        assert 2 * seconds + 6 * 2 * seconds < 60 if is_enough else 2 * seconds + 6 * 2 * seconds >= 60
        keys = names(planned(record, trials))
        assert keys[2:] == (["r1-v3", "r1-v4"] if is_enough else [f"final-v{v}-{p}" for v in (2, 1) for p in (1, 2)])


def lines(
    rng: np.random.Generator, means: Sequence[float], tokens: Sequence[int], *, is_drawn: bool = True
) -> LineLosses:
    nats = [mean * count + rng.normal(0, 0.1) for mean, count in zip(means, tokens, strict=True)]
    return LineLosses(
        nats=tuple(nats), tokens=tuple(tokens), chars=tuple(2 * count for count in tokens), is_drawn=is_drawn
    )


def test_loss__adds_the_variances_over_lines_and_seeds() -> None:
    rng = np.random.default_rng(7)
    tokens = [10] * 40
    runs = [lines(rng, [2.0 + 0.3 * math.sin(line) + shift for line in range(40)], tokens) for shift in (0.0, 0.1, 0.3)]
    table = [[nats / 10 for nats in run.nats] for run in runs]  # seeds x lines of equal length
    mean = fmean(map(fmean, table))
    of_lines: float = stats.sem([fmean(run[line] for run in table) for line in range(40)])
    of_seeds: float = stats.sem([fmean(run) for run in table])
    enlarged = of_lines**2 * (1 + 4 / 39), of_seeds**2 * (1 + 4 / 2)
    degrees = sum(enlarged) ** 2 / (enlarged[0] ** 2 / 39 + enlarged[1] ** 2 / 2)
    half: float = stats.t.ppf(0.975, degrees) * math.hypot(of_lines, of_seeds)
    found = loss_of(runs)
    expected: list[float | None] = [mean, mean - half, mean + half, of_lines, of_seeds]
    shown = [found.value, found.low, found.high, found.lines_error, found.seeds_error]
    assert shown == pytest.approx(expected, rel=1e-6)
    per_char = loss_of(runs, per_char=True)
    assert per_char.value == pytest.approx(found.value / (2 * math.log(2)))
    assert (per_char.high or 0) - (per_char.low or 0) == pytest.approx(2 * half / (2 * math.log(2)), rel=1e-6)


def test_loss__of_one_seed_or_few_lines_has_no_interval() -> None:
    rng = np.random.default_rng(1)
    one, few = lines(rng, [2.0] * 40, [10] * 40), lines(rng, [2.0] * 4, [10] * 4)
    alone, short = loss_of([one]), loss_of([few, few])
    assert (alone.low, alone.high, alone.seeds_error) == (None, None, None) and alone.lines_error is not None
    assert (short.low, short.high, short.lines_error) == (None, None, None) and short.seeds_error == 0.0
    neighbours, more = (loss_of([lines(rng, [2.0] * n, [10] * n, is_drawn=False) for _ in range(2)]) for n in (59, 60))
    assert neighbours.low is None and more.low is not None
    equal = loss_of([LineLosses(nats=(20.0,) * 40, tokens=(10,) * 40, chars=(20,) * 40)] * 3)
    assert (equal.low, equal.lines_error, equal.seeds_error) == (None, 0.0, 0.0)


def test_runs_of_a_study__have_ids_that_its_own_gives() -> None:
    record: StudyRecord = study_record()
    key = TrialKey("final", 0, 2, 1)
    assert [key.run_id(record, attempt) for attempt in (1, 2)] == [
        "rates-01234567-final-v2-1",
        "rates-01234567-final-v2-1-a2",
    ]
