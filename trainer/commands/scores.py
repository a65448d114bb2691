"""`mt score`: how surprising texts, files of any size and minimal pairs are to a finished run."""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import FileIO
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

from rich.table import Table

from trainer.artifacts.runs import RunStore
from trainer.commands.arguments import Arguments, Commands
from trainer.commands.connection import settings_for
from trainer.commands.inference import ask_run
from trainer.commands.terminal import Terminal, add_loss, columns, summary_table
from trainer.config.settings import Settings
from trainer.contracts.compatibility import check_scores
from trainer.contracts.errors import AppError, ErrorCode, transient_code
from trainer.contracts.inference import (
    MAX_TEXT_CHARACTERS,
    DetailLevel,
    ScoreRequest,
    ScoreResponse,
    Totals,
    WindowReport,
)
from trainer.contracts.validation import parse
from trainer.data.corpora import CorpusStore
from trainer.data.input_text import BadLine, Portion, read_lines, read_portions, read_text
from trainer.jobs.queue import JobQueue
from trainer.reports.heatmap_html import heatmap_html
from trainer.reports.minimal_pairs import Pair, PairAccuracy, ScoredPair, pair_report, read_pair, scored_pair
from trainer.reports.score_table import (
    ScoredLine,
    csv_lines,
    heatmap_rows,
    scored_lines,
    table_rows,
    titles,
    token_rows,
)
from trainer.system.files import storage_errors

PartT = TypeVar("PartT")
Write = Callable[[str], None]
"""Writes whole lines of the result, without the end of the last one."""

_FORMATS: tuple[str, ...] = ("table", "json", "jsonl", "csv", "tsv")
_LEVELS: tuple[str, ...] = ("summary", "per_line", "per_word", "per_char")
_PORTION_CHARACTERS = 20_000
_AT_ONCE = 4
"""Portions of a file that are asked about at a time: the memory of a file of any size."""
_HEAT_MAP_CHARACTERS = 10_000
_DONE, _FAILED, _INTERRUPTED = 0, 1, 130


def add_to(commands: Commands) -> None:
    score = commands.add("score", _score, "how surprised a model is by a text")
    score.add_argument("run", metavar="RUN")
    score.add_argument("text", nargs="?", metavar="TEXT")
    score.add_argument("--path", type=Path, metavar="F", help="score a corpus, or the text of a file of any size")
    score.add_argument(
        "--pairs", type=Path, metavar="F", help="minimal pairs: two columns, or three with a group (TSV)"
    )
    score.add_argument("--detail-level", choices=_LEVELS, default="summary")
    score.add_argument("--top-k", type=int, metavar="N", help="with per_char: what was expected at each place")
    score.add_argument(
        "--context", choices=("bos", "none"), default="bos", help="none: the first token of a line is not scored"
    )
    score.add_argument(
        "--pll-within-word", action="store_true", help="a masked model does not see the rest of a token's word"
    )
    score.add_argument(
        "--window-tokens", type=int, metavar="N", help="score longer lines by windows of N tokens: faster, not exact"
    )
    score.add_argument(
        "--format",
        dest="table_format",
        choices=_FORMATS,
        default="table",
        help="jsonl, csv, tsv: as it comes, line by line",
    )
    score.add_argument("--out", type=Path, metavar="FILE", help="write to a file")
    score.add_argument("--heatmap", type=Path, metavar="FILE", help="a picture (.png) or a page (.html)")


def _score(arguments: Arguments, terminal: Terminal) -> int:
    if arguments.json:
        arguments.table_format = "json"
    settings = settings_for()
    given = [arguments.text, arguments.path, arguments.pairs]
    if len(given) - given.count(None) != 1:
        raise AppError(
            ErrorCode.INVALID_INPUT, "Give a TEXT or a file by `--path`, one of both, or pairs by `--pairs`."
        )
    if arguments.table_format == "table" and arguments.out is not None:
        raise AppError(ErrorCode.INVALID_INPUT, "`--out` writes json, jsonl, csv or tsv: say which by `--format`.")
    for file in (arguments.out, arguments.heatmap):
        if file is not None:
            _check_written(file, arguments.path or arguments.pairs)
    try:
        return (_score_texts if arguments.pairs is None else _score_pairs)(arguments, settings, terminal)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _INTERRUPTED  # what was asked is withdrawn, what is written is whole lines


