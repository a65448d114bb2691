"""Reads a corpus as normalized lines and splits it without overlap: by line or file, drawn by seed, or by position."""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain, compress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal, NamedTuple, assert_never

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

_CHUNK_BYTES = 1 << 20


class SplitRule(NamedTuple):
    """Rule for splitting a corpus; a fraction of 0 takes nothing, any other takes at least one line."""

    holdout_fraction: float
    test_fraction: float
    seed: int
    by: SplitBy = "line"


class SplitCorpus:
    """A corpus as the splits of a run; a validation or test corpus of its own replaces the split of the corpus.

    Reads every line once to assign it to a split, and keeps one byte per line in memory; `scratch` is the folder for a
    temporary file of 8 bytes per line. Raises CORPUS_EMPTY if there are fewer lines, or files, than splits, and
    INVALID_INPUT for a file that is not UTF-8.
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
        self._own_corpora: dict[Split, Path] = {}
        if validation is not None:
            self._own_corpora["validation"] = validation
            rule = rule._replace(holdout_fraction=0.0)
        if test is not None:
            self._own_corpora["test"] = test
            rule = rule._replace(test_fraction=0.0)
        for split, path in self._own_corpora.items():
            if next(line_blocks(path), None) is None:
                raise AppError(ErrorCode.CORPUS_EMPTY, f"The {split} corpus has only empty lines.")
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
        """Return the splits that are not empty, in the order of SPLITS."""
        return [s for i, s in enumerate(SPLITS) if s in self._own_corpora or i in self._labels]

    def blocks(self) -> Iterator[tuple[Split, list[str]]]:
        """Yield all lines in blocks of one split; the lines of a split come in the order of their corpus."""
        yield from labelled_blocks(self._corpus, self.normalization, self._labels)
        for split, path in self._own_corpora.items():
            for block in read_blocks(path, self.normalization):
                yield split, block

    def lines(self, split: Split) -> Iterator[str]:
        """Yield the lines of one split in the order of their corpus."""
        return chain.from_iterable(lines for block_split, lines in self.blocks() if block_split == split)


def read_blocks(path: Path, normalization: Normalization) -> Iterator[list[str]]:
    """Yield the normalized lines of a corpus (see `line_blocks`), many at a time."""
    for block in line_blocks(path):
        yield [normalized(line, normalization) for line in block]


def labelled_blocks(
    path: Path, normalization: Normalization, labels: NDArray[np.uint8]
) -> Iterator[tuple[Split, list[str]]]:
    """Yield the lines of a corpus in blocks of one split, given the label of each line.

    Raises DATA_NOT_FOUND if the corpus has another number of lines than labels.
    """
    start = 0
    for block in read_blocks(path, normalization):
        of_block: NDArray[np.uint8] = labels[start : start + len(block)]
        start += len(block)
        for label, split in enumerate(SPLITS):
            chosen: NDArray[np.bool_] = of_block == label
            lines = list(compress(block, chosen.tobytes()))
            if lines:
                yield split, lines
    if start != len(labels):
        raise AppError(ErrorCode.DATA_NOT_FOUND, "The corpus has changed while it was being read.")


def read_lines(path: Path, normalization: Normalization) -> Iterator[str]:
    """Yield the normalized lines of a corpus, one after another."""
    return chain.from_iterable(read_blocks(path, normalization))


def blocks(lines: Iterable[str], characters: int = 1 << 20) -> Iterator[list[str]]:
    """Gather lines into blocks of at least `characters` characters."""
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
    """Return the split of each line, an index of SPLITS: about fraction x lines of each split, drawn by seed.

    Identical lines belong to one split, so that no line of the test split is trained on. A text with fewer different
    lines than splits is cut by position instead. Raises CORPUS_EMPTY for fewer lines than splits.
    """
    keyed = blake2b(key=rule.seed.to_bytes(8, "little"), digest_size=8)
    with TemporaryFile(dir=scratch) as file:
        file.writelines(_digest(line, keyed) for line in lines)
        file.seek(0)
        # Keyed digests in ascending order are a seeded permutation of the lines in which equal lines are neighbours.
        digests: NDArray[np.uint64] = np.fromfile(file, dtype="<u8")
        digests.sort()
        sizes = _held_out_sizes(len(digests), rule)
        ends = _split_ends(digests, list(sizes.values()))
        if ends is None:
            return _labels_by_position(len(digests), rule)
        bounds: NDArray[np.uint64] = digests[np.array(ends, dtype=np.int64) - 1]
        del digests  # 8 bytes a line
        in_order = [*sizes, SPLITS.index("train")]
        order = np.array(in_order, dtype=np.uint8)
        labels: list[NDArray[np.uint8]] = []
        file.seek(0)
        while chunk := file.read(_CHUNK_BYTES):
            unsorted: NDArray[np.uint64] = np.frombuffer(chunk, dtype="<u8")
            label: NDArray[np.uint8] = order[np.searchsorted(bounds, unsorted)]
            labels.append(label)
        return np.concatenate(labels)


def _split_ends(digests: NDArray[np.uint64], sizes: Sequence[int]) -> list[int] | None:
    """Return where each held-out split ends in sorted digests: at the end of a group of equals nearest to its size.

    Each split has one group at least. Returns None if there are fewer groups than splits, training included.
    """

    def group_of(position: int) -> tuple[int, int]:
        digest: np.uint64 = digests[position]
        return int(np.searchsorted(digests, digest, "left")), int(np.searchsorted(digests, digest, "right"))

    last_ends = [len(digests)]  # leave so many groups to the splits that follow
    for _ in sizes:
        if last_ends[-1] == 0:
            return None
        last_ends.append(group_of(last_ends[-1] - 1)[0])
    if last_ends[-1] == 0:
        return None
    ends: list[int] = []
    end = 0
    for size, last_end in zip(sizes, last_ends[:0:-1], strict=True):
        wanted = min(end + size, last_end)
        below, above = group_of(wanted)
        nearest = below if wanted - below <= above - wanted else above
        end = min(max(nearest, group_of(end)[1]), last_end)
        ends.append(end)
    return ends


def _labels_by_position(count: int, rule: SplitRule) -> NDArray[np.uint8]:
    """Cut the held-out splits off the end of the corpus: train, validation, test, each of one line at least."""
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


def _digest(line: str, keyed: blake2b) -> bytes:
    digest = keyed.copy()
    digest.update(line.encode())
    return digest.digest()
