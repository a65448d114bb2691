"""A corpus as normalized lines, split without overlap: by line or by file as a seed draws them, or by position."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate, chain, compress
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Literal, NamedTuple, assert_never
from unicodedata import is_normalized

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import Normalization
from trainer.contracts.wording import counted
from trainer.data.normalization import normalized
from trainer.data.text import line_blocks, text_files

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SplitBy = Literal["line", "file", "position"]

_PIECE_BYTES = 1 << 20


class SplitRule(NamedTuple):
    """How a corpus is cut; a fraction of 0 takes nothing, any other takes at least one line."""

    holdout_fraction: float
    test_fraction: float
    seed: int
    by: SplitBy = "line"

    def __repr__(self) -> str:
        """The ids of tokenizers hold this, so a cut by line reads as it did when there was no other."""
        fields = [f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True)]
        return f"SplitRule({', '.join(fields[:-1] if self.by == 'line' else fields)})"


class SplitCorpus:
    """A corpus as the three splits of a run; texts given for validation or test replace the cut.

    Reads every line once to decide where it belongs, and remembers a byte of it; `scratch` is a folder for what that
    takes on disk meanwhile. Raises CORPUS_EMPTY where there are fewer lines, or files, than splits, and INVALID_INPUT
    where a file is no UTF-8 text.
    """

    def __init__(
        self,
        corpus: Path,
        normalization: Normalization,
        rule: SplitRule,
        *,
        validation: Path | None = None,
        test: Path | None = None,
        scratch: Path | None = None,
    ) -> None:
        self.normalization = normalization
        self._corpus = corpus
        self._given: dict[Split, Path] = {}
        if validation is not None:
            self._given["validation"] = validation
            rule = rule._replace(holdout_fraction=0.0)
        if test is not None:
            self._given["test"] = test
            rule = rule._replace(test_fraction=0.0)
        for split, path in self._given.items():
            if next(line_blocks(path), None) is None:
                raise AppError(ErrorCode.CORPUS_EMPTY, f"The {split} text has no line that is not empty.")
        match rule.by:
            case "line":
                self._labels = split_labels(read_lines(corpus, normalization), rule, scratch)
            case "file":
                sizes = [sum(map(len, line_blocks(file))) for file in text_files(corpus)]
                self._labels = np.repeat(_labels_of_files(sizes, rule), sizes)
            case "position":
                self._labels = _labels_by_position(sum(map(len, line_blocks(corpus))), rule)
            case unknown:
                assert_never(unknown)

    @property
    def splits(self) -> list[Split]:
        """The splits that there are, in the order of SPLITS."""
        return [s for i, s in enumerate(SPLITS) if s in self._given or i in self._labels]

    def blocks(self) -> Iterator[tuple[Split, list[str]]]:
        """Yield all lines, many of a split at a time; those of one split come in the order of their text."""
        start = 0
        for block in read_blocks(self._corpus, self.normalization):
            labels: NDArray[np.uint8] = self._labels[start : start + len(block)]
            start += len(block)
            for label, split in enumerate(SPLITS):
                chosen: NDArray[np.bool_] = labels == label
                lines = list(compress(block, chosen.tobytes()))
                if lines:
                    yield split, lines
        if start != len(self._labels):
            raise AppError(ErrorCode.DATA_NOT_FOUND, "The corpus has changed while it was being read.")
        for split, path in self._given.items():
            for block in read_blocks(path, self.normalization):
                yield split, block

    def lines(self, split: Split) -> Iterator[str]:
        """Yield the lines of one split in the order of their text."""
        return chain.from_iterable(lines for of_split, lines in self.blocks() if of_split == split)


def read_blocks(path: Path, normalization: Normalization) -> Iterator[list[str]]:
    """Yield the normalized lines of a corpus (see `line_blocks`), many at a time."""
    form, lowercase = normalization.form, normalization.lowercase
    for block in line_blocks(path):
        # most lines are normalized already, and a call for each would take longer than that question
        yield [
            line if is_normalized(form, line) and not lowercase else normalized(line, normalization) for line in block
        ]


def read_lines(path: Path, normalization: Normalization) -> Iterator[str]:
    """Yield the normalized lines of a corpus, one after another."""
    return chain.from_iterable(read_blocks(path, normalization))


def blocks(lines: Iterable[str], characters: int = 1 << 20) -> Iterator[list[str]]:
    """Gather lines into lists of about so many characters, for work that is done on many at a time."""
    block: list[str] = []
    size = 0
    for line in lines:
        block.append(line)
        size += len(line)
        if size >= characters:
            yield block
            block, size = [], 0
    if block:
        yield block


def split_labels(lines: Iterable[str], rule: SplitRule, scratch: Path | None = None) -> NDArray[np.uint8]:
    """Say of each line to which split it belongs: round(fraction x lines) of each, drawn by seed.

    Identical lines belong to one split, so no line of the test split was trained on; where that cannot be, because
    there are fewer different lines than splits, the end of the text is cut off by position.
    """
    keyed = blake2b(key=rule.seed.to_bytes(8, "little"), digest_size=8)
    with TemporaryFile(dir=scratch) as file:
        file.writelines(_digest(line, keyed) for line in lines)
        digests = _Digests(file)
        wanted = _wanted(digests.count, rule)
        if not digests.have_groups(len(wanted) + 1):
            return _labels_by_position(digests.count, rule)
        # Keyed digests in ascending order are a seeded permutation of the lines in which equal lines are neighbours.
        highest: list[int] = []
        start = 0
        for remaining, size in zip(range(len(wanted), 0, -1), wanted.values(), strict=True):
            start = _cut(digests, start, size, remaining)
            highest.append(digests.group(start - 1).digest)
        bounds = np.array(highest, dtype=np.uint64)
        in_order = [*wanted, SPLITS.index("train")]
        order = np.array(in_order, dtype=np.uint8)
        labels = np.empty(digests.count, dtype=np.uint8)
        done = 0
        for piece in digests.pieces():
            labels[done : done + len(piece)] = order[np.searchsorted(bounds, piece)]
            done += len(piece)
    return labels


class _Group(NamedTuple):
    """Equal digests, and their half-open range of positions."""

    digest: int
    start: int
    end: int


class _Digests:
    """A file of digests in ascending order, although it is not sorted and stays on disk.

    Only how many digests begin with each of the 65536 pairs of bytes is in memory.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        beginnings = np.zeros(1 << 16, dtype=np.int64)
        for piece in self.pieces():
            beginnings += np.bincount(_beginning(piece), minlength=len(beginnings))
        self._ends: NDArray[np.int64] = np.cumsum(beginnings)
        self.count = int(np.sum(beginnings))

    def pieces(self) -> Iterator[NDArray[np.uint64]]:
        """Yield all digests as they stand in the file, many at a time."""
        self._file.seek(0)
        while data := self._file.read(_PIECE_BYTES):
            digests: NDArray[np.uint64] = np.frombuffer(data, dtype="<u8")
            yield digests

    def group(self, position: int) -> _Group:
        """Return the equal digests around a position."""
        beginning = int(np.searchsorted(self._ends, position, "right"))
        alike: Counter[int] = Counter()
        for piece in self.pieces():
            begins_so: NDArray[np.bool_] = _beginning(piece) == beginning
            matching: NDArray[np.uint64] = piece[begins_so]
            digests, counts = np.unique(matching, return_counts=True)
            values: list[int] = digests.tolist()
            times: list[int] = counts.tolist()
            alike.update(dict(zip(values, times, strict=True)))
        ordered = sorted(alike)
        upper: np.int64 = self._ends[beginning]
        before = int(upper) - alike.total()
        ends = [before + count for count in accumulate(alike[digest] for digest in ordered)]
        number = bisect_right(ends, position)
        return _Group(ordered[number], ends[number] - alike[ordered[number]], ends[number])

    def have_groups(self, number: int) -> bool:
        """Whether there are at least so many different digests."""
        position = 0
        for _ in range(number):
            if position == self.count:
                return False
            position = self.group(position).end
        return True


