"""Computes all results of a job from its folder: the items, the scores, and the shares of leaked items."""

from collections.abc import Mapping, Sequence

from trainer.artifacts.batteries import BatteryDirectory
from trainer.batteries.comparisons import Paradigm, comparisons_of, seed_bands
from trainer.batteries.controls import items_of, variants
from trainer.batteries.summary import Items, run_result
from trainer.contracts.batteries import (
    BatteryItem,
    BatterySummary,
    ItemScores,
    LeakedItems,
    Outcome,
    RunResult,
    Variant,
)
from trainer.contracts.errors import AppError, ErrorCode
from trainer.data.text import shown_name
from trainer.system.files import BrokenFile, read_record


def summarize(folder: BatteryDirectory, leaks: Mapping[str, Sequence[LeakedItems]]) -> BatterySummary:
    """Compute the summary of a job whose items all have scores, with the leaked items of each run.

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
        result, of_run = run_result(items, run, record.options, scores, leaks.get(run.name, ()))
        results.append(result)
        outcomes[run.name] = [of_run[place].get(measure) for place in range(len(items.all))]
    paradigms = [
        Paradigm(battery, name, places)
        for (battery, level, name), places in items.groups.items()
        if level == "paradigm"
    ]
    return BatterySummary(
        measure=measure,
        batteries=record.batteries,
        runs=tuple(results),
        comparisons=comparisons_of(paradigms, outcomes),
        seeds=seed_bands({result.run: result.groups for result in results}, measure),
    )


def recompute(folder: BatteryDirectory) -> BatterySummary:
    """Compute the summary of a completed job again; the training text is not searched again.

    Raises DATA_NOT_FOUND for a folder without the files, and INVALID_INPUT for damaged ones.
    """
    try:
        stored = read_record(folder.result, BatterySummary)
        return summarize(folder, {result.run.name: result.leaks for result in stored.runs})
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
