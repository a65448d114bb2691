"""Counting of n-grams in a process of its own, whose memory is measured.

python -m benchmarks.ngram_counting FOLDER ORDER
"""

import sys
from pathlib import Path
from time import perf_counter

import numpy as np

from trainer.contracts.base import Frozen
from trainer.contracts.tokenizers import SpecialIds
from trainer.ngrams.choose import choose_ngram
from trainer.ngrams.counts import Ids, count_ngrams
from trainer.ngrams.kneser_ney import KneserNey, closed_form, tables_of
from trainer.system.hardware import most_memory_bytes

IDS_FILE = "ids.bin"
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
FIRST_ID = 4
"""Id of the space; letters follow."""
_SPECIAL_IDS = SpecialIds(pad=0, unk=1, bos=2, eos=3)
_VOCAB_SIZE = FIRST_ID + 1 + len(ALPHABET)


class Measured(Frozen):
    """Figures of our child process."""

    ngrams: int
    count_seconds: float
    """Until the model of the order is made."""
    choose_seconds: float
    peak_bytes: int


def measure(folder: Path, order: int) -> Measured:
    """Count and choose in this process."""
    ids: Ids = np.memmap(folder / IDS_FILE, np.uint8, "r")
    begin = perf_counter()
    counts = count_ngrams(ids, _VOCAB_SIZE, _SPECIAL_IDS, order)
    tables = tables_of(counts, counts.order)
    KneserNey(tables, tuple(map(closed_form, tables.counts)), _VOCAB_SIZE, _SPECIAL_IDS)
    count_seconds = perf_counter() - begin
    ngrams = sum(map(len, tables.keys))
    del counts, tables
    begin = perf_counter()
    cut = len(ids) // 20
    choose_ngram(ids[cut:], ids[:cut], vocab_size=_VOCAB_SIZE, special_ids=_SPECIAL_IDS, max_order=order)
    return Measured(
        ngrams=ngrams,
        count_seconds=count_seconds,
        choose_seconds=perf_counter() - begin,
        peak_bytes=most_memory_bytes(),
    )


if __name__ == "__main__":
    print(measure(Path(sys.argv[1]), int(sys.argv[2])).model_dump_json())
