"""Cross-entropy, excess, asymmetry and their intervals, computed from the scores of sections.

The cross-entropy of a listener on a text is pooled: the sum of all losses over the number of all scored positions,
never a mean of means. The excess is the part above the cross-entropy of the text's own model.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.base import R, changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import (
    AsymmetryRow,
    ListenersRow,
    MatrixRow,
    ScoreTable,
    ScoringMode,
    SectionColumns,
    SectionScore,
    SectionsFile,
    SectionTable,
    Tables,
    TextKind,
)
from trainer.contracts.intervals import Interval
from trainer.experiments.bootstrap import Difference, Pooled, Statistic, intervals

_DECIMALS = 6


class Scores(NamedTuple):
    """The scores of one listener on one text: arrays with one entry per section."""

    sections: NDArray[np.int64]
    """Number of the section in the text."""
    loss_sum: NDArray[np.float64]
    n_scored: NDArray[np.int64]
    n_total: NDArray[np.int64]

    @property
    def cross_entropy(self) -> float:
        """Nats per scored position."""
        return float(np.sum(self.loss_sum)) / self.positions

    @property
    def positions(self) -> int:
        """Number of scored positions of all sections."""
        return int(np.sum(self.n_scored))

    def columns(self) -> SectionColumns:
        section: list[int] = self.sections.tolist()
        loss_sum: list[float] = self.loss_sum.tolist()
        n_scored: list[int] = self.n_scored.tolist()
        n_total: list[int] = self.n_total.tolist()
        return SectionColumns(
            section=tuple(section), loss_sum=tuple(loss_sum), n_scored=tuple(n_scored), n_total=tuple(n_total)
        )

    def rows(self) -> tuple[SectionScore, ...]:
        return _rows(self.columns())


Table = Mapping[str, Mapping[str, Scores]]
"""Scores by listener, then by language of the text. Every listener has scored the text of every listener, and all
listeners the same sections of a text."""


class SeedTables(NamedTuple):
    """The scores of the models of each seed, on the same sections, in one mode."""

    seeds: Sequence[Table]
    mode: ScoringMode
    are_seeds_linked: bool = False
    """The models of one seed start from the same trained weights."""

    @property
    def mean(self) -> Table:
        """The scores with the mean of each section's sum of losses over seeds."""
        return {
            listener: {text: _mean([table[listener][text] for table in self.seeds]) for text in texts}
            for listener, texts in self.seeds[0].items()
        }


def _mean(scores: Sequence[Scores]) -> Scores:
    loss_sum: NDArray[np.float64] = np.mean([each.loss_sum for each in scores], axis=0)
    return scores[0]._replace(loss_sum=loss_sum)


def recompute(stored: SectionsFile) -> Tables:
    """Return the tables of the headline scores, with numbers rounded as in the CSV files.

    With several seeds they are computed from the scores of each seed, in `tables`, otherwise from `sections`.
    """
    headline = [table for table in stored.tables if _kind_of(table) == _kind_of(stored.tables[0])]
    if len(headline) > 1:
        seeds = [_table_of({a: _rows_of(table, a) for a in table.sections}) for table in headline]
        [found] = all_tables([SeedTables(seeds, headline[0].mode, headline[0].are_seeds_linked)])
    else:
        found = tables(stored.sections, stored.scoring_mode)
    return Tables(
        matrix=tuple(_rounded(row) for row in found.matrix),
        listeners=tuple(_rounded(row) for row in found.listeners),
        asymmetry=tuple(_rounded(row) for row in found.asymmetry),
    )


def _kind_of(table: ScoreTable) -> tuple[str, TextKind, ScoringMode]:
    return table.model, table.kind, table.mode


def _rows_of(table: ScoreTable, listener: str) -> dict[str, tuple[SectionScore, ...]]:
    """Return the scores of a listener on the texts that have a model of their own language."""
    own = table.sections[listener]
    return {text: _rows(columns) for text, columns in own.items() if text in table.sections}