def _check_written(file: Path, source: Path | None) -> None:
    """Refuse a file that cannot be written, or that is read."""
    if not os.path.isdir(file.parent):
        raise AppError(ErrorCode.INVALID_INPUT, f"There is no folder '{file.parent}' to write '{file.name}' to.")
    if os.path.isdir(file):
        raise AppError(ErrorCode.INVALID_INPUT, f"'{file}' is a folder: name a file to write to.")
    if source is not None and os.path.exists(source) and os.path.exists(file) and file.samefile(source):
        raise AppError(ErrorCode.INVALID_INPUT, f"'{file}' is what is scored: name another file to write to.")


def _score_texts(arguments: Arguments, settings: Settings, terminal: Terminal) -> int:
    given = _given(arguments, CorpusStore(settings))
    begin = list(islice(given, 2))
    if not begin:
        raise AppError(ErrorCode.INVALID_INPUT, "The file has nothing to score: it is empty.")
    is_one = len(begin) < 2
    if is_one and isinstance(begin[0], BadLine):
        raise begin[0].error
    level = arguments.detail_level
    if arguments.table_format == "json" and level != "summary" and not is_one:
        raise AppError(
            ErrorCode.PAYLOAD_TOO_LARGE, "The scores are too many for one JSON object: take `--format jsonl`."
        )
    if arguments.heatmap is not None:
        _check_heat_map(arguments, begin)
        asked: DetailLevel = "per_char"
    else:
        asked = "per_line" if _writes_lines(arguments) and level == "summary" else level
    _check(arguments, settings, _request(arguments, asked, begin[0].text if isinstance(begin[0], Portion) else "x"))
    parts: Iterator[tuple[Portion, ScoreRequest | AppError]] = (
        (part, _request(arguments, asked, part.text))
        if isinstance(part, Portion)
        else (Portion(part.number, ""), part.error)
        for part in chain(begin, given)
        if is_one or isinstance(part, BadLine) or part.text.strip()
    )

    async def ask(queue: JobQueue) -> int:
        with _output(arguments, terminal) as write:
            results = _Results(arguments, write)

            def take(part: Portion, response: ScoreResponse | AppError) -> None:
                if isinstance(response, AppError):
                    if is_one:
                        raise response
                    results.add_bad(part.number, response, terminal)
                    return
                text = queue.inference.normalize_input(arguments.run, part.text)
                results.add(response, text, part.number)
                if arguments.heatmap is not None:
                    _draw(arguments.heatmap, response, text)

            await _ask_about(queue, arguments.run, parts, take, is_kept=is_one)
            results.end(terminal)
        return _FAILED if results.bad else _DONE

    return ask_run(arguments, settings, terminal, ask)


