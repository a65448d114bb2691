"""Plan and numbers of a study, without reading or writing: its settings, rounds and runs, its winner, its intervals.

Half of the settings of a round go on to the next one, which trains them anew for twice as long (Jamieson and Talwalkar
2016, https://arxiv.org/abs/1502.07943). The finalists are trained in full over seeds, and the best one on average wins.
It is trained again with seeds that chose nothing, because seeds that chose a winner are lucky ones: only these
trainings are measured on the test split.
"""

import math
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import product
from statistics import fmean, stdev
from typing import NamedTuple

from pydantic import JsonValue, TypeAdapter

from trainer.config.validation import merged, parse, set_path
from trainer.contracts.base import changed
from trainer.contracts.intervals import LineLosses, StandardError, ratio, standard_error, sum_over_runs, together
from trainer.contracts.models import NgramConfig
from trainer.contracts.runs import EffectiveRequest
from trainer.contracts.studies import (
    LossEstimate,
    StudyRecord,
    StudyVariant,
    Trial,
    TrialKey,
    ValueRange,
    Values,
)
from trainer.contracts.training_options import MAX_LABEL_CHARACTERS, ChosenValue, EarlyStopping

Trials = Mapping[TrialKey, Trial]
"""The trials that were started, by their keys."""
_RATE_FACTOR = 3.0
"""The usual space has rates from a third of the rule's to three times as much."""
_DROPOUT_RANGE, _MAX_DROPOUT = 0.2, 0.7
_TRIES_PER_VARIANT = 20
_fields: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])
_NOT_OF_TRIALS: dict[str, object] = {
    "early_stopping": EarlyStopping(),
    "checkpoint_schedule": None,
    "sample_every_steps": None,
}


class Round(NamedTuple):
    """A round of a study: its number from 1, how many settings it trains, and their share of a full training."""

    number: int
    variants: int
    share: float


def rounds(variants: int, finalists: int, *, halving: bool = True) -> list[Round]:
    """Return the rounds that reduce some settings to the finalists; none if there are no more settings than these."""
    if variants <= finalists:
        return []
    counts = [variants]
    while halving and math.ceil(counts[-1] / 2) > finalists:
        counts.append(math.ceil(counts[-1] / 2))
    shares = [0.5 ** (len(counts) - place) for place in range(len(counts))] if halving else [1.0]
    return [Round(number, *each) for number, each in enumerate(zip(counts, shares, strict=True), 1)]


def rounds_of(record: StudyRecord) -> list[Round]:
    """Return the rounds of a study."""
    return rounds(len(record.variants), record.n_finalists, halving=record.request.halving)


def full_runs(record: StudyRecord) -> int:
    """Return the number of runs of a study in which no trial fails and no budget of minutes ends."""
    in_rounds = sum(each.variants for each in rounds_of(record))
    found = in_rounds + record.n_last_runs
    return found if record.request.runs is None else min(found, record.request.runs)


def total_seconds(record: StudyRecord) -> float | None:
    """Return the estimated time of all trainings of a study, one after the other; None if that of one is unknown."""
    if record.run_seconds is None:
        return None
    trainings = sum(each.variants * each.share for each in rounds_of(record)) + record.n_last_runs
    limit = math.inf if record.request.minutes is None else 60 * record.request.minutes
    return min(trainings * record.run_seconds, limit)


def drawn(space: Mapping[str, Values], count: int, seed: int) -> list[dict[str, JsonValue]]:
    """Return settings of a space, which differ: all of them where it has no more than `count`, else so many.

    They lie evenly in the space however many are drawn (Roberts 2018, the R sequences).
    """
    lists = [values for values in space.values() if not isinstance(values, ValueRange)]
    if len(lists) == len(space) and math.prod(map(len, lists)) <= count:
        return [_at_paths(dict(zip(space, values, strict=True))) for values in product(*lists)]
    offsets = [int(sha256(f"{seed} {path}".encode()).hexdigest()[:8], 16) / (1 << 32) for path in space]
    found: list[dict[str, JsonValue]] = []
    for number in range(_TRIES_PER_VARIANT * count):
        point = _point(offsets, number)
        places = dict(zip(space, point, strict=True))
        setting = _at_paths({path: _value(values, places[path]) for path, values in space.items()})
        if setting not in found:
            found.append(setting)
        if len(found) == count:
            break
    return found


