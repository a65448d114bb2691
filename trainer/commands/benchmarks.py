"""`mt bench architectures`: one small text, one tokenizer, equal tokens, one table and one chart of all families."""

import asyncio
import shutil
from pathlib import Path
from socket import socketpair
from typing import get_args

from rich.text import Text

from trainer.artifacts.runs import new_run_id
from trainer.commands.arguments import Arguments, Commands
from trainer.commands.connection import settings_for
from trainer.commands.requests import corpus_name
from trainer.commands.terminal import Terminal, columns
from trainer.config.settings import Settings
from trainer.config.train_request import train_request
from trainer.contracts.base import now
from trainer.contracts.benchmarks import BenchmarkPlan, BenchmarkRow, BenchmarkTable, PreparedBenchmark
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.models import CONFIGS, RnnArchitecture
from trainer.contracts.runs import EffectiveRequest
from trainer.contracts.tokenizers import METHODS
from trainer.contracts.wording import counted
from trainer.data.corpora import CorpusStore
from trainer.data.folders import filled_folder
from trainer.jobs.resolve import resolve_request
from trainer.system.child_environment import BENCHMARK_ERROR, BENCHMARK_PLAN, BENCHMARK_PREPARED
from trainer.system.files import read_record, write_atomically
from trainer.worker.child_process import child_server, new_process

EXIT_INTERRUPTED = 130
_BOTH = "-bidirectional"
_RECURRENT: tuple[str, ...] = get_args(RnnArchitecture)
_NAMES = (*CONFIGS, *(f"{name}{_BOTH}" for name in _RECURRENT))
"""What can be compared: every architecture, and the recurrent ones in two directions."""
_LEARNING_RATES = {"tiny": 3e-3, "small": 1e-3, "base": 5e-4}
"""One rate for all of a size, after a warm-up; smaller ones for larger models."""
_TOKENS, _SEED = 400_000, 42
_HEAD = ("model", "objective", "parameters", "test loss", "bits/char", "tokens/s", "peak memory")


def add_to(commands: Commands) -> None:
    bench = commands.group("bench", "compare what this program can train")
    one = bench.add("architectures", _architectures, "train every architecture on one text at equal tokens")
    one.add_argument("corpus", metavar="CORPUS", help="a corpus name or the path of a text file")
    one.add_argument("--size", default="tiny", metavar="SIZE", help="of every model: tiny (without it), small, base")
    one.add_argument("--tokens", type=int, default=_TOKENS, metavar="N", help=f"for each training; {_TOKENS:,} without")
    one.add_argument("--families", metavar="A,B", help=f"all without it, of: {', '.join(_NAMES)}")
    one.add_argument("--tokenizer", dest="method", default="char", metavar="METHOD", help=", ".join(METHODS))
    one.add_argument("--seed", type=int, default=_SEED, metavar="N", help=f"{_SEED} without it")


