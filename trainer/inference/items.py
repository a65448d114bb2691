"""Scores of a table of items: a row for each item, or for each of its regions, words or tokens."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from math import fsum
from typing import NamedTuple, assert_never

from trainer.contracts.base import changed
from trainer.contracts.items import LEFT_OUT_COLUMN, Cell, ItemsRequest, ItemsResponse, ItemText, ItemUnit, item_notes
from trainer.contracts.scores import ScoreRequest, ScoreResponse
from trainer.contracts.sequences import BEAM_SIZE
from trainer.data.normalization import Line, normalized
from trainer.inference.frequencies import Frequencies
from trainer.inference.scoring import ScoringJob, is_cut, score_texts, scoring_method
from trainer.inference.sequences import part_ends, token_places
from trainer.inference.tokenizations import has_several, marginals
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Span, Tokenizer


class _Unit(NamedTuple):
    """A row of the results: an item, or a part of it, with its tokens."""

    row: int
    """Its row in the request."""
    name: str | int
    text: str
    ids: Sequence[int]
    surprisal: float | None
    entropy: float | None
    span: Span
    left_out: float = 0.0
    """How much lower the surprisal can be."""


def score_items(
    model: LanguageModel,
    tokenizer: Tokenizer,
    request: ItemsRequest,
    response: ItemsResponse,
    frequencies: Frequencies,
) -> ItemsResponse:
    """Score the items of a table side by side, and return a table of their units in the order of the items."""
    texts = list(request.texts())
    jobs = [_job(tokenizer, request, text.text) for text in texts]
    scores = score_texts(model, tokenizer, jobs)
    of_texts = [
        list(_Scored(tokenizer, text, job, score).units(request.unit))
        for text, job, score in zip(texts, jobs, scores, strict=True)
    ]
    if request.tokenizations == "marginal" and has_several(tokenizer):
        of_texts = _marginal(model, tokenizer, [job.lines[0].text for job in jobs], of_texts)
    units = [unit for of_text in of_texts for unit in of_text]
    if request.unit == "char":
        log_frequencies = frequencies.of_tokens([unit.ids for unit in units])
    else:
        log_frequencies = frequencies.of_texts([unit.text for unit in units])
    columns: dict[str, Sequence[Cell]] = {
        name: [values[unit.row] for unit in units] for name, values in request.table.items()
    }
    columns["source_row"] = [request.first_row + unit.row for unit in units]
    if request.unit != "item":
        columns |= {"unit": [unit.name for unit in units], "unit_text": [unit.text for unit in units]}
    columns |= {
        "surprisal_nats": [unit.surprisal for unit in units],
        "entropy_nats": [unit.entropy for unit in units],
        "n_tokens": [len(unit.ids) for unit in units],
        "n_chars": [len(unit.text) for unit in units],
        "n_unknown": [unit.ids.count(tokenizer.special_ids.unk) for unit in units],
        "log_frequency": log_frequencies,
    }
    if request.tokenizations == "marginal":
        columns[LEFT_OUT_COLUMN] = [None if unit.surprisal is None else unit.left_out for unit in units]
    return changed(
        response,
        status="completed",
        table={name: tuple(values) for name, values in columns.items()},
        method=scoring_method(model),
        n_cut=sum(is_cut(model, job.ids[0]) for job in jobs),
        has_frequencies=frequencies.has_text,
        notes=item_notes([request]),
    )


def _marginal(
    model: LanguageModel, tokenizer: Tokenizer, lines: Sequence[str], of_lines: Sequence[Sequence[_Unit]]
) -> list[list[_Unit]]:
    """Return the units of lines with the surprisals of exactly their characters, over all tokenizations.

    White space at the end of a unit belongs to the next one, as in the canonical tokenization.
    """
    borders = [
        [(len(line[:start].rstrip()), len(line[:end].rstrip())) for start, end in (unit.span for unit in units)]
        for line, units in zip(lines, of_lines, strict=True)
    ]
    ends = [sorted({end for border in of_line for end in border}) for of_line in borders]
    summed: list[list[_Unit]] = []
    found = marginals(model, tokenizer, lines, ends, BEAM_SIZE)
    for units, of_units, places, parts in zip(of_lines, borders, ends, found, strict=True):
        of_line: list[_Unit] = []
        for unit, (start, end) in zip(units, of_units, strict=True):
            first, past = places.index(start), places.index(end)
            nats = fsum(parts.part_nats[first:past]) if first < past else None
            of_line.append(unit._replace(surprisal=nats, left_out=fsum(parts.part_left_out_nats[first:past])))
        summed.append(of_line)
    return summed


def _job(tokenizer: Tokenizer, request: ItemsRequest, text: str) -> ScoringJob:
    """Return the job that scores each token of an item and of its context."""
    line = normalized(text, tokenizer.normalization)
    score = ScoreRequest(text=text, detail_level="per_char", pll_within_word=request.pll_within_word)
    queued = ScoreResponse(request_id="items", run_id="items", status="running")
    return ScoringJob(score, queued, [Line(0, line, 1)], [tokenizer.encode(line)])


class _Scored:
    """The scores of an item's tokens."""

    def __init__(self, tokenizer: Tokenizer, text: ItemText, job: ScoringJob, score: ScoreResponse) -> None:
        self._rows, self._regions = text.rows, text.regions
        self._line, self._ids = job.lines[0].text, job.ids[0]
        self._surprisal, self._entropy = ([nats or 0.0 for nats in of or ()] for of in (score.surprisal, score.entropy))
        self._words, self._spans = score.words or (), score.char_spans or ()
        self._ends = part_ends(tokenizer, text.context, text.parts)
        self._places = token_places(self._line, self._spans)
        self._bytes = tokenizer.byte_values

    def units(self, unit: ItemUnit) -> Iterator[_Unit]:
        """Yield the units of a kind; the tokens of the context belong to none."""
        start = self._ends[0]
        match unit:
            case "item":
                yield self._part(self._rows[0], "", start, self._ends[-1])
            case "region":
                for name, number in self._regions:
                    yield self._part(self._rows[number], name, self._ends[number], self._ends[number + 1])
            case "word":
                words = (word for word in self._words if word.span[0] >= start)
                for number, word in enumerate(words, 1):
                    part = self._part(self._row(word.span[0]), number, *word.span)
                    yield part._replace(surprisal=word.surprisal)
            case "char":
                yield from self._characters(bisect_left(self._places, start))
            case unknown:
                assert_never(unknown)

    def _row(self, place: int) -> int:
        """Return the row of the part in which a position lies."""
        return self._rows[min(bisect_right(self._ends, place), len(self._rows)) - 1]

    def _part(self, row: int, name: str | int, start: int, end: int) -> _Unit:
        """Return a part of the line, which has the tokens whose first non-space character lies in it."""
        first, past = bisect_left(self._places, start), bisect_left(self._places, end)
        return self._unit(row, name, self._line[start:end].strip(), first, past, (start, end))

    def _characters(self, first: int) -> Iterator[_Unit]:
        """Yield each token from the first one on, and the bytes of a character as one."""
        number = 0
        for place in range(first, len(self._ids)):
            start, end = self._spans[place]
            if start < end or self._ids[place] not in self._bytes:
                number += 1
                row = self._row(self._places[place])
                yield self._unit(row, number, self._line[start:end], first, place + 1, (start, end))
                first = place + 1

    def _unit(self, row: int, name: str | int, text: str, first: int, past: int, span: Span) -> _Unit:
        nats = fsum(self._surprisal[first:past]) if first < past else None
        entropy = fsum(self._entropy[first:past]) if first < past else None
        return _Unit(row, name, text, self._ids[first:past], nats, entropy, span)
