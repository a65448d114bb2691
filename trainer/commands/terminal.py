"""Output of the `mt` command: JSON for programs, a progress bar and tables for people."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel, RootModel
from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from trainer.contracts.errors import ErrorBody, ErrorClass, FieldProblem, sentence
from trainer.contracts.units import Unit, loss_number, per_char_number, perplexity_number

if TYPE_CHECKING:  # `mt worker` starts the server of its children before these imports
    from trainer.contracts.job_status import JobStatus
    from trainer.contracts.models import Objective
    from trainer.contracts.reports import Report
    from trainer.contracts.runs import RunStatus

_MAX_SERIES_ROWS, _MAX_COLUMNS = 24, 160
_CONTROLS = [code for code in range(0x20) if code not in (0x09, 0x0A)]
_MARKS = {0x061C, 0x200E, 0x200F} | set(range(0x2028, 0x202F)) | set(range(0x2066, 0x206A))
"""Separators of lines, and the marks that change the direction of a text."""
_SIGNS = {code: chr(0x2400 + code) for code in _CONTROLS}
_SIGNS |= {code: f"<U+{code:04X}>" for code in _MARKS | set(range(0x7F, 0xA0))}
EXIT_FAILED, EXIT_USER, EXIT_INTERRUPTED = 1, 2, 130


class Queued(NamedTuple):
    """A run, a group or another job that a command has queued."""

    name: str
    label: str | None = None
    run_ids: Sequence[str] = ()
    """The runs that an interruption pauses."""
    word: str = ""
    """The noun for a job that the same command follows again; empty for runs and groups, which `mt resume` follows."""


class Terminal:
    """Standard output for the result, standard error for progress, notes and errors."""

    unit: Unit = "bits"
    """Unit of the losses and surprisals that this command shows."""
    queued: Queued | None = None
    """A job that this command has queued."""
    pauses = True
    """False if an interruption of this command does not pause its run."""
    interruption: str | None = None
    """The sentence about the run after Ctrl-C; None if the command has left the run alone."""
    continues_when_repeated = False
    """True for commands that continue an interrupted job when they are given again."""
    options: Mapping[str, str] = {}
    """The options of this command by the fields that its errors name."""
    is_conversation = False
    """True for commands that wait for lines of a person before they send a request."""
    lists_problems = False
    """True for commands that show several problems one a line."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._out = _SafeConsole(highlight=False, soft_wrap=True, emoji=False)
        self._err = _SafeConsole(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        self._bar = Progress(
            BarColumn(bar_width=10),
            TextColumn("{task.percentage:>3.0f} % {task.description}", markup=False),
            console=self._err,
        )
        self._tasks: dict[str, TaskID] = {}
        self._noted: set[str] = set()
        self._has_written = False

    def progress(self, status: RunStatus) -> None:
        """Show the progress of a run in one line that is redrawn."""
        self.progress_of(f"run {status.run_id}", status.run_id, status.progress, _figures(status, self.unit))

    def progress_of(self, title: str, job_id: str, percent: float, figures: str) -> None:
        """Show the progress of a job in one line that is redrawn, after a line with its title."""
        if job_id not in self._tasks:
            self.note(title)
            self._bar.start()
            self._tasks[job_id] = self._bar.add_task("", total=100)
        self._bar.update(self._tasks[job_id], completed=percent, description=figures)

    @contextmanager
    def transferring(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Yield a function that shows the progress of an upload or download, which the same command continues."""
        continues, self.continues_when_repeated = self.continues_when_repeated, True
        yield lambda done, total: self.progress_of(title, title, 100 * done / total, f"of {total / 1e6:,.1f} MB")
        self.continues_when_repeated = continues

    def show(self, record: BaseModel | dict[str, object], *for_people: RenderableType) -> None:
        """Show a result: as one JSON object with `--json`, else as tables."""
        self._stop_bar()
        if self._as_json:
            model = RootModel[dict[str, object]](record) if isinstance(record, dict) else record
            self.line(model.model_dump_json())
            return
        for part in for_people:
            with self._writing():
                self._out.print(part)

    def show_report(self, record: BaseModel, report: Report, *more: RenderableType) -> None:
        """Show a result: as one JSON object with `--json`, else its report without details and figures.

        Of several tables to choose from, the first one; estimates without intervals where a table is too wide to read.
        """
        from trainer.contracts.reports import Note, Table
        from trainer.reports.report_text import Reader, rows_of, sampled

        reader, parts = Reader(self.unit), list[RenderableType]()
        for section in report.sections if not self._as_json else ():
            shown = [part for part in section.first_parts() if isinstance(part, Table) or isinstance(part, Note)]
            if section.is_detail or not shown:
                continue
            parts += [Text(f"\n{reader.note(section.title)}", style="bold")] if parts else []
            for part in shown:
                if isinstance(part, Note):
                    parts.append(self._wrapped(reader.note(part)))
                    continue
                few, rows = sampled(part, _MAX_SERIES_ROWS), rows_of(sampled(part, _MAX_SERIES_ROWS), reader)
                if not any(rows[0]):  # each row has its title
                    title = "" if part.title == section.title else reader.note(part.title)
                    parts.append(summary(title, {name: value for name, value in rows[1:]}))
                    continue
                parts.append(self._wrapped(reader.note(part.caption or part.title)))
                if max(map(cell_len, columns(rows).plain.split("\n"))) > _MAX_COLUMNS:
                    rows = rows_of(few, reader._replace(is_brief=True))
                parts.append(Listing(rows))
        self.show(record, *parts, *more)

    def _wrapped(self, text: str) -> Text:
        return Text("\n".join(wrapped(text, self.width)))

    def line(self, text: str) -> None:
        """Write a line of the result at once; ends the program when the reader has closed, as after `| head`."""
        self.write(text + "\n")

    def write(self, text: str) -> None:
        """Write a part of a line, as `line` does."""
        with self._writing():
            sys.stdout.write(visible(text) if self._out.file.isatty() else text)
            sys.stdout.flush()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """End the program when standard output cannot be written to; silently when its reader has closed."""
        self._has_written = True
        try:
            yield
        except OSError as error:
            standard_output = 1
            os.dup2(os.open(os.devnull, os.O_WRONLY), standard_output)  # Python flushes it again at exit
            if not isinstance(error, BrokenPipeError):
                self.note(f"mt: The result could not be written to standard output: {error.strerror}.")
            raise SystemExit(1) from None

    @property
    def width(self) -> int | None:
        """The columns of the terminal; None where the output goes to a file or a program."""
        return self._out.width if self._out.is_terminal or "COLUMNS" in os.environ else None

    @property
    def is_read(self) -> bool:
        """True where a person reads the notes as they come."""
        return self._err.is_terminal and not self._as_json

    def note(self, text: str) -> None:
        """Write a line to standard error."""
        self._err.print(text, markup=False)

    def note_if_silent(self, text: str) -> None:
        """Write a line for a person if nothing of the result, and no progress, has been written."""
        has_started = self._has_written or bool(self._tasks)
        if self._err.is_terminal and not (self._as_json or self.is_conversation or has_started):
            self.note(text)

    def note_once(self, text: str) -> None:
        """Write a line to standard error, the first time only."""
        if text not in self._noted:
            self._noted.add(text)
            self.note(text)

    def interrupted(self) -> None:
        """Say after Ctrl-C how to continue."""
        self._stop_bar()
        if self.interruption is not None:
            self.note(f"Interrupted; {self.interruption}")
        elif self.continues_when_repeated:
            self.note("Interrupted. Continue with the same command.")
        else:
            self.note("Interrupted.")

    def error(self, body: ErrorBody) -> None:
        """Write an error: as JSON to standard output with `--json`, else to standard error."""
        self._stop_bar()
        if self._as_json:
            self.line(body.model_dump_json(exclude_defaults=True))
            return
        problems = [one.named(self.options.get(one.path, one.path)) for one in body.details]
        has_lines = self.lists_problems and len(problems) > 1
        message = sentence(*problems) if self.options and problems else body.message
        for line in map(_in_words, problems) if has_lines else [message]:
            self.note(f"mt: {line}")

    def _stop_bar(self) -> None:
        if self._tasks:
            self._bar.stop()


class _SafeConsole(Console):
    """A console that shows the characters of a text which a terminal would obey; its own styles stay."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        is_shown = self.file.isatty()
        for segment in super().render(renderable, options):
            yield Segment(visible(segment.text), segment.style) if is_shown and not segment.control else segment


def visible(text: str) -> str:
    """Return a text with a sign in place of each control character and each mark of direction; lines and tabs stay.

    Texts of corpora and other people could otherwise set a terminal's title or clipboard, or reverse what is read.
    """
    return text.translate(_SIGNS)


def title_of(model: str, label: str | None) -> str:
    """Return the name that a run was given and the id of the model; the id alone of a run without a name."""
    return model if label is None else f"{label} ({model})"


def summary(title: str, rows: Mapping[str, str | None]) -> Table:
    """Return a table of names and values, without the values that are None."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, Text(value))
    return table


def columns(rows: Sequence[Sequence[str]]) -> Text:
    """Align rows of cells in columns, without cutting any cell off."""
    widths = [max(cell_len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(c + " " * (w - cell_len(c)) for c, w in zip(row, widths, strict=True)) for row in rows)
    return Text("\n".join(line.rstrip() for line in lines))


class Listing:
    """Rows below a row of titles: in columns, or stacked where they are wider than the terminal."""

    def __init__(self, rows: Sequence[Sequence[str]]) -> None:
        self._rows = rows

    def __rich_console__(self, console: Console, _: ConsoleOptions) -> Iterator[Text]:
        """Yield the lines for a terminal; a file or a program gets columns of any width."""
        yield self.text(console.width if console.is_terminal or "COLUMNS" in os.environ else None)

    def text(self, width: int | None) -> Text:
        """Return the rows in lines of at most `width` columns; of any length if it is None."""
        aligned = columns(self._rows)
        if width is None or all(cell_len(line) <= width for line in aligned.plain.split("\n")):
            return aligned
        titles, *rows = self._rows
        lines: list[str] = []
        for first, *others in rows:
            named = [f"{title} {cell}".strip() for title, cell in zip(titles[1:], others, strict=True) if cell]
            lines += [*wrapped(first, width), *(f"  {line}" for line in wrapped(" · ".join(named), width - 2))]
        return Text("\n".join(lines))


def wrapped(text: str, width: int | None) -> list[str]:
    """Return a text in lines of at most `width` columns, words whole where they fit."""
    if width is None:
        return [text]
    lines = [""]
    for word in text.split(" "):
        for part in chop_cells(word, width) or [""]:
            longer = f"{lines[-1]} {part}" if lines[-1] else part
            if cell_len(longer) <= width:
                lines[-1] = longer
            else:
                lines.append(part)
    return lines


def loss_figures(
    loss_nats: float | None,
    bits_per_char: float | None,
    unit: Unit,
    objective: Objective = "causal_lm",
    unknown_char_share: float | None = None,
    *,
    margin_nats: float | None = None,
    has_known: bool = False,
) -> str | None:
    """Return a loss per token and per character, with its perplexity; None without a loss.

    The margin is half the width of the 95 % interval of the loss. A mark shows figures that are too low to compare,
    which `describe_unknown` explains. With figures over known tokens elsewhere, those of text that is largely unknown
    are left out.
    """
    from trainer.contracts.runs import is_largely_unknown
    from trainer.contracts.units import perplexity

    if loss_nats is None:
        return None
    mark = unknown_mark(unknown_char_share)
    is_hidden = has_known and is_largely_unknown(unknown_char_share)
    per_char = ""
    if bits_per_char is not None and not is_hidden:
        per_char = f", {per_char_number(bits_per_char, unit)} {unit} per character{mark}"
    token = "token" if objective == "causal_lm" else "masked token"
    margin = "" if margin_nats is None else f" ± {loss_number(margin_nats, unit)} (95 %)"
    loss = f"{loss_number(loss_nats, unit)}{margin} {unit} per {token}"
    shown = "" if is_hidden else f", perplexity {perplexity_number(perplexity(loss_nats))}{mark}"
    return f"{loss}{mark}{per_char}{shown}"


def _in_words(problem: FieldProblem) -> str:
    """Return a problem with its field and the allowed values, each said once."""
    is_named = not problem.path or problem.around_name is not None
    path = "" if is_named else f"`{problem.path}`: "
    is_said = problem.allowed is None or problem.allowed in problem.message
    return f"{path}{problem.message}." if is_said else f"{path}{problem.message} (allowed: {problem.allowed})."


def _figures(status: RunStatus, unit: Unit) -> str:
    if status.train_loss is None or status.status in ("queued", "paused"):
        return status.message
    share, val_loss = status.unknown_char_share, status.val_loss
    mark = unknown_mark(share)
    loss = f"{loss_number(status.train_loss, unit)} {unit}{mark}{_per_char(status.train_bits_per_char, unit, share)}"
    validation = ""
    if val_loss is not None:
        validation = f", val {loss_number(val_loss, unit)}{mark}{_per_char(status.val_bits_per_char, unit, share)}"
    left = "" if status.eta_seconds is None else f", ETA {timedelta(seconds=round(status.eta_seconds))}"
    epoch = f"epoch {status.epoch}/{status.total_epochs}"
    return f"{epoch}, loss {loss}{validation}, {status.tokens_per_second or 0.0:,.0f} tokens/s{left}"


def _per_char(bits_per_char: float | None, unit: Unit, unknown_char_share: float | None) -> str:
    """Return a loss per character in parentheses; nothing if it is not known."""
    mark = unknown_mark(unknown_char_share)
    return "" if bits_per_char is None else f" ({per_char_number(bits_per_char, unit)}/char{mark})"


def unknown_mark(unknown_char_share: float | None) -> str:
    """Return the mark of figures that are too low to compare; nothing for other ones."""
    from trainer.contracts.runs import has_unknown_text

    return " (!)" if has_unknown_text(unknown_char_share) else ""


def exit_code(status: RunStatus | JobStatus) -> int:
    """Return the exit code for a job that has ended."""
    if status.error is not None:
        return EXIT_USER if status.error.error_class is ErrorClass.USER_INPUT else EXIT_FAILED
    return 0 if status.status == "completed" else EXIT_FAILED
