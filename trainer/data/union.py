"""Several texts as one, cut into the lines that a vocabulary is made from and the lines held out from it."""

from collections.abc import Iterator, Sequence
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import Normalization
from trainer.data.corpus import SPLITS, Split, SplitRule, read_blocks, split_labels


class CorpusUnion:
    """The lines of several texts, each of which belongs to one split, as if all stood in one text.

    Reads every line once to decide where it belongs, and remembers a byte of it; `scratch` is a folder for what that
    takes on disk meanwhile.
    """

    def __init__(self, paths: Sequence[Path], normalization: Normalization, rule: SplitRule, scratch: Path) -> None:
        self._paths = paths
        self._normalization = normalization
        self._ends: list[int] = []
        self._labels = split_labels(self._all_lines(), rule, scratch)

    def lines(self, number: int, split: Split) -> Iterator[str]:
        """Yield the lines of one text that belong to a split; raises DATA_NOT_FOUND where it is longer or shorter."""
        labels = np.split(self._labels, self._ends[:-1])[number]
        start = 0
        for block in read_blocks(self._paths[number], self._normalization):
            chosen: NDArray[np.bool_] = labels[start : start + len(block)] == SPLITS.index(split)
            start += len(block)
            yield from compress(block, chosen.tobytes())
        if start != len(labels):
            raise AppError(ErrorCode.DATA_NOT_FOUND, "A corpus has changed while it was being read.")

    def all_lines(self, split: Split) -> Iterator[str]:
        """Yield the lines of all texts that belong to a split."""
        for number in range(len(self._paths)):
            yield from self.lines(number, split)

    def _all_lines(self) -> Iterator[str]:
        count = 0
        for path in self._paths:
            for block in read_blocks(path, self._normalization):
                count += len(block)
                yield from block
            self._ends.append(count)
