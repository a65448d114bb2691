"""Speed and memory of counting the n-grams of 100 MB of text, beside KenLM or nltk.

The text has made-up words, with frequencies as in a language and some wrong letters. Its characters are the tokens. Our
child process counts them and makes a model of an order, then chooses order and discounts, as the training of an n-gram
model does. KenLM's `lmplz`, where it is on the PATH, reads the characters and writes the model. Elsewhere nltk counts
those of a part of the text, as it would need hours for all.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.ngram_counting import ALPHABET, FIRST_ID, IDS_FILE, Measured
from benchmarks.rows import Row

MEGABYTE = 10**6
QUICK_MEGABYTES, FULL_MEGABYTES = 10, 100
ORDERS = (5, 7)
MAX_MEGABYTES = 1000.0
MIN_RATIO = 1.0
"""Least speed relative to the rival's."""
_TYPES, _BLOCK_WORDS, _WORDS_PER_LINE, _WRONG_LETTERS = 60_000, 200_000, 12, 0.003
_NLTK_LINES = 2000
_NLTK = """
import sys, time
from nltk.lm import KneserNeyInterpolated
from nltk.lm.preprocessing import padded_everygram_pipeline
order = int(sys.argv[1])
lines = [line.split() for line in sys.stdin]
begin = time.perf_counter()
model = KneserNeyInterpolated(order)
model.fit(*padded_everygram_pipeline(order, lines))
print(sum(map(len, lines)) / (time.perf_counter() - begin))
"""


class Rival(NamedTuple):
    name: str
    tokens_per_second: float
    details: dict[str, float]


def ngram_rows(folder: Path, is_quick: bool) -> list[Row]:
    """Measure every order."""
    size = QUICK_MEGABYTES if is_quick else FULL_MEGABYTES
    tokens = write_text(folder, size * MEGABYTE)
    rows: list[Row] = []
    for order in ORDERS:
        ours = _measured_by_child(folder, order)
        rival = _kenlm(folder, order, tokens) if shutil.which("lmplz") else _nltk(folder, order)
        case = f"n-grams of {size} MB, order {order}"
        speed, megabytes = tokens / ours.count_seconds, ours.peak_bytes / MEGABYTE
        figures = {"ours, per second": speed, f"{rival.name}, per second": rival.tokens_per_second, **rival.details}
        rows += [
            Row(case=f"{case}: counting", value=ours.count_seconds, unit="s", details={"n-grams": ours.ngrams}),
            Row(case=f"{case}: counting and choosing", value=ours.choose_seconds, unit="s"),
            Row(case=f"{case}: memory", value=megabytes, unit="MB", goal=MAX_MEGABYTES, better="less"),
            Row(
                case=f"{case}: ours / {rival.name}",
                value=speed / rival.tokens_per_second,
                unit="x",
                goal=MIN_RATIO,
                details=figures,
            ),
        ]
    return rows


def write_text(folder: Path, size: int) -> int:
    """Write `ids.bin`, and `text.txt` with spaces between its characters; return the number of characters."""
    generator = np.random.Generator(np.random.PCG64(1))
    words = _words(generator)
    ranks: NDArray[np.float64] = np.arange(1.0, _TYPES + 1)
    frequencies: NDArray[np.float64] = ranks**-1.05
    shares: NDArray[np.float64] = frequencies / float(np.sum(frequencies))
    written = 0
    with (folder / IDS_FILE).open("wb") as ids_file, (folder / "text.txt").open("w", encoding="ascii") as text_file:
        while written < size:
            drawn: list[int] = generator.choice(_TYPES, size=_BLOCK_WORDS, p=shares).tolist()
            lines = [drawn[start : start + _WORDS_PER_LINE] for start in range(0, len(drawn), _WORDS_PER_LINE)]
            text = "\n".join(" ".join(words[word] for word in line) for line in lines)
            block = _with_wrong_letters(text, generator)
            _ids(block).tofile(ids_file)
            text_file.writelines(f"{' '.join(line.replace(' ', '_'))}\n" for line in block.split("\n"))
            written += len(block) + 1
    return written


def _words(generator: np.random.Generator) -> list[str]:
    vowels, others = "aeiou", "bcdfghjklmnprstvz"
    syllables = [other + vowel for other in others for vowel in vowels]
    syllables += [vowel + other for vowel in vowels for other in "lmnrst"]
    lengths: list[int] = generator.integers(1, 5, size=_TYPES).tolist()
    drawn: list[int] = generator.integers(len(syllables), size=sum(lengths)).tolist()
    chosen = iter(drawn)
    return ["".join(syllables[next(chosen)] for _ in range(length)) for length in lengths]


def _with_wrong_letters(text: str, generator: np.random.Generator) -> str:
    characters: NDArray[np.uint8] = np.frombuffer(text.encode("ascii"), dtype=np.uint8).copy()
    draws: NDArray[np.float64] = generator.random(len(characters))
    is_newline: NDArray[np.bool_] = characters == ord("\n")
    draws[is_newline] = 1
    places: NDArray[np.int64] = np.flatnonzero(draws < _WRONG_LETTERS)
    characters[places] = generator.integers(ord("a"), ord("z") + 1, size=len(places))
    return characters.tobytes().decode("ascii")


def _ids(text: str) -> "NDArray[np.uint8]":
    """Return [BOS] line [EOS] of each line."""
    table: NDArray[np.uint8] = np.zeros(128, dtype=np.uint8)
    for number, character in enumerate(f" {ALPHABET}", FIRST_ID):
        table[ord(character)] = number
    marked = f"\x02{text}\x03".replace("\n", "\x03\x02")
    table[2], table[3] = 2, 3
    found: NDArray[np.uint8] = table[np.frombuffer(marked.encode("ascii"), dtype=np.uint8)]
    return found


def _measured_by_child(folder: Path, order: int) -> Measured:
    command = [sys.executable, "-m", "benchmarks.ngram_counting", str(folder), str(order)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return Measured.model_validate_json(finished.stdout)


def _kenlm(folder: Path, order: int, tokens: int) -> Rival:
    with TemporaryDirectory(dir=folder) as scratch, (folder / "text.txt").open("rb") as text:
        options = ["--discount_fallback", "-S", "600M", "-T", scratch, "--arpa", os.devnull]
        begin = perf_counter()
        child = subprocess.Popen(["lmplz", "-o", str(order), *options], stdin=text, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        seconds = perf_counter() - begin
    if status:
        raise RuntimeError("lmplz failed")
    return Rival("KenLM", tokens / seconds, {"KenLM, MB": used.ru_maxrss / 1024})


def _nltk(folder: Path, order: int) -> Rival:
    with (folder / "text.txt").open(encoding="ascii") as file:
        part = "".join(line for line, _ in zip(file, range(_NLTK_LINES), strict=False))
    command = [sys.executable, "-c", _NLTK, str(order)]
    finished = subprocess.run(command, input=part, stdout=subprocess.PIPE, check=True, text=True)
    return Rival("nltk", float(finished.stdout), {})
