"""Computes all results of a job from its folder: the items, the scores, and the shares of leaked items."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from types import MappingProxyType

from trainer.artifacts.batteries import BatteryDirectory
from trainer.batteries.acquisition import acquisitions
from trainer.batteries.comparisons import Paradigm, comparisons_of, seed_bands
from trainer.batteries.controls import Part, items_of, variants
from trainer.batteries.development import accuracy_rows, loss_rows
from trainer.batteries.summary import Items, run_result
from trainer.contracts.batteries import (
    BatteryItem,
    BatterySummary,
    Counts,
    ItemScores,
    LeakedItems,
    Outcome,
    RunResult,
    Variant,
)
from trainer.contracts.development import CheckpointPoint, Development, DevelopmentRow, ModelWords, WordScores
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.reports import Note, note
from trainer.data.text import shown_name
from trainer.system.files import BrokenFile, read_record


def summarize(
    folder: BatteryDirectory,
    leaks: Mapping[str, Sequence[LeakedItems]],
    counts: Mapping[str, Mapping[Part, Counts]] = MappingProxyType({}),
) -> BatterySummary:
    """Compute the summary of a job whose items all have scores, with the leaked items and the counts of each run.

    Raises OSError and BrokenFile.
    """
    record = folder.record()
    items = Items(record.batteries, folder.items())
    measure = record.options.measure
    results: list[RunResult] = []
    outcomes: dict[str, list[Outcome | None]] = {}
    for run in record.runs:
        scores = {
            variant: _complete_scores(folder, run.name, variant, items.all) for variant in variants(record.options)
        }
        result, of_run = run_result(
            items, run, record.options, scores, leaks.get(run.name, ()), counts.get(run.name, {})
        )
        results.append(result)
        # suites have the sum alone
        outcomes[run.name] = [of_run[place].get(measure, of_run[place].get("sum")) for place in range(len(items.all))]
    paradigms = [
        Paradigm(battery, name, places)
        for (battery, level, name), places in items.groups.items()
        if level == "paradigm"
    ]
    compared = () if record.development_of is not None else comparisons_of(paradigms, outcomes)
    unlike = _unlike(results)
    return BatterySummary(
        measure=measure,
        batteries=record.batteries,
        runs=tuple(results),
        comparisons=tuple(one for one in compared if (one.battery, one.first_run_id, one.second_run_id) not in unlike),
        seeds=seed_bands({result.run: result.groups for result in results}, measure),
        notes=tuple(
            note(
                "{battery}: `{first}` and `{second}` are not compared, because one of them has trained on more of the"
                " items than the other.",
                battery=battery,
                first=first,
                second=second,
            )
            for battery, first, second in unlike
        ),
    )


def _unlike(results: Sequence[RunResult]) -> list[tuple[str, str, str]]:
    """Return batteries with two runs of which one has trained on more of the items, by more than 1 %."""
    return [
        (leak.battery, first.run.name, second.run.name)
        for first, second in combinations(results, 2)
        for leak in first.leaks
        for other in second.leaks
        if other.battery == leak.battery and not leak.is_like(other)
    ]


def development_of(
    folder: BatteryDirectory,
    summary: BatterySummary,
    frequencies: Mapping[str, float] | None = None,
    missing_words: Sequence[str] = (),
    notes: Sequence[Note] = (),
) -> tuple[Development, list[WordScores]]:
    """Return the development of a run from the summary of its checkpoints, and from what was measured besides.

    Return the mean surprisals of words at all checkpoints, too. Raises OSError and BrokenFile.
    """
    record = folder.record()
    items = Items(record.batteries, folder.items())
    curves: list[DevelopmentRow] = []
    words: list[WordScores] = []
    n_unscored = 0
    for result in summary.runs:
        step, metrics = result.run.checkpoint or 0, folder.measured(result.run.name, EvalMetrics)
        curves += accuracy_rows(step, items, result.groups, record.options.measure)
        curves += () if metrics is None else loss_rows(step, metrics)
        of_model = folder.measured(result.run.name, ModelWords)
        if of_model is not None:
            words += of_model.scores
            n_unscored = of_model.n_unscored
    points = tuple(
        CheckpointPoint(step=run.checkpoint or 0, epoch=run.epoch or 0, words=run.words, tokens=run.tokens)
        for run in record.runs
    )
    development = Development(
        run_id=record.development_of or "",
        points=points,
        curves=tuple(curves),
        acquisitions=acquisitions(words, points, frequencies),
        missing_words=tuple(missing_words),
        notes=tuple(notes),
        n_unscored=n_unscored,
    )
    return development, words


def recompute(folder: BatteryDirectory) -> tuple[BatterySummary, Development | None]:
    """Compute the results of a completed job again; the training text is not searched or counted again.

    Raises DATA_NOT_FOUND for a folder without the files, and INVALID_INPUT for damaged ones.
    """
    try:
        stored = read_record(folder.result, BatterySummary)
        counts = {
            result.run.name: {(one.battery, one.suite): one.counts for one in result.controls if one.counts is not None}
            for result in stored.runs
        }
        summary = summarize(folder, {result.run.name: result.leaks for result in stored.runs}, counts)
        known = folder.development()
        if known is None:
            return summary, None
        of_words = {one.word: one.frequency_per_million for one in known.acquisitions}
        frequencies = {word: frequency for word, frequency in of_words.items() if frequency is not None} or None
        return summary, development_of(folder, summary, frequencies, known.missing_words, known.notes)[0]
    except OSError:
        message = f"'{shown_name(folder.path.name)}' is no complete folder of results: a file of it cannot be read."
        raise AppError(ErrorCode.DATA_NOT_FOUND, message) from None
    except BrokenFile as error:
        raise AppError(ErrorCode.INVALID_INPUT, f"{error}") from None


def _complete_scores(
    folder: BatteryDirectory, name: str, variant: Variant, items: Sequence[BatteryItem]
) -> list[ItemScores]:
    """Return the scores of a variant; raises BrokenFile if an item has none."""
    scores = folder.scores(name, variant)
    if [one.item for one in scores] != [place for place, _ in items_of(variant, items)]:
        raise BrokenFile(f"The scores of '{name}' are not those of the items.")
    return scores
