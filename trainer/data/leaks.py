"""Measures leaks: the shares of held-out lines and n-grams that stand in what a run and its ancestors have read.

Held-out lines and n-grams are compared by hashes of 64 bits. Of more than 4,096 of a kind in a split, a sample is
drawn by seed. Training and validation text is read once, in chunks of about 32,000 characters. An n-gram lies in one
line; in a stream in one chunk. N-grams of characters are for text with few n-grams of words: they take twice the time.
"""

import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.base import changed
from trainer.contracts.runs import HELD_OUT_SPLITS, LEAK_CHARACTERS, LEAK_LETTERS, LEAK_WORDS, Leak, Leaks, Shares
from trainer.contracts.tokenizers import DocumentMode
from trainer.data.corpus import Split, SplitCorpus
from trainer.data.run_corpora import ReadText
from trainer.data.text import folded

MAX_SAMPLE = 1 << 12
"""Most held-out lines or n-grams of one kind that are looked up, for each split."""
_READ_SPLITS: tuple[Split, ...] = ("train", "validation")
_KINDS = 4
"""Lines, lines without case and signs, n-grams of words, and n-grams of characters."""
_FILTER_SLOTS = 32
"""Slots of the filter for each hash, so that few other hashes pass it."""
_MAX_STRETCH = 24
"""Words of a line that is looked for within a running text; n-grams find longer ones."""
_CHUNK_CHARACTERS = 1 << 15
_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xD1342543DE82EF95)
"""Odd, so that they have inverses modulo 2^64: of characters, and of words."""
_MIXER = np.uint64(0xBF58476D1CE4E5B9)
_JOINERS, _TONES = "\u200c\u200d", "˥˦˧˨˩"
_NEW, _SPACE, _SIGN, _LETTER, _MARK = range(5)
"""Kinds of characters in the comparison of words."""
_SPACES = "".join(chr(code) for code in range(0x3001) if chr(code).isspace())

Hashes: TypeAlias = "NDArray[np.uint64]"
_Flags: TypeAlias = "NDArray[np.bool_]"
_Places: TypeAlias = "NDArray[np.intp]"
_Numbers: TypeAlias = "NDArray[np.float64]"
_Units: TypeAlias = "NDArray[np.uint32]"
_NONE: Hashes = np.empty(0, dtype=np.uint64)
_NOTHING_READ = ReadText()


def measure_leaks(
    corpus: SplitCorpus, documents: DocumentMode, seed: int, ancestors: ReadText = _NOTHING_READ
) -> Leaks:
    """Measure how much of each held-out split stands in the training split, and in the text that ancestors have read.

    Of the test split also how much stands in the validation splits.
    """
    held_out: list[Split] = [split for split in HELD_OUT_SPLITS if split in corpus.splits]
    read = chain(corpus.blocks(_READ_SPLITS), ancestors.blocks())
    return _measured(corpus.blocks(held_out), read, documents, seed, ancestors) if held_out else {}


def measure_leak(text: Iterable[str], read: ReadText, documents: DocumentMode, seed: int) -> Leak:
    """Measure how much of a text, in blocks of normalized lines, stands in what a run and its ancestors have read."""
    blocks: Iterable[tuple[Split, str]] = (("test", lines) for lines in text)
    return _measured(blocks, read.blocks(), documents, seed, read)["test"]


def measure_running_leak(texts: Sequence[str], read: ReadText, documents: DocumentMode, seed: int) -> Leak:
    """Measure as `measure_leak` how much of running texts was read, and how much of them are complete lines of it.

    A running text is longer than the lines of most training texts, so that no line and few n-grams of it stand there.
    """
    leak = measure_leak(texts, read, documents, seed)
    covered = _covered(texts, read.blocks())
    validation = None if leak.validation is None else changed(leak.validation, covered=covered["validation"])
    return changed(leak, covered=covered["train"], validation=validation)


