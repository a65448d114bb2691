"""Several corpora as one, split into lines to train a tokenizer on and lines held out."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from trainer.contracts.tokenizers import Normalization
from trainer.data.corpus import Split, SplitRule, labelled_blocks, read_blocks, split_labels


class CorpusUnion:
    """The lines of several corpora, split as the lines of one corpus; see `SplitCorpus` for `scratch`."""

    def __init__(self, paths: Sequence[Path], normalization: Normalization, rule: SplitRule, scratch: Path) -> None:
        self._paths = paths
        self._normalization = normalization
        self._ends: list[int] = []
        self._labels = split_labels(self._all_lines(), rule, scratch)

    def lines(self, number: int, split: Split) -> Iterator[str]:
        """Yield the lines of a split of one corpus; raises DATA_NOT_FOUND if the corpus has changed since."""
        labels = np.split(self._labels, self._ends[:-1])[number]
        for of_block, lines in labelled_blocks(self._paths[number], self._normalization, labels):
            if of_block == split:
                yield from lines

    def all_lines(self, split: Split) -> Iterator[str]:
        """Yield the lines of a split of all corpora."""
        for number in range(len(self._paths)):
            yield from self.lines(number, split)

    def _all_lines(self) -> Iterator[str]:
        count = 0
        for path in self._paths:
            for block in read_blocks(path, self._normalization):
                count += len(block)
                yield from block
            self._ends.append(count)