def _rows(columns: SectionColumns) -> tuple[SectionScore, ...]:
    return tuple(
        SectionScore(section=section, loss_sum=loss_sum, n_scored=n_scored, n_total=n_total)
        for section, loss_sum, n_scored, n_total in zip(
            columns.section, columns.loss_sum, columns.n_scored, columns.n_total, strict=True
        )
    )


def _rounded(row: R) -> R:
    """Return a row with its fractions rounded; never -0.0."""
    fields: dict[str, object] = row.model_dump()
    fractions = {name: value for name, value in fields.items() if isinstance(value, float)}
    return changed(row, **{name: round(value, _DECIMALS) + 0.0 for name, value in fractions.items()})


def tables(sections: SectionTable, mode: ScoringMode) -> Tables:
    """Return the three tables of section scores.

    Raises INVALID_INPUT unless every listener has scored the same sections of the text of every listener.
    """
    [found] = all_tables([SeedTables([_table_of(sections)], mode)])
    return found


def all_tables(scored: Sequence[SeedTables]) -> list[Tables]:
    """Return the three tables of each score table; tables with equal sections share the resamples of the bootstrap."""
    found = iter(intervals([statistic for each in scored for statistic in _statistics(each)]))
    return [_tables(each, found) for each in scored]


def excesses(rows: Sequence[MatrixRow]) -> dict[tuple[str, str], float]:
    """Return the excess cross-entropy by listener and language of the text, from the rows of one mode."""
    return {(row.listener_language, row.text_language): row.excess_cross_entropy for row in rows}


def symmetric_distances(rows: Sequence[MatrixRow]) -> dict[tuple[str, str], float]:
    """Return the mean excess of both directions, for both orders of each pair of languages; 0 on the diagonal."""
    excess = excesses(rows)
    return {(a, b): (excess[a, b] + excess[b, a]) / 2 for a, b in excess}


def _table_of(sections: SectionTable) -> Table:
    """Return the section scores as arrays, without sections in which a listener has nothing scored."""
    for listener, texts in sections.items():
        different = sorted(sections.keys() ^ texts.keys())
        if different:
            raise _invalid(
                f"The texts of listener '{listener}' are not those of all listeners: '{different[0]}' is missing"
                " or has no listener of its own."
            )
        wrong = sorted(text for text, rows in texts.items() if any(row.n_scored > row.n_total for row in rows))
        if wrong:
            raise _invalid(f"A section of the text '{wrong[0]}' has more scored positions than positions.")
    kept = {text: _scored_by_all(sections, text) for text in sections}
    return {
        listener: {text: _scores_of(texts[text], kept[text]) for text in sections}
        for listener, texts in sections.items()
    }


def _scored_by_all(sections: SectionTable, text: str) -> list[int]:
    """Return the places of the sections of which every listener has scored a position."""
    own = [row.section for row in sections[text][text]]
    for listener, texts in sections.items():
        if [row.section for row in texts[text]] != own:
            raise _invalid(
                f"Listener '{listener}' has other sections of the text '{text}' than the text's own model:"
                " all listeners of a text need the same sections in the same order."
            )
    kept = [place for place in range(len(own)) if all(texts[text][place].n_scored for texts in sections.values())]
    if not kept:
        raise no_position(text)
    return kept


def no_position(text: str) -> AppError:
    """Return the error of a text without a section of which every listener has scored a position."""
    return _invalid(
        f"No section of the text '{text}' has a position that every listener has scored:"
        " the models share too few characters. Mode unk scores all positions."
    )


def _invalid(message: str) -> AppError:
    return AppError(ErrorCode.INVALID_INPUT, message)


def _scores_of(rows: Sequence[SectionScore], kept: Sequence[int]) -> Scores:
    loss_sum: list[float] = [rows[place].loss_sum for place in kept]
    n_scored: list[int] = [rows[place].n_scored for place in kept]
    n_total: list[int] = [rows[place].n_total for place in kept]
    return Scores(
        np.array(kept, dtype=np.int64),
        np.array(loss_sum, dtype=np.float64),
        np.array(n_scored, dtype=np.int64),
        np.array(n_total, dtype=np.int64),
    )


