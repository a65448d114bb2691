"""The curves of a run as CSV."""

from collections.abc import Iterable

from trainer.contracts.events import Event, MetricsProgress
from trainer.reports.score_table import csv_lines

_COLUMNS = (
    "step",
    "epoch",
    "train_loss",
    "train_bits_per_char",
    "val_loss",
    "val_bits_per_char",
    "learning_rate",
    "grad_norm",
    "tokens_per_second",
)


def curves_csv(events: Iterable[Event]) -> bytes | None:
    """Return one row per measured step, losses in nats per token; None if no step was measured."""
    rows: list[list[object]] = [[*_COLUMNS]]
    for event in events:
        if isinstance(event, MetricsProgress):
            values: dict[str, object] = event.model_dump(include=set(_COLUMNS))
            rows.append([values[name] for name in _COLUMNS])
    return f"{csv_lines(rows, ',')}\n".encode() if len(rows) > 1 else None
