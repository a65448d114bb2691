"""The report of a run: its fields, each declared once, its losses, and the notes about them."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from trainer.contracts.reports import (
    Cell,
    Column,
    Estimate,
    Form,
    Note,
    Part,
    Report,
    Table,
    column,
    joined,
    note,
    number_note,
    section,
)
from trainer.contracts.runs import RunStatus, has_unknown_text
from trainer.contracts.units import perplexity
from trainer.reports.run_notes import counting_note, shown_figure, test_note, unknown_note


class RunField(NamedTuple):
    """A field of a run's status, or several that are read together, as people see it."""

    name: str
    """The field of RunStatus by which a list of runs is sorted."""
    title: str
    cell: Callable[[RunStatus], Cell]
    """Returns what is shown; None where there is nothing to show."""
    form: Form = "text"
    is_on_card: bool = False
    """Shown on the card of a run that trains, with its title."""
    is_column: bool = False
    """A column of the list of runs on the page, unless the reader chooses other ones."""


class RunLoss(NamedTuple):
    """A loss of a run: the fields of RunStatus with it, its bits per character and half of its interval."""

    title: str
    loss: str
    bits_per_char: str
    margin: str | None = None
    usual: tuple[str, ...] = ()
    """The fields that are columns of the list of runs on the page, unless the reader chooses other ones."""


def _model(run: RunStatus) -> Note:
    parts = [note("{family}", family=run.model_family)]
    parts += [] if run.model_size is None else [note(" {size}", size=run.model_size)]
    parts += [note(", masked tokens")] if run.objective == "masked_lm" else []
    parts += [note(", both directions")] if run.is_bidirectional else []
    return joined(parts)


def _message(run: RunStatus) -> Note:
    message = note("{text}", text=run.message)
    if run.queue_position is None:
        return message
    return note("{message} (position {position} in the queue)", message=message, position=run.queue_position)


def _step(run: RunStatus) -> Note:
    steps = note("{step}", step=run.step)
    if run.total_steps is not None:
        steps = note("{step} of {steps}", step=run.step, steps=run.total_steps)
    return note("{steps}, epoch {epoch} of {epochs}", steps=steps, epoch=run.epoch, epochs=run.total_epochs)


def _best_epoch(run: RunStatus) -> Cell:
    if run.best_epoch is None:
        return None
    parts = [note("{epoch}", epoch=run.best_epoch)]
    parts += [note(": the weights of the parent")] if run.best_epoch == 0 else []
    parts += [note(", stopped early")] if run.early_stopped else []
    return joined(parts)


def _memory(run: RunStatus) -> Cell:
    used = run.gpu_memory_bytes or ()
    parts = [number_note(one, "bytes") for one in used]
    return joined(parts, ", ") if parts else None


def _heartbeat(run: RunStatus) -> Cell:
    if run.status != "running" or run.last_heartbeat_ts is None:
        return None
    at = number_note(run.last_heartbeat_ts, "time")
    return at if run.reachable else note("{time}; the worker is not responding", time=at)


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _of_two(first: str | None, second: str | None) -> str | None:
    return ", ".join(filter(None, (first, second))) or None


RUN_FIELDS: Sequence[RunField] = (
    RunField("label", "Label", lambda run: run.label),
    RunField("tags", "Tags", lambda run: ", ".join(run.tags) or None),
    RunField("note", "Note", lambda run: run.note),
    RunField("message", "Message", _message),
    RunField("progress", "Progress", lambda run: run.progress, "percent"),
    RunField("step", "Step", _step),
    RunField("eta_seconds", "Time left", lambda run: run.eta_seconds if run.reachable else None, "duration"),
    RunField("best_epoch", "Best epoch", _best_epoch),
    RunField("model_family", "Model", _model, is_column=True),
    RunField("params", "Weights", lambda run: run.params, "count"),
    RunField("tokenizer_id", "Tokenizer", lambda run: run.tokenizer_id),
    RunField("vocab_size", "Vocabulary", lambda run: run.vocab_size, "count"),
    RunField(
        "unknown_char_share",
        "Unknown",
        lambda run: unknown_note(run.unknown_char_share) if run.unknown_char_share else None,
    ),
    RunField("tokens_per_second", "Tokens/s", lambda run: run.tokens_per_second, "count", is_on_card=True),
    RunField("chars_per_second", "Characters/s", lambda run: run.chars_per_second, "count", is_on_card=True),
    RunField("device", "Device", lambda run: _of_two(run.device, run.precision), is_on_card=True),
    RunField("gpu_memory_bytes", "GPU memory", _memory, is_on_card=True),
    RunField("grad_norm", "Gradient norm", lambda run: run.grad_norm, "hundredths", is_on_card=True),
    RunField("learning_rate", "Learning rate", lambda run: run.learning_rate, "figures", is_on_card=True),
    RunField(
        "last_checkpoint_step",
        "Last checkpoint",
        lambda run: None if run.last_checkpoint_step is None else note("step {step}", step=run.last_checkpoint_step),
    ),
    RunField("last_heartbeat_ts", "Last heartbeat", _heartbeat),
    RunField("attempt", "Attempt", lambda run: run.attempt if run.attempt > 1 else None, "count"),
    RunField("owner", "Owner", lambda run: run.owner, is_column=True),
    RunField("created_at", "Created", lambda run: _seconds(run.created_at), "time", is_column=True),
    RunField("started_at", "Started", lambda run: _seconds(run.started_at), "time"),
    RunField("finished_at", "Finished", lambda run: _seconds(run.finished_at), "time"),
    RunField("error", "Error", lambda run: None if run.error is None else run.error.code),
)
"""The fields of a run in the order in which people see them."""