def _score_pairs(arguments: Arguments, settings: Settings, terminal: Terminal) -> int:
    if arguments.detail_level != "summary" or arguments.heatmap is not None or arguments.pairs is None:
        raise AppError(
            ErrorCode.INVALID_INPUT, "`--pairs` compares sums: it takes no `--detail-level`, no `--heatmap`."
        )
    pairs = _read_pairs(arguments.pairs)
    _check(arguments, settings, _request(arguments, "per_line", "x"))
    parts: Iterator[tuple[Sequence[Pair], ScoreRequest | AppError]] = (
        (part, _request(arguments, "per_line", "\n".join(f"{pair.first}\n{pair.second}" for pair in part)))
        for part in _portions_of(pairs)
    )

    async def ask(queue: JobQueue) -> int:
        scored: list[ScoredPair] = []

        def take(part: Sequence[Pair], response: ScoreResponse | AppError) -> None:
            if isinstance(response, AppError):
                raise response
            nats = {line.number: line.nats for line in response.lines or () if line.n_scored}
            for place, pair in enumerate(part):
                if not {2 * place + 1, 2 * place + 2} <= nats.keys():
                    raise AppError(
                        ErrorCode.INVALID_INPUT, f"Line {pair.line:,} has a sentence in which no token is scored."
                    )
                scored.append(scored_pair(pair, nats[2 * place + 1], nats[2 * place + 2]))

        await _ask_about(queue, arguments.run, parts, take, is_kept=False)
        report = pair_report(arguments.run, scored)
        with _output(arguments, terminal) as write:
            if arguments.table_format == "table":
                rows = [_ACCURACY_TITLES, *(_accuracy_row(found) for found in (report.overall, *report.groups))]
                terminal.show(report, columns(rows))
            elif arguments.table_format == "json":
                write(report.model_dump_json())
            elif arguments.table_format == "jsonl":
                write("\n".join(pair.model_dump_json() for pair in scored))
            else:
                lines_of = [[a.line, a.group, a.first_nats, a.second_nats, a.less_surprising] for a in scored]
                write(_table([_PAIR_TITLES, *lines_of], arguments))
        return _DONE

    return ask_run(arguments, settings, terminal, ask)


class _Results:
    """What is written of scores, in the form that was asked for, as they come."""

    def __init__(self, arguments: Arguments, write: Write) -> None:
        self._arguments = arguments
        self._write = write
        self._index = 1
        self._first: ScoreResponse | None = None
        self._totals = Totals()
        self._window: WindowReport | None = None
        self.bad = 0
        self._has_titles = arguments.table_format not in ("csv", "tsv")

    def add(self, response: ScoreResponse, text: str, first_line: int) -> None:
        """Take the scores of a text, given as the model reads it, whose first line has that number."""
        self._first = self._first or response
        self._totals = Totals.of([self._totals, response.totals])
        windows = [window for window in (self._window, response.window) if window is not None]
        if windows:
            cut: dict[str, object] = {"cut_lines": sum(window.cut_lines for window in windows)}
            self._window = max(windows, key=_difference).model_copy(update=cut)
        level = self._arguments.detail_level
        if self._arguments.table_format == "json" or (self._arguments.table_format == "table" and level == "summary"):
            return
        rows: list[str] = []
        for line in scored_lines(response, text, first_line):
            if self._arguments.table_format == "jsonl":
                rows.append(line.as_json())
                continue
            cells = table_rows(line, level, self._index)
            self._index += len(cells)
            rows += (
                [_for_people(line, level)]
                if self._arguments.table_format == "table"
                else [_table(cells, self._arguments)]
            )
        if not self._has_titles:
            self._has_titles = True
            rows.insert(0, _table([titles(level, self._arguments.top_k or 0)], self._arguments))
        self._write("\n".join(filter(None, rows)))

    def add_bad(self, line: int, error: AppError, terminal: Terminal) -> None:
        """Tell of a line that has no score, and why, or of all those that were asked about with it."""
        self.bad += 1
        terminal.note(f"mt: line {line:,}: {error.message}")
        if self._arguments.table_format == "jsonl":
            self._write(ScoredLine(line=line, error=error.message).as_json())

    def end(self, terminal: Terminal) -> None:
        """Write what is known of all together; raises INVALID_INPUT where nothing was scored."""
        if self._first is None:
            raise AppError(ErrorCode.INVALID_INPUT, "The text has nothing to score: no line of it can be read.")
        merged: dict[str, object] = {**self._totals.figures(), "window": self._window}
        response = self._first.model_copy(update=merged)
        if self._arguments.table_format == "json":
            self._write(response.model_dump_json())
        elif self._arguments.table_format == "table":
            terminal.show(response, _summary(response))


def _given(arguments: Arguments, corpora: CorpusStore) -> Iterator[Portion | BadLine]:
    """Yield what is to be scored: one portion where that is possible and nobody reads as it comes."""
    if arguments.path is None:
        yield Portion(1, arguments.text or "")
        return
    name = str(arguments.path)
    path = corpora.find(name) if corpora.has(name) else arguments.path
    if _writes_lines(arguments):
        yield from read_portions(path, _PORTION_CHARACTERS)
    elif path.is_file() and path.stat().st_size > MAX_TEXT_CHARACTERS:
        yield from read_portions(path, MAX_TEXT_CHARACTERS)
    elif text := read_text(path, MAX_TEXT_CHARACTERS):
        yield Portion(1, text)


