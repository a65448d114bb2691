"""The numbers of an experiment: from the losses of all runs to the tables, trees, checks and correlations."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import exp
from statistics import fmean, stdev
from typing import NamedTuple, assert_never

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.base import changed
from trainer.contracts.experiments import (
    TRIGRAM,
    CurveRow,
    Encoding,
    ExperimentRecord,
    ExperimentRequest,
    ExperimentResult,
    ExperimentText,
    ModelTables,
    PerplexityRow,
    Rating,
    Replacement,
    ScoreTable,
    ScoringMode,
    SectionsFile,
    SeedRow,
    Tables,
    TextKind,
)
from trainer.experiments.correlation import ExcessTable, correlations
from trainer.experiments.quantities import Scores, SeedTables, Table, all_tables, excesses, symmetric_distances
from trainer.experiments.sections import (
    Sections,
    TextLosses,
    are_among,
    frequent_characters,
    known_characters,
    scored_by_all,
    section_scores,
)
from trainer.experiments.segments import Assimilator
from trainer.experiments.trigram import Trigram
from trainer.experiments.validity import Family, Measured, average_linkage, gap, validity

KINDS: tuple[TextKind, ...] = ("passages", "held_out", "shuffled")
"""All kinds of text; the headline is of the first one that the experiment has."""


class Listener(NamedTuple):
    """A run of the experiment and its losses of all texts."""

    model: str
    language: str
    seed: int
    curve: CurveRow
    losses: Mapping[tuple[str, Encoding], TextLosses]
    """By text id and encoding; assimilated losses only for mode assimilate."""
    replacements: Sequence[Replacement]
    is_char: bool
    """The run's tokens are single characters."""


class _Scorer(NamedTuple):
    """A model of one language that has scored all texts: a run, or the baseline."""

    model: str
    language: str
    seed: int | None
    losses: Mapping[tuple[str, Encoding], TextLosses]


class _Text(NamedTuple):
    kind: TextKind
    language: str
    text_id: str
    sections: Sections
    scored: NDArray[np.bool_]
    """The characters that mode skip scores."""


class _Scored(NamedTuple):
    """The scores of one model on one kind of text in one mode."""

    model: str
    kind: TextKind
    mode: ScoringMode
    all_texts: dict[int | None, Table]
    """By seed; also the texts of languages without a model."""
    are_seeds_linked: bool
    """The models of one seed start from the weights of the first phase."""

    @property
    def seeds(self) -> SeedTables:
        """The scores of the texts that have a model of their own language."""
        tables = [
            {listener: {text: texts[text] for text in table} for listener, texts in table.items()}
            for table in self.all_texts.values()
        ]
        return SeedTables(tables, self.mode, self.are_seeds_linked)


