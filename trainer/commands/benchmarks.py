"""`mt bench architectures`: train every architecture on one corpus at equal tokens; one table and one chart."""

import asyncio
import shutil
from pathlib import Path
from socket import socketpair
from typing import get_args

from rich.text import Text

from trainer.artifacts.run_ids import new_run_id
from trainer.commands.arguments import Argument, Commands, Options, option
from trainer.commands.connection import settings_for_here
from trainer.commands.corpus_names import corpus_name
from trainer.commands.terminal import EXIT_INTERRUPTED, Terminal, columns
from trainer.config.settings import Settings
from trainer.config.train_request import train_request
from trainer.config.validation import safe_name
from trainer.contracts.base import now
from trainer.contracts.benchmarks import BenchmarkPlan, BenchmarkRow, BenchmarkTable, PreparedBenchmark
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.models import CONFIGS, RnnArchitecture
from trainer.contracts.runs import EffectiveRequest
from trainer.contracts.tokenizers import METHODS
from trainer.contracts.units import Unit, loss_number, per_char_number
from trainer.contracts.wording import counted
from trainer.data.corpora import CorpusStore
from trainer.queue.resolve import resolve_request
from trainer.reports.score_table import csv_lines
from trainer.system.child_environment import BENCHMARK_ERROR, BENCHMARK_PLAN, BENCHMARK_PREPARED
from trainer.system.files import filled_folder, read_record, write_atomically
from trainer.worker.child_process import child_server, new_process

_BOTH = "-bidirectional"
_RECURRENT: tuple[str, ...] = get_args(RnnArchitecture)
_IN_STEPS = [name for name in CONFIGS if name != "ngram"]
_NAMES = (*_IN_STEPS, *(f"{name}{_BOTH}" for name in _RECURRENT))
"""Names for `--families`: every architecture that is trained in steps, and the recurrent ones in two directions."""
_LEARNING_RATES = {"tiny": 3e-3, "small": 1e-3, "base": 5e-4}
"""Learning rate after warm-up, by model size."""
_TOKENS, _SEED = 400_000, 42


class _BenchOptions(Options):
    corpus = Argument[str]("CORPUS", help="name of the corpus to train on, or path of a text file")
    size = option("--size SIZE", str, f"size of the models: {', '.join(_LEARNING_RATES)}; default: tiny", "tiny")
    tokens = option("--tokens N", int, f"tokens that each training reads; default: {_TOKENS:,}", _TOKENS)
    families = option("--families A,B", str, f"architectures, separated by commas: {', '.join(_NAMES)}; default: all")
    tokenizer = option(
        "--tokenizer METHOD", str, f"tokenizer of all models: {', '.join(METHODS)}; default: char", "char"
    )
    seed = option("--seed N", int, f"seed of every training; default: {_SEED}", _SEED)


def add_to(commands: Commands) -> None:
    bench = commands.group("bench", "compare what this program can train")
    bench.add("architectures", _BenchOptions, _compare_architectures, with_unit=True)


def _compare_architectures(options: _BenchOptions, terminal: Terminal) -> int:
    settings = settings_for_here(terminal, "model-trainer-benchmark")
    plan = asyncio.run(_make_plan(options, settings))
    try:
        table, folder = _train_all(plan, options, settings, terminal)
    except KeyboardInterrupt:
        terminal.note("Interrupted. The comparison was discarded.")
        return EXIT_INTERRUPTED
    shared = table.shared
    notes = [
        f"{safe_name(Path(options.corpus).name)}: {shared.tokens:,} tokens each, in {counted(shared.steps, 'step')};"
        f" tested on {counted(shared.test.lines, 'line')}; {shared.vocab_size:,} tokens in the vocabulary."
        f" Losses in {terminal.unit} per predicted token and per character."
    ]
    if any(row.objective == "masked_lm" for row in table.rows):
        notes.append("* per masked token: not comparable with the causal ones.")
    unit = terminal.unit
    titles = ("model", "objective", "parameters", f"{unit}/token", f"{unit}/char", "tokens/s", "peak memory")
    rows = [titles, *(_cells(row, unit) for row in table.rows)]
    terminal.show(table, columns(rows), Text("\n".join([*notes, f"stored in {folder}"])))
    return 0


async def _make_plan(options: _BenchOptions, settings: Settings) -> BenchmarkPlan:
    """Resolve the requests of all trainings; raises AppError where one cannot be trained."""
    if options.tokens < 1:
        raise AppError(ErrorCode.INVALID_INPUT, f"`--tokens` must be 1 or more, you gave {options.tokens}.")
    if options.size not in _LEARNING_RATES:
        known = ", ".join(_LEARNING_RATES)
        raise AppError(ErrorCode.INVALID_MODEL_SIZE, f"`--size` must be one of {known}, you gave '{options.size}'.")
    corpora = CorpusStore(settings)
    corpus = await corpus_name(options.corpus, None, corpora)
    requests: dict[str, EffectiveRequest] = {}
    for name in _chosen_names(options):
        request = train_request(_request_fields(name, corpus, options))
        requests[name] = await resolve_request(request, corpora, settings)
    await corpora.store_offered()
    return BenchmarkPlan(tokens=options.tokens, requests=requests)


