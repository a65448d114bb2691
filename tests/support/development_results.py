"""The development of a run, written by hand: known curves, and words whose surprisals are known sigmoids."""

from math import exp, log10

from trainer.batteries.acquisition import acquisitions
from trainer.contracts.base import changed
from trainer.contracts.batteries import BatterySummary, Level
from trainer.contracts.development import CheckpointPoint, Development, DevelopmentRow, WordScores

STEPS = (0, 1, 4, 16, 64, 256, 1024)
AGES = {"early": 5.0, "ˈt͡ʃo$": 40.0, "كتاب": 100.0}


def words_of(steps: tuple[int, ...] = STEPS) -> tuple[WordScores, ...]:
    """The scores of words that are acquired at `AGES`, and of one that is not."""
    found = [
        WordScores(step=step, word=word, n_contexts=10, nats=3 + 6 / (1 + exp(4 * (log10(step or 0.1) - log10(age)))))
        for word, age in AGES.items()
        for step in steps
    ]
    return (*found, *(WordScores(step=step, word="never", n_contexts=10, nats=5.0 + step / 7) for step in steps))


def points_of(steps: tuple[int, ...] = STEPS) -> tuple[CheckpointPoint, ...]:
    return tuple(CheckpointPoint(step=step, epoch=step // 100, words=120 * step, tokens=600 * step) for step in steps)


def accuracies(level: Level, name: str, steps: tuple[int, ...] = STEPS) -> tuple[DevelopmentRow, ...]:
    shares = [0.5 + 0.4 * number / len(STEPS) for number in range(len(steps))]
    return tuple(
        DevelopmentRow(
            step=step,
            measure="accuracy",
            level=level,
            name=name,
            value=share,
            low=share - 0.1,
            high=share + 0.1,
            n=100,
            chance=0.5,
        )
        for step, share in zip(steps, shares, strict=True)
    )


def losses(steps: tuple[int, ...] = STEPS) -> tuple[DevelopmentRow, ...]:
    row = DevelopmentRow(step=0, measure="bits_per_char", level="split", name="test", value=0.0, n=1000)
    values = [5.0 - number / 3 for number in range(len(steps))]
    return tuple(
        changed(row, step=step, value=value, low=value - 0.05, high=value + 0.05)
        for step, value in zip(steps, values, strict=True)
    )


def development_of(steps: tuple[int, ...] = STEPS) -> Development:
    """The development over the checkpoints at these steps."""
    words, points = words_of(steps), points_of(steps)
    return Development(
        run_id="lstm-1",
        points=points,
        curves=(*accuracies("battery", "a&b", steps), *losses(steps)),
        acquisitions=acquisitions(words, points, {"early": 100.0}),
        missing_words=("moon",),
        n_unscored=2,
    )


WORDS = words_of()
DEVELOPMENT = development_of()
NO_ITEMS = BatterySummary(measure="sum", batteries=(), runs=())
"""Of a development without batteries."""
