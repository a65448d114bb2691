"""Requests for the scores of the units of a table, their scores from the responses, and what cannot be counted."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from trainer.artifacts.readings import TIMES_FILE, ReadingDirectory
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.readings import COUNTED, Predictor, UnitScores
from trainer.contracts.sequences import SequenceParts, SequencesRequest, SequencesResponse, Tokenizations
from trainer.data.rows import TextFile
from trainer.reading.tables import WRITTEN, Times, read_times, unit_parts
from trainer.system.files import read_regular

_PORTION_CHARACTERS = 20_000
"""Other people's requests are answered between two portions, each of which takes a second or so."""
_MAX_PARTS = 400
"""Parts of a sequence: the rest of a text is a sequence of its own, with all that stands before it as its context."""


class Portion(NamedTuple):
    """A request for the scores of units."""

    request: SequencesRequest
    units: Sequence[Mapping[int, int]]
    """For each sequence the numbers of its units by the numbers of their parts."""
    texts: Sequence[int]
    """For each sequence the number of its text."""


def times_of(reading: ReadingDirectory) -> Times:
    """Read the table of a job; raises AppError or OSError where it is damaged or gone."""
    content = read_regular(reading.times)
    return read_times(TextFile(TIMES_FILE, content), WRITTEN, reading.record().options.separator)


def no_counts(baseline: Sequence[Predictor], run_id: str) -> AppError | None:
    """Return the DATA_NOT_FOUND error of a run whose training text is gone; None if the baseline needs no counts."""
    counted = [name for name in baseline if name in COUNTED]
    if not counted:
        return None
    others = ", ".join(name for name in baseline if name not in COUNTED)
    message = (
        f"The baseline has {' and '.join(f'`{name}`' for name in counted)}, counted in the training text of '{run_id}',"
        f" which is deleted or has changed. Bring the text back, or set `baseline` to [{others}]."
    )
    return AppError(ErrorCode.DATA_NOT_FOUND, message)


def portions(times: Times, tokenizations: Tokenizations) -> Iterator[Portion]:
    """Yield the requests for the scores of all units, each given all of its text that stands before it."""
    sequences: list[SequenceParts] = []
    units: list[Mapping[int, int]] = []
    texts: list[int] = []
    characters = 0
    for text, sequence, numbers in _sequences(times):
        if sequences and characters + len(sequence.text) > _PORTION_CHARACTERS:
            yield Portion(_request(sequences, tokenizations), units, texts)
            sequences, units, texts, characters = [], [], [], 0
        sequences.append(sequence)
        units.append(numbers)
        texts.append(text)
        characters += len(sequence.text)
    yield Portion(_request(sequences, tokenizations), units, texts)


def _request(sequences: Sequence[SequenceParts], tokenizations: Tokenizations) -> SequencesRequest:
    return SequencesRequest(sequences=tuple(sequences), has_entropies=True, tokenizations=tokenizations)


def _sequences(times: Times) -> Iterator[tuple[int, SequenceParts, Mapping[int, int]]]:
    for number, text in enumerate(times.texts):
        parts, part_of_unit = unit_parts(text)
        ends = [0, *accumulate(map(len, parts))]
        for start in range(0, len(parts), _MAX_PARTS):
            past = start + _MAX_PARTS
            units = {part - start: text.first + n for n, part in enumerate(part_of_unit) if start <= part < past}
            sequence = SequenceParts(context=text.running[: ends[start]], parts=tuple(parts[start:past]))
            yield number, sequence, units


def scores_of(n_units: int, asked: Iterable[Portion], responses: Iterable[SequencesResponse]) -> UnitScores:
    """Return the scores of all units from the answers of a model."""
    surprisal: list[float | None] = [None] * n_units
    entropy: list[float | None] = [None] * n_units
    bounds: list[float] = []
    cut: set[int] = set()
    n_unknown = 0
    for portion, response in zip(asked, responses, strict=True):
        bounds += (nats for bound in response.bounds or () for nats in bound.part_nats)
        is_marginal = response.bounds is not None
        for text, numbers, score in zip(portion.texts, portion.units, response.scores or (), strict=True):
            cut |= {text} if score.is_cut else set()
            n_unknown += score.unk_count
            for part, (nats, before) in enumerate(zip(score.part_nats, score.part_entropies or (), strict=True)):
                # a part without tokens of its own has no entropy, and a surprisal only over all tokenizations
                if part in numbers and (is_marginal or before is not None):
                    surprisal[numbers[part]], entropy[numbers[part]] = nats, before
    bound = max(bounds, default=None)
    return UnitScores(
        surprisal_nats=tuple(surprisal),
        entropy_nats=tuple(entropy),
        bound_nats=bound,
        n_cut=len(cut),
        n_unknown=n_unknown,
    )