def _architectures(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for("model-trainer-benchmark")
    plan = asyncio.run(_planned(arguments, settings))
    try:
        table, folder = _compared(plan, arguments, settings, terminal)
    except KeyboardInterrupt:
        terminal.note("Interrupted. Nothing of the comparison was kept.")
        return EXIT_INTERRUPTED
    shared = table.shared
    about = (
        f"{table.corpus.name}: {shared.tokens:,} tokens each, in {counted(shared.steps, 'step')}; tested on"
        f" {counted(shared.test.lines, 'line')}; {shared.vocab_size:,} tokens in the vocabulary."
        " Losses in nats per predicted token."
    )
    masked = "* per masked token: not to be compared with the causal ones."
    notes = [about, *([masked] if any(row.objective == "masked_lm" for row in table.rows) else []), f"in {folder}"]
    terminal.show(table, columns([_HEAD, *map(_cells, table.rows)]), Text("\n".join(notes)))
    return 0


async def _planned(arguments: Arguments, settings: Settings) -> BenchmarkPlan:
    """The requests of all trainings, as if each had been given to `mt train`; raises AppError for what cannot be."""
    if arguments.tokens < 1:
        raise AppError(ErrorCode.INVALID_INPUT, f"`--tokens` must be 1 or more, you gave {arguments.tokens}.")
    if arguments.size not in _LEARNING_RATES:
        known = ", ".join(_LEARNING_RATES)
        raise AppError(ErrorCode.INVALID_MODEL_SIZE, f"`--size` must be one of {known}, you gave '{arguments.size}'.")
    corpora = CorpusStore(settings)
    corpus = await corpus_name(arguments.corpus or "", None, corpora)
    names = _chosen(arguments)
    requests: dict[str, EffectiveRequest] = {}
    for name in names:
        request = train_request(_fields(name, corpus, arguments))
        requests[name] = await resolve_request(request, corpora, settings)
    await corpora.keep_offered()
    return BenchmarkPlan(tokens=arguments.tokens, requests=requests)


def _chosen(arguments: Arguments) -> list[str]:
    """The names that were asked for; without any, all that the tokenizer allows, of two directions the LSTM alone."""
    if arguments.families is None:
        usual = [*CONFIGS, f"lstm{_BOTH}"]
        return [name for name in usual if arguments.method != "word" or not _is_masked(name)]
    names = arguments.families.split(",")
    for name in names:
        if name not in _NAMES:
            raise AppError(
                ErrorCode.UNSUPPORTED_BACKEND, f"`--families` must be of {', '.join(_NAMES)}, you gave '{name}'."
            )
    return names


def _is_masked(name: str) -> bool:
    return name.endswith(_BOTH) or name in {one for one in CONFIGS if "causal_lm" not in CONFIGS[one].objectives}


def _fields(name: str, corpus: str, arguments: Arguments) -> dict[str, object]:
    """The fields of one training's request; the tokenizer has a mask token wherever its method can, so that it fits."""
    tokenizer: dict[str, object] = {"method": arguments.method}
    if arguments.method == "char":
        tokenizer["mask_token"] = True
    elif arguments.method != "word":
        tokenizer |= {"special_style": "gpt2_mask", "vocab_size": 1000}
    fields: dict[str, object] = {
        "corpus": corpus,
        "model_family": name.removesuffix(_BOTH),
        "model_size": arguments.size,
        "objective": "masked_lm" if _is_masked(name) else "causal_lm",
        "tokenizer": tokenizer,
        "seed": arguments.seed,
        "max_seq_len": 64,
        "batch_size": 16,
        "learning_rate": _LEARNING_RATES[arguments.size],
        "lr_schedule": "cosine",
        "warmup_ratio": 0.1,
        "holdout_fraction": 0.05,
        "test_fraction": 0.05,
    }
    return fields | {"model": {"bidirectional": True}} if name.endswith(_BOTH) else fields


def _compared(
    plan: BenchmarkPlan, arguments: Arguments, settings: Settings, terminal: Terminal
) -> tuple[BenchmarkTable, Path]:
    """Do the trainings one after another, each in a process of its own; the table appears with all of its files."""
    created_at = now()
    benchmark_id = new_run_id("architectures", created_at)
    folder = settings.app.artifacts_root / "benchmarks" / benchmark_id
    with filled_folder(folder) as temporary:
        work = temporary / "work"
        work.mkdir()
        write_atomically(work / f"{BENCHMARK_PLAN}.json", plan.model_dump_json().encode())
        terminal.note("preparing the text")
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
            model_size=arguments.size,
            seed=rows[0].request.seed,
            shared=read_record(work / f"{BENCHMARK_PREPARED}.json", PreparedBenchmark),
            rows=tuple(rows),
        )
        shutil.rmtree(work)
        from trainer.reports.charts import (
            curves_chart,  # matplotlib, when the memory of the trainings has been measured
        )

        curves = {_label(row): [(point.step, point.train_loss) for point in row.curve] for row in rows}
        write_atomically(
            temporary / "curves.png",
            curves_chart(curves, dashed={_label(row) for row in rows if row.objective == "masked_lm"}),
        )
        write_atomically(temporary / "table.tsv", _as_tsv(table).encode())
        write_atomically(temporary / "table.json", table.model_dump_json(indent=1).encode())
    return table, folder


def _run_child(settings: Settings, work: Path, name: str) -> None:
    """Have a child do one part; raises what it could not do, and ends it where we are interrupted."""
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


def _cells(row: BenchmarkRow) -> tuple[str, ...]:
    mark = "*" if row.objective == "masked_lm" else ""
    bits = "–" if row.bits_per_char is None else f"{row.bits_per_char:.3f}"
    return (
        row.name,
        row.objective,
        f"{row.params:,}",
        f"{row.test_loss:.4f}{mark}",
        bits,
        f"{row.tokens_per_second:,.0f}",
        f"{row.peak_memory_bytes / 1e6:,.0f} MB",
    )


def _as_tsv(table: BenchmarkTable) -> str:
    names = (
        "name",
        "objective",
        "params",
        "learning_rate",
        "test_loss",
        "bits_per_char",
        "tokens_per_second",
        "train_seconds",
        "peak_memory_bytes",
    )
    lines = ["\t".join(names)]
    for row in table.rows:
        values: dict[str, object] = row.model_dump(mode="json", include=set(names))
        lines.append("\t".join("" if values[name] is None else str(values[name]) for name in names))
    return "\n".join(lines) + "\n"