def _point(offsets: Sequence[float], number: int) -> list[float]:
    """Return a point of an R sequence in the unit cube, moved by offsets."""
    base = 1.5
    for _ in range(60):  # the root of base^(d + 1) = base + 1
        base = math.pow(1 + base, 1 / (len(offsets) + 1))
    return [(offset + number / base ** (place + 1)) % 1 for place, offset in enumerate(offsets)]


def _value(values: Values, place: float) -> JsonValue:
    if not isinstance(values, ValueRange):
        return values[int(place * len(values))]
    low, high = values.low, values.high
    if isinstance(low, int) and isinstance(high, int):
        if values.scale == "linear":
            return low + int(place * (high - low + 1))
        return min(high, round(low * math.pow(high / low, place)))
    drawn_value = low * math.pow(high / low, place) if values.scale == "log" else low + place * (high - low)
    return float(f"{drawn_value:.3g}")


def _at_paths(values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    fields: dict[str, object] = {}
    for path, value in values.items():
        set_path(fields, path, value)
    return _fields.validate_python(fields)


def usual_space(effective: EffectiveRequest, chosen: Sequence[ChosenValue], count: int) -> list[dict[str, JsonValue]]:
    """Return settings of learning rate and dropout around the values that rules have chosen, which are the first.

    Empty if rules have chosen neither.
    """
    fields = [one.field for one in chosen if one.field == "learning_rate" or one.field in _dropouts(effective)]
    dropouts = [field for field in fields if field != "learning_rate"]
    rate, dropout = effective.learning_rate, effective.model.dropout
    low, high = max(0.0, dropout - _DROPOUT_RANGE), min(_MAX_DROPOUT, dropout + _DROPOUT_RANGE)
    n_axes = len(fields) - len(dropouts) + bool(dropouts)
    found: list[dict[str, JsonValue]] = []
    for number in range(count if fields else 0):
        point = _point([0.5] * n_axes, number)
        values: dict[str, JsonValue] = {}
        if "learning_rate" in fields:
            tried = min(1.0, rate * math.pow(_RATE_FACTOR, 2 * point[0] - 1))
            values["learning_rate"] = float(f"{tried:.3g}") if number else rate
        tried = round(low + point[-1] * (high - low), 3) if number else dropout
        found.append(_at_paths(values | dict.fromkeys(dropouts, tried)))
    return found


def _dropouts(effective: EffectiveRequest) -> list[str]:
    return [f"model.{name}" for name in effective.model.dropouts]


def with_values(effective: EffectiveRequest, train: Mapping[str, object]) -> EffectiveRequest:
    """Return a resolved request with other values of learning rate and dropout."""
    values: dict[str, object] = effective.model_dump()
    return parse(EffectiveRequest, merged(values, train))


def of_trial(record: StudyRecord, key: TrialKey) -> EffectiveRequest:
    """Return the resolved request of a training: of a round, for its share of the steps or of the time."""
    variant, seed = variant_of(record, key), seed_of(record, key)
    full = changed(
        variant.effective,
        seed=seed,
        label=f"{record.request.name} {variant.name} {key}"[:MAX_LABEL_CHARACTERS],
        tags=(*variant.effective.tags, record.study_id),
    )
    if key.phase != "round" or isinstance(full.model, NgramConfig):
        return full
    share = rounds_of(record)[key.round - 1].share
    if share == 1:
        return full
    length: dict[str, object] = {}
    if full.minutes is not None:
        length["minutes"] = share * full.minutes
    else:
        length["max_steps"] = max(1, round(share * variant.cost.steps))
    if full.max_seconds is not None:
        length["max_seconds"] = share * full.max_seconds
    return changed(full, **length, **_NOT_OF_TRIALS)


def variant_of(record: StudyRecord, key: TrialKey) -> StudyVariant:
    return next(variant for variant in record.variants if variant.number == key.variant)


def seed_of(record: StudyRecord, key: TrialKey) -> int:
    """Return the seed of a training; 0 follows 2³² - 1."""
    return (record.request.seed + key.place) % (1 << 32)


def planned(record: StudyRecord, trials: Trials) -> list[TrialKey]:
    """Return the trainings that a study needs so far, in their order: those of a stage once the last one has ended."""
    asked, keys = record.request, list[TrialKey]()
    candidates = [variant.number for variant in record.variants]
    most = math.inf if asked.runs is None else asked.runs - record.n_last_runs
    for each in rounds_of(record):
        if each.number > 1:
            earlier = {key: trial for key, trial in trials.items() if key.round < each.number}
            candidates = ranked(record, earlier)[: each.variants]
        wanted = [TrialKey("round", each.number, number, 0) for number in candidates]
        allowed = wanted[: max(0, round(min(most - len(keys), len(wanted))))]
        if _has_spent(record, trials):
            allowed = [key for key in allowed if key in trials]
        keys += allowed
        if not _have_ended(allowed, trials):
            return keys
        if len(allowed) < len(wanted):
            break
    finalists = ranked(record, trials)[: record.n_finalists]
    of_final = [TrialKey("final", 0, number, place) for number in finalists for place in range(1, asked.seeds + 1)]
    keys += of_final
    if not _have_ended(of_final, trials) or not asked.read_test:
        return keys
    best = winner_of(record, trials)
    places = range(asked.seeds + 1, asked.seeds + asked.test_seeds + 1)
    return [*keys, *(TrialKey("test", 0, best, place) for place in places if best is not None)]


def _have_ended(keys: Sequence[TrialKey], trials: Trials) -> bool:
    return all(key in trials and trials[key].has_ended for key in keys)


def _has_spent(record: StudyRecord, trials: Trials) -> bool:
    """Return True if the rounds have taken the minutes of a study but those that its last runs need.

    A full training is expected to take as long as the slowest trial says, so a budget that has ended stays so.
    """
    if record.request.minutes is None:
        return False
    shares = {each.number: each.share for each in rounds_of(record)}
    seconds = {key: trial.train_seconds for key, trial in trials.items() if key.phase == "round"}
    expected = max((time / shares[key.round] for key, time in seconds.items()), default=0.0)
    return sum(seconds.values()) + record.n_last_runs * expected >= 60 * record.request.minutes


def ranked(record: StudyRecord, trials: Trials) -> list[int]:
    """Return the settings that have lost no trial, the best first: by their last round, then by validation loss.

    Of equal ones the first is first. Settings with unknown characters come after those without, because their losses
    are too low. Without rounds, all settings in their order.
    """
    if not rounds_of(record):
        return [variant.number for variant in record.variants]
    last: dict[int, TrialKey] = {}
    for key in trials:
        if key.phase == "round" and (key.variant not in last or last[key.variant].round < key.round):
            last[key.variant] = key
    left = [key for key in last.values() if trials[key].status == "completed"]

    def rank(key: TrialKey) -> tuple[int, float, float, int]:
        return -key.round, trials[key].unknown, trials[key].score, key.variant

    return [key.variant for key in sorted(left, key=rank)]


def finalists_of(record: StudyRecord, trials: Trials) -> list[int]:
    """Return the settings that were trained in full, the best first.

    Those without unknown characters come first, then those with the fewest measured trainings that failed, then those
    with the lowest mean validation loss over the seeds; of equal ones the first. One whose trainings have all failed is
    last.
    """
    by_variant: dict[int, list[Trial]] = {}
    for key, trial in trials.items():
        if key.phase == "final":
            by_variant.setdefault(key.variant, []).append(trial)

    def rank(number: int) -> tuple[bool, float, int, float, int]:
        completed = [trial for trial in by_variant[number] if trial.status == "completed"]
        failed = sum(trial.is_measured for trial in by_variant[number]) - len(completed)
        if not completed:
            return True, 0.0, failed, math.inf, number
        unknown = max(trial.unknown for trial in completed)
        return False, unknown, failed, fmean(trial.score for trial in completed), number

    return sorted(by_variant, key=rank)


def winner_of(record: StudyRecord, trials: Trials) -> int | None:
    """Return the best finalist; None if no training of one has completed."""
    completed = {key.variant for key, one in trials.items() if key.phase == "final" and one.status == "completed"}
    return next((number for number in finalists_of(record, trials) if number in completed), None)


def loss_of(runs: Sequence[LineLosses], *, per_char: bool = False) -> LossEstimate:
    """Return the mean loss of trainings that differ in their seeds only, in nats per token or in bits per character.

    The interval is of the loss that is expected over other lines of this kind and over other seeds: the variances of
    both are added.
    """
    lines = standard_error(sum_over_runs(runs, per_char=per_char), is_drawn=runs[0].is_drawn)
    values = [ratio(run.ratio(per_char=per_char)) for run in runs]
    value, seeds = fmean(values), None
    if len(values) > 1:
        seeds = StandardError(stdev(values) / math.sqrt(len(values)), len(values) - 1)
    error = None if lines is None or seeds is None else together(lines, seeds)
    half = None if error is None else error.margin or None  # no interval where nothing varies
    return LossEstimate(
        value=value,
        low=None if half is None else value - half,
        high=None if half is None else value + half,
        lines_error=None if lines is None else lines.value,
        seeds_error=None if seeds is None else seeds.value,
    )