def _covered(texts: Sequence[str], read: Iterable[tuple[Split, str]]) -> Mapping[Split, float | None]:
    """Return the share of the words of texts that are in them as complete lines of training and validation text."""
    hasher = _Hasher("line")
    running = [hasher.stretches(text) for text in texts]
    table: Hashes = np.unique(np.concatenate([one.hashes for text in running for one in text.stretches]))
    searches: dict[Split, _Search] = {split: _Search(table) for split in _READ_SPLITS}
    for split, lines in read:
        for chunk in _chunks(lines):
            searches[split].look_up(hasher.plain_lines(chunk))
    shares: dict[Split, float | None] = {}
    for split, search in searches.items():
        n_words = n_covered = 0
        for text in running:
            is_covered: _Flags = np.zeros(text.n_words, dtype=np.bool_)
            for size, one in enumerate(text.stretches, 1):
                is_missing: _Flags = search.is_missing[np.searchsorted(table, one.hashes)]
                found: list[int] = one.first[~is_missing].tolist()
                for first in found:
                    is_covered[first : first + size] = True
            n_words, n_covered = n_words + text.n_words, n_covered + int(np.count_nonzero(is_covered))
        shares[split] = n_covered / n_words if n_words else None
    return shares


def _measured(
    text: Iterable[tuple[Split, str]],
    read: Iterable[tuple[Split, str]],
    documents: DocumentMode,
    seed: int,
    ancestors: ReadText,
) -> Leaks:
    """Look up samples of held-out text in training and validation text."""
    hasher = _Hasher(documents)
    samples = _drawn(text, hasher, seed)
    tables: list[Hashes] = []
    for kind in range(_KINDS):
        table: Hashes = np.unique(np.concatenate([of_split[kind] for of_split in samples.values()]))
        tables.append(table)
    searches: dict[Split, list[_Search]] = {split: [_Search(table) for table in tables] for split in _READ_SPLITS}
    for split, lines in read:
        for chunk in _chunks(lines):
            for search, hashes in zip(searches[split], hasher.hashes(chunk, is_training=True), strict=True):
                search.look_up(hashes)
    leaks: Leaks = {}
    for split in HELD_OUT_SPLITS:
        if split in samples:
            in_training, in_validation = (_shares(samples[split], tables, each) for each in searches.values())
            leaks[split] = Leak(
                lines=in_training.lines,
                plain_lines=in_training.plain_lines,
                words=in_training.words,
                characters=in_training.characters,
                ancestors=ancestors.ancestors,
                unsearched=ancestors.missing,
                validation=None if split == "validation" else in_validation,
            )
    return leaks


def _shares(sample: Sequence[Hashes], tables: Sequence[Hashes], searches: Sequence["_Search"]) -> Shares:
    """Return the shares of a sample's lines and n-grams of each kind that were found."""
    lines, plain_lines, words, characters = (
        _share(one, table, ~search.is_missing) for one, table, search in zip(sample, tables, searches, strict=True)
    )
    return Shares(lines=lines or 0.0, plain_lines=plain_lines, words=words, characters=characters)


def _drawn(text: Iterable[tuple[Split, str]], hasher: "_Hasher", seed: int) -> dict[Split, list[Hashes]]:
    """Draw hashes of each kind from each split of a text."""
    samples: dict[Split, list[_Sample]] = {}
    for split, lines in text:
        of_split = samples.setdefault(split, [_Sample(seed) for _ in range(_KINDS)])
        for chunk in _chunks(lines):
            for sample, hashes in zip(of_split, hasher.hashes(chunk, is_training=False), strict=True):
                sample.add(hashes)
    drawn = {split: [sample.drawn() for sample in of_split] for split, of_split in samples.items()}
    if all(len(words) == MAX_SAMPLE for *_, words, _ in drawn.values()):
        hasher.has_characters = False
        return {split: [*of_split, _NONE] for split, (*of_split, _) in drawn.items()}
    return drawn


