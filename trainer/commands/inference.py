"""`mt score`, `mt generate`, `mt eval`: asking a finished run."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.table import Table

from trainer.commands.arguments import Arguments, Commands
from trainer.commands.connection import settings_for, with_queue
from trainer.commands.requests import corpus_name
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import (
    MAX_PROMPT_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    EvalRequest,
    GenerateRequest,
    ScoreRequest,
    WindowReport,
)
from trainer.contracts.settings import Settings
from trainer.contracts.validation import parse
from trainer.corpora import CorpusStore
from trainer.given_text import read_text
from trainer.queue import JobQueue
from trainer.runs import RunStore
from trainer.terminal import Terminal, add_loss, summary_table

_DETAIL_LEVELS: tuple[str, ...] = ("summary", "per_char")


def add_to(commands: Commands) -> None:
    score = commands.add("score", _score, "how surprised a model is by a text")
    score.add_argument("run", metavar="RUN")
    score.add_argument("text", nargs="?", metavar="TEXT")
    score.add_argument("--path", type=Path, metavar="F", help="score a corpus, or the text of a file")
    score.add_argument("--detail-level", choices=_DETAIL_LEVELS, default="summary")
    score.add_argument("--top-k", type=int, metavar="N", help="with per_char: what was expected at each place")
    score.add_argument(
        "--window-tokens", type=int, metavar="N", help="score longer lines by windows of N tokens: faster, not exact"
    )
    generate = commands.add("generate", _generate, "let a model continue a prompt")
    generate.add_argument("run", metavar="RUN")
    generate.add_argument("prompt", nargs="?", metavar="PROMPT")
    generate.add_argument("--prompt-path", type=Path, metavar="F", help="continue a corpus, or the text of a file")
    generate.add_argument("--max-new-tokens", type=int, metavar="N")
    generate.add_argument("--temperature", type=float, metavar="T", help="0 is greedy")
    generate.add_argument("--top-k", type=int, metavar="N")
    generate.add_argument("--top-p", type=float, metavar="P")
    generate.add_argument("--seed", type=int)
    generate.add_argument("-n", type=int, metavar="N", help="how many continuations")
    evaluate = commands.add("eval", _evaluate, "measure a model on one of its splits, or on another text")
    evaluate.add_argument("run", metavar="RUN")
    evaluate.add_argument("--split", default="validation", metavar="validation|test")
    evaluate.add_argument("--path", type=Path, metavar="F", help="measure a corpus, or a text file, instead of a split")


def _score(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for()
    request = _score_request(arguments, CorpusStore(settings))

    async def ask(queue: JobQueue) -> int:
        response = await queue.score(arguments.run, request)
        table = summary_table(response.run_id)
        add_loss(table, "loss", response.loss, response.bits_per_char)
        table.add_row("tokens, unknown", f"{response.n_scored}, {response.unk_count}")
        if response.window is not None:
            _add_windows(table, response.window)
        terminal.show(response, table)
        if not arguments.json:
            for token, surprisal in zip(response.tokens or (), response.surprisal or (), strict=True):
                terminal.line(f"{token}\t{surprisal:.4f}")
        return 0

    return _ask(arguments, settings, terminal, ask)


def _generate(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for()
    request = _generate_request(arguments, CorpusStore(settings))

    async def ask(queue: JobQueue) -> int:
        response = await queue.generate(arguments.run, request)
        terminal.show(response)
        if not arguments.json:
            for output, reason in zip(response.outputs or (), response.stop_reason or (), strict=True):
                terminal.line(output)
                terminal.note(f"({reason}, seed {response.seed_used})")
        return 0

    return _ask(arguments, settings, terminal, ask)


def _evaluate(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for()
    corpora = CorpusStore(settings)
    fields: dict[str, object] = {"split": arguments.split}
    if arguments.path is not None:
        fields["path_override"] = asyncio.run(_checked_corpus(str(arguments.path), corpora))
    request = parse(EvalRequest, fields)

    async def ask(queue: JobQueue) -> int:
        await corpora.keep_offered()
        metrics = await queue.evaluate(arguments.run, request)
        table = summary_table(f"{metrics.run_id}: {arguments.path or metrics.split}")
        name = "loss" if metrics.objective == "causal_lm" else "loss over masked tokens"
        add_loss(table, name, metrics.loss, metrics.bits_per_char)
        table.add_row("top-1, top-5", f"{metrics.top1_accuracy:.1%}, {metrics.top5_accuracy:.1%}")
        table.add_row("tokens", f"{metrics.n_tokens:,}")
        terminal.show(metrics, table)
        return 0

    return _ask(arguments, settings, terminal, ask)


def _ask(
    arguments: Arguments, settings: Settings, terminal: Terminal, ask: Callable[[JobQueue], Awaitable[int]]
) -> int:
    """Ask a run, once it is known to have a model: a mistake starts nothing."""
    RunStore(settings.app.artifacts_root).get(arguments.run).completed_manifest()
    return with_queue(settings, terminal, ask)


def _score_request(arguments: Arguments, corpora: CorpusStore) -> ScoreRequest:
    if (arguments.text is None) == (arguments.path is None):
        raise AppError(ErrorCode.INVALID_INPUT, "Give a TEXT or a file by `--path`, one of both.")
    fields: dict[str, object] = {
        "detail_level": arguments.detail_level,
        "top_k": arguments.top_k,
        "window_tokens": arguments.window_tokens,
    }
    if arguments.path is None:
        fields["text"] = arguments.text
    elif corpora.has(str(arguments.path)):
        fields["path"] = str(arguments.path)
    else:
        fields["text"] = read_text(arguments.path, MAX_TEXT_CHARACTERS)
    return parse(ScoreRequest, fields)


def _add_windows(table: Table, window: WindowReport) -> None:
    if not window.compared_tokens:
        table.add_row("windows", f"none: no line is longer than {window.window_tokens:,} tokens")
        return
    table.add_row("windows", f"of {window.window_tokens:,} tokens, {window.context_tokens:,} of them only read")
    table.add_row(
        "not exact", f"off by up to {window.max_difference_nats:.1e} nats in {window.compared_tokens:,} tokens"
    )


async def _checked_corpus(name: str, corpora: CorpusStore) -> str:
    name = await corpus_name(name, None, corpora)
    await corpora.describe(name)
    return name


def _generate_request(arguments: Arguments, corpora: CorpusStore) -> GenerateRequest:
    if arguments.prompt is not None and arguments.prompt_path is not None:
        raise AppError(ErrorCode.INVALID_INPUT, "Give a PROMPT or a file by `--prompt-path`, not both.")
    given: dict[str, object | None] = {
        "max_new_tokens": arguments.max_new_tokens,
        "temperature": arguments.temperature,
        "top_k": arguments.top_k,
        "top_p": arguments.top_p,
        "seed": arguments.seed,
        "num_return_sequences": arguments.n,
    }
    fields: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if arguments.prompt_path is None:
        fields["prompt_text"] = arguments.prompt or ""
    elif corpora.has(str(arguments.prompt_path)):
        fields["prompt_path"] = str(arguments.prompt_path)
    else:
        fields["prompt_text"] = read_text(arguments.prompt_path, MAX_PROMPT_CHARACTERS)
    return parse(GenerateRequest, fields)
