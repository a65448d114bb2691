"""Tables of reading times, and the records of their analyses."""

from collections.abc import Sequence
from hashlib import sha256
from random import Random

from trainer.contracts.base import now
from trainer.contracts.readings import ReadingOptions, ReadingRecord
from trainer.contracts.runs import RunModel
from trainer.data.rows import TextFile
from trainer.reading.tables import read_times, written_times

_RANDOM = Random(28)
LINES = tuple(" ".join("".join(_RANDOM.choices("abc", k=_RANDOM.randint(1, 6))) for _ in range(9)) for _ in range(8))
"""Texts of the letters of the corpus of tests."""


def times_table(columns: Sequence[str] = ("rt",), lines: Sequence[str] = LINES) -> str:
    """A table of means, with a text for each line and other times in each column."""
    rows = [",".join(("text", "position", "word", *columns))]
    for text, line in enumerate(lines, 1):
        for position, word in enumerate(line.split(), 1):
            times = [str(300 + (37 * text + 71 * position * number) % 90) for number in range(1, 1 + len(columns))]
            rows.append(",".join((str(text), str(position), word, *times)))
    return "\n".join(rows) + "\n"


def reading_record(reading_id: str, *run_ids: str) -> tuple[ReadingRecord, bytes]:
    """A job as it is accepted, with its table."""
    times = read_times(TextFile("times.csv", times_table().encode()), ReadingOptions())
    record = ReadingRecord(
        reading_id=reading_id,
        created_at=now(),
        options=ReadingOptions(),
        runs=tuple(RunModel(run_id=run_id, seed=1) for run_id in run_ids or ("lstm-1",)),
        data=times.data,
        request_hash=sha256(reading_id.encode()).hexdigest(),
    )
    return record, written_times(times)
