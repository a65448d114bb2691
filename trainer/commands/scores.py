"""`mt score`: surprisals of texts and of files of any size under a trained run."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from itertools import chain, count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

from pydantic_core import to_json

from trainer.commands.arguments import QUOTING, Argument, Commands, ModelOptions, flag, option
from trainer.commands.connection import Installation, settings_for_any, with_inference, with_installation, with_model
from trainer.commands.score_output import (
    FORMS,
    Figures,
    Format,
    Rows,
    check_output,
    draw_heatmap,
    in_order,
    output_to,
    rows_of,
    summary_of,
)
from trainer.commands.terminal import EXIT_FAILED, Terminal, title_of
from trainer.config.settings import Settings
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.batteries import QUOTINGS, Quoting
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference_fields import MAX_TEXT_CHARACTERS
from trainer.contracts.items import Cell, ItemOptions, ItemUnit, item_notes
from trainer.contracts.reports import note
from trainer.contracts.runs import EffectiveRequest, Leak, largest_leak
from trainer.contracts.scores import DetailLevel, ScoreRequest, ScoreResponse
from trainer.contracts.sequences import Tokenizations
from trainer.contracts.tokenizers import DocumentMode
from trainer.contracts.wording import counted
from trainer.data.corpora import CorpusStore
from trainer.data.input_text import BadLine, Portion, read_portions, read_text
from trainer.data.item_tables import item_requests, read_columns
from trainer.data.normalization import normalized
from trainer.data.tables import PlainText, as_text
from trainer.queue.inference_kinds import check_scores
from trainer.reports.leak_notes import unit_leak_notes
from trainer.reports.report_text import ENGLISH, Reader
from trainer.reports.score_table import (
    ScoredLine,
    scored_lines,
    titles,
)

_PORTION_CHARACTERS = 20_000
_MAX_HEATMAP_CHARACTERS = 10_000
_LEVELS: tuple[str, ...] = get_args(DetailLevel)
_UNITS: tuple[str, ...] = get_args(ItemUnit)
_TOKENIZATIONS: tuple[str, ...] = get_args(Tokenizations)


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
    separator = option(
        "--separator TEXT", str, "of --items: put between joined texts; default: a space where one is written"
    )
    keep_na = flag("--keep-na", "of --items: score NA, NaN and null as words; default: they are empty cells")
    per = Argument[ItemUnit | None](
        "--per",
        choices=_UNITS,
        help="of --items: a row for each item, region, word or char; default: region, or item without regions",
    )
    tokenizations = Argument[Tokenizations | None](
        "--tokenizations",
        choices=_TOKENIZATIONS,
        help="of --items: score the canonical tokenization, or sum over all; default: canonical",
    )
    table_format = Argument[Format | None](
        "--format",
        choices=tuple(FORMS),
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

    def of_items(self) -> list[str]:
        """Return the names of the given options that only a table has."""
        names = ItemOptions.model_fields.keys() - ScoreRequest.model_fields.keys()
        values: dict[str, object] = vars(self)
        of_items = ((argument.flag, values[name]) for name, argument in self.arguments.items() if name in names)
        return [f"`{flag}`" for flag, value in of_items if value is not None and value is not False]

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
    if options.items is None and (given := options.of_items()):
        raise AppError(ErrorCode.INVALID_INPUT, f"{' and '.join(given)} are for a table: give it with `--items`.")
    if options.format == "table" and options.out is not None:
        raise AppError(ErrorCode.INVALID_INPUT, "`--out` needs `--format` json, jsonl, csv or tsv.")
    for file in (options.out, options.heatmap):
        if file is not None:
            check_output(file, options.items or options.path, overwrites=options.force)
    if options.items is not None:
        return _score_items(options, options.items, settings, terminal)
    with TemporaryDirectory(prefix="mt-table-") as folder:
        return _score_texts(options, settings, terminal, Path(folder))


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
    given = read_columns(items, options.quoting)
    requests = [*item_requests(given.columns, parse(ItemOptions, options.given(ItemOptions)))]
    for sentence in (*given.notes, *item_notes(requests)):
        terminal.note(f"mt: {sentence}")

    async def score(installation: Installation) -> int:
        responses = in_order(installation.ask(options.run, request, is_kept=False) for request in requests)
        n_cut, has_frequencies, is_first, leaks = 0, True, True, list[Leak]()
        with output_to(options.out, terminal) as write:
            async with aclosing(responses):
                async for response in responses:
                    n_cut, has_frequencies = n_cut + response.n_cut, response.has_frequencies
                    leaks += [] if response.leak is None else [response.leak]
                    table = response.table or {}
                    numbers = range(len(table.get("source_row", ())))
                    rows = [{name: values[number] for name, values in table.items()} for number in numbers]
                    cells: list[list[Cell]] = [[*table]] if is_first else []
                    cells += [[*row.values()] for row in rows]
                    write(FORMS[options.format](Rows((to_json(row).decode() for row in rows), cells)))
                    is_first = False
        if n_cut:
            terminal.note(f"mt: {counted(n_cut, 'item')} beyond the model's context, scored by windows")
        for warning in unit_leak_notes(largest_leak(leaks), note("the text of the table")):
            terminal.note(f"mt: {ENGLISH.note(warning)}")
        if not has_frequencies:
            terminal.note(
                "mt: the training text is gone, has changed or is not yours, so that `log_frequency` is empty"
            )
        return 0

    return with_model(options.run, settings, terminal, score)


def _score_texts(options: _ScoreOptions, settings: Settings, terminal: Terminal, folder: Path) -> int:
    """Score a text; a table is read as a text file in `folder`."""
    options.request("summary", "x")  # refuses wrong options, before the run is read
    source = _source(options, settings, folder)

    async def check(installation: Installation) -> EffectiveRequest:
        if options.path is None or not (source.path.is_file() or source.path.is_dir()):  # a pipe can be read once
            return await installation.effective(options.run)
        return await installation.check_text(options.run, source.path)

    effective = with_installation(settings, check)
    for sentence in source.notes:
        terminal.note(f"mt: {sentence}")
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
    parts = (part for part in chain(head, portions) if is_one or isinstance(part, BadLine) or part.text.strip())

    async def score(installation: Installation) -> int:
        responses = in_order(_scores_of(part, installation, options, level, is_kept=is_one) for part in parts)
        async with aclosing(responses):
            return await _write_scores(options, terminal, source, effective, responses)

    return with_inference(settings, terminal, score)


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


def _requested_level(options: _ScoreOptions, head: Sequence[Portion | BadLine]) -> DetailLevel:
    """Return the level that the output needs; refuses what is too large for it."""
    level = options.detail_level
    if options.format == "json" and level != "summary" and len(head) > 1:
        raise AppError(ErrorCode.PAYLOAD_TOO_LARGE, "Too many scores for one JSON object: use `--format jsonl`.")
    if options.heatmap is None:
        return "per_line" if options.writes_lines and level == "summary" else level
    if options.heatmap.suffix not in (".png", ".html"):
        raise AppError(ErrorCode.INVALID_INPUT, "`--heatmap` needs a file name that ends in .png or .html.")
    if len(head) != 1 or not isinstance(head[0], Portion) or len(head[0].text) > _MAX_HEATMAP_CHARACTERS:
        message = f"A heat map shows at most {_MAX_HEATMAP_CHARACTERS:,} characters: give a shorter text."
        raise AppError(ErrorCode.PAYLOAD_TOO_LARGE, message)
    return "per_char"


async def _scores_of(
    part: Portion | BadLine, installation: Installation, options: _ScoreOptions, level: DetailLevel, *, is_kept: bool
) -> tuple[Portion, ScoreResponse | AppError]:
    """Return a portion with its scores, or with the error of a text that cannot be scored; raises other errors."""
    if isinstance(part, BadLine):
        return Portion(part.number, ""), part.error
    try:
        request = options.request(level, part.text)
        if options.writes_lines and not is_kept:  # each portion would search the training text anew, and is small
            request = changed(request, has_counts=False)
        return part, await installation.ask(options.run, request, is_kept=is_kept)
    except AppError as error:
        if is_kept or error.code != ErrorCode.INVALID_INPUT:
            raise
        return part, error


async def _write_scores(
    options: _ScoreOptions,
    terminal: Terminal,
    source: PlainText,
    effective: EffectiveRequest,
    responses: AsyncIterator[tuple[Portion, ScoreResponse | AppError]],
) -> int:
    """Write the scores of each portion in the chosen format as they arrive, then the figures of all."""
    level, unit, figures, indices, has_errors = options.detail_level, terminal.unit, Figures(), count(1), False
    with output_to(options.out, terminal) as write:
        async for part, response in responses:
            text = normalized(part.text, effective.tokenizer.normalization)
            if isinstance(response, AppError):
                has_errors, line = True, source.number(part.number)
                terminal.note(f"mt: line {line:,}: {response.message}")
                rows = Rows([ScoredLine(line=line, error=response.message).as_json()])
            else:
                lines = scored_lines(response, text, part.number)
                numbered = (changed(one, line=source.number(one.line)) for one in lines)
                head = [] if figures.first else [titles(level, options.top_k or 0)]
                rows = rows_of(numbered, level, unit, head, indices)
                figures.add(response)
            if written := FORMS[options.format](rows):
                write(written)
            if options.heatmap is not None and not isinstance(response, AppError):
                draw_heatmap(terminal, options.heatmap, response, text)
        response = figures.response()
        for warning in response.notes:
            terminal.note(f"mt: {Reader(unit).note(warning)}")
        if options.format == "json":
            write(response.model_dump_json())
        elif options.format == "table":
            if level != "summary":
                terminal.note(f"mt: surprisals in {unit}")
            terminal.show(response, summary_of(response, title_of(options.run, effective.label), unit))
    return EXIT_FAILED if has_errors else 0