RUN_LOSSES: Sequence[RunLoss] = (
    RunLoss("Training", "train_loss", "train_bits_per_char", usual=("train_loss",)),
    RunLoss("Validation", "val_loss", "val_bits_per_char", usual=("val_loss",)),
    RunLoss("Best validation", "best_val_loss", "best_val_bits_per_char", "best_val_margin"),
    RunLoss("Test", "test_loss", "bits_per_char", usual=("test_loss", "bits_per_char")),
)


def run_report(run: RunStatus) -> Report:
    """Return the report of a run: its fields, and its losses with what is to be known about them."""
    title, state = note("Status"), _state(run)
    if run.status == "completed":
        firsts = [*section("Losses", [state, *_results(run)]), *section("Status", [_facts(run, title)])]
    else:
        firsts = [*section("Status", [_facts(run, state)]), *section("Losses", _results(run))]
    return Report(title=note("{run}", run=run.label or run.run_id), sections=tuple(firsts))


def end_report(run: RunStatus) -> Report:
    """Return the report of a run that has ended, without the fields that its reader has followed."""
    sections = section("Losses", [_state(run), *_results(run)])
    return Report(title=note("{run}", run=run.label or run.run_id), sections=tuple(sections))


def _state(run: RunStatus) -> Note:
    """Return the state of a run by its name, with the id behind it."""
    return named_state(run.run_id, run.label, run.status)


def named_state(run_id: str, label: str | None, status: str) -> Note:
    """Return the state of a run or a group by its name, with the id behind it."""
    if label is None:
        return note("{run}: {status}", run=run_id, status=status)
    return note("{run} ({id}): {status}", run=label, id=run_id, status=status)


def _results(run: RunStatus) -> list[Part]:
    """Return the losses of a run and what is to be known about them."""
    notes = [] if run.baseline is None else [counting_note(run.baseline)]
    notes += [] if (looks := test_note(run)) is None else [looks]
    notes += [note("{text}", text=text.removesuffix(".")) for text in run.notes]
    notes += [note("Warning: {text}", text=text.removesuffix(".")) for text in run.warnings]
    return [*_losses(run), *notes]


def card_fields(run: RunStatus) -> Iterator[tuple[Note, Cell, Column]]:
    """Yield title, cell and column of the fields on the card of a run that trains."""
    for field, cell in _shown(run):
        if field.is_on_card:
            yield note(field.title), cell, column("", field.form)


def _shown(run: RunStatus) -> Iterator[tuple[RunField, Cell]]:
    for field in RUN_FIELDS:
        cell = field.cell(run)
        if cell is not None:
            yield field, cell


def _facts(run: RunStatus, title: Note) -> Table:
    """Return the fields of a run, each in a row with its title."""
    rows = [
        (note(field.title), number_note(cell, field.form) if isinstance(cell, int | float) else cell)
        for field, cell in _shown(run)
    ]
    return Table(name="status", title=title, columns=(column(""), column("")), rows=tuple(rows))


def _losses(run: RunStatus) -> list[Part]:
    names = {name for one in RUN_LOSSES for name in (one.loss, one.bits_per_char, one.margin) if name is not None}
    values: dict[str, float | None] = run.model_dump(include=names)
    rows: list[tuple[Cell, ...]] = []
    share, known = run.unknown_char_share, None if run.baseline is None else run.baseline.known_loss
    for one in RUN_LOSSES:
        loss, bits = values[one.loss], values[one.bits_per_char]
        margin = None if one.margin is None else values[one.margin]
        if loss is not None:
            low, high = (None, None) if margin is None else (loss - margin, loss + margin)
            mean = Estimate(value=loss, low=low, high=high, is_marked=has_unknown_text(share))
            per_char, shown = (
                shown_figure(figure, share, has_known=known is not None) for figure in (bits, perplexity(loss))
            )
            rows.append((note(one.title), mean, per_char, shown))
        elif one.loss == "train_loss" and run.status == "completed":
            rows.append((note(one.title), note("– (shorter than an epoch)"), "", ""))
    if known is not None and has_unknown_text(share):
        title = note("Test, known tokens") if run.test_loss is not None else note("Best validation, known tokens")
        rows.append((title, known, None, perplexity(known)))
    columns = [
        column("split"),
        column("{unit} per token" if run.objective == "causal_lm" else "{unit} per masked token", "loss"),
        column("{unit} per character", "per_char"),
        column("perplexity", "perplexity"),
    ]
    if not any(row[2] for row in rows):  # a masked model, or text that is largely unknown
        columns, rows = [*columns[:2], columns[3]], [(*row[:2], row[3]) for row in rows]
    caption = note(
        "Losses{intervals}", intervals=note(", with 95 % intervals over the lines of the split where they are known")
    )
    return (
        [Table(name="losses", title=note("Losses"), caption=caption, columns=tuple(columns), rows=tuple(rows))]
        if rows
        else []
    )
