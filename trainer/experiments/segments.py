"""Articulatory features of IPA segments, and replacement of unknown segments by the nearest known ones.

The segments are those of the chart of the International Phonetic Association (2020): all vowels, the pulmonic
consonants, and some other symbols. The features count the rows and columns of the chart.

height
    close 0, near-close 1, close-mid 2, mid 3, open-mid 4, near-open 5, open 6
backness
    front and near-front 0, central 1, back and near-back 2
rounding
    unrounded 0, rounded 1
place
    bilabial 0, labiodental 1, dental 2, alveolar 3, postalveolar 4, retroflex 5, palatal 6, velar 7, uvular 8,
    pharyngeal 9, glottal 10; labial-velar is bilabial, labial-palatal is palatal, alveolo-palatal is postalveolar
manner
    plosive 0, nasal 1, trill, tap or flap 2, fricative or lateral fricative 3, approximant 4, lateral approximant 5
voice
    voiceless 0, voiced 1

The letter g stands for the voiced velar plosive, too. A velarized l has the features of l.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from itertools import chain
from typing import NamedTuple

from trainer.contracts.experiments import Replacement

_VOWELS = """
i/y ɨ/ʉ ɯ/u
ɪ/ʏ -/- -/ʊ
e/ø ɘ/ɵ ɤ/o
-/- ə/- -/-
ɛ/œ ɜ/ɞ ʌ/ɔ
æ/- ɐ/- -/-
a/ɶ -/- ɑ/ɒ
"""
"""A line per height, a column per backness; unrounded/rounded."""
_CONSONANTS = """
p/b  -/- -/- t/d   -/-   ʈ/ɖ c/ɟ   k/ɡg q/ɢ -/- ʔ/-
-/m  -/ɱ -/- -/n   -/-   -/ɳ -/ɲ   -/ŋ  -/ɴ -/- -/-
-/ʙ  -/ⱱ -/- -/rɾ  -/-   -/ɽ -/-   -/-  -/ʀ -/- -/-
ɸʍ/β f/v θ/ð sɬ/zɮ ʃɕ/ʒʑ ʂ/ʐ ç/ʝ   x/ɣ  χ/ʁ ħ/ʕ h/ɦ
-/w  -/ʋ -/- -/ɹ   -/-   -/ɻ -/jɥ  -/ɰ  -/- -/- -/-
-/-  -/- -/- -/lɫ  -/-   -/ɭ -/ʎ   -/ʟ  -/- -/- -/-
"""
"""A line per manner, a column per place; voiceless/voiced."""
_Features = tuple[int, int, int]
"""Height, backness and rounding of a vowel; manner, place and voice of a consonant."""


def _features(table: str) -> dict[str, _Features]:
    return {
        segment: (row, column, half)
        for row, line in enumerate(table.strip().splitlines())
        for column, cell in enumerate(line.split())
        for half, segments in enumerate(cell.split("/"))
        for segment in segments.strip("-")
    }


class _Class(NamedTuple):
    """Vowels or consonants: their features, and the weights of the differences."""

    features: dict[str, _Features]
    weights: tuple[int, int, int]


_CLASSES = (_Class(_features(_VOWELS), (2, 2, 1)), _Class(_features(_CONSONANTS), (2, 1, 1)))
SEGMENTS = frozenset(chain.from_iterable(each.features for each in _CLASSES))
"""All characters that have features."""


class _Nearest(NamedTuple):
    segment: str
    distance: int


class Assimilator:
    """Replaces the segments that a model does not know by the nearest ones that it knows.

    Vowels are replaced by vowels and consonants by consonants: distance 2|Δheight| + 2|Δbackness| + |Δrounding|, or
    |Δplace| + 2|Δmanner| + |Δvoice|. Of several nearest segments the one with the smallest code point is taken. All
    other characters stay as they are.
    """

    def __init__(self, known: Collection[str]) -> None:
        self._known = frozenset(known)
        self._nearest: dict[str, _Nearest] = {}
        for features, weights in _CLASSES:
            candidates = sorted(features.keys() & self._known)
            for segment in features.keys() - self._known:
                distances = {
                    candidate: _distance(features[segment], features[candidate], weights) for candidate in candidates
                }
                if distances:
                    nearest = min(candidates, key=distances.__getitem__)
                    self._nearest[segment] = _Nearest(nearest, distances[nearest])
        self._table = str.maketrans({segment: near.segment for segment, near in self._nearest.items()})

    def replace(self, text: str) -> str:
        """Return the text with each unknown segment replaced; of the same length."""
        return text.translate(self._table)

    def replacements(
        self, texts: Iterable[str], *, model: str, language: str, seed: int | None
    ) -> tuple[Replacement, ...]:
        """Return the unknown characters of the texts and their replacements, in the order of code points."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
        rows: list[Replacement] = []
        for character in sorted(counts.keys() - self._known):
            nearest = self._nearest.get(character)
            rows.append(
                Replacement(
                    model=model,
                    listener_language=language,
                    seed=seed,
                    character=character,
                    replacement=None if nearest is None else nearest.segment,
                    distance=None if nearest is None else float(nearest.distance),
                    count=counts[character],
                )
            )
        return tuple(rows)


def _distance(a: _Features, b: _Features, weights: tuple[int, int, int]) -> int:
    return sum(weight * abs(x - y) for x, y, weight in zip(a, b, weights, strict=True))
