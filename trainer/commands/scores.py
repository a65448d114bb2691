"""`mt score`: surprisals of texts and of files of any size under a trained run."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

from pydantic_core import to_json
from rich.table import Table

from trainer.commands.arguments import QUOTING, Argument, Commands, ModelOptions, flag, option
from trainer.commands.connection import Inference, settings_for_any, with_inference, with_installation, with_model
from trainer.commands.score_output import Write, check_output, in_order, output_to, write_errors
from trainer.commands.terminal import EXIT_FAILED, EXIT_INTERRUPTED, Terminal, loss_figures, summary
from trainer.config.settings import Settings
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.batteries import QUOTINGS, Quoting
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference_fields import MAX_TEXT_CHARACTERS
from trainer.contracts.items import Cell, Columns, ItemOptions, ItemUnit, item_notes
from trainer.contracts.runs import describe_unknown
from trainer.contracts.scores import DetailLevel, ScoreRequest, ScoreResponse, Totals, WindowReport
from trainer.contracts.tokenizers import DocumentMode
from trainer.contracts.units import Unit, in_unit, loss_number, per_char_number, surprisal_number
from trainer.contracts.wording import counted
from trainer.data.corpora import CorpusStore
from trainer.data.input_text import BadLine, Portion, read_portions, read_text
from trainer.data.item_tables import item_requests, read_columns
from trainer.data.normalization import normalized
from trainer.data.tables import PlainText, as_text
from trainer.queue.inference_kinds import check_scores
from trainer.reports.heatmap_html import heatmap_html
from trainer.reports.score_table import (
    ScoredLine,
    csv_lines,
    heatmap_rows,
    scored_lines,
    table_rows,
    titles,
    token_rows,
    token_scores,
)

Format = Literal["table", "json", "jsonl", "csv", "tsv"]

_PORTION_CHARACTERS = 20_000
_MAX_HEATMAP_CHARACTERS = 10_000
_LEVELS: tuple[str, ...] = get_args(DetailLevel)
_UNITS: tuple[str, ...] = get_args(ItemUnit)
_FORMATS: tuple[str, ...] = get_args(Format)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


class _ScoreOptions(ModelOptions):
    text = Argument[str | None]("TEXT", nargs="?", help="text to score")
    path = option("--path F", Path, "score a corpus, or a file of any size")
    detail_level = Argument[DetailLevel](
        "--detail-level",
        choices=_LEVELS,
        default="summary",
        help="show figures only, or lines, words or tokens too; default: summary",
    )
    top_k = option("--top-k K", int, "with per_char: list the K likeliest tokens at each position")
    context = Argument[Literal["none"] | None](
        "--no-bos",
        action="store_const",
        const="none",
        help="start lines without [BOS]; their first tokens are not scored",
    )
    pll_within_word = flag("--pll-within-word", "masked models: hide the rest of a token's word too")
    window_tokens = option("--max-window N", int, "score longer lines by windows of N tokens: faster, not exact")
    seed = option("--seed N", int, "accepted without effect: scoring is deterministic")
    quoting = Argument[Quoting | None]("--quoting", choices=QUOTINGS, help=QUOTING)
    items = option("--items FILE", Path, "score a table (.csv, .tsv, .jsonl) and give its columns back")
    text_column = option("--text-column NAME", str, "of --items: the texts; default: the regions, joined")
    region_columns = option("--region-columns NAMES", _names, "of --items: regions of the texts, between commas")
    group_column = option("--group-column NAMES", _names, "of --items: join the texts of the rows with the same value")
    occurrence_column = option("--occurrence-column NAME", str, "of --items: which occurrence the region is, from 1")
    context_column = option("--context-column NAME", str, "of --items: texts that are given and not scored")
    separator = option("--separator TEXT", str, 'of --items: put between joined texts; default: a space; "": nothing')
    keep_na = flag("--keep-na", "of --items: score NA, NaN and null as words; default: they are empty cells")
    per = Argument[ItemUnit | None](
        "--per",
        choices=_UNITS,
        help="of --items: a row for each item, region, word or char; default: region, or item without regions",
    )
    table_format = Argument[Format | None](
        "--format",
        choices=_FORMATS,
        help="output format; jsonl, csv and tsv are written line by line; default: table, of --items csv",
    )
    out = option("--out FILE", Path, "write the result to a new file")
    heatmap = option("--heatmap FILE", Path, "draw a heat map: an image (.png) or a page (.html)")
    force = flag("--force", "overwrite the files of `--out` and `--heatmap`")

    @property
    def format(self) -> Format:
        return "json" if self.json else self.table_format or ("table" if self.items is None else "csv")

    @property
    def writes_lines(self) -> bool:
        """True for the formats that are written line by line."""
        return self.format in ("jsonl", "csv", "tsv")

    @property
    def delimiter(self) -> str:
        return "\t" if self.format == "tsv" else ","

    def request(self, level: DetailLevel, text: str) -> ScoreRequest:
        """Return the request for a text."""
        return parse(ScoreRequest, self.given(ScoreRequest) | {"text": text, "path": None, "detail_level": level})


def add_to(commands: Commands) -> None:
    commands.add("score", _ScoreOptions, _score, with_unit=True)


def _score(options: _ScoreOptions, terminal: Terminal) -> int:
    settings = settings_for_any()
    if options.items is None and (options.text is None) == (options.path is None):
        message = "Give either a TEXT, or a file with `--path`; `mt battery run` scores minimal pairs and test suites."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    of_items = {
        "--text-column": options.text_column,
        "--region-columns": options.region_columns,
        "--group-column": options.group_column,
        "--occurrence-column": options.occurrence_column,
        "--context-column": options.context_column,
        "--separator": options.separator,
        "--keep-na": options.keep_na or None,
        "--per": options.per,
    }
    if options.items is None and (given := [f"`{name}`" for name, value in of_items.items() if value is not None]):
        raise AppError(ErrorCode.INVALID_INPUT, f"{' and '.join(given)} are for a table: give it with `--items`.")
    if options.format == "table" and options.out is not None:
        raise AppError(ErrorCode.INVALID_INPUT, "`--out` needs `--format` json, jsonl, csv or tsv.")
    for file in (options.out, options.heatmap):
        if file is not None:
            check_output(file, options.items or options.path, overwrites=options.force)
    try:
        if options.items is not None:
            return _score_items(options, options.items, settings, terminal)
        with TemporaryDirectory(prefix="mt-table-") as folder:
            return _score_texts(options, settings, terminal, Path(folder))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_INTERRUPTED  # the requests are withdrawn, and the output has complete lines only


def _score_items(options: _ScoreOptions, items: Path, settings: Settings, terminal: Terminal) -> int:
    """Score a table; nothing is scored if one of its items cannot be."""
    others = {
        "a TEXT": options.text,
        "`--path`": options.path,
        "`--detail-level`": options.detail_level != "summary",
        "`--top-k`": options.top_k,
        "`--no-bos`": options.context,
        "`--max-window`": options.window_tokens,
        "`--heatmap`": options.heatmap,
        f"`--format {options.format}`": not options.writes_lines,
    }
    if unused := [name for name, value in others.items() if value]:
        raise AppError(ErrorCode.INVALID_INPUT, f"`--items` goes without {' and '.join(unused)}: leave it out.")
    table = read_columns(items, options.quoting)
    requests = [*item_requests(table.columns, parse(ItemOptions, options.given(ItemOptions)))]
    for note in (*table.notes, *item_notes(requests)):
        terminal.note(f"mt: {note}")

    async def score(inference: Inference) -> int:
        responses = in_order(inference.ask(options.run, request, is_kept=False) for request in requests)
        n_cut, has_frequencies, is_first = 0, True, True
        with output_to(options.out, terminal) as write:
            async with aclosing(responses):
                async for response in responses:
                    n_cut, has_frequencies = n_cut + response.n_cut, response.has_frequencies
                    write(_item_rows(options, response.table or {}, is_first=is_first))
                    is_first = False
        if n_cut:
            terminal.note(f"mt: {counted(n_cut, 'item')} beyond the model's context, scored by windows")
        if not has_frequencies:
            terminal.note("mt: the training text is gone or has changed, so that `log_frequency` is empty")
        return 0

    return with_model(options.run, settings, terminal, score)


def _item_rows(options: _ScoreOptions, table: Columns, *, is_first: bool) -> str:
    """Return the rows of a table as lines, with the names of the columns before the first one."""
    numbers = range(len(table.get("source_row", ())))
    if options.format == "jsonl":
        objects = ({name: values[row] for name, values in table.items()} for row in numbers)
        return "\n".join(to_json(one).decode() for one in objects)
    rows: list[list[Cell]] = [[values[row] for values in table.values()] for row in numbers]
    return csv_lines([*([[*table]] if is_first else []), *rows], options.delimiter)


def _score_texts(options: _ScoreOptions, settings: Settings, terminal: Terminal, folder: Path) -> int:
    """Score a text; a table is read as a text file in `folder`."""
    options.request("summary", "x")  # refuses wrong options, before the run is read
    effective = with_installation(settings, lambda installation: installation.effective(options.run))
    source = _source(options, settings, folder)
    for note in source.notes:
        terminal.note(f"mt: {note}")
    portions = _read_portions(options, source, effective.documents)
    head = list(islice(portions, 2))
    if not head:
        raise AppError(ErrorCode.INVALID_INPUT, "The file has nothing to score: it is empty.")
    is_one = len(head) < 2
    if is_one and isinstance(head[0], BadLine):
        raise head[0].error
    level = _requested_level(options, head)
    request = options.request(level, head[0].text if isinstance(head[0], Portion) else "x")
    check_scores(request, effective.objective)
    normalization = effective.tokenizer.normalization
    parts: Iterator[tuple[Portion, ScoreRequest | AppError]] = (
        (part, options.request(level, part.text))
        if isinstance(part, Portion)
        else (Portion(part.number, ""), part.error)
        for part in chain(head, portions)
        if is_one or isinstance(part, BadLine) or part.text.strip()
    )

    async def score(inference: Inference) -> int:
        responses = in_order(_response_to(inference, options.run, *one, is_kept=is_one) for one in parts)
        with output_to(options.out, terminal) as write:
            writer = _ScoreWriter(options, write, source.number, terminal.unit)
            async with aclosing(responses):
                async for part, response in responses:
                    if not isinstance(response, AppError):
                        text = normalized(part.text, normalization)
                        writer.add(response, text, part.number)
                        if options.heatmap is not None:
                            _draw_heatmap(terminal, options.heatmap, response, text)
                    elif is_one:
                        raise response
                    else:
                        writer.add_error(part.number, response, terminal)
            writer.finish(terminal)
        return EXIT_FAILED if writer.has_errors else 0

    return with_inference(settings, terminal, score)


async def _response_to(
    inference: Inference, model: str, part: Portion, request: ScoreRequest | AppError, *, is_kept: bool
) -> tuple[Portion, ScoreResponse | AppError]:
    """Return a portion with its scores, or with the error of a text that cannot be scored; raises other errors."""
    if isinstance(request, AppError):
        return part, request
    try:
        return part, await inference.ask(model, request, is_kept=is_kept)
    except AppError as error:
        if error.code != ErrorCode.INVALID_INPUT:
            raise
        return part, error


def _requested_level(options: _ScoreOptions, head: Sequence[Portion | BadLine]) -> DetailLevel:
    """Return the level that the output needs; refuses what is too large for it."""
    level = options.detail_level
    if options.format == "json" and level != "summary" and len(head) > 1:
        raise AppError(ErrorCode.PAYLOAD_TOO_LARGE, "Too many scores for one JSON object: use `--format jsonl`.")
    if options.heatmap is not None:
        _check_heatmap(options.heatmap, head)
        return "per_char"
    return "per_line" if options.writes_lines and level == "summary" else level


class _ScoreWriter:
    """Writes scores in the chosen format as they arrive."""

    def __init__(self, options: _ScoreOptions, write: Write, number: Callable[[int], int], unit: Unit) -> None:
        self._options = options
        self._unit = unit
        self._write = write
        self._number = number  # of the text of a table in which a line lies
        self._index = 1
        self._first: ScoreResponse | None = None
        self._totals = Totals()
        self._window: WindowReport | None = None
        self.has_errors = False

    def add(self, response: ScoreResponse, text: str, first_line: int) -> None:
        """Take the scores of a normalized text; `first_line` is the number of its first line."""
        options, level = self._options, self._options.detail_level
        rows: list[str] = []
        if self._first is None and options.format in ("csv", "tsv"):
            rows.append(csv_lines([titles(level, options.top_k or 0)], options.delimiter))
        self._first = self._first or response
        self._totals = Totals.of([self._totals, response.totals])
        windows = [window for window in (self._window, response.window) if window is not None]
        if windows:
            widest = max(windows, key=_difference)
            self._window = changed(widest, cut_lines=sum(window.cut_lines for window in windows))
        if options.format == "json" or (options.format == "table" and level == "summary"):
            return
        for scored in scored_lines(response, text, first_line):
            line = changed(scored, line=self._number(scored.line))
            if options.format == "jsonl":
                rows.append(line.as_json())
            elif options.format == "table":
                rows.append(_plain_rows(line, level, self._unit))
            else:
                cells = table_rows(line, level, self._index)
                self._index += len(cells)
                rows.append(csv_lines(cells, options.delimiter))
        self._write("\n".join(filter(None, rows)))

    def add_error(self, line: int, error: AppError, terminal: Terminal) -> None:
        """Report a line, or a portion from this line on, that has no score."""
        self.has_errors = True
        line = self._number(line)
        terminal.note(f"mt: line {line:,}: {error.message}")
        if self._options.format == "jsonl":
            self._write(ScoredLine(line=line, error=error.message).as_json())

    def finish(self, terminal: Terminal) -> None:
        """Write the totals; raises INVALID_INPUT where nothing was scored."""
        if self._first is None:
            raise AppError(ErrorCode.INVALID_INPUT, "The text has nothing to score: none of its lines can be read.")
        response = changed(self._first, **self._totals.figures(self._first.method), window=self._window)
        if self._options.format == "json":
            self._write(response.model_dump_json())
        elif self._options.format == "table":
            if self._options.detail_level != "summary":
                terminal.note(f"mt: surprisals in {self._unit}")
            terminal.show(response, _summary(response, self._unit))


def _source(options: _ScoreOptions, settings: Settings, folder: Path) -> PlainText:
    """Return the file to score: of a .jsonl, .csv or .tsv file the field `text`, written to a folder.

    With a server, a path is that of a file of this machine, which is sent as text.
    """
    if options.path is None:
        return PlainText(folder)
    name = str(options.path)
    corpora = CorpusStore(settings)
    path = corpora.find(name) if settings.client.url is None and corpora.has(name) else options.path
    return as_text(path, folder, options.quoting)


def _read_portions(options: _ScoreOptions, source: PlainText, documents: DocumentMode) -> Iterator[Portion | BadLine]:
    """Yield the input: one portion if it fits into one request and the output is not written line by line.

    The text of a stream is always one portion; raises PAYLOAD_TOO_LARGE if it does not fit into one request.
    """
    path = source.path
    if options.path is None:
        yield Portion(1, options.text or "")
    elif documents == "stream":
        if text := read_text(path, MAX_TEXT_CHARACTERS):
            yield Portion(1, text)
    elif options.writes_lines:
        yield from read_portions(path, _PORTION_CHARACTERS)
    elif path.is_file() and path.stat().st_size > MAX_TEXT_CHARACTERS:
        yield from read_portions(path, MAX_TEXT_CHARACTERS)
    elif text := read_text(path, MAX_TEXT_CHARACTERS):
        yield Portion(1, text)


def _plain_rows(line: ScoredLine, level: DetailLevel, unit: Unit) -> str:
    """Return a row for the line, or for each of its words or tokens; the newlines of a stream are escaped."""
    if level == "per_line":
        return f"{_escaped(line.text or '')}\t{surprisal_number(line.nats or 0.0, unit)}"
    units = [(word.text, word.surprisal) for word in line.words or ()]
    if level == "per_char":
        units = [(name, surprisal) for name, _, (surprisal, _, _), _ in token_scores(line)]
    shown = ((name, "" if nats is None else surprisal_number(nats, unit)) for name, nats in units)
    return "\n".join(f"{_escaped(name)}\t{number}" for name, number in shown)


def _escaped(text: str) -> str:
    return text.replace("\n", "\\n")


def _summary(response: ScoreResponse, unit: Unit) -> Table:
    masked = "masked " if response.method == "pseudo_log_likelihood" else ""
    bits, share = response.bits_per_byte, response.unknown_char_share
    per_byte = "" if bits is None else f", {per_char_number(bits, unit)} {unit} per byte with line ends"
    rows = {
        "loss": loss_figures(response.loss, response.bits_per_char, unit, unknown_char_share=share),
        "unknown": describe_unknown(share),
        "mean surprisal": f"{loss_number(response.mean_surprisal or 0.0, unit)} {unit} per {masked}token of the text",
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
    return summary(response.run_id, rows)


def _difference(window: WindowReport) -> float:
    return window.max_difference_nats


def _check_heatmap(file: Path, head: Sequence[Portion | BadLine]) -> None:
    if file.suffix not in (".png", ".html"):
        raise AppError(ErrorCode.INVALID_INPUT, "`--heatmap` needs a file name that ends in .png or .html.")
    if len(head) != 1 or not isinstance(head[0], Portion) or len(head[0].text) > _MAX_HEATMAP_CHARACTERS:
        raise AppError(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"A heat map shows at most {_MAX_HEATMAP_CHARACTERS:,} characters: give a shorter text.",
        )


def _draw_heatmap(terminal: Terminal, file: Path, response: ScoreResponse, text: str) -> None:
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
