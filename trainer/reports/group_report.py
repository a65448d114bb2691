"""The report of a group of runs over seeds: its runs, and mean, deviation, interval and range of their numbers."""

from collections.abc import Mapping, Sequence

from trainer.contracts.groups import GroupNumber, GroupStatus
from trainer.contracts.intervals import Spread
from trainer.contracts.reports import Cell, Form, Link, Note, Report, Table, column, note, number_note, section
from trainer.contracts.runs import RunStatus, has_unknown_text
from trainer.reports.run_notes import SEEDLESS, counting_notes, marked, shown_figure, test_note, unknown_note
from trainer.reports.run_report import named_state

GROUP_NUMBERS: Mapping[GroupNumber, tuple[str, Form]] = {
    "test_loss": ("test, {unit} per token", "loss"),
    "bits_per_char": ("test, {unit} per character", "per_char"),
    "test_perplexity": ("test, perplexity", "perplexity"),
    "best_val_loss": ("best validation, {unit} per token", "loss"),
    "best_val_bits_per_char": ("best validation, {unit} per character", "per_char"),
    "train_loss": ("training, {unit} per token", "loss"),
    "auc": ("area under the training loss curve, {unit} · steps", "surprisal"),
}
"""Title and form of each number."""


def group_report(group: GroupStatus) -> Report:
    """Return the report of a group."""
    failures = [note("{run}: {text}", run=one.run_id, text=one.message) for one in group.of_state("failed")]
    named = named_state(group.group_id, group.label, group.status)
    state = note("{state}. {message}", state=named, message=group.message)
    sections = [
        *section("Over seeds", [state, *_spreads(group), *_seeds(group), *_counting(group), *_looks(group)]),
        *section("Runs", [_runs(group.members), *_unknown(group), *failures]),
    ]
    return Report(title=note("{group}", group=group.label or group.group_id), sections=tuple(sections))


def _spreads(group: GroupStatus) -> Sequence[Table]:
    rows: list[tuple[Cell, ...]] = []
    for name, (title, form) in GROUP_NUMBERS.items():
        if name in group.numbers:
            rows.append((note(title), *spread_cells(group.numbers[name], form, group.unknown_char_share)))
    columns = (column(""), column("mean"), column("deviation"), column("95 % interval"), column("range"))
    about = note(
        "Numbers of the completed runs ({count} of {all}); intervals over other seeds, not over other lines",
        count=group.n_completed,
        all=len(group.members),
    )
    return [Table(name="numbers", title=about, columns=columns, rows=tuple(rows))] if rows else []


def spread_cells(found: Spread, form: Form, unknown_char_share: float | None = None) -> tuple[Note | None, ...]:
    """Return mean, deviation, 95 % interval and range of a number; None for what is not known."""

    def valued(number: float | None) -> Note | None:
        return None if number is None else number_note(number, form)

    def ends(low: float | None, high: float | None) -> Note | None:
        first, last = valued(low), valued(high)
        return None if first is None or last is None else note("{low} to {high}", low=first, high=last)

    mean, deviation = marked(number_note(found.mean, form), unknown_char_share), valued(found.deviation)
    return mean, deviation, ends(found.low, found.high), ends(found.minimum, found.maximum)


def _runs(members: Sequence[RunStatus]) -> Table:
    columns = (
        column("run"),
        column("seed"),
        column("status"),
        column("progress", "percent"),
        column("best validation, {unit} per token", "loss"),
        column("test, {unit} per token", "loss"),
        column("test, {unit} per character", "per_char", is_detail=True),
    )
    rows = tuple(
        (
            *(Link(text=one.run_id, address=f"runs/{one.run_id}"), f"{one.seed}", one.status, one.progress),
            *(
                shown_figure(figure, one.unknown_char_share, has_known=False)
                for figure in (one.best_val_loss, one.test_loss, one.bits_per_char)
            ),
        )
        for one in members
    )
    return Table(name="runs", title=note("Runs"), columns=columns, rows=rows)


def _seeds(group: GroupStatus) -> Sequence[Note]:
    return [] if group.depends_on_seeds else [SEEDLESS]


def _counting(group: GroupStatus) -> Sequence[Note]:
    """Return the mean of the runs against the best n-gram, and what to do where it is not better."""
    return [] if group.baseline is None else [*counting_notes(group.baseline)]


def _looks(group: GroupStatus) -> Sequence[Note]:
    """Return the looks at the test text, which the runs of a group share."""
    return [found for one in group.of_state("completed") if (found := test_note(one)) is not None][:1]


def _unknown(group: GroupStatus) -> Sequence[Note]:
    share = group.unknown_char_share
    return [unknown_note(share)] if share is not None and has_unknown_text(share) else []