def _share(sample: Hashes, table: Hashes, is_found: _Flags) -> float | None:
    """Return the share of a sample that was found; None for an empty sample."""
    if not len(sample):
        return None
    of_sample: _Flags = is_found[np.searchsorted(table, sample)]
    return int(np.count_nonzero(of_sample)) / len(sample)


def _chunks(lines: str) -> Iterator[str]:
    start = 0
    while start < len(lines):
        end = lines.find("\n", start + _CHUNK_CHARACTERS)
        end = len(lines) if end < 0 else end
        yield lines[start:end]
        start = end + 1


class _Sample:
    """Hashes drawn uniformly from all that are added: those with the smallest random numbers."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self._numbers: _Numbers = np.empty(0)
        self._limit = 1.0
        self._hashes: Hashes = np.empty(0, dtype=np.uint64)

    def add(self, hashes: Hashes) -> None:
        numbers: _Numbers = self._generator.random(len(hashes))
        is_small: _Flags = numbers < self._limit
        small: _Numbers = numbers[is_small]
        drawn: Hashes = hashes[is_small]
        self._numbers, self._hashes = np.append(self._numbers, small), np.append(self._hashes, drawn)
        if len(self._hashes) > 2 * MAX_SAMPLE:
            self.drawn()

    def drawn(self) -> Hashes:
        """Return the hashes drawn from all that were added so far."""
        if len(self._hashes) > MAX_SAMPLE:
            smallest: _Places = np.argpartition(self._numbers, MAX_SAMPLE)[:MAX_SAMPLE]
            self._numbers, self._hashes = self._numbers[smallest], self._hashes[smallest]
            self._limit = float(np.max(self._numbers))
        return self._hashes


class _Search:
    """Search for hashes of a sorted table, each of which is found once."""

    def __init__(self, table: Hashes) -> None:
        self._table = table
        self.is_missing: _Flags = np.ones(len(table), dtype=np.bool_)
        self._filter_bits = (_FILTER_SLOTS * len(table) + 1).bit_length()
        self._fill_filter()

    def look_up(self, hashes: Hashes) -> None:
        """Mark those hashes as found."""
        candidates: Hashes = hashes[self._filter.take(self._slots(hashes), mode="clip")]
        if not len(candidates):
            return
        places: _Places = np.searchsorted(self._table[:-1], candidates)
        at_places: Hashes = self._table[places]
        is_equal: _Flags = at_places == candidates
        places = places[is_equal]
        is_new: _Flags = self.is_missing[places]
        if not is_new.any():
            return
        found: _Places = np.unique(places[is_new])
        self.is_missing[found] = False
        self._filtered -= len(found)
        if 2 * self._filtered < self._filled:
            self._fill_filter()

    def found(self) -> list[int]:
        """Return the hashes of the table that were found."""
        of_table: Hashes = self._table[~self.is_missing]
        found: list[int] = of_table.tolist()
        return found

    def _fill_filter(self) -> None:
        self._filter: _Flags = np.zeros(1 << self._filter_bits, dtype=np.bool_)
        missing: Hashes = self._table[self.is_missing]
        self._filled = self._filtered = len(missing)
        self._filter[self._slots(missing)] = True

    def _slots(self, hashes: Hashes) -> _Places:
        slots: Hashes = hashes >> np.uint64(64 - self._filter_bits)
        return slots.view(np.intp)


class _Powers(NamedTuple):
    """Powers of a multiplier and of its inverse modulo 2^64, by exponent."""

    up: Hashes
    down: Hashes

    def prefixes(self, units: Hashes) -> Hashes:
        """Return the hashes of the first 0, 1, … units."""
        sums: Hashes = np.zeros(len(units) + 1, dtype=np.uint64)
        up: Hashes = self.up[: len(units)]
        terms: Hashes = units * up
        np.cumsum(terms, out=sums[1:])
        return sums

    def ranges(self, prefixes: Hashes, starts: _Places, ends: _Places) -> Hashes:
        """Return a hash of the units of each range, whatever its start."""
        at_ends: Hashes = prefixes[ends]
        at_starts: Hashes = prefixes[starts]
        down: Hashes = self.down[starts]
        hashes: Hashes = at_ends - at_starts
        hashes *= down
        high: Hashes = hashes >> np.uint64(32)
        hashes ^= high  # otherwise a hash of these hashes would be a polynomial of the text
        hashes *= _MIXER
        return hashes

    def windows(self, prefixes: Hashes, length: int) -> Hashes:
        """Return the hash of each window of `length` units."""
        count = max(0, len(prefixes) - length)
        at_ends: Hashes = prefixes[length:]
        at_starts: Hashes = prefixes[:count]
        down: Hashes = self.down[:count]
        hashes: Hashes = at_ends - at_starts
        hashes *= down
        return hashes


def _powers(multiplier: int, count: int) -> _Powers:
    of_both: list[Hashes] = []
    for base in (multiplier, pow(multiplier, -1, 1 << 64)):
        powers: Hashes = np.full(count, base, dtype=np.uint64)
        powers[0] = 1
        of_both.append(np.cumprod(powers))
    return _Powers(*of_both)


class _Words(NamedTuple):
    """The words of a block of lines."""

    prefixes: Hashes
    """Hashes of the first 0, 1, … words of the block."""
    first: _Places
    """The first word of each line."""
    past: _Places
    """The word after the last one of each line."""
    powers: _Powers

    def ngrams(self, length: int) -> Hashes:
        """Return the hashes of the n-grams of words that lie in one line."""
        return _within_lines(self.powers.windows(self.prefixes, length), self.first, self.past, length)


class _Stretches(NamedTuple):
    """The words in a row of a text that have as many letters as a line has at least, for one number of words."""

    first: _Places
    """The number of the first word of each."""
    hashes: Hashes


class _Running(NamedTuple):
    """A running text."""

    n_words: int
    stretches: Sequence[_Stretches]
    """Of 1, 2, … words in a row."""


class _Block(NamedTuple):
    prefixes: Hashes
    """Hashes of the first 0, 1, … characters."""
    starts: _Places
    ends: _Places
    words: _Words


class _Hasher:
    """Hashes of the lines and n-grams of blocks of lines."""

    def __init__(self, documents: DocumentMode) -> None:
        self._is_stream = documents == "stream"
        self.has_characters = True
        self._powers: tuple[_Powers, _Powers] | None = None
        self._is_space: _Flags = np.zeros(0x3002, dtype=np.bool_)
        self._is_space[[*map(ord, _SPACES)]] = True
        self._kinds: NDArray[np.uint8] = np.full(sys.maxunicode + 1, _NEW, dtype=np.uint8)

    def hashes(self, block: str, *, is_training: bool) -> tuple[Hashes, Hashes, Hashes, Hashes]:
        """Return the hashes of the lines that are not blank, of plain lines, of the 13-grams of words and of 50-grams.

        Training lines have 50-grams with newlines, too, which no held-out line has.
        """
        prefixes, starts, ends, words_of = self._read(_code_points(block))
        of_characters, _ = self._powers_for(len(prefixes))
        has_words: _Flags = words_of.past > words_of.first
        lines = of_characters.ranges(prefixes, starts[has_words], ends[has_words])
        words = (
            words_of.powers.windows(words_of.prefixes, LEAK_WORDS) if self._is_stream else words_of.ngrams(LEAK_WORDS)
        )
        characters = of_characters.windows(prefixes, LEAK_CHARACTERS) if self.has_characters else _NONE
        if not self._is_stream and not is_training:
            characters = _within_lines(characters, starts, ends, LEAK_CHARACTERS)
        return lines, self.plain_lines(block), words, characters

    def plain_lines(self, block: str) -> Hashes:
        """Return the hashes of the lines that have words, without case, punctuation and white space."""
        units, is_word = self._plain(block)
        letters: _Units = units[is_word]
        n_letters: _Places = np.zeros(len(units) + 1, dtype=np.intp)
        np.cumsum(is_word, out=n_letters[1:])
        is_newline: _Flags = units == ord("\n")
        ends: _Places = np.append(n_letters[np.flatnonzero(is_newline)], len(letters))
        starts: _Places = np.zeros(len(ends), dtype=np.intp)
        starts[1:] = ends[:-1]
        has_words: _Flags = ends > starts
        of_characters, _ = self._powers_for(len(letters) + 1)
        prefixes = of_characters.prefixes(letters.astype(np.uint64))
        return of_characters.ranges(prefixes, starts[has_words], ends[has_words])

    def stretches(self, text: str) -> "_Running":
        """Return the hashes of words in a row, which are those of lines in `plain_lines`."""
        units, is_word = self._plain(text)
        is_edge: _Flags = np.diff(is_word, prepend=False, append=False)
        edges: _Places = np.flatnonzero(is_edge)
        n_letters: _Places = np.zeros(len(units) + 1, dtype=np.intp)
        np.cumsum(is_word, out=n_letters[1:])
        starts: _Places = n_letters[edges[::2]]
        ends: _Places = n_letters[edges[1::2]]
        letters: _Units = units[is_word]
        of_characters, _ = self._powers_for(len(letters) + 1)
        prefixes = of_characters.prefixes(letters.astype(np.uint64))
        stretches: list[_Stretches] = []
        for size in range(1, _MAX_STRETCH + 1):
            first_letters: _Places = starts[: max(0, len(starts) - size + 1)]
            past_letters: _Places = ends[size - 1 :]
            sizes: _Places = past_letters - first_letters
            first_words: _Places = np.flatnonzero(sizes >= LEAK_LETTERS)
            hashes = of_characters.ranges(prefixes, first_letters[first_words], past_letters[first_words])
            stretches.append(_Stretches(first_words, hashes))
        return _Running(len(starts), stretches)

    def _plain(self, text: str) -> tuple[_Units, _Flags]:
        """Return a text in folded case with spaces for all signs that are no part of a word, and where its words are.

        Marks and joiners after a letter are parts of a word.
        """
        units: _Units = _code_points(folded(text)).copy()
        kinds: NDArray[np.uint8] = self._kinds.take(units)
        is_new: _Flags = kinds == _NEW
        if is_new.any():
            new: list[int] = np.unique(units[is_new]).tolist()
            for code in new:
                self._kinds[code] = _kind_of(chr(code))
            kinds = self._kinds.take(units)
        is_word: _Flags = kinds == _LETTER
        is_mark: _Flags = kinds == _MARK
        if is_mark.any():
            places: _Places = np.arange(len(units))
            places[is_mark] = 0
            before: _Places = np.maximum.accumulate(places)
            of_letters: _Flags = is_word[before]
            is_word |= is_mark & of_letters
        is_space: _Flags = kinds == _SPACE
        units[~(is_word | is_space)] = ord(" ")
        return units, is_word

    def plain_words(self, text: str) -> "_Words":
        """Find the words of a text without case and punctuation."""
        units, _ = self._plain(text)
        return self._read(units).words

    def _read(self, units: _Units) -> "_Block":
        """Find the lines and the words of a block."""
        of_characters, of_words = self._powers_for(len(units) + 1)
        prefixes = of_characters.prefixes(units.astype(np.uint64))
        is_newline: _Flags = units == ord("\n")
        newlines: _Places = np.flatnonzero(is_newline)
        ends: _Places = np.append(newlines, len(units))
        starts: _Places = np.zeros(len(ends), dtype=np.intp)
        np.add(newlines, 1, out=starts[1:])
        is_space: _Flags = np.ones(len(units) + 2, dtype=np.bool_)
        is_space[1:-1] = self._is_space.take(units, mode="clip")
        is_edge: _Flags = is_space[1:] ^ is_space[:-1]
        edges: _Places = np.flatnonzero(is_edge)
        word_starts: _Places = edges[::2]
        word_ends: _Places = edges[1::2]
        first_words: _Places = np.searchsorted(word_starts, starts)
        past_words: _Places = np.append(first_words[1:], len(word_starts))
        word_prefixes = of_words.prefixes(of_characters.ranges(prefixes, word_starts, word_ends))
        return _Block(prefixes, starts, ends, _Words(word_prefixes, first_words, past_words, of_words))

    def _powers_for(self, count: int) -> tuple[_Powers, _Powers]:
        if self._powers is None or len(self._powers[0].up) < count:
            first, second = (_powers(multiplier, count) for multiplier in _MULTIPLIERS)
            self._powers = first, second
        return self._powers


def _code_points(text: str) -> _Units:
    units: _Units = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    return units


def _within_lines(hashes: Hashes, starts: _Places, ends: _Places, length: int) -> Hashes:
    """Return the hashes of the windows of `length` units that lie in one line, given where lines start and end."""
    lengths: _Places = ends - starts
    is_long: _Flags = lengths >= length
    first: _Places = starts[is_long]
    past: _Places = ends[is_long]
    past -= length - 1
    changes: NDArray[np.int8] = np.zeros(len(hashes) + 1, dtype=np.int8)
    changes[first] = 1
    changes[past] -= 1
    is_inside: _Flags = np.cumsum(changes[:-1], dtype=np.int8).astype(np.bool_)
    return hashes[is_inside]


class Leaked(NamedTuple):
    """Tells of each text if all of its words stand side by side in a training line, and if one of its n-grams does."""

    whole: list[bool]
    ngram: list[bool]


def find_leaked(texts: Sequence[str], read: Iterable[tuple[Split, str]], n_words: int) -> Mapping[Split, Leaked]:
    """Look for texts of one line, and their n-grams of words, in blocks of training lines and of validation lines.

    Words are compared without case and punctuation, composed or not.
    """
    hasher = _Hasher("line")
    wholes: list[tuple[int, int]] = []  # the number of words of each text, and their hash
    ngrams: list[list[int]] = []
    for text in texts:
        words = hasher.plain_words(text)
        past: list[int] = words.past.tolist()
        count = past[0]
        whole: list[int] = words.ngrams(max(1, count)).tolist()
        wholes.append((count, sum(whole)))
        of_text: list[int] = words.ngrams(n_words).tolist()
        ngrams.append(of_text)
    by_length: dict[int, set[int]] = {n_words: {one for of_text in ngrams for one in of_text}}
    for count, whole_hash in wholes:
        if count:
            by_length.setdefault(count, set()).add(whole_hash)
    searches: dict[Split, Mapping[int, _Search]] = {split: _searches(by_length) for split in _READ_SPLITS}
    for split, lines in read:
        for chunk in _chunks(lines):
            block = hasher.plain_words(chunk)
            for length, search in searches[split].items():
                search.look_up(block.ngrams(length))
    leaked: dict[Split, Leaked] = {}
    for split, by_words in searches.items():
        found: dict[int, Set[int]] = {length: set(search.found()) for length, search in by_words.items()}
        leaked[split] = Leaked(
            [count > 0 and whole_hash in found[count] for count, whole_hash in wholes],
            [not found.get(n_words, set()).isdisjoint(of_text) for of_text in ngrams],
        )
    return leaked


def _searches(by_length: Mapping[int, Set[int]]) -> Mapping[int, _Search]:
    """Return searches for hashes of n-grams by their number of words."""
    searches: dict[int, _Search] = {}
    for length, hashes in by_length.items():
        if hashes:
            table: Hashes = np.fromiter(hashes, dtype=np.uint64)
            table.sort()
            searches[length] = _Search(table)
    return searches


def _kind_of(sign: str) -> int:
    """Return what a character is in the comparison of words."""
    if sign.isspace():
        return _SPACE
    if sign in _JOINERS or sign in _TONES or unicodedata.category(sign)[0] == "M":
        return _MARK
    return _LETTER if sign.isalnum() or sign == "_" else _SIGN