def _writes_lines(arguments: Arguments) -> bool:
    return arguments.table_format in ("jsonl", "csv", "tsv")


def _request(arguments: Arguments, level: DetailLevel, text: str) -> ScoreRequest:
    fields: dict[str, object] = {
        "text": text,
        "detail_level": level,
        "top_k": arguments.top_k,
        "context": arguments.context,
        "pll_within_word": arguments.pll_within_word,
        "window_tokens": arguments.window_tokens,
    }
    return parse(ScoreRequest, fields)


def _check(arguments: Arguments, settings: Settings, request: ScoreRequest) -> None:
    """Refuse what the run cannot do, before anything is started."""
    manifest = RunStore(settings.app.artifacts_root).get(arguments.run).completed_manifest()
    check_scores(request, manifest.effective.objective)


async def _ask_about(
    queue: JobQueue,
    run_id: str,
    asked: Iterator[tuple[PartT, ScoreRequest | AppError]],
    take: Callable[[PartT, ScoreResponse | AppError], None],
    *,
    is_kept: bool,
) -> None:
    """Give the answers in the order of the parts, of which some are asked about at a time."""
    waiting: deque[tuple[PartT, asyncio.Task[ScoreResponse | AppError]]] = deque()
    try:
        for part, request in asked:
            waiting.append((part, asyncio.create_task(_answer(queue, run_id, request, is_kept=is_kept))))
            if len(waiting) == _AT_ONCE:
                take(waiting[0][0], await waiting[0][1])
                waiting.popleft()
        while waiting:
            take(waiting[0][0], await waiting[0][1])
            waiting.popleft()
    finally:
        for _, task in waiting:
            task.cancel()
        # Until each has withdrawn its request; one that failed as the first did has nothing to add.
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)


async def _answer(
    queue: JobQueue, run_id: str, request: ScoreRequest | AppError, *, is_kept: bool
) -> ScoreResponse | AppError:
    """The answer, or what is wrong with the text; raises what is wrong otherwise."""
    if isinstance(request, AppError):
        return request
    try:
        return await queue.inference.score(run_id, request, is_kept=is_kept)
    except AppError as error:
        if error.code != ErrorCode.INVALID_INPUT:
            raise
        return error


@contextmanager
def _output(arguments: Arguments, terminal: Terminal) -> Iterator[Write]:
    """Where the result goes: standard output, or a file, which is begun with its first line and grows by whole ones."""
    if arguments.out is None:
        yield terminal.line
        return
    out = arguments.out
    with ExitStack() as opened:
        files: list[FileIO] = []

        def write(lines: str) -> None:
            data = memoryview(f"{lines}\n".encode())
            with _writing(out):
                if not files:
                    files.append(opened.enter_context(FileIO(out, "wb")))
                while data:  # a file without a buffer, which on a full disk would be written once more at its end
                    data = data[files[0].write(data) :]

        yield write


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    """Say what is wrong where a file cannot be written."""
    with storage_errors(f"`{file.name}` could not be written"):
        try:
            yield
        except OSError as error:
            if transient_code(error) is not None:
                raise
            raise AppError(ErrorCode.INVALID_INPUT, f"'{file}' cannot be written to: {error.strerror}.") from None


def _table(rows: Sequence[Sequence[object]], arguments: Arguments) -> str:
    """Rows as lines of CSV or TSV; None is an empty cell."""
    return csv_lines(rows, "\t" if arguments.table_format == "tsv" else ",")


def _for_people(line: ScoredLine, level: DetailLevel) -> str:
    if level == "per_line":
        return f"{line.text}\t{line.nats:.4f}"
    named = [(word.text, word.surprisal) for word in line.words or ()]
    if level == "per_char":
        named = list(zip(line.tokens or (), line.surprisal or (), strict=True))
    return "\n".join(f"{name}\t{'' if nats is None else f'{nats:.4f}'}" for name, nats in named)


