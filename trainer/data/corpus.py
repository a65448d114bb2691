"""Reads a corpus as normalized lines and splits it without overlap: by line or file, drawn by seed, or by position."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal, NamedTuple, TypeAlias, assert_never
from weakref import finalize

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import DocumentMode, Normalization, SplitBy
from trainer.contracts.wording import counted
from trainer.data.normalization import normalized_lines
from trainer.data.text import TextBlock, text_blocks, text_files

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


Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

_CHUNK_DIGESTS = 1 << 17
Digests: TypeAlias = "NDArray[np.uint64]"
"""Hashes of lines."""


class SplitRule(NamedTuple):
    """Rule for splitting a corpus; a fraction of 0 takes nothing, any other takes at least one line."""

    holdout_fraction: float
    test_fraction: float
    seed: int
    by: SplitBy = "line"


class SplitCorpus:
    """A corpus as the splits of a run; a validation or test corpus of its own replaces the split of the corpus.

    Reads the corpora once. `scratch` is the folder for temporary files: the normalized lines, and 8 bytes per line.
    The splits of a stream keep their blank lines; its lines are not drawn by seed. Raises CORPUS_EMPTY if there are
    fewer lines, or files, than splits, or a split without text, and INVALID_INPUT for a file that is not UTF-8.
    """

    def __init__(
        self,
        corpus: Path,
        normalization: Normalization,
        rule: SplitRule,
        *,
        documents: DocumentMode = "line",
        validation: Path | None = None,
        test: Path | None = None,
        scratch: Path | None = None,
    ) -> None:
        own_corpora: dict[Split, Path] = {}
        if validation is not None:
            own_corpora["validation"] = validation
            rule = rule._replace(holdout_fraction=0.0)
        if test is not None:
            own_corpora["test"] = test
            rule = rule._replace(test_fraction=0.0)
        self._own_corpora: dict[Split, StoredLines] = {}
        for split, path in own_corpora.items():
            lines = self._own_corpora[split] = StoredLines(scratch)
            lines.add_all(normalized_blocks(path, normalization, documents))
            if not lines.count:
                raise AppError(ErrorCode.CORPUS_EMPTY, f"The {split} corpus has only empty lines.")
        self._lines = StoredLines(scratch)
        match rule.by:
            case "line":
                digests = store_lines(self._lines, corpus, normalization, rule.seed)
                self._labels = split_labels(digests, rule, scratch)
            case "file":
                files = (normalized_blocks(file, normalization, documents) for file in text_files(corpus))
                sizes = [self._lines.add_all(file) for file in files]
                self._labels = np.repeat(_labels_of_files(sizes, rule), sizes)
            case "position":
                blocks = normalized_blocks(corpus, normalization, documents)
                self._labels = _labels_by_position(self._lines.add_all(blocks), rule)
            case unknown:
                assert_never(unknown)
        for split in self.splits if documents == "stream" else ():
            if not any(block.strip() for block in self.lines(split)):
                raise AppError(ErrorCode.CORPUS_EMPTY, f"The {split} split has only blank lines.")

    @property
    def splits(self) -> list[Split]:
        """Return the splits that are not empty, in the order of SPLITS."""
        return [s for i, s in enumerate(SPLITS) if s in self._own_corpora or i in self._labels]

    def blocks(self, splits: Sequence[Split]) -> Iterator[tuple[Split, str]]:
        """Yield the lines of some splits, in the order of their corpora, in blocks of one split.

        Newlines separate the lines of a block.
        """
        if not self._own_corpora.keys() >= set(splits):
            wanted = [SPLITS.index(split) for split in splits]
            for label, lines in self._lines.labelled_blocks(self._labels, wanted):
                yield SPLITS[label], lines
        for split in self._own_corpora.keys() & splits:
            for lines in self._own_corpora[split].blocks():
                yield split, lines

    def lines(self, split: Split) -> Iterator[str]:
        """Yield the lines of one split in blocks."""
        return (lines for _, lines in self.blocks([split]))


def read_blocks(path: Path, normalization: Normalization, documents: DocumentMode = "line") -> Iterator[str]:
    """Yield the normalized lines of a corpus (see `text_blocks`), many at a time, separated by newlines."""
    return (block.text for block in normalized_blocks(path, normalization, documents))


def normalized_blocks(
    path: Path, normalization: Normalization, documents: DocumentMode = "line"
) -> Iterator[TextBlock]:
    """Yield the normalized lines of a corpus (see `text_blocks`)."""
    return (_normalized(block, normalization) for block in text_blocks(path, documents))


def _normalized(block: TextBlock, normalization: Normalization) -> TextBlock:
    text = normalized_lines(block.text, normalization)
    return block if text == block.text else TextBlock(text, text.encode())


def store_lines(lines: StoredLines, path: Path, normalization: Normalization, seed: int) -> Iterator[Digests]:
    """Store the normalized lines of a corpus; yield the digests of each block of lines when it is stored."""
    for block in normalized_blocks(path, normalization):
        lines.add(block)
        yield line_digests(block.utf8, seed)


def read_lines(path: Path, normalization: Normalization) -> Iterator[str]:
    """Yield the normalized lines of a corpus, one after another."""
    return chain.from_iterable(block.split("\n") for block in read_blocks(path, normalization))


def split_labels(blocks: Iterable[Digests], rule: SplitRule, scratch: Path | None = None) -> NDArray[np.uint8]:
    """Return the split of each line, an index of SPLITS: about fraction x lines of each split, drawn by seed.

    `blocks` are the digests of the lines. Identical lines belong to one split, so that no line of the test split is
    trained on. A text with fewer different lines than splits is cut by position instead. Raises CORPUS_EMPTY for fewer
    lines than splits.
    """
    with TemporaryFile(dir=scratch) as file:
        for block in blocks:
            file.write(block.data)
        file.seek(0)
        digests: Digests = np.fromfile(file, dtype=np.uint64)
        sizes = _held_out_sizes(len(digests), rule)
        bounds = _split_bounds(digests, list(sizes.values()))
        if bounds is None:
            return _labels_by_position(len(digests), rule)
        labels_in_order = [*sizes, SPLITS.index("train")]
        order = np.array(labels_in_order, dtype=np.uint8)
        file.seek(0)
        labels = np.empty(len(digests), dtype=np.uint8)
        del digests  # 8 bytes a line
        for start in range(0, len(labels), _CHUNK_DIGESTS):
            in_order: Digests = np.fromfile(file, dtype=np.uint64, count=_CHUNK_DIGESTS)
            labels[start : start + _CHUNK_DIGESTS] = order[np.searchsorted(bounds, in_order)]
        return labels


def line_digests(lines: bytes, seed: int) -> Digests:
    """Return the XXH3 hash of each line of a block in UTF-8, in 64 bits."""
    digests: Iterator[int] = map(xxh3_64_intdigest, lines.split(b"\n"), repeat(seed))
    return np.fromiter(digests, dtype=np.uint64)


def _split_bounds(digests: Digests, sizes: Sequence[int]) -> NDArray[np.uint64] | None:
    """Return the last digest of each held-out split, where all digests are in ascending order.

    Equal digests are a group; a split ends at the end of the group nearest to its size, and has one group at least.
    Returns None if there are fewer groups than splits, training included. Sorts the digests.
    """
    digests.sort()

    def digest_at(position: int) -> np.uint64:
        digest: np.uint64 = digests[position]
        return digest

    def group_of(position: int) -> tuple[int, int]:
        digest = digest_at(position)
        return int(np.searchsorted(digests, digest)), int(np.searchsorted(digests, digest, "right"))

    last_ends = [len(digests)]  # leave so many groups to the splits that follow
    for _ in sizes:
        if last_ends[-1] == 0:
            return None
        last_ends.append(group_of(last_ends[-1] - 1)[0])
    if last_ends[-1] == 0:
        return None
    bounds: list[np.uint64] = []
    end = 0
    for size, last_end in zip(sizes, last_ends[:0:-1], strict=True):
        wanted = min(end + size, last_end)
        below, above = group_of(wanted)
        nearest = below if wanted - below <= above - wanted else above
        end = min(max(nearest, group_of(end)[1]), last_end)
        bounds.append(digest_at(end - 1))
    return np.array(bounds, dtype=np.uint64)


def _labels_by_position(count: int, rule: SplitRule) -> NDArray[np.uint8]:
    """Cut the held-out splits off the end of the corpus by lines: train, validation, test, each of one at least."""
    labels = np.zeros(count, dtype=np.uint8)
    wanted = _held_out_sizes(count, rule)
    end = count
    for remaining, (label, size) in zip(range(len(wanted), 0, -1), wanted.items(), strict=True):
        start = max(end - size, remaining)
        labels[start:end] = label
        end = start
    return labels


def _labels_of_files(sizes: Sequence[int], rule: SplitRule) -> NDArray[np.uint8]:
    """Assign each file, given its number of lines, to a split.

    In an order drawn by seed, a file goes to the emptiest held-out split that it brings nearer to its wanted size.
    """
    generator = np.random.Generator(np.random.PCG64(rule.seed))
    drawn: list[int] = generator.permutation(len(sizes)).tolist()
    files = [file for file in drawn if sizes[file]]
    wanted = _held_out_sizes(sum(sizes), rule)
    spare = len(files) - len(wanted) - 1
    if spare < 0:
        raise AppError(
            ErrorCode.CORPUS_EMPTY,
            f"`split_by` is 'file', and the corpus has {counted(len(files), 'file')} with text,"
            f" but this training needs at least {len(wanted) + 1}: one for each split.",
        )
    labels = [SPLITS.index("train") for _ in sizes]
    missing = dict(wanted)
    for file in files:
        nearer = [
            (lines / wanted[label], label) for label, lines in missing.items() if abs(lines - sizes[file]) < lines
        ]
        share, label = max(nearer, default=(0.0, 0))
        if share == 1 or (share > 0 and spare > 0):
            spare -= share < 1
            missing[label] -= sizes[file]
            labels[file] = label
    for label in wanted:
        if missing[label] == wanted[label]:
            _, smallest = min((sizes[file], place) for place, file in enumerate(files) if not labels[file])
            labels[files[smallest]] = label
    return np.array(labels, dtype=np.uint8)


def _held_out_sizes(count: int, rule: SplitRule) -> dict[int, int]:
    """Return the wanted lines of each held-out split by its label, in the order of cutting.

    Raises CORPUS_EMPTY for fewer lines than splits.
    """
    fractions = {"test": rule.test_fraction, "validation": rule.holdout_fraction}
    wanted = {SPLITS.index(s): max(1, round(f * count)) for s, f in fractions.items() if f > 0}
    needed = len(wanted) + 1
    if count < needed:
        raise AppError(
            ErrorCode.CORPUS_EMPTY,
            f"The corpus has {counted(count, 'non-empty line')},"
            f" but this training needs at least {needed}: one for each split.",
        )
    return wanted
