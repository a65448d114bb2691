"""What the `mt` command shows: JSON for programs, or a live bar and tables for people."""

import math
import sys
from typing import assert_never

from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from trainer.contracts.errors import ErrorBody
from trainer.contracts.inference import EvalMetrics, GenerateResponse, ScoreResponse
from trainer.contracts.runs import RunStatus


class Terminal:
    """Standard output for the result, standard error for everything on the way to it."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._out = Console(highlight=False, soft_wrap=True)
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._err,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_bar()

    def progress(self, status: RunStatus) -> None:
        """Show how a run stands, in one line that is drawn anew."""
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(status.run_id, total=100, figures="")
        self._bar.update(self._task, completed=status.progress, figures=_figures(status))

    def note(self, text: str) -> None:
        self._err.print(text, markup=False)

    def error(self, body: ErrorBody) -> None:
        if self._as_json:
            self._json(body, without_empty=True)
        else:
            self._err.print(f"mt: {body.message}", markup=False)

    def run(self, status: RunStatus) -> None:
        """Show a run that has ended."""
        self._stop_bar()
        if self._as_json:
            self._json(status)
            return
        if status.error is not None:
            self._err.print(f"mt: {status.error.message}", markup=False)
        table = _table(f"{status.run_id}: {status.status}")
        _loss_rows(table, "test", status.test_loss, status.bits_per_char)
        _loss_rows(table, "best validation", status.best_val_loss, None)
        self._out.print(table)
        if status.status == "completed":
            self._out.print(f'next: mt generate {status.run_id} "…"   ·   mt score {status.run_id} "…"', markup=False)

    def answer(self, response: ScoreResponse | GenerateResponse | EvalMetrics) -> None:
        """Show the answer to a request."""
        if self._as_json:
            self._json(response)
            return
        match response:
            case ScoreResponse():
                self._score(response)
            case GenerateResponse():
                for output, reason in zip(response.outputs or (), response.stop_reason or (), strict=True):
                    self._out.print(output, markup=False)
                    self._err.print(f"({reason}, seed {response.seed_used})", markup=False)
            case EvalMetrics():
                self._metrics(response)
            case _:
                assert_never(response)

    def _metrics(self, metrics: EvalMetrics) -> None:
        table = _table(f"{metrics.run_id}: {metrics.split}")
        _loss_rows(table, "loss", metrics.loss, metrics.bits_per_char)
        table.add_row("top-1, top-5", f"{metrics.top1_accuracy:.1%}, {metrics.top5_accuracy:.1%}")
        table.add_row("tokens", f"{metrics.n_tokens:,}")
        self._out.print(table)

    def _stop_bar(self) -> None:
        if self._task is not None:
            self._bar.stop()

    def _score(self, response: ScoreResponse) -> None:
        table = _table(response.run_id)
        _loss_rows(table, "loss", response.loss, response.bits_per_char)
        table.add_row("tokens, unknown", f"{response.n_scored}, {response.unk_count}")
        self._out.print(table)
        for token, surprisal in zip(response.tokens or (), response.surprisal or (), strict=True):
            self._out.print(f"{token}\t{surprisal:.4f}", markup=False)

    def _json(self, record: BaseModel, *, without_empty: bool = False) -> None:
        sys.stdout.write(record.model_dump_json(exclude_defaults=without_empty) + "\n")
        sys.stdout.flush()


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    return table


def _loss_rows(table: Table, name: str, loss_nats: float | None, bits_per_char: float | None) -> None:
    if loss_nats is None:
        return
    bits = "" if bits_per_char is None else f", {bits_per_char:.3f} bits per character"
    table.add_row(name, f"{loss_nats:.4f} nats per token{bits}, perplexity {math.exp(loss_nats):.3f}")


def _figures(status: RunStatus) -> str:
    if status.train_loss is None:
        return status.message
    validation = "" if status.val_loss is None else f"  validation {status.val_loss:.3f}"
    speed = (status.chars_per_second or 0.0) / 1000
    epoch = f"epoch {status.epoch}/{status.total_epochs}"
    return f"{epoch}  loss {status.train_loss:.3f}{validation}  {speed:.1f} k chars/s"
