"""Requests for the scores of items, and the items' scores from the responses."""

from collections.abc import Callable, Iterator, Sequence

from trainer.batteries.controls import items_of, variants
from trainer.batteries.reading import Battery
from trainer.batteries.summary import Items, run_result
from trainer.contracts.batteries import BatteryItem, BatteryOptions, BatterySummary, ItemScores, Variant
from trainer.contracts.runs import RunModel
from trainer.contracts.sequences import SequencesRequest, SequencesResponse

_PORTION_CHARACTERS = 20_000
_PORTION_SEQUENCES = 2000
"""Other people's requests are answered between two portions, each of which takes a second or so."""

Portion = list[tuple[int, BatteryItem]]
"""Items with their places."""


def portions(
    variant: Variant, items: Sequence[BatteryItem], options: BatteryOptions, seed: int, n_scored: int = 0
) -> Iterator[tuple[Portion, SequencesRequest]]:
    """Yield the items that a variant scores, from the one after `n_scored`, with the request for their scores."""
    untrained_seed = seed if variant == "untrained" else None
    for portion in _cut(items_of(variant, items)[n_scored:]):
        request = SequencesRequest(
            sequences=tuple(sequence for _, item in portion for sequence in item.sequences),
            pll_within_word=options.pll_within_word,
            untrained_seed=untrained_seed,
            has_end=options.measure == "end",
        )
        yield portion, request


def _cut(items: Portion) -> Iterator[Portion]:
    portion: Portion = []
    characters = sequences = 0
    for place, item in items:
        size = sum(len(sequence.text) for sequence in item.sequences)
        sequences += len(item.sequences)
        characters += size
        if portion and (characters > _PORTION_CHARACTERS or sequences > _PORTION_SEQUENCES):
            yield portion
            portion, characters, sequences = [], size, len(item.sequences)
        portion.append((place, item))
    if portion:
        yield portion


def scores_of(portion: Portion, response: SequencesResponse) -> list[ItemScores]:
    """Return the scores of a portion's items."""
    scores = iter(response.scores or ())
    return [ItemScores(item=place, scores=tuple(next(scores) for _ in item.sequences)) for place, item in portion]


def score_batteries(
    ask: Callable[[SequencesRequest], SequencesResponse],
    run: RunModel,
    batteries: Sequence[Battery],
    options: BatteryOptions,
) -> BatterySummary:
    """Score batteries by one model with `ask`, and return the results."""
    infos = tuple(battery.info for battery in batteries)
    items = Items(infos, [item for battery in batteries for item in battery.items])
    scores: dict[Variant, list[ItemScores]] = {}
    for variant in variants(options):
        answered = ((portion, ask(request)) for portion, request in portions(variant, items.all, options, run.seed))
        scores[variant] = [one for portion, response in answered for one in scores_of(portion, response)]
    result, _ = run_result(items, run, options, scores)
    return BatterySummary(measure=options.measure, batteries=infos, runs=(result,))