def analyse(
    record: ExperimentRecord,
    texts: Sequence[tuple[ExperimentText, Sequence[str]]],
    listeners: Sequence[Listener],
    training_text: Callable[[str], Iterable[str]],
    ratings: Sequence[Rating],
) -> tuple[ExperimentResult, SectionsFile]:
    """Return all numbers of an experiment, and the section scores that they are computed from.

    `texts` are the texts of every language with their sections; `listeners` are the runs of every model, trained
    language and seed, seeds in ascending order. `training_text(language)` returns the lines of the training split of a
    trained language, anew at each call. Raises INVALID_INPUT if a mode scores no position of a text.
    """
    request = record.request
    languages = request.trained_languages
    scorers = [_Scorer(each.model, each.language, each.seed, each.losses) for each in listeners]
    replacements = [row for each in listeners for row in each.replacements]
    if request.has_trigram_baseline:
        has_assimilate = "assimilate" in request.modes
        for language in languages:
            baseline, replaced = _baseline(language, training_text(language), texts, has_assimilate=has_assimilate)
            scorers.append(baseline)
            replacements += replaced
    masked = _masked_texts(record, texts, listeners, training_text)
    kinds = [kind for kind in KINDS if any(text.kind == kind for text in masked)]
    models = [*request.models, *([TRIGRAM] if request.has_trigram_baseline else [])]
    scored = [
        _scored(model, kind, mode, scorers, masked, request)
        for model in models
        for kind in kinds
        for mode in request.modes
    ]
    found = all_tables([each.seeds for each in scored])
    options = {code: request.languages[code] for code in languages}
    family = Family(request.family, [code for code, each in options.items() if each.is_control])
    n_modes = len(request.modes)
    measured = [
        Measured(distances, average_linkage(languages, distances))
        for distances in (symmetric_distances(tables.matrix) for tables in found[::n_modes])
    ]  # of the first mode, by model, then by kind
    rated = [
        ExcessTable(each.model, each.kind, each.mode, excesses(tables.matrix))
        for each, tables in zip(scored, found, strict=True)
    ]
    test = request.primary_test
    primary = changed(
        test, model=test.model or models[0], kind=test.kind or kinds[0], mode=test.mode or request.modes[0]
    )
    result = ExperimentResult(
        experiment_id=record.experiment_id,
        name=request.name,
        languages=languages,
        text_languages=tuple(request.languages),
        branches=family.branches,
        controls=tuple(family.controls),
        seeds=request.seeds,
        modes=request.modes,
        common_characters=_common_characters(masked) if all(each.is_char for each in listeners) else None,
        headline=(models[0], kinds[0]),
        models=tuple(
            ModelTables(
                model=first.model,
                kind=first.kind,
                tables=_joined(found[place * n_modes : (place + 1) * n_modes]),
                tree=tuple(own.tree),
                gap=gap(own.distances, family),
            )
            for place, (first, own) in enumerate(zip(scored[::n_modes], measured, strict=True))
        ),
        seed_rows=tuple(row for each in scored if each.model != TRIGRAM for row in _seed_rows(each)),
        perplexities=tuple(row for each in scored for row in _perplexities(each)),
        curves=tuple(each.curve for each in listeners),
        replacements=tuple(replacements),
        correlations=correlations(rated, ratings, family.branches, primary) if ratings else (),
        validity=validity(dict(zip(kinds, measured[: len(kinds)], strict=True)), kinds[0], family),
    )
    return result, _sections_file(record, scored, family, ratings)


def _sections_file(
    record: ExperimentRecord, scored: Sequence[_Scored], family: Family, ratings: Sequence[Rating]
) -> SectionsFile:
    """Return all scores; those of the headline also as rows, means over seeds."""
    return SectionsFile(
        sections={
            listener: {text: scores.rows() for text, scores in by_text.items()}
            for listener, by_text in scored[0].seeds.mean.items()
        },
        scoring_mode=record.request.modes[0],
        branches=dict(family.branches),
        controls=tuple(family.controls),
        tables=tuple(table for each in scored for table in _score_tables(each)),
        ratings=tuple(ratings),
    )


def _baseline(
    language: str,
    lines: Iterable[str],
    texts: Sequence[tuple[ExperimentText, Sequence[str]]],
    *,
    has_assimilate: bool,
) -> tuple[_Scorer, tuple[Replacement, ...]]:
    """Train the trigram baseline of a language and score all texts; return the scores and its replacements."""
    trigram = Trigram(lines)
    losses: dict[tuple[str, Encoding], TextLosses] = {
        (text.text_id, "raw"): trigram.losses(sections) for text, sections in texts
    }
    replacements: tuple[Replacement, ...] = ()
    if has_assimilate:
        assimilator = Assimilator(trigram.characters)
        for text, sections in texts:
            losses[text.text_id, "assimilated"] = trigram.losses([assimilator.replace(each) for each in sections])
        everything = (section for _, sections in texts for section in sections)
        replacements = assimilator.replacements(everything, model=TRIGRAM, language=language, seed=None)
    return _Scorer(TRIGRAM, language, None, losses), replacements


def _masked_texts(
    record: ExperimentRecord,
    texts: Sequence[tuple[ExperimentText, Sequence[str]]],
    listeners: Sequence[Listener],
    training_text: Callable[[str], Iterable[str]],
) -> list[_Text]:
    """Return the texts with the characters that every run knows and that every training split has often enough."""
    minimum = record.request.min_occurrences
    frequent = [
        frequent_characters(training_text(language), minimum)
        for language in record.request.trained_languages
        if minimum
    ]
    masked: list[_Text] = []
    for text, lines in texts:
        sections = Sections.of(lines)
        scored = known_characters(sections, (listener.losses[text.text_id, "raw"] for listener in listeners))
        if frequent:
            scored &= are_among(sections, set.intersection(*frequent))
        masked.append(_Text(text.kind, text.language, text.text_id, sections, scored))
    return masked


