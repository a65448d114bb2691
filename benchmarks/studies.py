"""Simulated studies: how often the interval of the winner's test loss covers its expected loss.

    python -m benchmarks.studies [N]

Each of N studies (default: 200) has 30 settings, whose losses are drawn: a line of the text is harder or easier for all
settings, a seed is lucky or not for all lines, and a line has some noise for each training. The finalists, their winner
and the interval come from the functions that a study uses. The other figure is that of a choice without a study: each
setting is trained once, and the best one on the test split is reported with its interval over lines.

Prints the table of docs/studies.md. Exits 1 if the studies' intervals of all cases together cover less than 93 % or
more than 97 %.
"""

import sys
from collections.abc import Sequence
from itertools import product
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.config.presets import resolve
from trainer.config.studies import loss_of, planned, seed_of, variant_of, winner_of
from trainer.config.validation import parse
from trainer.contracts.base import now
from trainer.contracts.cost import Cost
from trainer.contracts.intervals import LineLosses, ratio
from trainer.contracts.runs import CorpusRef, TrainRequest
from trainer.contracts.studies import StudyRecord, StudyRequest, StudyVariant, Trial, TrialKey

SETTINGS, LINES, TOKENS = 30, 200, 20
MIN_COVERED, MAX_COVERED = 0.93, 0.97
_EXPECTED, _LINE_NOISE, _OWN_NOISE = 2.0, 0.4, 0.05
"""Mean loss of a setting, and the standard deviations of a line's for all settings and for one training."""


class Case(NamedTuple):
    """What differs between settings, in nats per token."""

    name: str
    spread: float
    """Standard deviation of the expected losses of settings."""
    seed_noise: float
    """Standard deviation over seeds."""


CASES = (
    Case("settings differ by noise only", 0.0, 0.01),
    Case("settings differ by 0.02", 0.02, 0.01),
    Case("noise only, much of seeds", 0.0, 0.04),
    Case("noise only, little of seeds", 0.0, 0.002),
)


class Outcome(NamedTuple):
    """What one study and one choice on the test split report, and whether their intervals cover the truth."""

    error: float
    """The reported loss of the winner minus the expected one."""
    is_covered: bool
    naive_error: float
    naive_is_covered: bool


class _World:
    """Settings and texts of one simulated study."""

    def __init__(self, case: Case, rng: np.random.Generator) -> None:
        self.expected: list[float] = (_EXPECTED + case.spread * rng.standard_normal(SETTINGS)).tolist()
        self._case, self._rng = case, rng
        self._lines: dict[str, NDArray[np.float64]] = {
            split: _LINE_NOISE * rng.standard_normal(LINES) for split in ("validation", "test")
        }

    def train(self, setting: int) -> dict[str, NDArray[np.float64]]:
        """Return the losses per token of the lines of both splits by a training with a seed of its own."""
        level: float = self.expected[setting] + self._case.seed_noise * self._rng.standard_normal()
        return {split: lines + level + self._noise() for split, lines in self._lines.items()}

    def _noise(self) -> NDArray[np.float64]:
        return _OWN_NOISE * self._rng.standard_normal(LINES)


def record(seeds: int) -> StudyRecord:
    """Return a study of settings whose losses are simulated."""
    request = TrainRequest(corpus="text", model_family="lstm")
    effective = resolve(request, corpus=CorpusRef(name="text", sha256="0" * 64, bytes=1))
    cost = Cost(params=1, memory_bytes=1, disk_bytes=1, steps=1000)
    variants = tuple(
        StudyVariant(
            number=number,
            name=f"v{number}",
            train={},
            request=request,
            effective=effective,
            cost=cost,
            chosen=(),
            notes=(),
        )
        for number in range(1, SETTINGS + 1)
    )
    asked = parse(StudyRequest, {"name": "simulated", "train": {}, "test_seeds": seeds})
    return StudyRecord(study_id="simulated", created_at=now(), request=asked, request_hash="0" * 64, variants=variants)


def simulate(study: StudyRecord, case: Case, rng: np.random.Generator) -> Outcome:
    """Carry out a study, and the choice of the best of one training each on the test split."""
    world, trials, tested = _World(case, rng), dict[TrialKey, Trial](), list[LineLosses]()
    while keys := [key for key in planned(study, trials) if key not in trials]:
        for key in keys:
            losses = world.train(key.variant - 1)
            validation: float = losses["validation"].mean()
            trials[key] = _trial(study, key, float(validation))
            if key.phase == "test":
                tested.append(_line_losses(losses["test"]))
    best = world.expected[(winner_of(study, trials) or 0) - 1]
    found = loss_of(tested)
    trained_once = [_line_losses(world.train(setting)["test"]) for setting in range(SETTINGS)]
    losses_once = [ratio((lines.nats, lines.tokens)) for lines in trained_once]
    chosen = losses_once.index(min(losses_once))
    error, half = losses_once[chosen] - world.expected[chosen], trained_once[chosen].margin_nats
    return Outcome(
        error=found.value - best,
        is_covered=(found.low or 0.0) <= best <= (found.high or 0.0),
        naive_error=error,
        naive_is_covered=abs(error) <= (half or 0.0),
    )


def _trial(study: StudyRecord, key: TrialKey, loss: float) -> Trial:
    return Trial(
        phase=key.phase,
        round=key.round,
        variant=key.variant,
        name=variant_of(study, key).name,
        seed=seed_of(study, key),
        run_id=f"{key}",
        status="completed",
        val_loss=loss,
    )


def _line_losses(per_token: NDArray[np.float64]) -> LineLosses:
    nats: list[float] = (TOKENS * per_token).tolist()
    return LineLosses(nats=tuple(nats), tokens=(TOKENS,) * LINES, chars=(TOKENS,) * LINES)


def row(case: Case, seeds: int, outcomes: Sequence[Outcome]) -> str:
    """Return a row of the table: the coverages, and the mean errors."""
    covered, naive = fmean(one.is_covered for one in outcomes), fmean(one.naive_is_covered for one in outcomes)
    error, naive_error = fmean(one.error for one in outcomes), fmean(one.naive_error for one in outcomes)
    return f"| {case.name} | {seeds} | {covered:.1%} | {error:+.4f} | {naive:.1%} | {naive_error:+.4f} |"


def main(arguments: Sequence[str]) -> int:
    """Print the table; return 1 if the intervals of studies do not cover what they should."""
    count = int(arguments[0]) if arguments else 200
    print("| settings | test seeds | study: covered | mean error | best of the test split: covered | mean error |")
    print("|---|---|---|---|---|---|")
    everything: list[Outcome] = []
    for number, (case, seeds) in enumerate(product(CASES, (3, 5))):
        study, rng = record(seeds), np.random.default_rng(number)
        outcomes = [simulate(study, case, rng) for _ in range(count)]
        everything += outcomes
        print(row(case, seeds, outcomes), flush=True)
    covered = fmean(one.is_covered for one in everything)
    print(f"\n{len(everything):,} studies: {covered:.1%} of their intervals cover the expected loss of the winner.")
    return 0 if MIN_COVERED <= covered <= MAX_COVERED else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
