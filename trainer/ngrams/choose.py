"""Choice of the order of an n-gram model and of its discounts."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.tokenizers import SpecialIds
from trainer.ngrams.counts import Ids, count_ngrams
from trainer.ngrams.kneser_ney import Discounts, Floats, KneserNey, closed_form, tables_of
from trainer.ngrams.tuning import tuned_discounts

MAX_ORDER = 7
MAX_VALIDATION_TOKENS = 1 << 17
"""Most validation tokens by which order and discounts are chosen; the loss of 100,000 tokens tells orders apart."""
_PIECES = 64


class ChosenNgram(NamedTuple):
    """The model with the lowest loss of a validation split."""

    model: KneserNey
    validation_losses_nats: dict[int, float]
    """Mean loss by order, of a sample where the split has more than MAX_VALIDATION_TOKENS; empty without a split."""
    counted_tokens: int
    """Fewer than the training split has where a sample of it was counted."""


def choose_ngram(
    train: Ids,
    validation: Ids,
    *,
    vocab_size: int,
    special_ids: SpecialIds,
    max_order: int = MAX_ORDER,
    max_tokens: int | None = None,
) -> ChosenNgram:
    """Count the n-grams of a training split and return the model that predicts a validation split best.

    The order is the one with the lowest validation loss with the discounts of `closed_form`; then the discounts are
    tuned. Without validation text, the order is the highest one, with these discounts. Of a training split of more than
    `max_tokens` a sample is counted: pieces from all over it.
    """
    counted = train if max_tokens is None else _sample(train, max_tokens, special_ids.line_end)
    known = _sample(validation, MAX_VALIDATION_TOKENS, special_ids.line_end)
    counts = count_ngrams(counted, vocab_size, special_ids, max_order)

    def model_of(order: int, discounts: tuple[Discounts, ...] | None = None) -> KneserNey:
        tables = tables_of(counts, order)
        given = discounts or tuple(closed_form(of_order) for of_order in tables.counts)
        return KneserNey(tables, given, vocab_size, special_ids)

    losses_nats: dict[int, float] = {}
    chosen = model_of(counts.order)
    for order in range(1, counts.order + 1 if len(known) else 1):
        model = model_of(order)
        losses_nats[order] = _mean(model.losses_nats(known))
        if losses_nats[order] == min(losses_nats.values()):
            chosen = model
    for targets in chosen.targets(known):  # all of them, at once
        chosen = model_of(chosen.order, tuned_discounts(targets, chosen.discounts))
        losses_nats[chosen.order] = _mean(chosen.losses_nats(known))
    return ChosenNgram(chosen, losses_nats, len(counted))


def _sample(ids: Ids, max_tokens: int, line_end: int) -> Ids:
    """Return pieces of a split, of complete lines where lines are short, with at most `max_tokens`; or the split."""
    if len(ids) <= max_tokens:
        return ids
    size = max(1, max_tokens // _PIECES)
    starts: list[int] = np.linspace(0, len(ids) - size, max_tokens // size).astype(np.int64).tolist()
    pieces: list[Ids] = []
    for start in starts:
        piece = ids[start : start + size]
        is_end: NDArray[np.bool_] = piece == line_end
        ends: list[int] = np.flatnonzero(is_end).tolist()
        pieces.append(piece[ends[0] + 1 : ends[-1] + 1] if len(ends) > 1 else piece)
    return np.concatenate(pieces)


def _mean(losses_nats: Floats) -> float:
    return float(np.sum(losses_nats)) / len(losses_nats)
