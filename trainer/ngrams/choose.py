"""Choice of the order of an n-gram model and of its discounts."""

from typing import NamedTuple

import numpy as np

from trainer.contracts.tokenizers import SpecialIds
from trainer.ngrams.counts import Ids, count_ngrams
from trainer.ngrams.kneser_ney import FALLBACK, KneserNey, closed_form, tables_of

MAX_ORDER = 7


class ChosenNgram(NamedTuple):
    """The model with the lowest loss of a validation split."""

    model: KneserNey
    validation_losses_nats: dict[int, float]
    """Mean loss by order; empty without validation text."""
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
    """Count the n-grams of a training split and return the model of the order with the lowest validation loss."""
    counted = train[:max_tokens]
    counts = count_ngrams(counted, vocab_size, special_ids, max_order)
    models: dict[int, KneserNey] = {}
    losses: dict[int, float] = {}
    for order in range(1, counts.order + 1):
        tables = tables_of(counts, order)
        discounts = tuple(closed_form(of_order) or FALLBACK for of_order in tables.counts)
        models[order] = KneserNey(tables, discounts, vocab_size, special_ids)
        if len(validation):
            losses[order] = float(np.mean(models[order].losses_nats(validation)))
    order = min(losses, key=lambda each: losses[each]) if losses else counts.order
    return ChosenNgram(models[order], losses, len(counted))
