"""The report of a word segmentation: precision, recall and F1 of boundaries by models, cues and rules."""

from collections.abc import Iterator, Mapping

from trainer.contracts.reports import (
    Cell,
    Estimate,
    Note,
    Quantity,
    Report,
    Table,
    column,
    counted_note,
    note,
    section,
)
from trainer.contracts.segmentation import BoundaryRule, BoundaryScore, Cue, SegmentationResult, Share
from trainer.reports.leak_notes import unit_leak_notes

_CUES: Mapping[Cue, str] = {"surprisal": "surprisal", "entropy": "branching entropy"}
_RULES: Mapping[BoundaryRule, str] = {"peak": "peaks", "threshold": "above a threshold"}


def segmentation_report(result: SegmentationResult, name: str) -> Report:
    """Return the report of the segmentation of a text with this name."""
    has_chance = any(score.chance is not None for score in result.scores)
    rows: list[tuple[Cell, ...]] = [
        (
            note("random") if score.cue is None else score.model,
            *_rule(score),
            _estimate(score.f1),
            *([_estimate(score.chance)] if has_chance else ()),
            _estimate(score.precision),
            _estimate(score.recall),
            score.n_predicted,
            "" if score.threshold_nats is None else score.threshold_nats,
        )
        for score in result.scores
    ]
    table = Table(
        name="boundaries",
        title=note("Boundaries between words"),
        caption=note(
            "{intervals}Line ends do not count.",
            intervals=note("Intervals: over lines and chosen thresholds, 95 %; of chance: over shuffled cues. ")
            if has_chance
            else note("Intervals: bootstrap over lines, 95 %. "),
        ),
        columns=(
            column("model"),
            column("cue"),
            column("boundaries at"),
            column("F1", "share"),
            *([column("chance", "share")] if has_chance else ()),
            column("precision", "share"),
            column("recall", "share"),
            column("predicted", "count", is_detail=True),
            column("threshold ({unit})", "surprisal", is_detail=True),
        ),
        rows=tuple(rows),
        n_titles=3,
        scale=(0.0, 1.0),
        file="boundaries.csv",
    )
    return Report(
        title=note("Word segmentation of {name}", name=name),
        sections=tuple(section("Boundaries", [table, *_differences(result), *_notes(result)])),
    )


def _differences(result: SegmentationResult) -> Iterator[Table]:
    """Yield the table of the differences from chance and from the n-gram, as far as there are any."""
    from_chance = any(score.f1_minus_chance is not None for score in result.scores)
    from_ngram = any(score.f1_minus_ngram is not None for score in result.scores)
    rows: list[tuple[Cell, ...]] = [
        (
            score.model,
            *_rule(score),
            *([_estimate(score.f1_minus_chance)] if from_chance else ()),
            *([_estimate(score.f1_minus_ngram)] if from_ngram else ()),
        )
        for score in result.scores
        if score.f1_minus_chance is not None or score.f1_minus_ngram is not None
    ]
    if rows:
        yield Table(
            name="differences",
            title=note("Differences of the F1"),
            caption=note(
                "Differences of the F1 from chance, and of the run from its n-gram.{intervals}",
                intervals=note(" Intervals: over the same lines and chosen thresholds, 95 %."),
            ),
            columns=(
                column("model"),
                column("cue"),
                column("boundaries at"),
                *([column("minus chance", "change")] if from_chance else ()),
                *([column("minus n-gram", "change")] if from_ngram else ()),
            ),
            rows=tuple(rows),
            n_titles=3,
            file="differences.csv",
        )


def _rule(score: BoundaryScore) -> tuple[Cell, Cell]:
    """Return the cells of the cue and the rule."""
    cue = "" if score.cue is None else note(_CUES[score.cue])
    return cue, "" if score.rule is None else note(_RULES[score.rule])


def _estimate(share: Share | None) -> Estimate | None:
    return None if share is None else Estimate(value=share.value, low=share.low, high=share.high)


def _notes(result: SegmentationResult) -> list[Note]:
    found = [
        note(
            "{lines} without their spaces: {rate} of {places} between two letters with their marks are boundaries.",
            lines=counted_note(result.n_lines, "line"),
            rate=Quantity(value=result.n_boundaries / result.n_places, form="share"),
            places=counted_note(result.n_places, "place"),
        ),
    ]
    if result.n_tuning_lines:
        found.append(
            note(
                "Thresholds and the rate of random boundaries were chosen on {lines}, beside the scored ones.",
                lines=counted_note(result.n_tuning_lines, "line"),
            )
        )
    differences = [score.f1_minus_chance for score in result.scores if score.f1_minus_chance is not None]
    if differences:
        found.append(
            note(
                "Chance is the F1 of the same rule on the values of the cue shuffled within each line, the mean of"
                " many. Each fifth of the lines is scored with the threshold that is best on the other four."
            )
        )
        n_above = sum(share.low > 0 for share in differences)
        found.append(
            note(
                "{n_above} of {n_rules} rules are above chance: the interval of their difference is above 0.",
                n_above=n_above,
                n_rules=len(differences),
            )
        )
    if result.n_inside:
        found.append(
            note(
                "Left out: {places} between words that are inside a letter with its marks without the space.",
                places=counted_note(result.n_inside, "place"),
            )
        )
    if result.is_trained_with_spaces:
        found.append(
            note(
                "The training text of the run has spaces between words, so that the run expects them here too. Train a"
                " run on a text without spaces."
            )
        )
    found += unit_leak_notes(result.leak, note("this text"))
    if result.is_ngram:
        found.append(note("The run is the best n-gram of its training text itself."))
    if not result.has_ngram:
        found.append(note("No n-gram: the training text of the run is deleted, has changed, or is not yours."))
    if result.n_unknown:
        found.append(note("{characters} unknown to the run.", characters=counted_note(result.n_unknown, "character")))
    if result.n_cut:
        found.append(
            note("{lines} beyond the run's context, scored by windows.", lines=counted_note(result.n_cut, "line"))
        )
    if result.bound_nats is not None:
        found.append(
            note(
                "Surprisals are summed over all tokenizations. That of a character is at most {bound} {unit} too high,"
                " given the tokenizations before it that were continued.",
                bound=Quantity(value=result.bound_nats, form="loss"),
            )
        )
    return found