def _summary(response: ScoreResponse) -> Table:
    table = summary_table(response.run_id)
    add_loss(table, "loss", response.loss, response.bits_per_char)
    masked = "masked " if response.method == "pseudo_log_likelihood" else ""
    per_byte = "" if response.bits_per_byte is None else f", {response.bits_per_byte:.3f} bits per byte with line ends"
    table.add_row("mean surprisal", f"{response.mean_surprisal or 0.0:.4f} nats per {masked}token of the text")
    table.add_row("in all", f"{response.totals.nats:.4f} nats{per_byte}")
    table.add_row("tokens, unknown", f"{response.totals.n_scored}, {response.totals.unk_count}")
    if response.window is not None:
        _add_windows(table, response.window)
    return table


def _add_windows(table: Table, window: WindowReport) -> None:
    if not window.cut_lines:
        table.add_row("windows", f"none: no line is longer than {window.window_tokens:,} tokens")
        return
    table.add_row("windows", f"of {window.window_tokens:,} tokens, {window.context_tokens:,} of them only read")
    table.add_row("stride", f"{window.stride_tokens:,} tokens; lines longer than a window: {window.cut_lines:,}")
    if window.compared_tokens:
        difference = f"{window.max_difference_nats:.1e} nats in {window.compared_tokens:,} tokens"
        table.add_row("not exact", f"off by up to {difference}")


def _difference(window: WindowReport) -> float:
    return window.max_difference_nats


def _check_heat_map(arguments: Arguments, begin: Sequence[Portion | BadLine]) -> None:
    """Refuse a heat map of what is none."""
    if arguments.heatmap is not None and arguments.heatmap.suffix not in (".png", ".html"):
        raise AppError(ErrorCode.INVALID_INPUT, "`--heatmap` draws a picture or a page: end its name in .png or .html.")
    if len(begin) != 1 or not isinstance(begin[0], Portion) or len(begin[0].text) > _HEAT_MAP_CHARACTERS:
        raise AppError(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"A heat map shows {_HEAT_MAP_CHARACTERS:,} characters at most: give less text.",
        )


def _draw(file: Path, response: ScoreResponse, text: str) -> None:
    if file.suffix == ".html":
        with _writing(file):
            file.write_text(heatmap_html(response, text), encoding="utf-8")
        return
    from trainer.reports.charts import heat_map  # it takes half a second

    with _writing(file):
        file.write_bytes(heat_map(heatmap_rows(token_rows(response, text), text, "nats"), "nats"))


def _read_pairs(path: Path) -> list[Pair]:
    pairs: list[Pair] = []
    for number, line in enumerate(read_lines(path), 1):
        if isinstance(line, BadLine):
            raise AppError(line.error.code, f"Line {number:,}: {line.error.message}")
        pair = read_pair(number, line)
        if pair is not None:
            pairs.append(pair)
    if not pairs:
        raise AppError(ErrorCode.INVALID_INPUT, f"'{path.name}' has no pairs.")
    return pairs


def _portions_of(pairs: Sequence[Pair]) -> Iterator[Sequence[Pair]]:
    """Yield pairs in portions of so many characters."""
    portion: list[Pair] = []
    characters = 0
    for pair in pairs:
        if portion and characters > _PORTION_CHARACTERS:
            yield portion
            portion, characters = [], 0
        portion.append(pair)
        characters += len(pair.first) + len(pair.second)
    yield portion


_PAIR_TITLES = ["line", "group", "first_nats", "second_nats", "less_surprising"]
_ACCURACY_TITLES = ["group", "pairs", "ties", "accuracy", "95 % interval"]


def _accuracy_row(found: PairAccuracy) -> list[str]:
    interval = f"{found.low:.1%} to {found.high:.1%}"
    return [found.group or "all", f"{found.n_pairs:,}", f"{found.n_ties:,}", f"{found.accuracy:.1%}", interval]
