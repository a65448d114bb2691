"""`mt generate`, `mt predict`, `mt chat` and `mt eval`: use and measure a trained run."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path

from rich.table import Table

from trainer.artifacts.runs import RunStore
from trainer.commands.arguments import Commands, RunOptions, Sampling, StoreFile
from trainer.commands.connection import settings_for, with_run
from trainer.commands.requests import checked_corpus
from trainer.commands.terminal import Terminal, add_loss, columns, summary_table
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import (
    MAX_PROMPT_CHARACTERS,
    ChatRequest,
    ChatResponse,
    EvalMetrics,
    EvalRequest,
    FinishReason,
    GenerateRequest,
    GenerateResponse,
    PredictRequest,
)
from trainer.contracts.validation import parse
from trainer.contracts.wording import counted
from trainer.data.corpora import CorpusStore
from trainer.data.input_text import read_text
from trainer.jobs.queue import JobQueue

_STDIN = 0


class _GenerateOptions(Sampling, RunOptions):
    prompt: str | None
    prompt_path: Path | None
    samples: int | None
    no_stop_on_eos: bool
    stop: list[str]
    repetition_penalty: float | None
    ban_token: list[str]
    allowed_chars: str | None
    logprobs: bool
    stream: bool


class _PredictOptions(RunOptions):
    text: str
    k: int


class _ChatOptions(Sampling, RunOptions):
    session: str | None


class _EvalOptions(RunOptions):
    split: str | None
    path: Path | None
    latest: bool


def add_to(commands: Commands) -> None:
    example = 'mt generate RUN "once upon" --max-new-tokens 100'
    generate = commands.add("generate", "Use a model", _GenerateOptions, _generate, "continue a prompt", example)
    generate.add_run()
    generate.add_argument("prompt", nargs="?", metavar="PROMPT", help="text to continue; default: an empty one")
    about = "continue a corpus, or the text of a file"
    generate.add_argument("--prompt-path", type=Path, metavar="F", action=StoreFile, help=about)
    generate.add_sampling()
    generate.add_argument("--samples", type=int, metavar="N", help="number of continuations; default: 1")
    generate.add_argument("--no-stop-on-eos", action="store_true", help="continue with further lines after [EOS]")
    generate.add_repeatable("--stop", "S", "stop before this text")
    about = "above 1: tokens that have occurred become less likely"
    generate.add_argument("--repetition-penalty", type=float, metavar="P", help=about)
    generate.add_repeatable("--ban-token", "TOKEN", "never generate this token")
    about = "generate only tokens made of these characters"
    generate.add_argument("--allowed-chars", metavar="CHARACTERS", help=about)
    generate.add_argument("--logprobs", action="store_true", help="show ln p of every token")
    generate.add_argument("--stream", action="store_true", help="show the text while it is generated")

    about = "list the likeliest next tokens of a text"
    example = 'mt predict RUN --text "once upon" --k 10'
    predict = commands.add("predict", "Use a model", _PredictOptions, _predict, about, example)
    predict.add_run()
    predict.add_argument("--text", required=True, metavar="TEXT", help="text to continue")
    predict.add_argument("--k", type=int, default=5, metavar="K", help="number of tokens; default: 5")

    about = "chat with a model: one line of input, one line of answer"
    chat = commands.add("chat", "Use a model", _ChatOptions, _chat, about, "mt chat RUN", with_json=False)
    chat.add_run()
    chat.add_argument("--session", metavar="ID", help="continue a chat of the last hour")
    chat.add_sampling()

    about = "measure the loss of a model on one of its splits, or on another corpus"
    evaluate = commands.add("eval", "Use a model", _EvalOptions, _evaluate, about, "mt eval RUN --split test")
    evaluate.add_run()
    evaluate.add_argument("--split", metavar="validation|test", help="split of the run; default: validation")
    about = "measure on a corpus, or on a text file"
    evaluate.add_argument("--path", type=Path, metavar="F", action=StoreFile, help=about)
    evaluate.add_argument("--latest", action="store_true", help="show the latest evaluation without a new one")


def _generate(options: _GenerateOptions, terminal: Terminal) -> int:
    settings = settings_for()
    request = _generate_request(options, CorpusStore(settings))
    if options.stream and options.json:
        raise AppError(ErrorCode.INVALID_INPUT, "Give `--stream` or `--json`, not both.")

    async def generate(queue: JobQueue) -> int:
        if options.stream:
            response = await _stream(queue, options.run, request, terminal)
        else:
            response = await queue.inference.generate(options.run, request)
            terminal.show(response)
        if not options.json:
            for output, reason in zip(response.outputs or (), response.stop_reason or (), strict=True):
                if not options.stream:
                    terminal.line(output)
                terminal.note(f"({end_note(reason, response)}, seed {response.seed_used})")
            for logprobs in response.logprobs or ():
                terminal.line(" ".join(f"{logprob:.4f}" for logprob in logprobs))
        return 0

    return with_run(options.run, settings, terminal, generate)


def _generate_request(options: _GenerateOptions, corpora: CorpusStore) -> GenerateRequest:
    if options.prompt is not None and options.prompt_path is not None:
        raise AppError(ErrorCode.INVALID_INPUT, "Give a PROMPT or a file with `--prompt-path`, not both.")
    fields = _sampling_fields(options) | {
        "stop_sequences": options.stop,
        "banned_tokens": options.ban_token,
        "stop_on_eos": not options.no_stop_on_eos,
        "logprobs": options.logprobs,
        "repetition_penalty": options.repetition_penalty,
        "alphabet": options.allowed_chars,
    }
    if options.samples is not None:
        fields["num_return_sequences"] = options.samples
    if options.prompt_path is None:
        fields["prompt_text"] = options.prompt or ""
    elif corpora.has(str(options.prompt_path)):
        fields["prompt_path"] = str(options.prompt_path)
    else:
        fields["prompt_text"] = read_text(options.prompt_path, MAX_PROMPT_CHARACTERS)
    return parse(GenerateRequest, fields)


def _sampling_fields(options: Sampling) -> dict[str, object]:
    """Return the fields of SamplingOptions that were given."""
    fields: dict[str, object] = {
        "max_new_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "seed": options.seed,
    }
    return {name: value for name, value in fields.items() if value is not None}


async def _stream(queue: JobQueue, run_id: str, request: GenerateRequest, terminal: Terminal) -> GenerateResponse:
    """Show a text while it is generated; of several, each piece on its own line after the number of its text."""
    response = GenerateResponse(request_id="none", run_id=run_id, status="queued")
    async with contextlib.aclosing(queue.inference.stream_generate(run_id, request)) as pieces:
        async for piece in pieces:
            if isinstance(piece, GenerateResponse):
                response = piece
            elif request.num_return_sequences > 1:
                terminal.line(f"{piece.index}: {piece.text}")
            else:
                terminal.write(piece.text if piece.stop_reason is None else f"{piece.text}\n")
    return response


def end_note(reason: FinishReason, response: GenerateResponse) -> str:
    """Describe why a continuation ended."""
    if reason != "context_full":
        return reason
    if not any(response.steps or ()):
        return f"{reason}: the prompt has {response.prompt_tokens:,} tokens, more than the model's context"
    return f"{reason}: the model's context is full"


def _predict(options: _PredictOptions, terminal: Terminal) -> int:
    request = parse(PredictRequest, {"text": options.text, "k": options.k})

    async def predict(queue: JobQueue) -> int:
        response = await queue.inference.predict(options.run, request)
        if not response.suggestions:
            raise AppError(ErrorCode.INVALID_INPUT, "Prefix is empty after tokenization. Provide at least one word.")
        ranked = enumerate(response.suggestions, 1)
        rows = [(str(rank), one.token, f"{one.prob:.4f}", f"{one.logp:.4f}") for rank, one in ranked]
        terminal.show(response, columns([("", "token", "p", "log p"), *rows]))
        return 0

    return with_run(options.run, settings_for(), terminal, predict)


def _chat(options: _ChatOptions, terminal: Terminal) -> int:
    fields = _sampling_fields(options)
    parse(ChatRequest, {**fields, "message": "a", "session_id": options.session})

    async def chat(queue: JobQueue) -> int:
        session_id = options.session
        async for line in _typed_lines():
            message = line.strip()
            if not message:
                continue
            request = parse(ChatRequest, {**fields, "message": message, "session_id": session_id})
            response = await queue.inference.chat(options.run, request)
            if session_id is None:
                session_id = response.session_id
                terminal.note(f"(session {session_id})")
            terminal.line(response.answer or "")
            for note in turns_note(response):
                terminal.note(note)
        return 0

    return with_run(options.run, settings_for(), terminal, chat)


async def _typed_lines() -> AsyncIterator[str]:
    """Yield lines of standard input; a thread waits for them, so that the program can end meanwhile."""
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            with open(_STDIN, encoding="utf-8", errors="replace", closefd=False) as typed:
                for line in typed:
                    loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()
    while line := await lines.get():
        yield line


def turns_note(response: ChatResponse) -> list[str]:
    """Return a note if the oldest turns did not fit into the model's context."""
    dropped = response.turns_dropped
    return [f"(no longer in the model's context: the oldest {counted(dropped, 'turn')})"] if dropped else []


