"""What the `mt` command shows: JSON for programs, or a live bar and tables for people."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pydantic import BaseModel
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from trainer.contracts.errors import ErrorBody
from trainer.contracts.inference import perplexity
from trainer.contracts.models import Objective
from trainer.contracts.runs import RunStatus

_STANDARD_OUTPUT = 1


class Terminal:
    """Standard output for the result, standard error for everything on the way to it."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._out = Console(highlight=False, soft_wrap=True, emoji=False)
        self._err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._err,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_bar()

    def progress(self, status: RunStatus) -> None:
        """Show how a run stands, in one line that is drawn anew."""
        if status.run_id not in self._tasks:
            self._bar.start()
            self._tasks[status.run_id] = self._bar.add_task(status.run_id, total=100, figures="")
        self._bar.update(self._tasks[status.run_id], completed=status.progress, figures=_figures(status))

    def show(self, record: BaseModel, *for_people: RenderableType) -> None:
        """Show a result: as one JSON object for a program, else as tables."""
        self._stop_bar()
        if self._as_json:
            self.line(record.model_dump_json())
            return
        for part in for_people:
            with self._writing():
                self._out.print(part)

    def line(self, text: str) -> None:
        """Write a line of the result as it is, at once; ends the program where nobody reads on, as after `| head`."""
        self.write(text + "\n")

    def write(self, text: str) -> None:
        """Write a part of a line as `line` does."""
        with self._writing():
            sys.stdout.write(text)
            sys.stdout.flush()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """End the program where standard output cannot be written to; without a word where nobody reads it."""
        try:
            yield
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), _STANDARD_OUTPUT)  # Python flushes once more at its end
            if not isinstance(error, BrokenPipeError):
                self.note(f"mt: The result could not be written to standard output: {error.strerror}.")
            raise SystemExit(1) from None

    def note(self, text: str) -> None:
        self._err.print(text, markup=False)

    def error(self, body: ErrorBody) -> None:
        if self._as_json:
            self.line(body.model_dump_json(exclude_defaults=True))
        else:
            self._err.print(f"mt: {body.message}", markup=False)

    def _stop_bar(self) -> None:
        if self._tasks:
            self._bar.stop()


def summary_table(title: str) -> Table:
    """A table of names and values."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    return table


def columns(rows: Sequence[Sequence[str]]) -> Text:
    """Rows of cells one under another, each as wide as it needs to be: nothing in them is cut off."""
    widths = [max(cell_len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(c + " " * (w - cell_len(c)) for c, w in zip(row, widths, strict=True)) for row in rows)
    return Text("\n".join(line.rstrip() for line in lines))


def duration(seconds: float) -> str:
    """A time span in its two largest units."""
    left = round(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def add_loss(
    table: Table,
    name: str,
    loss_nats: float | None,
    bits_per_char: float | None,
    objective: Objective = "causal_lm",
) -> None:
    """Add a loss with its perplexity and, where it has them, its bits per character; None adds nothing."""
    if loss_nats is None:
        return
    bits = "" if bits_per_char is None else f", {bits_per_char:.3f} bits per character"
    token = "token" if objective == "causal_lm" else "masked token"
    table.add_row(name, f"{loss_nats:.4f} nats per {token}{bits}, perplexity {perplexity(loss_nats):.3f}")


def _figures(status: RunStatus) -> str:
    if status.train_loss is None:
        return status.message
    validation = "" if status.val_loss is None else f"  validation {status.val_loss:.3f}"
    speed = (status.chars_per_second or 0.0) / 1000
    epoch = f"epoch {status.epoch}/{status.total_epochs}"
    return f"{epoch}  loss {status.train_loss:.3f}{validation}  {speed:.1f} k chars/s"
