"""Reads a corpus as normalized lines and splits it without overlap: by line or file, drawn by seed, or by position."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
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
_TRAIN, _VALIDATION, _TEST = range(len(SPLITS))

_DOTS = (
    "`normalization.lowercase: true` makes I to i, and İ to i with U+0307, but the text has ı or İ: for Turkish give"
    " `lowercase: tr`, for Azerbaijani `lowercase: az`."
)
_CHUNK_DIGESTS = 1 << 14
Digests: TypeAlias = "NDArray[np.uint64]"
"""Hashes of lines."""
_Sizes: TypeAlias = "NDArray[np.intp]"
_Mask: TypeAlias = "NDArray[np.bool_]"


class SplitRule(NamedTuple):
    """Rule for splitting a corpus; a fraction of 0 takes nothing, any other takes at least one line.

    The test split does not depend on `holdout_fraction`.
    """

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
        self.notes: tuple[str, ...] = ()
        match rule.by:
            case "line":
                digests = store_lines(self._lines, corpus, normalization, rule.seed)
                self._labels, self.notes = split_labels(digests, rule, scratch)
            case "file":
                files = (normalized_blocks(file, normalization, documents) for file in text_files(corpus))
                sizes = [self._lines.add_all(file) for file in files]
                self._labels = np.repeat(_labels_of_files(sizes, rule), sizes)
            case "position":
                blocks = normalized_blocks(corpus, normalization, documents)
                self._labels = _labels_by_position(self._lines.add_all(blocks), rule)
            case unknown:
                assert_never(unknown)
        self.notes += self._notes_on_letters(normalization)
        for split in self.splits if documents == "stream" else ():
            if not any(block.strip() for block in self.lines(split)):
                raise AppError(ErrorCode.CORPUS_EMPTY, f"The {split} split has only blank lines.")

    def _notes_on_letters(self, normalization: Normalization) -> tuple[str, ...]:
        """Return a note if the text in lower case has a letter of Turkish, or what became of one."""
        if normalization.lowercase is not True:
            return ()
        texts = [self._lines, *self._own_corpora.values()]
        is_turkish = any("ı" in block or "i\u0307" in block for text in texts for block in text.blocks())
        return (_DOTS,) if is_turkish else ()

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


class LineSplit(NamedTuple):
    """The split of each line, as an index of SPLITS, and notes on the split for a person."""

    labels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()


def split_labels(blocks: Iterable[Digests], rule: SplitRule, scratch: Path | None = None) -> LineSplit:
    """Draw about fraction x lines of each held-out split by seed, given the digests of the lines.

    Identical lines belong to one split, so that no line of the test split is trained on. A text with fewer different
    lines than splits is cut by position instead. Raises CORPUS_EMPTY for fewer lines than splits.
    """
    with TemporaryFile(dir=scratch) as file:
        for block in blocks:
            file.write(block.data)
        file.seek(0)
        groups = _EqualLines(np.fromfile(file, dtype=np.uint64))
        wanted = _held_out_sizes(groups.lines, rule)
        if groups.count <= len(wanted):
            note = (
                f"The corpus has only {counted(groups.count, 'different line')}, fewer than splits: they are cut by"
                " position and have lines in common."
            )
            return LineSplit(_labels_by_position(groups.lines, rule), (note,))
        for label, size in wanted.items():
            groups.fill(label, size)
        notes = tuple(groups.notes(max(wanted.values(), default=0)))
        labels = np.empty(groups.lines, dtype=np.uint8)
        groups.forget_lines()
        file.seek(0)
        for start in range(0, len(labels), _CHUNK_DIGESTS):
            in_order: Digests = np.fromfile(file, dtype=np.uint64, count=_CHUNK_DIGESTS)
            labels[start : start + _CHUNK_DIGESTS] = groups.labels(in_order)
        return LineSplit(labels, notes)


def line_digests(lines: bytes, seed: int) -> Digests:
    """Return the XXH3 hash of each line of a block in UTF-8, in 64 bits."""
    digests: Iterator[int] = map(xxh3_64_intdigest, lines.split(b"\n"), repeat(seed))
    return np.fromiter(digests, dtype=np.uint64)


class _Groups(NamedTuple):
    """Groups of equal lines in ascending order of their digests."""

    digests: Digests
    sizes: _Sizes
    are_free: _Mask
    """True for the groups that are in no held-out split yet."""


class _EqualLines:
    """The groups of equal lines of a text, each in one split; at first in training.

    Groups of one split that follow each other in the order of their digests are a segment. Sorts the digests.
    """

    def __init__(self, digests: Digests) -> None:
        digests.sort()
        self._digests, self.lines = digests, len(digests)
        self._ends_of_segments: Digests = digests[-1:].copy()
        self._labels_of_segments = np.full(min(1, len(digests)), _TRAIN, dtype=np.uint8)
        self.count = self._free = sum(len(groups.sizes) for groups in self._groups())

    def labels(self, digests: Digests) -> NDArray[np.uint8]:
        """Return the splits of lines."""
        found: NDArray[np.uint8] = self._labels_of_segments[np.searchsorted(self._ends_of_segments, digests)]
        return found

    def forget_lines(self) -> None:
        """Release 8 bytes a line; the splits stay known."""
        self._digests = self._digests[:0].copy()

    def fill(self, label: int, wanted: int) -> None:
        """Move groups with about so many lines from training to a held-out split, at least one group.

        First those in their order that still fit and have at most half of the lines of the split. If these are too few,
        the smallest others, as long as they bring the split nearer to its size. Training keeps a group. So does the
        validation split, which is filled after the test split: the smallest, where there are three groups.
        """
        reserved = self._smallest()[1] if label == _TEST and self.count > 2 else None
        if reserved is not None:
            self._move(_VALIDATION, partial(_are_of, reserved))
        room, most = wanted, self._free - 1

        def first_that_fit(groups: _Groups) -> _Mask:
            nonlocal room, most
            is_small: _Mask = groups.sizes <= max(1, wanted // 2)
            is_small &= groups.are_free
            taken = _that_fit(groups.sizes, np.flatnonzero(is_small), room, most)
            room, most = room - _total(groups.sizes[taken]), most - int(np.count_nonzero(taken))
            return taken

        self._move(label, first_that_fit)
        while room > 0 and self._free > 1:
            size, digest = self._smallest()
            if room < wanted and size >= 2 * room:
                break
            self._move(label, partial(_are_of, digest))
            room -= size
        if reserved is not None:
            self._move(_TRAIN, partial(_are_of, reserved))

    def notes(self, wanted: int) -> Iterator[str]:
        """Yield a note on the lines that are too frequent for the larger held-out split, which has so many lines."""
        different = lines = 0
        for groups in self._groups():
            is_frequent: _Mask = groups.sizes > max(1, wanted // 2)
            frequent: _Sizes = groups.sizes[groups.are_free & is_frequent]
            different, lines = different + len(frequent), lines + _total(frequent)
        if wanted and different:
            yield (
                f"{counted(different, 'line')} of the corpus, repeated {lines:,} times in all, would be more than half"
                " of a held-out split: training has all copies."
            )

    def _groups(self) -> Iterator[_Groups]:
        """Yield the groups, some at a time."""
        start = 0
        while start < len(self._digests):
            last: np.uint64 = self._digests[min(start + _CHUNK_DIGESTS, len(self._digests)) - 1]
            end = int(np.searchsorted(self._digests, last, "right"))
            lines: Digests = self._digests[start:end]
            ends: _Sizes = np.flatnonzero(_are_last(lines))
            digests: Digests = lines[ends]
            are_free: _Mask = self.labels(digests) == _TRAIN
            yield _Groups(digests, np.diff(ends, prepend=-1), are_free)
            start = end

    def _smallest(self) -> tuple[int, int]:
        """Return the size and the digest of the smallest group in training, of equal ones the last."""
        found: list[tuple[int, int]] = []
        for groups in self._groups():
            places: _Sizes = np.flatnonzero(groups.are_free)[::-1]
            if len(places):
                sizes: _Sizes = groups.sizes[places]
                smallest = int(np.argmin(sizes))
                size: np.intp = sizes[smallest]
                digest: np.uint64 = groups.digests[places][smallest]
                found.append((int(size), -int(digest)))
        lines, negative = min(found)
        return lines, -negative

    def _move(self, label: int, choose: Callable[[_Groups], _Mask]) -> None:
        """Move groups to a split."""
        ends, labels = list[Digests](), list[NDArray[np.uint8]]()
        self._free = 0
        for groups in self._groups():
            of_groups = self.labels(groups.digests)
            of_groups[choose(groups)] = label
            is_free: _Mask = of_groups == _TRAIN
            self._free += int(np.count_nonzero(is_free))
            are_last = _are_last(of_groups)
            ends.append(groups.digests[are_last])
            labels.append(of_groups[are_last])
        self._ends_of_segments, self._labels_of_segments = np.concatenate(ends), np.concatenate(labels)


def _are_of(digest: int, groups: _Groups) -> _Mask:
    found: _Mask = groups.digests == np.uint64(digest)
    return found


def _total(sizes: _Sizes) -> int:
    total: np.intp = sizes.sum()
    return int(total)


def _are_last(values: "NDArray[np.uint64 | np.uint8]") -> _Mask:
    """Return True for each value that the next one does not repeat."""
    last: _Mask = np.ones(len(values), dtype=np.bool_)
    np.not_equal(values[1:], values[:-1], out=last[:-1])
    return last


def _that_fit(sizes: _Sizes, places: _Sizes, room: int, most: int) -> _Mask:
    """Return True for at most so many of the groups at some places: each fits into the room that those before leave."""
    taken: _Mask = np.zeros(len(sizes), dtype=np.bool_)
    while most > 0 and len(places):
        filled: _Sizes = np.cumsum(sizes[places])
        number = min(most, int(np.searchsorted(filled, room, "right")))
        taken[places[:number]] = True
        room, most = room - _total(sizes[places[:number]]), most - number
        do_fit: _Mask = sizes[places] <= room
        do_fit[:number] = False
        places = places[do_fit]
    return taken


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

    In an order drawn by seed, a held-out split takes each file that brings it nearer to its wanted size; the test split
    takes files first, but not the smallest, so that the validation split is near its size, too.
    """
    generator = np.random.Generator(np.random.PCG64(rule.seed))
    drawn: list[int] = generator.permutation(len(sizes)).tolist()
    files = [file for file in drawn if sizes[file]]
    wanted = _held_out_sizes(sum(sizes), rule)
    if len(files) <= len(wanted):
        raise AppError(
            ErrorCode.CORPUS_EMPTY,
            f"`split_by` is 'file', and the corpus has {counted(len(files), 'file')} with text,"
            f" but this training needs at least {len(wanted) + 1}: one for each split.",
        )
    labels = [_TRAIN for _ in sizes]
    for label, lines in wanted.items():
        free = [file for file in files if labels[file] == _TRAIN]
        reserved = min(reversed(free), key=sizes.__getitem__) if label == _TEST and len(free) > 2 else None
        free = [file for file in free if file != reserved]
        taken, room = list[int](), lines
        for file in free:
            if len(taken) < len(free) - 1 and abs(room - sizes[file]) < room:
                taken.append(file)
                room -= sizes[file]
        for file in taken or [min(free, key=sizes.__getitem__)]:
            labels[file] = label
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