def _scored(
    model: str,
    kind: TextKind,
    mode: ScoringMode,
    scorers: Sequence[_Scorer],
    texts: Sequence[_Text],
    request: ExperimentRequest,
) -> _Scored:
    """Return the scores of a model; the trained languages are the listeners."""
    languages, options = request.trained_languages, request.models.get(model)
    own = [each for each in scorers if each.model == model]
    by_language = {text.language: text for text in texts if text.kind == kind}
    kept: dict[tuple[int | None, str, str], Scores] = {}
    for language, text in by_language.items():
        scores = scored_by_all([_scores(each, text, mode) for each in own], language)
        kept |= {(scorer.seed, scorer.language, language): each for scorer, each in zip(own, scores, strict=True)}
    seeds = [each.seed for each in own if each.language == languages[0]]
    return _Scored(
        model,
        kind,
        mode,
        {
            seed: {listener: {text: kept[seed, listener, text] for text in by_language} for listener in languages}
            for seed in seeds
        },
        are_seeds_linked=options is not None and options.transfer is not None,
    )


def _scores(scorer: _Scorer, text: _Text, mode: ScoringMode) -> Scores:
    match mode:
        case "skip":
            return section_scores(text.sections, scorer.losses[text.text_id, "raw"], text.scored)
        case "unk":
            return section_scores(text.sections, scorer.losses[text.text_id, "raw"])
        case "assimilate":
            return section_scores(text.sections, scorer.losses[text.text_id, "assimilated"])
        case unknown:
            assert_never(unknown)


def _joined(modes: Sequence[Tables]) -> Tables:
    return Tables(
        matrix=tuple(row for each in modes for row in each.matrix),
        listeners=tuple(row for each in modes for row in each.listeners),
        asymmetry=tuple(row for each in modes for row in each.asymmetry),
    )


def _common_characters(texts: Sequence[_Text]) -> tuple[str, ...]:
    codes: set[int] = set()
    for text in texts:
        scored: list[int] = np.unique(text.sections.characters[text.scored]).tolist()
        codes.update(scored)
    return tuple(map(chr, sorted(codes)))


def _seed_rows(scored: _Scored) -> Iterator[SeedRow]:
    tables = scored.seeds.seeds
    for listener, by_text in tables[0].items():
        for text in by_text:
            nats = [table[listener][text].cross_entropy for table in tables]
            excess = [value - table[text][text].cross_entropy for value, table in zip(nats, tables, strict=True)]
            yield SeedRow(
                model=scored.model,
                kind=scored.kind,
                listener_language=listener,
                text_language=text,
                scoring_mode=scored.mode,
                n_seeds=len(tables),
                cross_entropy_mean=fmean(nats),
                cross_entropy_sd=stdev(nats) if len(nats) > 1 else None,
                excess_mean=fmean(excess),
                excess_sd=stdev(excess) if len(excess) > 1 else None,
            )


def _perplexities(scored: _Scored) -> Iterator[PerplexityRow]:
    first, *_ = tables = list(scored.all_texts.values())
    for listener, by_text in first.items():
        for text, scores in by_text.items():
            nats = [table[listener][text].cross_entropy for table in tables]
            yield PerplexityRow(
                model=scored.model,
                kind=scored.kind,
                listener_language=listener,
                text_language=text,
                scoring_mode=scored.mode,
                n_seeds=len(tables),
                cross_entropy=fmean(nats),
                perplexity=exp(fmean(nats)),
                perplexity_sd=stdev(map(exp, nats)) if len(nats) > 1 else None,
                n_scored=scores.positions,
            )


def _score_tables(scored: _Scored) -> Iterator[ScoreTable]:
    for seed, table in scored.all_texts.items():
        yield ScoreTable(
            model=scored.model,
            kind=scored.kind,
            mode=scored.mode,
            seed=seed,
            are_seeds_linked=scored.are_seeds_linked,
            sections={
                listener: {text: scores.columns() for text, scores in by_text.items()}
                for listener, by_text in table.items()
            },
        )