def _cut(digests: _Digests, start: int, size: int, remaining: int) -> int:
    """Return the end of a split that begins at `start`: the end of a group that is nearest to its size.

    At least one group goes into it, and `remaining` groups stay for the splits after it.
    """
    first_end = digests.group(start).end
    last_end = digests.count
    for _ in range(remaining):
        last_end = digests.group(last_end - 1).start
    wanted = min(start + size, last_end)
    around = digests.group(wanted)
    nearest = around.start if wanted - around.start <= around.end - wanted else around.end
    return min(max(nearest, first_end), last_end)


def _labels_by_position(count: int, rule: SplitRule) -> NDArray[np.uint8]:
    """Cut the held-out splits off the end of the text: train, validation, test, each of one line at least."""
    labels = np.zeros(count, dtype=np.uint8)
    wanted = _wanted(count, rule)
    end = count
    for remaining, (label, size) in zip(range(len(wanted), 0, -1), wanted.items(), strict=True):
        start = max(end - size, remaining)
        labels[start:end] = label
        end = start
    return labels


def _labels_of_files(sizes: Sequence[int], rule: SplitRule) -> NDArray[np.uint8]:
    """Say of each file, by its lines, to which split it belongs.

    In an order drawn by seed, a file goes to the emptiest held-out split that it brings nearer to its wanted size.
    """
    generator = np.random.Generator(np.random.PCG64(rule.seed))
    drawn: list[int] = generator.permutation(len(sizes)).tolist()
    files = [file for file in drawn if sizes[file]]
    wanted = _wanted(sum(sizes), rule)
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


def _wanted(count: int, rule: SplitRule) -> dict[int, int]:
    """Return how many of the lines each held-out split is to have, by its label and in the order of being cut."""
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


def _beginning(digests: NDArray[np.uint64]) -> NDArray[np.int64]:
    shifted: NDArray[np.uint64] = digests >> np.uint64(48)
    return shifted.astype(np.int64)


def _digest(line: str, keyed: blake2b) -> bytes:
    digest = keyed.copy()
    digest.update(line.encode())
    return digest.digest()
