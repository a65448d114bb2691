"""Normalized lines in a temporary file, in blocks that are read faster than the corpus they come from."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from trainer.data.text import TextBlock


class _Block(NamedTuple):
    offset: int
    bytes: int
    encoding: str


class StoredLines:
    """Lines in a temporary file, which is deleted with this object."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file = TemporaryFile(dir=folder)
        finalize(self, self._file.close)
        self._blocks: list[_Block] = []
        self.count = 0

    def add(self, blocks: Iterable[TextBlock]) -> Iterator[bytes]:
        """Store blocks of lines, and yield each one in UTF-8 when it is stored."""
        for text, utf8 in blocks:
            encoding = "ascii" if len(text) == len(utf8) else "utf-16-le"
            data = utf8 if encoding == "ascii" else text.encode(encoding)
            self._blocks.append(_Block(self._file.tell(), len(data), encoding))
            self._file.write(data)
            is_newline: NDArray[np.bool_] = np.frombuffer(utf8, dtype=np.uint8) == ord("\n")
            self.count += 1 + int(np.count_nonzero(is_newline))
            yield utf8

    def add_all(self, blocks: Iterable[TextBlock]) -> int:
        """Store blocks of lines, and return the number of their lines."""
        before = self.count
        for _ in self.add(blocks):
            pass
        return self.count - before

    def blocks(self) -> Iterator[list[str]]:
        """Yield all lines, a block at a time."""
        self._file.flush()
        for offset, size, encoding in self._blocks:
            yield os.pread(self._file.fileno(), size, offset).decode(encoding).split("\n")
