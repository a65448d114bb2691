"""Several corpora as one, split into lines to train a tokenizer on and lines held out."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from pathlib import Path

import numpy as np

from trainer.contracts.tokenizers import Normalization
from trainer.data.corpus import SPLITS, Split, SplitRule, split_labels, store_lines
from trainer.data.stored_lines import StoredLines


class CorpusUnion:
    """The lines of several corpora, split as the lines of one corpus; see `SplitCorpus` for `scratch`."""

    def __init__(self, paths: Sequence[Path], normalization: Normalization, rule: SplitRule, scratch: Path) -> None:
        self._corpora = [StoredLines(scratch) for _ in paths]
        added = (
            store_lines(lines, path, normalization, rule.seed) for lines, path in zip(self._corpora, paths, strict=True)
        )
        labels = split_labels(chain.from_iterable(added), rule, scratch)
        self._labels = np.split(labels, [*accumulate(lines.count for lines in self._corpora)][:-1])

    def lines(self, number: int, split: Split, first: int = 0, step: int = 1) -> Iterator[str]:
        """Yield the lines of a split of one corpus, many at a time, separated by newlines; see `labelled_blocks`."""
        groups = self._corpora[number].labelled_blocks(self._labels[number], [SPLITS.index(split)], first, step)
        return (lines for _, lines in chain.from_iterable(groups))

    def all_lines(self, split: Split) -> Iterator[str]:
        """Yield the lines of a split of all corpora, many at a time, separated by newlines."""
        return chain.from_iterable(self.lines(number, split) for number in range(len(self._corpora)))
