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
    """Return one row per measured step, losses in nats per token; None if no step was measured.

    Of a step that was measured twice, because its attempt was interrupted, the later values count.
    """
    rows: dict[int, MetricsProgress] = {}
    for event in events:
        if isinstance(event, MetricsProgress):
            rows[event.step] = event
    if not rows:
        return None
    lines: list[list[object]] = [[*_COLUMNS]]
    for _, row in sorted(rows.items()):
        values: dict[str, object] = row.model_dump(include=set(_COLUMNS))
        lines.append([values[name] for name in _COLUMNS])
    return f"{csv_lines(lines, ',')}\n".encode()
