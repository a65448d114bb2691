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
    """Lines in a temporary file, which is deleted with this object."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file = TemporaryFile(dir=folder)
        finalize(self, self._file.close)
        self._blocks: list[_Block] = []
        self._bytes = 0
        self.count = 0

    def add(self, blocks: Iterable[TextBlock]) -> Iterator[bytes]:
        """Store blocks of lines, and yield each one in UTF-8 when it is stored."""
        for text, utf8 in blocks:
            encoding: _Encoding = "ascii" if text.isascii() else "utf-16-le"
            data = utf8 if encoding == "ascii" else text.encode(encoding)
            is_newline: NDArray[np.bool_] = np.frombuffer(utf8, dtype=np.uint8) == ord("\n")
            block = _Block(self._bytes, len(data), encoding, 1 + int(np.count_nonzero(is_newline)))
            self._file.write(data)
            self._blocks.append(block)
            self._bytes += block.bytes
            self.count += block.lines
            yield utf8

    def add_all(self, blocks: Iterable[TextBlock]) -> int:
        """Store blocks of lines, and return the number of their lines."""
        before = self.count
        for _ in self.add(blocks):
            pass
        return self.count - before

    def blocks(self) -> Iterator[str]:
        """Yield all lines, a block at a time, separated by newlines."""
        for block in self._blocks:
            yield self._read(block).decode(block.encoding)

    def labelled_blocks(self, labels: NDArray[np.uint8], wanted: Collection[int]) -> Iterator[tuple[int, str]]:
        """Yield the lines that have a wanted label, given the label of each line, in blocks of one label."""
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
