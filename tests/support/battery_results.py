"""Results of a battery, written by hand."""

from trainer.contracts.base import changed
from trainer.contracts.batteries import (
    Accuracy,
    BatteryInfo,
    BatterySummary,
    Comparison,
    Controls,
    Counts,
    Effect,
    FormulaResult,
    GroupResult,
    LeakedItems,
    Level,
    RunResult,
    SeedBand,
    Suite,
)
from trainer.contracts.runs import RunModel

RIGHT = Accuracy(measure="sum", n_right=3, n_wrong=1, n_ties=1, accuracy=0.75, low=0.301, high=0.954)
HALF = Accuracy(measure="sum", n_right=2, n_wrong=2, n_ties=1, accuracy=0.5, low=0.15, high=0.85)
UNIGRAMS = Counts(order=1, unigram=HALF, ngram=HALF)
FORMULA = "(1;%c%) < 2"
TIES = Accuracy(measure="char", n_right=0, n_wrong=0, n_ties=5)


def group(level: Level, name: str, *accuracies: Accuracy, odd: tuple[int, int, int] = (0, 0, 0)) -> GroupResult:
    return GroupResult(
        battery="a&b",
        level=level,
        name=name,
        n_items=5,
        n_identical=odd[0],
        n_duplicates=odd[0],
        n_prefix=odd[1],
        n_unknown=odd[1],
        n_cut=odd[2],
        accuracies=accuracies,
        mean_over_paradigms={} if level == "paradigm" else {"sum": 0.5},
    )


RESULT = RunResult(
    run=RunModel(run_id="lstm-1", label="first", seed=1),
    groups=(
        group("battery", "", RIGHT, TIES, odd=(1, 2, 1)),
        group("paradigm", "x", RIGHT, TIES),
        group("paradigm", "empty"),
    ),
    formulas=(
        FormulaResult(
            battery="a&b",
            paradigm="s",
            formula=FORMULA,
            n_items=5,
            n_right=2,
            n_undecided=1,
            accuracy=0.5,
            low=0.15,
            high=0.85,
            chance=0.49,
        ),
    ),
    effects=(
        Effect(battery="a&b", paradigm="s", what="c", region=1, n_items=4, nats=2.5, low=2.0, high=3.0),
        Effect(battery="a&b", paradigm="s", what="(1;%c%) < 2", n_items=1, nats=0.5),
    ),
    controls=(
        Controls(
            battery="a&b",
            n_items=5,
            chance=0.5,
            untrained=RIGHT,
            is_at_chance=True,
            counts=Counts(order=5, unigram=HALF, ngram=RIGHT),
        ),
    ),
    leaks=(LeakedItems(battery="a&b", n_items=5, whole=0.2, ngrams=0.4),),
)
INFO = BatteryInfo(
    name="a&b",
    sha256="a" * 64,
    n_items=5,
    n_sequences=10,
    suites={"s": Suite(regions={1: "verb"}, formulas=("(1;%c%) < 2",))},
    source="somebody/ab@1",
    licence="cc-by-4.0",
)
ONE = BatterySummary(measure="sum", batteries=(INFO,), runs=(RESULT,))
OTHER = changed(
    RESULT,
    run=RunModel(run_id="lstm-2", label="second", seed=2),
    controls=(
        changed(RESULT.controls[0], is_at_chance=False, counts=UNIGRAMS),
        changed(RESULT.controls[0], suite="s", chance=0.0, untrained=TIES, is_at_chance=None, counts=None),
    ),
)
SEVERAL = changed(
    ONE,
    runs=(RESULT, OTHER),
    comparisons=(
        Comparison(
            battery="a&b",
            level="paradigm",
            name="x",
            first_run_id="lstm-1",
            second_run_id="lstm-2",
            n_items=4,
            n_first_only=2,
            n_second_only=1,
            difference=0.25,
            low=-0.25,
            high=0.75,
            p=1.0,
            p_holm=1.0,
        ),
    ),
    seeds=(
        SeedBand(
            battery="a&b",
            level="battery",
            name="",
            run_ids=("lstm-1", "lstm-2"),
            mean=0.75,
            deviation=0.0,
            low=0.75,
            high=0.75,
        ),
    ),
)
