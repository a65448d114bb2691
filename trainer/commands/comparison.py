"""`mt compare`: runs beside one another, by what was measured of them, or by measuring all of them on one text."""

import asyncio

from rich.text import Text

from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.commands.arguments import Arguments, Commands
from trainer.commands.connection import settings_for, with_queue
from trainer.commands.requests import checked_corpus
from trainer.commands.terminal import Terminal, columns
from trainer.config.settings import Settings
from trainer.contracts.comparison import (
    TOLERANCE,
    Against,
    ComparedRun,
    Comparison,
    Measurement,
    check_different,
    compare,
    summary_on,
    verdict,
)
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import EvalRequest, EvalSplit, summary_of
from trainer.contracts.runs import EvalSummary
from trainer.contracts.validation import parse
from trainer.data.corpora import CorpusStore
from trainer.jobs.queue import JobQueue

EXIT_REGRESSION = 1
_SHOWN_CHARACTERS = 40


def add_to(commands: Commands) -> None:
    command = commands.add("compare", _compare, "what one run does better or worse than others")
    command.add_argument("run", metavar="RUN", help="the one that is judged")
    command.add_argument("others", nargs="+", metavar="OTHER")
    command.add_argument("--split", metavar="validation|test", help="by what was measured on this split (test)")
    command.add_argument("--path", metavar="F", help="measure all of them on a corpus, or a text file, first")
    command.add_argument(
        "--tolerance", type=float, default=TOLERANCE, metavar="X", help="by which share a loss may rise (0.01)"
    )
    command.add_argument(
        "--fail-on-regression", action="store_true", help="exit with 1 where RUN is worse, or does not compare"
    )


def _compare(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for()
    if arguments.split is not None and arguments.path is not None:
        raise AppError(ErrorCode.INVALID_INPUT, "Give `--split` or `--path`: a split of the runs' own, or one text.")
    if not 0 <= arguments.tolerance < 1:
        raise AppError(
            ErrorCode.INVALID_INPUT, f"`--tolerance` must be at least 0 and below 1, you gave {arguments.tolerance:g}."
        )
    names = [arguments.run, *arguments.others]
    check_different(names)
    runs = [RunStore(settings.app.artifacts_root).get(name) for name in names]
    manifests = [run.completed_manifest() for run in runs]
    if arguments.path is not None:
        return _on_text(arguments, settings, terminal, runs)
    split: EvalSplit = parse(EvalRequest, {"split": arguments.split or "test"}).split
    summaries = [summary_on(manifest, split) for manifest in manifests]
    found = compare(_measured(runs, summaries), split=split, tolerance=arguments.tolerance)
    return _show(found, arguments, terminal)


def _on_text(arguments: Arguments, settings: Settings, terminal: Terminal, runs: list[RunDirectory]) -> int:
    corpora = CorpusStore(settings)
    name = asyncio.run(checked_corpus(str(arguments.path), corpora))

    async def ask(queue: JobQueue) -> int:
        await corpora.keep_offered()
        request = EvalRequest(path_override=name)
        summaries = [summary_of(await queue.inference.evaluate(run.run_id, request), name) for run in runs]
        found = compare(_measured(runs, summaries), dataset=str(arguments.path), tolerance=arguments.tolerance)
        return _show(found, arguments, terminal)

    return with_queue(settings, terminal, ask)


def _measured(runs: list[RunDirectory], summaries: list[EvalSummary]) -> list[Measurement]:
    return [
        Measurement(run.completed_manifest(), summary, run.follow().refresh().tokens_per_second)
        for run, summary in zip(runs, summaries, strict=True)
    ]


def _show(found: Comparison, arguments: Arguments, terminal: Terminal) -> int:
    head = ("Run", "Model", "Params", "Loss", "Perplexity", "Bits/char", "Top-1", "Top-5", "Tokens/s", "Label")
    what = f"On their {found.split} splits" if found.dataset is None else f"On {found.dataset}"
    lines = [f"{what}; losses in nats per token:", columns([head, *map(_row, found.runs)]).plain]
    for one in found.against:
        lines += ["", *_told(found, one)]
    terminal.show(found, Text("\n".join(lines)))
    return EXIT_REGRESSION if arguments.fail_on_regression and not found.is_passed else 0


def _row(run: ComparedRun) -> tuple[str, ...]:
    return (
        run.run_id,
        run.model,
        _shown(run.params, ",d"),
        f"{run.loss:.4f}",
        f"{run.perplexity:.3f}",
        _shown(run.bits_per_char, ".4f"),
        _shown(run.top1_accuracy, ".1%"),
        _shown(run.top5_accuracy, ".1%"),
        _shown(run.tokens_per_second, ",.0f"),
        run.label or "",
    )


def _told(found: Comparison, one: Against) -> list[str]:
    """Describe the first run against another one, in sentences and figures."""
    first, delta = found.runs[0], one.delta
    lines = [f"{first.run_id} against {one.run_id}: {verdict(one, found.tolerance)}", *one.notes]
    if found.split is not None and not one.is_on_one_text:
        lines.append(f"`mt compare {first.run_id} {one.run_id} --path FILE` measures both on one text.")
    figures: list[tuple[str, float | None, str]] = [
        ("loss", delta.loss, "+.4f"),
        ("perplexity", delta.perplexity, "+.3f"),
        ("bits/char", delta.bits_per_char, "+.4f"),
        ("top-1", delta.top1_accuracy, "+.1%"),
        ("top-5", delta.top5_accuracy, "+.1%"),
        ("params", delta.params, "+,d"),
        ("tokens/s", delta.tokens_per_second, "+,.0f"),
    ]
    lines.append(", ".join(f"{name} {value:{form}}" for name, value, form in figures if value is not None))
    if one.differences:
        rows = [(d.field, _short(d.run), _short(d.other)) for d in one.differences]
        lines.append(columns([("differs", "here", "there"), *rows]).plain)
    return lines


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _short(value: str) -> str:
    return value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}…"
