"""Normalized lines in a temporary file, in blocks that are read faster than the corpus they come from."""

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal, NamedTuple, TypeAlias
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from trainer.data.text import TextBlock

_Encoding = Literal["ascii", "utf-16-le"]
_Units: TypeAlias = "NDArray[np.uint8 | np.uint16]"


class _Block(NamedTuple):
    offset: int
    bytes: int
    encoding: _Encoding
    lines: int


class StoredLines:
    """Lines in a temporary file, which is deleted with this object; in encodings in which a newline is found fast."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file = TemporaryFile(dir=folder)
        finalize(self, self._file.close)
        self._blocks: list[_Block] = []
        self._bytes = 0
        self.count = 0

    def add(self, lines: TextBlock) -> None:
        """Store a block of lines."""
        encoding: _Encoding = "ascii" if lines.text.isascii() else "utf-16-le"
        data = lines.utf8 if encoding == "ascii" else lines.text.encode(encoding)
        self._file.write(data)
        count = 1 + lines.utf8.count(b"\n")
        self._blocks.append(_Block(self._bytes, len(data), encoding, count))
        self._bytes += len(data)
        self.count += count

    def add_all(self, blocks: Iterable[TextBlock]) -> int:
        """Store blocks of lines, and return the number of their lines."""
        before = self.count
        for block in blocks:
            self.add(block)
        return self.count - before

    def blocks(self) -> Iterator[str]:
        """Yield all lines, a block at a time, separated by newlines."""
        for block in self._blocks:
            yield self._read(block).decode(block.encoding)

    def labelled_blocks(self, labels: NDArray[np.uint8], wanted: Collection[int]) -> Iterator[tuple[int, str]]:
        """Yield the lines that have a wanted label, given the labels of all lines: a block for each label in turn."""
        start = 0
        for block in self._blocks:
            of_block: NDArray[np.uint8] = labels[start : start + block.lines]
            start += block.lines
            is_last: NDArray[np.bool_] = np.ones(block.lines, dtype=np.bool_)
            np.not_equal(of_block[:-1], of_block[1:], out=is_last[:-1])
            last_lines = np.flatnonzero(is_last)
            of_runs: NDArray[np.uint8] = of_block[last_lines]
            if np.isin(of_runs, [*wanted]).any():
                yield from _joined_runs(self._read(block), block.encoding, last_lines, of_runs, wanted)

    def _read(self, block: _Block) -> bytes:
        self._file.flush()
        return os.pread(self._file.fileno(), block.bytes, block.offset)


def _joined_runs(
    data: bytes,
    encoding: _Encoding,
    last_lines: NDArray[np.intp],
    labels: NDArray[np.uint8],
    wanted: Collection[int],
) -> Iterator[tuple[int, str]]:
    """Yield the lines of each wanted label, given the last line and the label of each run of lines of one label."""
    separator = "\n".encode(encoding)
    units: _Units = np.frombuffer(data, dtype=np.uint8 if encoding == "ascii" else "<u2")
    is_end: NDArray[np.bool_] = np.ones(len(units) + 1, dtype=np.bool_)
    np.equal(units, ord("\n"), out=is_end[:-1])
    ends: NDArray[np.intp] = np.flatnonzero(is_end)[last_lines] * len(separator)
    begins = np.zeros_like(ends)
    begins[1:] = ends[:-1] + len(separator)
    for label in wanted:
        is_of_label: NDArray[np.bool_] = labels == label
        begin_list: list[int] = begins[is_of_label].tolist()
        end_list: list[int] = ends[is_of_label].tolist()
        if parts := [data[begin:end] for begin, end in zip(begin_list, end_list, strict=True)]:
            yield label, separator.join(parts).decode(encoding)
