"""`mt generate`, `mt predict`, `mt chat`, `mt eval`: asking a finished run."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from rich.table import Table
from rich.text import Text

from trainer.artifacts.runs import RunStore
from trainer.commands.arguments import Arguments, Commands
from trainer.commands.connection import settings_for, with_queue
from trainer.commands.requests import checked_corpus
from trainer.commands.terminal import Terminal, add_loss, summary_table
from trainer.config.settings import Settings
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
from trainer.data.corpora import CorpusStore
from trainer.data.input_text import read_text
from trainer.jobs.queue import JobQueue

_NOTHING: list[str] = []
_STDIN = 0


def add_to(commands: Commands) -> None:
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
    generate.add_argument("--past-lines", action="store_true", help="go on with further lines at the end of one")
    generate.add_argument(
        "--stop", action="append", default=_NOTHING, metavar="S", help="end before this text; repeatable"
    )
    generate.add_argument("--repetition-penalty", type=float, metavar="P", help="above 1: less of what was there")
    generate.add_argument(
        "--ban", action="append", default=_NOTHING, metavar="TOKEN", help="never write it; repeatable"
    )
    generate.add_argument("--alphabet", metavar="CHARACTERS", help="write only tokens that are made of these")
    generate.add_argument("--logprobs", action="store_true", help="show ln p of every token")
    generate.add_argument("--stream", action="store_true", help="show the text as it is written")
    predict = commands.add("predict", _predict, "the likeliest next tokens of a text")
    predict.add_argument("run", metavar="RUN")
    predict.add_argument("--text", required=True)
    predict.add_argument("--k", type=int, default=5, metavar="K", help="how many; 5 without it")
    chat = commands.add("chat", _chat, "talk with a model: a line of standard input, a line of answer", with_json=False)
    chat.add_argument("run", metavar="RUN")
    chat.add_argument("--session", metavar="ID", help="go on with a chat of the last hour")
    chat.add_argument("--max-new-tokens", type=int, metavar="N")
    chat.add_argument("--temperature", type=float, metavar="T", help="0 is greedy")
    chat.add_argument("--top-k", type=int, metavar="N")
    chat.add_argument("--top-p", type=float, metavar="P")
    chat.add_argument("--seed", type=int)
    evaluate = commands.add("eval", _evaluate, "measure a model on one of its splits, or on another text")
    evaluate.add_argument("run", metavar="RUN")
    evaluate.add_argument("--split", metavar="validation|test", help="a split of the run's own (validation)")
    evaluate.add_argument("--path", type=Path, metavar="F", help="measure a corpus, or a text file, instead of a split")
    evaluate.add_argument("--latest", action="store_true", help="show what was measured last, and measure nothing")


def _generate(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for()
    request = _generate_request(arguments, CorpusStore(settings))

    if arguments.stream and arguments.json:
        raise AppError(ErrorCode.INVALID_INPUT, "Give `--stream` or `--json`, not both: JSON comes as one object.")

    async def ask(queue: JobQueue) -> int:
        if arguments.stream:
            response = await _streamed(queue, arguments.run, request, terminal)
        else:
            response = await queue.inference.generate(arguments.run, request)
            terminal.show(response)
        if not arguments.json:
            for output, reason in zip(response.outputs or (), response.stop_reason or (), strict=True):
                if not arguments.stream:
                    terminal.line(output)
                terminal.note(f"({end_note(reason, response)}, seed {response.seed_used})")
            for logprobs in response.logprobs or ():
                terminal.line(" ".join(f"{logprob:.4f}" for logprob in logprobs))
        return 0

    return ask_run(arguments, settings, terminal, ask)


async def _typed_lines() -> AsyncIterator[str]:
    """Lines of standard input as they come; waiting for one keeps no program from ending."""
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits for lines any more
            with open(_STDIN, encoding="utf-8", errors="replace", closefd=False) as typed:
                for line in typed:
                    loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()
    while line := await lines.get():
        yield line


async def _streamed(queue: JobQueue, run_id: str, request: GenerateRequest, terminal: Terminal) -> GenerateResponse:
    """Show a text as it is written; of several, each piece on a line of its own, after the number of its text."""
    response = GenerateResponse(request_id="none", run_id=run_id, status="queued")
    async with contextlib.aclosing(queue.inference.stream_generate(run_id, request)) as told:
        async for piece in told:
            if isinstance(piece, GenerateResponse):
                response = piece
            elif request.num_return_sequences > 1:
                terminal.line(f"{piece.index}: {piece.text}")
            else:
                terminal.write(piece.text if piece.stop_reason is None else f"{piece.text}\n")
    return response


def turns_note(response: ChatResponse) -> list[str]:
    """What people should know of what the model read of a chat."""
    dropped = response.turns_dropped
    return [f"(of what was said before, the model did not read the oldest {dropped}: no room)"] if dropped else []


def end_note(reason: FinishReason, response: GenerateResponse) -> str:
    """Why a continuation ended, as people read it."""
    if reason != "context_full":
        return reason
    if not any(response.steps or ()):
        return f"{reason}: the prompt's {response.prompt_tokens:,} tokens are more than the model reads; none was cut"
    return f"{reason}: the model reads no more at once"


def _predict(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for()
    request = parse(PredictRequest, {"text": arguments.text, "k": arguments.k})

    async def ask(queue: JobQueue) -> int:
        response = await queue.inference.predict(arguments.run, request)
        if not response.suggestions:
            raise AppError(ErrorCode.INVALID_INPUT, "Prefix is empty after tokenization. Provide at least one word.")
        table = Table("", "token", "p", "log p")
        for place, suggestion in enumerate(response.suggestions, 1):
            table.add_row(str(place), Text(suggestion.token), f"{suggestion.prob:.4f}", f"{suggestion.logp:.4f}")
        terminal.show(response, table)
        return 0

    return ask_run(arguments, settings, terminal, ask)


def _evaluate(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for()
    if (arguments.split is not None) + (arguments.path is not None) + arguments.latest > 1:
        raise AppError(
            ErrorCode.INVALID_INPUT,
            "Give one of `--split`, `--path` and `--latest`: a split of the run's own, another text, or neither.",
        )
    if arguments.latest:
        metrics = RunStore(settings.app.artifacts_root).get(arguments.run).evaluation()
        terminal.show(metrics, _metrics_table(metrics, metrics.dataset))
        return 0
    corpora = CorpusStore(settings)
    fields: dict[str, object] = {"split": arguments.split or "validation"}
    if arguments.path is not None:
        fields["path_override"] = asyncio.run(checked_corpus(str(arguments.path), corpora))
    request = parse(EvalRequest, fields)

    async def ask(queue: JobQueue) -> int:
        await corpora.keep_offered()
        metrics = await queue.inference.evaluate(arguments.run, request)
        terminal.show(metrics, _metrics_table(metrics, str(arguments.path or metrics.split)))
        return 0

    return ask_run(arguments, settings, terminal, ask)


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


def _chat(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for()
    options = _sampling(arguments)
    parse(ChatRequest, {**options, "message": "a", "session_id": arguments.session})

    async def ask(queue: JobQueue) -> int:
        session_id = arguments.session
        async for line in _typed_lines():
            message = line.strip()
            if not message:
                continue
            request = parse(ChatRequest, {**options, "message": message, "session_id": session_id})
            response = await queue.inference.chat(arguments.run, request)
            if session_id is None:
                session_id = response.session_id
                terminal.note(f"(session {session_id})")
            terminal.line(response.answer or "")
            for note in turns_note(response):
                terminal.note(note)
        return 0

    return ask_run(arguments, settings, terminal, ask)


def ask_run(
    arguments: Arguments, settings: Settings, terminal: Terminal, ask: Callable[[JobQueue], Awaitable[int]]
) -> int:
    """Ask a run, once it is known to have a model: a mistake starts nothing."""
    RunStore(settings.app.artifacts_root).get(arguments.run).completed_manifest()
    return with_queue(settings, terminal, ask)


def _generate_request(arguments: Arguments, corpora: CorpusStore) -> GenerateRequest:
    if arguments.prompt is not None and arguments.prompt_path is not None:
        raise AppError(ErrorCode.INVALID_INPUT, "Give a PROMPT or a file by `--prompt-path`, not both.")
    fields: dict[str, object] = {
        **_given(
            {
                "num_return_sequences": arguments.n,
                "repetition_penalty": arguments.repetition_penalty,
                "alphabet": arguments.alphabet,
            }
        ),
        **_sampling(arguments),
        "stop_sequences": arguments.stop,
        "banned_tokens": arguments.ban,
        "stop_on_eos": not arguments.past_lines,
        "logprobs": arguments.logprobs,
    }
    if arguments.prompt_path is None:
        fields["prompt_text"] = arguments.prompt or ""
    elif corpora.has(str(arguments.prompt_path)):
        fields["prompt_path"] = str(arguments.prompt_path)
    else:
        fields["prompt_text"] = read_text(arguments.prompt_path, MAX_PROMPT_CHARACTERS)
    return parse(GenerateRequest, fields)


def _sampling(arguments: Arguments) -> dict[str, object]:
    return _given(
        {
            "max_new_tokens": arguments.max_new_tokens,
            "temperature": arguments.temperature,
            "top_k": arguments.top_k,
            "top_p": arguments.top_p,
            "seed": arguments.seed,
        }
    )


def _given(fields: dict[str, object | None]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}
