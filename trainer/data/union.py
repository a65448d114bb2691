"""Several corpora as one, split into lines to train a tokenizer on and lines held out."""

from collections.abc import Iterator, Sequence
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import Normalization
from trainer.data.corpus import SPLITS, Split, SplitRule, read_blocks, split_labels


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
        start = 0
        for block in read_blocks(self._paths[number], self._normalization):
            chosen: NDArray[np.bool_] = labels[start : start + len(block)] == SPLITS.index(split)
            start += len(block)
            yield from compress(block, chosen.tobytes())
        if start != len(labels):
            raise AppError(ErrorCode.DATA_NOT_FOUND, "A corpus has changed while it was being read.")

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
