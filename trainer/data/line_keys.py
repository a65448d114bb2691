"""Keys of lines, by which a text is known again in another file, in another format or in another order.

The key of a line is a hash of its letters and signs in folded case and composed form (NFC), without white space. So
line ends, a byte order mark, blank lines, spaces, capitals and the form of accents do not change it. A line in other
words or with other punctuation has another key. This module imports no numpy and no xxhash, because the bot reads too.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b, sha256
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

from trainer.data.input_text import read_lines
from trainer.data.text import BOM, corpus_sha256, folded, line_blocks, with_newlines

_LENGTH_BITS = 10
_MAX_LENGTH = (1 << _LENGTH_BITS) - 1
"""The low bits of a key are the characters of its line, of a longer line this number; the others are a hash."""
TELLING_SHARE = 0.25
"""A text tells of another one if it has this share of its characters,"""
_MIN_LINES = 5
"""or if at least so many of its lines, and half of them, are lines of the other one."""
_PROBES = 64
"""A text with half of its lines in another one has none of so many, the smallest by hash, there once in 2^64."""
_MAX_KEPT = 4
_kept: dict[tuple[Path, str], "LineKeys"] = {}
"""The keys of the last corpora with their SHA-256, because each setting of a study is checked with the same ones."""


class LineKeys(NamedTuple):
    """The keys of the different lines of a text that are not blank."""

    keys: Sequence[int]
    """In ascending order."""
    characters: int
    """Those of the lines."""

    def tells_of(self, other: "LineKeys") -> bool:
        """Return True if losses on this text tell those on another one: if enough of its lines are here.

        That is a quarter of its characters; or five lines, if they are at least half of the lines here.
        """
        has_quarter = self.characters >= TELLING_SHARE * other.characters
        probed = self.keys if has_quarter else self.keys[:_PROBES]
        if not (has_quarter or len(self.keys) >= _MIN_LINES) or not any(_common(probed, other.keys)):
            return False
        common = [*_common(self.keys, other.keys)]
        is_half = len(common) >= _MIN_LINES and 2 * len(common) >= len(self.keys)
        return is_half or _characters(common) >= TELLING_SHARE * other.characters

    def written(self) -> bytes:
        """Return the bytes from which `stored_keys` reads the keys, in the byte order of this machine.

        That is little-endian on every machine for which PyTorch is published.
        """
        return array("Q", [self.characters, *self.keys]).tobytes()


class TextLines(NamedTuple):
    """A text that a model is measured on."""

    hashes: tuple[str, ...]
    """The SHA-256 of the files that it may come from: of a sent text with and without a newline at its end."""
    lines: LineKeys


def keys_of(lines: Iterable[str]) -> LineKeys:
    """Return the keys of lines."""
    plain = ("".join(folded(line).split()) for line in lines)
    keys = sorted({_key(line) for line in plain if line})
    return LineKeys(array("Q", keys), _characters(keys))


def lines_of_corpus(path: Path) -> TextLines:
    """Read a corpus; raises as `text_blocks` does. 100 MB take about ten seconds, the same text again one."""
    content = corpus_sha256(path)
    keys = _kept.get((path, content))
    if keys is None:
        keys = keys_of(line for block in line_blocks(path) for line in block)
        if len(_kept) == _MAX_KEPT:
            _kept.clear()
        _kept[path, content] = keys
    return TextLines((content,), keys)


def lines_of_file(path: Path) -> TextLines:
    """Read a file that is scored in portions, without the lines that cannot be read; raises as `read_lines` does."""
    if path.is_dir():
        return lines_of_corpus(path)
    lines = (line for line in read_lines(path) if isinstance(line, str))
    return TextLines((corpus_sha256(path),), keys_of(lines))


def lines_of_text(text: str) -> TextLines:
    """Return the lines of a text that was sent."""
    hashes = tuple(sha256(f"{text}{end}".encode()).hexdigest() for end in ("", "\n"))
    return TextLines(hashes, keys_of(with_newlines(text.removeprefix(BOM)).split("\n")))


def stored_keys(path: Path) -> LineKeys:
    """Map the keys of a stored file into memory."""
    with path.open("rb") as file:
        stored = memoryview(mmap(file.fileno(), 0, access=ACCESS_READ)).cast("Q")
    return LineKeys(stored[1:], stored[0])


def _key(line: str) -> int:
    digest = blake2b(line.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") & ~_MAX_LENGTH | min(len(line), _MAX_LENGTH)


def _characters(keys: Iterable[int]) -> int:
    return sum(key & _MAX_LENGTH for key in keys)


def _common(one: Sequence[int], other: Sequence[int]) -> Iterator[int]:
    """Yield the keys that are in both, which are looked up in the longer one."""
    few, many = sorted((one, other), key=len)
    for key in few:
        place = bisect_left(many, key)
        if place < len(many) and many[place] == key:
            yield key