def _evaluate(options: _EvalOptions, terminal: Terminal) -> int:
    settings = settings_for()
    if (options.split is not None) + (options.path is not None) + options.latest > 1:
        raise AppError(ErrorCode.INVALID_INPUT, "Give only one of `--split`, `--path` and `--latest`.")
    if options.latest:
        metrics = RunStore(settings.app.artifacts_root).get(options.run).evaluation()
        terminal.show(metrics, _metrics_table(metrics, metrics.dataset))
        return 0
    corpora = CorpusStore(settings)
    fields: dict[str, object] = {"split": options.split or "validation"}
    if options.path is not None:
        fields["path_override"] = asyncio.run(checked_corpus(str(options.path), corpora))
    request = parse(EvalRequest, fields)

    async def evaluate(queue: JobQueue) -> int:
        await corpora.store_offered()
        metrics = await queue.inference.evaluate(options.run, request)
        terminal.show(metrics, _metrics_table(metrics, str(options.path or metrics.split)))
        return 0

    return with_run(options.run, settings, terminal, evaluate)


def _metrics_table(metrics: EvalMetrics, measured: str) -> Table:
    table = summary_table(f"{metrics.run_id}: {measured}")
    add_loss(table, "loss", metrics.loss, metrics.bits_per_char, metrics.objective)
    table.add_row("top-1, top-5", f"{metrics.top1_accuracy:.1%}, {metrics.top5_accuracy:.1%}")
    unknown = "" if metrics.unknown_share is None else f", {metrics.unknown_share:.2%} of the text's unknown"
    table.add_row("tokens", f"{metrics.n_tokens:,} predicted{unknown}")
    lengths = metrics.seq_len
    spread = f"{lengths.min:,} to {lengths.max:,}, median {lengths.p50:g}, 95th percentile {lengths.p95:g}"
    table.add_row("tokens per line", spread)
    table.add_row("tokens per character, word", f"{metrics.tokens_per_char:.3f}, {metrics.tokens_per_word:.2f}")
    if metrics.objective == "causal_lm":
        repeated = f"{metrics.distinct_1:.3f}, {metrics.distinct_2:.3f}; {metrics.repetition_rate:.3f}"
        table.add_row("samples: distinct-1, distinct-2; repetition", repeated)
    return table