def _comparisons(table: Table) -> Iterator[tuple[str, str, str]]:
    """Yield text and two listeners, in alphabetical order; the text's own model is none of them."""
    for text in sorted(table):
        yield from ((text, a, b) for a, b in combinations(sorted(other for other in table if other != text), 2))


def _statistics(scored: SeedTables) -> Iterator[Statistic]:
    """Yield the statistics of all rows of the three tables, except for the diagonal of the matrix.

    The cross-entropy of the text's own model cancels in the difference of two listeners' excess.
    """
    table, are_linked = scored.seeds[0], scored.are_seeds_linked
    pooled = {cell: _pooled([seed[cell[0]][cell[1]] for seed in scored.seeds]) for cell in product(table, repeat=2)}
    for listener, text in product(table, repeat=2):
        if listener != text:
            yield Statistic(0, (Difference(pooled[listener, text], pooled[text, text]),), are_linked)
    for seed, (text, a, b) in enumerate(_comparisons(table)):
        yield Statistic(seed, (Difference(pooled[a, text], pooled[b, text]),), are_linked)
    for seed, (a, b) in enumerate(combinations(sorted(table), 2)):
        on_b, on_a = Difference(pooled[a, b], pooled[b, b]), Difference(pooled[a, a], pooled[b, a])
        yield Statistic(seed, (on_b, on_a), are_linked)


def _pooled(seeds: Sequence[Scores]) -> Pooled:
    return Pooled(np.stack([each.loss_sum for each in seeds]), seeds[0].n_scored.astype(np.float64))


def _tables(scored: SeedTables, found: Iterator[Interval]) -> Tables:
    """Return the tables; takes the intervals in the order of `_statistics`."""
    table, mode, n_seeds = scored.mean, scored.mode, len(scored.seeds)
    cross_entropy = {
        (listener, text): scores.cross_entropy for listener, texts in table.items() for text, scores in texts.items()
    }
    excess = {(a, b): nats - cross_entropy[b, b] for (a, b), nats in cross_entropy.items()}
    matrix: list[MatrixRow] = []
    for listener, text in product(table, repeat=2):
        interval = Interval(low=0.0, high=0.0) if listener == text else next(found)
        scores = table[listener][text]
        matrix.append(
            MatrixRow(
                listener_language=listener,
                text_language=text,
                scoring_mode=mode,
                cross_entropy=cross_entropy[listener, text],
                native_cross_entropy=cross_entropy[text, text],
                excess_cross_entropy=excess[listener, text],
                interval_low=interval.low,
                interval_high=interval.high,
                fraction_scored=scores.positions / int(np.sum(scores.n_total)),
                n_scored=scores.positions,
                n_seeds=n_seeds,
            )
        )
    listeners: list[ListenersRow] = []
    for text, a, b in _comparisons(table):
        interval = next(found)
        listeners.append(
            ListenersRow(
                text_language=text,
                listener_a=a,
                listener_b=b,
                scoring_mode=mode,
                difference=excess[a, text] - excess[b, text],
                interval_low=interval.low,
                interval_high=interval.high,
                n_seeds=n_seeds,
            )
        )
    asymmetry: list[AsymmetryRow] = []
    for a, b in combinations(sorted(table), 2):
        interval = next(found)
        asymmetry.append(
            AsymmetryRow(
                language_a=a,
                language_b=b,
                scoring_mode=mode,
                excess_a_on_b=excess[a, b],
                excess_b_on_a=excess[b, a],
                asymmetry=excess[a, b] - excess[b, a],
                interval_low=interval.low,
                interval_high=interval.high,
                n_seeds=n_seeds,
            )
        )
    return Tables(matrix=tuple(matrix), listeners=tuple(listeners), asymmetry=tuple(asymmetry))
