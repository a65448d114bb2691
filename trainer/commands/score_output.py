"""The output of `mt score`: scores of many requests in their order, their formats, and the file they are written to."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from rich.table import Table

from trainer.commands.terminal import Terminal, loss_figures, summary, unknown_mark
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode, transient_code
from trainer.contracts.reports import Note
from trainer.contracts.runs import Leak, largest_leak
from trainer.contracts.scores import DetailLevel, ScoreResponse, Totals, WindowReport
from trainer.contracts.units import Unit, in_unit, loss_number, per_char_number, surprisal_number
from trainer.reports.heatmap_html import heatmap_html
from trainer.reports.run_notes import describe_unknown
from trainer.reports.score_table import ScoredLine, csv_lines, heatmap_rows, table_rows, token_rows, token_scores
from trainer.system.files import storage_errors

T = TypeVar("T")
Format = Literal["table", "json", "jsonl", "csv", "tsv"]
Write = Callable[[str], None]
"""Writes complete lines of the result; the text has no final newline."""

_MAX_REQUESTS = 4
"""Requests under way at a time, which bounds the memory for a file of any size."""


def check_output(file: Path, source: Path | None, *, overwrites: bool) -> None:
    """Refuse an output file that cannot be written, that is the input, or that would be overwritten."""
    if not os.path.isdir(file.parent):
        raise AppError(ErrorCode.INVALID_INPUT, f"There is no folder '{file.parent}' to write '{file.name}' to.")
    if os.path.isdir(file):
        raise AppError(ErrorCode.INVALID_INPUT, f"'{file}' is a folder: name a file to write to.")
    if source is not None and os.path.exists(source) and os.path.exists(file) and file.samefile(source):
        raise AppError(ErrorCode.INVALID_INPUT, f"'{file}' is the input: name another file to write to.")
    if os.path.isfile(file) and not overwrites:
        message = f"'{file}' already exists: name another file, or overwrite it with `--force`."
        raise AppError(ErrorCode.CONFLICT, message)


async def in_order(requests: Iterable[Coroutine[object, object, T]]) -> AsyncGenerator[T, None]:
    """Yield the answers to requests in their order, while the next requests are under way."""
    waiting: deque[asyncio.Task[T]] = deque()
    try:
        for request in requests:
            waiting.append(asyncio.create_task(request))
            if len(waiting) == _MAX_REQUESTS:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        # wait until each has withdrawn its request; further errors add nothing to the first
        await asyncio.gather(*waiting, return_exceptions=True)


@contextmanager
def output_to(out: Path | None, terminal: Terminal) -> Iterator[Write]:
    """Yield a function that writes to standard output, or to a file that is created with the first line."""
    if out is None:
        yield terminal.line
        return
    with ExitStack() as opened:
        files: list[FileIO] = []

        def write(lines: str) -> None:
            data = memoryview(f"{lines}\n".encode())
            with write_errors(out):
                if not files:
                    files.append(opened.enter_context(FileIO(out, "wb")))
                while data:  # unbuffered: a buffer would be written again at exit when the disk is full
                    data = data[files[0].write(data) :]

        yield write


class Rows(NamedTuple):
    """Rows of a result in the forms that are written row by row, of which only the chosen one is read."""

    objects: Iterable[str]
    """JSON objects."""
    cells: Iterable[Sequence[object]] = ()
    plain: Iterable[str] = ()
    """Texts with their surprisals, for people."""


def rows_of(
    lines: Iterator[ScoredLine], level: DetailLevel, unit: Unit, head: Sequence[Sequence[str]], numbers: Iterator[int]
) -> Rows:
    """Return the rows of some lines at a level; `numbers` are those of words or tokens."""
    return Rows(
        (line.as_json() for line in lines),
        chain(head, (row for line in lines for row in table_rows(line, level, numbers))),
        () if level == "summary" else (row for line in lines for row in _plain_rows(line, level, unit)),
    )


def _plain_rows(line: ScoredLine, level: DetailLevel, unit: Unit) -> Iterator[str]:
    """Yield a row for the line, or for each of its words or tokens; the newlines of a stream are escaped."""
    if level == "per_line":
        shown: Iterable[tuple[str, float | None]] = [(line.text or "", line.nats or 0.0)]
    elif level == "per_word":
        shown = ((word.text, word.surprisal) for word in line.words or ())
    else:
        shown = ((name, surprisal) for name, _, (surprisal, _, _), _ in token_scores(line))
    for text, nats in shown:
        number = "" if nats is None else surprisal_number(nats, unit)
        yield "\t".join((text.replace("\n", "\\n"), number))


FORMS: Mapping[Format, Callable[[Rows], str]] = {
    "table": lambda rows: "\n".join(rows.plain),
    "json": lambda rows: "",
    "jsonl": lambda rows: "\n".join(rows.objects),
    "csv": lambda rows: csv_lines(rows.cells, ","),
    "tsv": lambda rows: csv_lines(rows.cells, "\t"),
}
"""Writers of rows by format; one JSON object has all rows, and is written at the end."""


class Figures:
    """The figures of a text that is scored in portions."""

    def __init__(self) -> None:
        self.first: ScoreResponse | None = None
        self._totals = Totals()
        self._window: WindowReport | None = None
        self._leaks: tuple[Leak, ...] = ()
        self._notes: tuple[Note, ...] = ()
        """The leak of the portion of which most was trained on, and its notes."""

    def add(self, response: ScoreResponse) -> None:
        """Add those of a portion."""
        self.first = self.first or response
        self._totals = Totals.of([self._totals, response.totals])
        if response.leak is not None and response.leak is largest_leak((*self._leaks, response.leak)):
            self._leaks, self._notes = (response.leak,), response.notes
        if (window := response.window) is not None:
            before = self._window or changed(window, cut_lines=0)
            widest = window if window.max_difference_nats > before.max_difference_nats else before
            self._window = changed(widest, cut_lines=before.cut_lines + window.cut_lines)

    def response(self) -> ScoreResponse:
        """Return the first response with the figures of all; raises INVALID_INPUT where nothing was scored."""
        if self.first is None:
            raise AppError(ErrorCode.INVALID_INPUT, "The text has nothing to score: none of its lines can be read.")
        leak, figures = largest_leak(self._leaks), self._totals.figures(self.first.method)
        return changed(self.first, **figures, window=self._window, leak=leak, notes=self._notes)


def summary_of(response: ScoreResponse, title: str, unit: Unit) -> Table:
    """Return the figures of a text as a table for people."""
    masked = "masked " if response.method == "pseudo_log_likelihood" else ""
    bits, share = response.bits_per_byte, response.unknown_char_share
    mark = unknown_mark(share)
    per_byte = "" if bits is None else f", {per_char_number(bits, unit)} {unit} per byte with line ends{mark}"
    mean = f"{loss_number(response.mean_surprisal or 0.0, unit)} {unit} per {masked}token of the text"
    rows = {
        "loss": loss_figures(response.loss, response.bits_per_char, unit, unknown_char_share=share),
        "unknown": describe_unknown(share),
        "mean surprisal": f"{mean}{mark}",
        "total": f"{surprisal_number(response.totals.nats, unit)} {unit}{per_byte}",
        "tokens, unknown": f"{response.totals.n_scored}, {response.totals.unk_count}",
    }
    window = response.window
    if window is not None and not window.cut_lines:
        rows["windows"] = f"none: no line is longer than {window.window_tokens:,} tokens"
    elif window is not None:
        rows["windows"] = f"{window.window_tokens:,} tokens, of which {window.context_tokens:,} are context only"
        rows["stride"] = f"{window.stride_tokens:,} tokens; lines longer than a window: {window.cut_lines:,}"
        if window.compared_tokens:
            difference = f"{in_unit(window.max_difference_nats, unit):.1e} {unit} in {window.compared_tokens:,} tokens"
            rows["not exact"] = f"off by up to {difference}"
    return summary(title, rows)


def draw_heatmap(terminal: Terminal, file: Path, response: ScoreResponse, text: str) -> None:
    """Draw the scores of a normalized text as an image, or as a page."""
    if file.suffix == ".html":
        data = heatmap_html(response, text, terminal.unit).encode()
    else:
        from trainer.reports.charts import heat_map, missing_fonts  # matplotlib: half a second

        rows = heatmap_rows(token_rows(response, text), text, terminal.unit)
        data = heat_map(rows, terminal.unit)
        if (note := missing_fonts(rows)) is not None:
            terminal.note(f"mt: {note}")
    with write_errors(file):
        file.write_bytes(data)


@contextmanager
def write_errors(file: Path) -> Iterator[None]:
    """Raise an AppError with the reason if the block cannot write the file."""
    with storage_errors(f"`{file.name}` could not be written"):
        try:
            yield
        except OSError as error:
            if transient_code(error) is not None:
                raise
            raise AppError(ErrorCode.INVALID_INPUT, f"'{file}' cannot be written to: {error.strerror}.") from None
