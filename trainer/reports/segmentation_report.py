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
    rows: list[tuple[Cell, ...]] = [
        (
            note("random") if score.cue is None else score.model,
            *_rule(score),
            _estimate(score.f1),
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
        caption=note("{intervals}Line ends do not count.", intervals=note("Intervals: bootstrap over lines, 95 %. ")),
        columns=(
            column("model"),
            column("cue"),
            column("boundaries at"),
            column("F1", "share"),
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
    """Yield the table of the differences between the run and its n-gram, if there is one."""
    compared = [score for score in result.scores if score.f1_minus_ngram is not None]
    rows = [(*_rule(score), _estimate(score.f1_minus_ngram)) for score in compared]
    if rows:
        yield Table(
            name="differences",
            title=note("F1 of the run minus that of the n-gram"),
            caption=note(
                "F1 of the run minus that of the n-gram.{intervals}",
                intervals=note(" Intervals: bootstrap over the same lines, 95 %."),
            ),
            columns=(column("cue"), column("boundaries at"), column("difference", "change")),
            rows=tuple(rows),
            n_titles=2,
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
            "{lines} without their spaces: {rate} of {places} between two characters are boundaries.",
            lines=counted_note(result.n_lines, "line"),
            rate=Quantity(value=result.n_boundaries / result.n_places, form="share"),
            places=counted_note(result.n_places, "place"),
        ),
        note(
            "Thresholds and the rate of random boundaries were chosen on {lines}, beside the scored ones.",
            lines=counted_note(result.n_tuning_lines, "line"),
        ),
    ]
    if result.is_trained_with_spaces:
        found.append(
            note(
                "The training text of the run has spaces between words, so that the run expects them here too. Train a"
                " run on a text without spaces."
            )
        )
    found += unit_leak_notes(result.leak, note("this text"))
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