def _chosen_names(options: _BenchOptions) -> list[str]:
    """Return `--families`; by default all that the tokenizer allows, in two directions the LSTM only."""
    if options.families is None:
        names = [*_IN_STEPS, f"lstm{_BOTH}"]
        return [name for name in names if options.tokenizer != "word" or not _is_masked(name)]
    names = options.families.split(",")
    for name in names:
        if name not in _NAMES:
            message = f"`--families` must be of {', '.join(_NAMES)}, you gave '{name}'."
            raise AppError(ErrorCode.UNSUPPORTED_BACKEND, message)
    return names


def _is_masked(name: str) -> bool:
    return name.endswith(_BOTH) or name in {one for one in CONFIGS if "causal_lm" not in CONFIGS[one].objectives}


def _request_fields(name: str, corpus: str, options: _BenchOptions) -> dict[str, object]:
    """Return the fields of a request; the tokenizer has a mask token if its method can, so that all can share it."""
    tokenizer: dict[str, object] = {"method": options.tokenizer}
    if options.tokenizer == "char":
        tokenizer["mask_token"] = True
    elif options.tokenizer != "word":
        tokenizer |= {"special_style": "gpt2_mask", "vocab_size": 1000}
    fields: dict[str, object] = {
        "corpus": corpus,
        "model_family": name.removesuffix(_BOTH),
        "model_size": options.size,
        "objective": "masked_lm" if _is_masked(name) else "causal_lm",
        "tokenizer": tokenizer,
        "seed": options.seed,
        "max_seq_len": 64,
        "batch_size": 16,
        "learning_rate": _LEARNING_RATES[options.size],
        "lr_schedule": "cosine",
        "warmup_ratio": 0.1,
        "holdout_fraction": 0.05,
        "test_fraction": 0.05,
    }
    return fields | {"model": {"bidirectional": True}} if name.endswith(_BOTH) else fields


def _train_all(
    plan: BenchmarkPlan, options: _BenchOptions, settings: Settings, terminal: Terminal
) -> tuple[BenchmarkTable, Path]:
    """Train one model after another, each in its own process; the folder appears once it is complete."""
    created_at = now()
    benchmark_id = new_run_id("architectures", created_at)
    folder = settings.app.artifacts_root / "benchmarks" / benchmark_id
    with filled_folder(folder) as temporary:
        work = temporary / "work"
        work.mkdir()
        write_atomically(work / f"{BENCHMARK_PLAN}.json", plan.model_dump_json().encode())
        terminal.note("preparing the corpus")
        rows: list[BenchmarkRow] = []
        with child_server(settings):
            _run_child(settings, work, BENCHMARK_PREPARED)
            for name in plan.requests:
                terminal.note(f"training {name}, {len(rows) + 1} of {len(plan.requests)}")
                _run_child(settings, work, name)
                rows.append(read_record(work / f"{name}.json", BenchmarkRow))
        table = BenchmarkTable(
            benchmark_id=benchmark_id,
            created_at=created_at,
            corpus=rows[0].request.corpus,
            model_size=options.size,
            seed=rows[0].request.seed,
            shared=read_record(work / f"{BENCHMARK_PREPARED}.json", PreparedBenchmark),
            rows=tuple(rows),
        )
        shutil.rmtree(work)
        from trainer.reports.charts import curves_chart  # matplotlib: not while the memory of trainings is measured

        curves = {_label(row): [(point.step, point.train_loss) for point in row.curve] for row in rows}
        dashed = {_label(row) for row in rows if row.objective == "masked_lm"}
        chart = curves_chart(curves, dashed, terminal.unit)
        write_atomically(temporary / "curves.png", chart)
        write_atomically(temporary / "table.tsv", _tsv(table).encode())
        write_atomically(temporary / "table.json", table.model_dump_json(indent=1).encode())
    return table, folder


def _run_child(settings: Settings, work: Path, name: str) -> None:
    """Run one part in a child process; raises its error, and stops it when this process is interrupted."""
    ours, theirs = socketpair()
    child = new_process("benchmark", settings, (str(work), name), [theirs])
    with ours, theirs:
        child.start()
        try:
            child.join()
        finally:
            child.terminate()
            child.join()
    if child.exitcode == 0:
        return
    reason = work / f"{BENCHMARK_ERROR}.json"
    if reason.exists():
        error = read_record(reason, RunError)
        raise AppError(error.code, error.message if name == BENCHMARK_PREPARED else f"{name}: {error.message}")
    raise AppError(ErrorCode.MODEL_TRAIN_FAILED, f"{name}: its process ended with exit code {child.exitcode}.")


def _label(row: BenchmarkRow) -> str:
    return f"{row.name} (masked tokens)" if row.objective == "masked_lm" else row.name


def _cells(row: BenchmarkRow, unit: Unit) -> tuple[str, ...]:
    mark = "*" if row.objective == "masked_lm" else ""
    return (
        row.name,
        row.objective,
        f"{row.params:,}",
        f"{loss_number(row.test_loss, unit)}{mark}",
        "–" if row.bits_per_char is None else per_char_number(row.bits_per_char, unit),
        f"{row.tokens_per_second:,.0f}",
        f"{row.peak_memory_bytes / 1e6:,.0f} MB",
    )


def _tsv(table: BenchmarkTable) -> str:
    titles = [name for name in BenchmarkRow.model_fields if name not in ("request", "curve")]
    rows: list[list[object]] = [[*titles]]
    for row in table.rows:
        values: dict[str, object] = row.model_dump(mode="json")
        rows.append([values[name] for name in titles])
    return csv_lines(rows, "\t") + "\n"
