"""Drawn texts as ids, and n-gram models of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tests.unit.ngrams.brute_force import as_ids
from trainer.contracts.tokenizers import SpecialIds
from trainer.ngrams.counts import count_ngrams
from trainer.ngrams.kneser_ney import KneserNey, tables_of

LINES = SpecialIds(unk=1, eos=3, bos=2, pad=0)
WITHOUT_BOS = SpecialIds(unk=0, eos=1)
STREAM = SpecialIds(unk=1, eos=3, bos=2, pad=0, newline=4)
MODES = [LINES, WITHOUT_BOS, STREAM]
MODE_NAMES = ["lines", "lines without BOS", "stream"]
DISCOUNTS = tuple((0.3 + 0.05 * n, 0.9 + 0.1 * n, 1.2 + 0.15 * n) for n in range(7))
VOCAB_SIZE = 11


def tokens_of(texts: Sequence[Sequence[int]], special: SpecialIds) -> list[int]:
    """Return the ids of texts, as a tokenizer encodes them; the texts count their tokens from 0."""
    found: list[int] = []
    for text in texts:
        found += [] if special.line_start is None else [special.line_start]
        found += [5 + token for token in text]
        found.append(special.line_end)
    return found


def drawn_texts(lines: int, types: int, seed: int) -> list[list[int]]:
    """Return texts in which some tokens follow others often; a few lines are empty."""
    generator = np.random.default_rng(seed)
    texts: list[list[int]] = []
    for _ in range(lines):
        noise: NDArray[np.int64] = generator.geometric(0.5, size=int(generator.integers(0, 30)))
        text: list[int] = (np.cumsum(noise) % types).tolist()
        texts.append(text)
    return texts


def model_of(tokens: Sequence[int], special: SpecialIds, order: int, vocab_size: int = VOCAB_SIZE) -> KneserNey:
    found = count_ngrams(as_ids(tokens, vocab_size), vocab_size, special, order)
    return KneserNey(tables_of(found, found.order), DISCOUNTS[: found.order], vocab_size, special)
