"""Read a corpus as a stream of normalized lines and split it by line, without overlap and by seed."""

from array import array
from collections.abc import Iterable, Iterator
from hashlib import blake2b, file_digest, sha256
from io import BufferedReader
from itertools import repeat
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import Normalization
from trainer.data.normalization import is_blank, normalized

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

_SUFFIXES = {".txt", ".text"}
_BOM = "\ufeff"


class SplitRule(NamedTuple):
    """How a corpus is cut; a fraction of 0 takes nothing, any other takes at least one line."""

    holdout_fraction: float
    test_fraction: float
    seed: int


class SplitCorpus:
    """A corpus as the three splits of a run; texts given for validation or test replace the cut.

    Reads every line once to decide where it belongs, and keeps eight bytes of it until that is done. Raises
    CORPUS_EMPTY where there are fewer lines than splits, INVALID_INPUT where a file is no UTF-8 text.
    """

    def __init__(
        self,
        corpus: Path,
        normalization: Normalization,
        rule: SplitRule,
        *,
        validation: Path | None = None,
        test: Path | None = None,
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
            if next(read_lines(path, normalization), None) is None:
                raise AppError(ErrorCode.CORPUS_EMPTY, f"The {split} text has no line that is not empty.")
        self._labels = split_labels(read_lines(corpus, normalization), rule)

    @property
    def splits(self) -> list[Split]:
        """The splits that there are, in the order of SPLITS."""
        return [s for i, s in enumerate(SPLITS) if s in self._given or i in self._labels]

    def labelled_lines(self) -> Iterator[tuple[Split, str]]:
        """Yield all lines of all splits in corpus order, each with its split."""
        lines = read_lines(self._corpus, self.normalization)
        for label, line in zip(self._labels.tobytes(), lines, strict=True):
            yield SPLITS[label], line
        for split, path in self._given.items():
            yield from zip(repeat(split), read_lines(path, self.normalization))

    def lines(self, split: Split) -> Iterator[str]:
        """Yield the lines of one split in corpus order."""
        return (line for label, line in self.labelled_lines() if label == split)


def read_lines(path: Path, normalization: Normalization) -> Iterator[str]:
    """Yield the normalized lines of a UTF-8 file, or of a folder's .txt and .text files in the order of their names.

    Lines end at \\n or \\r\\n only; every other separator is a character of its line. Blank lines are dropped.
    Raises INVALID_INPUT naming the file and the position of the first byte that is no text; a NUL is none.
    """
    for file in corpus_files(path):
        position = 0
        with _opened(file) as stream:
            for raw in stream:
                line = _decoded(raw, file.name, position).removesuffix("\n").removesuffix("\r")
                line = normalized(line.removeprefix(_BOM) if position == 0 else line, normalization)
                position += len(raw)
                if not is_blank(line):
                    yield line


def corpus_files(path: Path) -> list[Path]:
    """Return the files of a corpus; raises DATA_NOT_FOUND where there is none."""
    if not path.is_dir():
        return [path]
    files = sorted(f for f in path.iterdir() if f.suffix.lower() in _SUFFIXES)
    if not files:
        raise AppError(ErrorCode.DATA_NOT_FOUND, f"The corpus folder '{path.name}' has no .txt or .text file.")
    return files


def corpus_sha256(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder, that of its `sha256sum` listing in the order of the names."""
    if not path.is_dir():
        return _file_sha256(path)
    listing = "".join(f"{_file_sha256(file)}  {file.name}\n" for file in corpus_files(path))
    return sha256(listing.encode()).hexdigest()


def split_labels(lines: Iterable[str], rule: SplitRule) -> NDArray[np.uint8]:
    """Say of each line to which split it belongs: round(fraction x lines) of each, drawn by seed.

    Identical lines belong to one split, so no line of the test split was trained on; where that cannot be, because
    there are fewer different lines than splits, the end of the text is cut off by position.
    """
    key = rule.seed.to_bytes(8, "little")
    digests = np.frombuffer(array("Q", (_digest(line, key) for line in lines)), dtype=np.uint64)
    count = len(digests)
    wanted = [
        (SPLITS.index(split), max(1, round(fraction * count)))
        for split, fraction in (("test", rule.test_fraction), ("validation", rule.holdout_fraction))
        if fraction > 0
    ]
    needed = len(wanted) + 1
    if count < needed:
        raise AppError(
            ErrorCode.CORPUS_EMPTY,
            f"The corpus has {count} non-empty {'line' if count == 1 else 'lines'},"
            f" but this training needs at least {needed}: one for each split.",
        )
    # Keyed digests in ascending order are a seeded permutation of the lines in which equal lines are neighbours.
    ordered = np.sort(digests)
    begins_group: NDArray[np.bool_] = ordered[1:] != ordered[:-1]
    if 1 + np.count_nonzero(begins_group) < needed:
        ordered = np.arange(count, dtype=np.uint64)
        digests = ordered[::-1]
    labels = np.zeros(count, dtype=np.uint8)
    start = 0
    for remaining, (label, size) in zip(range(len(wanted), 0, -1), wanted, strict=True):
        end = _cut(ordered, start, size, remaining)
        lowest: np.uint64 = ordered[start]
        highest: np.uint64 = ordered[end - 1]
        labels[(digests >= lowest) & (digests <= highest)] = label
        start = end
    return labels


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


def _cut(ordered: NDArray[np.uint64], start: int, size: int, remaining: int) -> int:
    """Return the end of a split that begins at `start`: the group boundary nearest to its size.

    At least one group goes into it, and `remaining` groups stay for the splits after it.
    """
    first_end = _group(ordered, start)[1]
    last_end = len(ordered)
    for _ in range(remaining):
        last_end = _group(ordered, last_end - 1)[0]
    wanted = min(start + size, last_end)
    before, after = _group(ordered, wanted)
    nearest = before if wanted - before <= after - wanted else after
    return min(max(nearest, first_end), last_end)


def _group(ordered: NDArray[np.uint64], position: int) -> tuple[int, int]:
    """Return the first position of the equal lines around `position` and the one after their last."""
    value: np.uint64 = ordered[position]
    return int(np.searchsorted(ordered, value, "left")), int(np.searchsorted(ordered, value, "right"))


def _digest(line: str, key: bytes) -> int:
    return int.from_bytes(blake2b(line.encode(), digest_size=8, key=key).digest(), "little")


def _decoded(raw: bytes, name: str, position: int) -> str:
    nul = raw.find(b"\0")
    if nul >= 0:
        raise AppError(
            ErrorCode.INVALID_INPUT, f"'{name}' is no text file: it has a NUL byte at position {position + nul}."
        )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise AppError(
            ErrorCode.INVALID_INPUT,
            f"'{name}' is not UTF-8: the first wrong byte is at position {position + error.start}.",
        ) from None


def _opened(file: Path) -> BufferedReader:
    try:
        return file.open("rb")
    except OSError:
        raise AppError(ErrorCode.DATA_NOT_FOUND, f"The corpus file '{file.name}' cannot be read.") from None


def _file_sha256(file: Path) -> str:
    with _opened(file) as stream:
        return file_digest(stream, "sha256").hexdigest()
