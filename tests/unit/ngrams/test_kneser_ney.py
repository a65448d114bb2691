"""Kneser-Ney smoothing against dictionaries in plain Python."""

from collections.abc import Sequence
from math import fsum

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.properties import for_all, for_all_pairs
from tests.unit.ngrams import brute_force
from tests.unit.ngrams.brute_force import BruteForce, as_ids, documents_of
from tests.unit.ngrams.texts import (
    DISCOUNTS,
    LINES,
    MODE_NAMES,
    MODES,
    VOCAB_SIZE,
    drawn_texts,
    model_of,
    tokens_of,
)
from trainer.contracts.tokenizers import SpecialIds
from trainer.ngrams import counts, kneser_ney
from trainer.ngrams.counts import count_ngrams
from trainer.ngrams.kneser_ney import FALLBACK, closed_form

TEXTS = st.lists(st.lists(st.integers(0, 3), max_size=9), min_size=1, max_size=12)


def predicted_by(special: SpecialIds, vocab_size: int) -> set[int]:
    never = {special.bos, special.pad, special.eos if special.newline is not None else None}
    return set(range(vocab_size)) - never


def brute_force_of(tokens: Sequence[int], special: SpecialIds, order: int, vocab_size: int = VOCAB_SIZE) -> BruteForce:
    return BruteForce(documents_of(tokens, special), order, predicted_by(special, vocab_size), DISCOUNTS)


def listed(arrays: "Sequence[NDArray[np.int64] | NDArray[np.int32]]") -> list[list[int]]:
    found: list[list[int]] = []
    for array in arrays:
        numbers: list[int] = array.tolist()
        found.append(numbers)
    return found


@pytest.mark.parametrize("special", MODES, ids=MODE_NAMES)
@pytest.mark.parametrize("order", [1, 2, 3, 7])
def test_distribution__equals_brute_force_and_adds_to_one(special: SpecialIds, order: int) -> None:
    tokens = tokens_of(drawn_texts(40, 4, seed=1), special)
    model, expected = model_of(tokens, special, order), brute_force_of(tokens, special, order)
    generator = np.random.default_rng(2)
    drawn: list[list[int]] = generator.integers(0, VOCAB_SIZE, size=(20, order - 1)).tolist()
    of_text = [tokens[start : start + order - 1] for start in range(40)]
    contexts = [[-1] * (row % order) + context[row % order :] for row, context in enumerate(drawn + of_text)]
    found: list[list[float]] = model.distribution(np.array(contexts, dtype=np.int64)).tolist()
    for context, probabilities in zip(contexts, found, strict=True):
        given = tuple(token for token in context if token >= 0)
        brute = [expected.probability(given, token) for token in range(VOCAB_SIZE)]
        assert fsum(probabilities) == pytest.approx(1, abs=1e-12)
        assert probabilities == pytest.approx(brute, rel=1e-12, abs=1e-15)


@for_all_pairs(st.sampled_from(MODES), TEXTS)
def test_any_text__has_the_losses_of_a_brute_force(special: SpecialIds, texts: list[list[int]]) -> None:
    tokens = tokens_of(texts, special)
    for order in (1, 2, 4, 7):
        model, expected = model_of(tokens, special, order), brute_force_of(tokens, special, order)
        losses: list[float] = model.losses_nats(as_ids(tokens, VOCAB_SIZE)).tolist()
        assert losses == pytest.approx(expected.losses_nats(documents_of(tokens, special)), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("vocab_size", [300, 70_000, 1_000_000])
def test_large_vocabulary__has_the_losses_of_a_brute_force(vocab_size: int) -> None:
    generator = np.random.default_rng(3)
    types: list[int] = generator.choice(vocab_size - 5, size=6, replace=False).tolist()
    texts = [[types[token] for token in text] for text in drawn_texts(40, 6, seed=4)]
    tokens = tokens_of(texts, LINES)
    model, expected = model_of(tokens, LINES, 7, vocab_size), brute_force_of(tokens, LINES, 7, vocab_size)
    losses: list[float] = model.losses_nats(as_ids(tokens, vocab_size)).tolist()
    assert losses == pytest.approx(expected.losses_nats(documents_of(tokens, LINES)), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("special", MODES, ids=MODE_NAMES)
def test_chunks__do_not_change_counts_or_losses(special: SpecialIds, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = tokens_of(drawn_texts(60, 5, seed=5), special)
    ids = as_ids(tokens, VOCAB_SIZE)
    at_once = count_ngrams(ids, VOCAB_SIZE, special, 5)
    losses: list[float] = model_of(tokens, special, 5).losses_nats(ids).tolist()
    monkeypatch.setattr(counts, "CHUNK_TOKENS", 7)
    monkeypatch.setattr(kneser_ney, "CHUNK_TOKENS", 3)
    in_chunks = count_ngrams(ids, VOCAB_SIZE, special, 5)
    assert [listed(arrays) for arrays in in_chunks] == [listed(arrays) for arrays in at_once]
    in_chunks_losses: list[float] = model_of(tokens, special, 5).losses_nats(ids).tolist()
    assert in_chunks_losses == losses


@pytest.mark.parametrize("vocab_size", [VOCAB_SIZE, 1_000_000])
def test_too_many_ngrams__lower_the_order(vocab_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = tokens_of(drawn_texts(60, 5, seed=6), LINES)
    ids = as_ids(tokens, vocab_size)
    complete = count_ngrams(ids, vocab_size, LINES, 7)
    documents = documents_of(tokens, LINES)
    ends = [(document, end) for document in documents for end in range(2, len(document) + 1)]
    sizes = [len({tuple(document[max(0, end - n) : end]) for document, end in ends}) for n in range(1, 8)]
    for order in range(1, 8):
        monkeypatch.setattr(counts, "MAX_NGRAMS", sum(sizes[:order]))
        found = count_ngrams(ids, vocab_size, LINES, 7)
        assert found.order == order
        assert listed(found.keys) == listed(complete.keys[:order])
        assert listed(found.occurrences) == listed(complete.occurrences[:order])
        assert listed(found.continuations) == listed(complete.continuations[: order - 1])


def test_text_without_ngrams_of_an_order__has_a_lower_order() -> None:
    assert count_ngrams(as_ids([2, 3], VOCAB_SIZE), VOCAB_SIZE, LINES, 7).order == 2  # [BOS] [EOS]
    assert count_ngrams(as_ids([2, 5, 3], VOCAB_SIZE), VOCAB_SIZE, LINES, 7).order == 3


def test_no_text__gives_equal_probabilities() -> None:
    model = model_of([], LINES, 3)
    assert model.order == 1
    found: list[list[float]] = model.distribution(np.zeros((1, 0), dtype=np.int64)).tolist()
    assert found[0] == pytest.approx([0.0 if token in (0, 2) else 1 / 9 for token in range(VOCAB_SIZE)])
    assert len(model.losses_nats(as_ids([], VOCAB_SIZE))) == 0


def test_vocabulary_of_one_token__is_certain() -> None:
    model = model_of([0, 0, 0], SpecialIds(unk=0, eos=0), 3, vocab_size=1)
    losses: list[float] = model.losses_nats(as_ids([0, 0], 1)).tolist()
    assert losses == pytest.approx([0.0, 0.0], abs=1e-15)


@for_all(st.lists(st.integers(0, 6), max_size=60))
def test_closed_form__equals_chen_and_goodman(drawn: list[int]) -> None:
    expected = brute_force.closed_form(drawn)
    found = closed_form(np.array(drawn, dtype=np.int32))
    assert found == (FALLBACK if expected is None else pytest.approx(expected))
