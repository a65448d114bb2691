"""`mt generate`, `mt predict`, `mt chat`, `mt eval` and `mt segment`: use and measure a trained run."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from rich.table import Table
from rich.text import Text

from trainer.commands.arguments import Argument, Commands, ModelOptions, SamplingOptions, flag, option, repeatable
from trainer.commands.connection import Installation, settings_for_any, with_installation, with_model
from trainer.commands.corpus_names import CorpusToMeasure
from trainer.commands.terminal import Terminal, columns, loss_figures, summary, title_of, unknown_mark
from trainer.config.settings import Settings
from trainer.config.validation import parse
from trainer.contracts.base import run_of
from trainer.contracts.chats import ChatRequest
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.evaluations import EvalMetrics, EvalRequest
from trainer.contracts.generations import FinishReason, GenerateRequest, GenerateResponse
from trainer.contracts.inference_fields import MAX_PROMPT_CHARACTERS, MAX_TEXT_CHARACTERS
from trainer.contracts.parameters import RunPath
from trainer.contracts.predictions import PredictRequest
from trainer.contracts.runs import EffectiveRequest, is_largely_unknown
from trainer.contracts.segmentation import SegmentRequest
from trainer.contracts.units import Unit, share_number, surprisal_number
from trainer.contracts.wording import counted
from trainer.data.corpora import CorpusStore
from trainer.data.input_text import read_texts
from trainer.lab.calls import GET_LATEST_EVALUATION
from trainer.reports.leak_notes import shares_note
from trainer.reports.names import named, run_names
from trainer.reports.report_text import Reader
from trainer.reports.run_notes import counting_note, describe_unknown, known_note
from trainer.reports.segmentation_report import segmentation_report

_STDIN = 0


class _GenerateOptions(SamplingOptions):
    prompt = Argument[str | None]("PROMPT", nargs="?", help="text to continue; default: an empty one")
    prompt_path = option("--prompt-path F", Path, "continue a corpus, or the text of a file")
    num_return_sequences = option("--samples N", int, "number of continuations; default: 1")
    stop_on_eos = Argument[bool](
        "--no-stop-on-eos", action="store_false", help="continue with further lines after [EOS]"
    )
    stop_sequences = repeatable("--stop S", "stop before this text")
    repetition_penalty = option(
        "--repetition-penalty P", float, "above 1: tokens that have occurred become less likely"
    )
    banned_tokens = repeatable("--ban-token TOKEN", "never generate this token")
    alphabet = option("--allowed-chars CHARACTERS", str, "generate only tokens made of these characters")
    logprobs = flag("--logprobs", "show the surprisal of every token")
    precision = option("--precision fp32|bf16", str, "bf16: faster with large transformers; default: fp32")
    stream = flag("--stream", "show the text while it is generated")


class _PredictOptions(ModelOptions):
    text = Argument[str]("TEXT", help="text to continue")
    k = option("--k K", int, "number of tokens; default: 5")


class _ChatOptions(SamplingOptions):
    session_id = option("--session ID", str, "continue a chat of the last hour")


class _EvalOptions(ModelOptions):
    split = option("--split validation|test", str, "split of the run; default: validation")
    path = option("--path F", Path, "measure on a corpus, or on a text file")
    latest = flag("--latest", "show the latest evaluation without a new one")


class _SegmentOptions(ModelOptions):
    data = Argument[Path](
        "--data",
        metavar="FILE",
        type=Path,
        required=True,
        help="text with spaces between words, which are removed (.txt, .jsonl, .csv, .tsv or .cha)",
    )
    seed = option("--seed N", int, "draws the lines for thresholds; default: 0")


def add_to(commands: Commands) -> None:
    commands.add("generate", _GenerateOptions, _generate, with_unit=True)
    commands.add("predict", _PredictOptions, _predict, with_unit=True)
    commands.add("chat", _ChatOptions, _chat, with_json=False)
    commands.add("eval", _EvalOptions, _evaluate, with_unit=True)
    commands.add("segment", _SegmentOptions, _segment, with_unit=True)


def _generate(options: _GenerateOptions, terminal: Terminal) -> int:
    settings = settings_for_any()
    request = _generate_request(options, settings, terminal)
    if options.stream and options.json:
        raise AppError(ErrorCode.INVALID_INPUT, "Give `--stream` or `--json`, not both.")

    async def generate(installation: Installation) -> int:
        if options.stream:
            response = await _stream(installation, options.run, request, terminal)
        else:
            response = await installation.ask(options.run, request)
            terminal.show(response)
        if not options.json:
            for note in response.notes:
                terminal.note(note)
            for output, reason in zip(response.outputs or (), response.stop_reason or (), strict=True):
                if not options.stream:
                    terminal.line(output)
                terminal.note(f"({end_note(reason, response)}, seed {response.seed_used})")
            if response.logprobs:
                terminal.note(f"(surprisals of the tokens in {terminal.unit})")
            for logprobs in response.logprobs or ():
                terminal.line(" ".join(surprisal_number(-logprob, terminal.unit) for logprob in logprobs))
        return 0

    return with_model(options.run, settings, terminal, generate)


def _generate_request(options: _GenerateOptions, settings: Settings, terminal: Terminal) -> GenerateRequest:
    """Return the request; a file is sent as text, and a corpus of the installation by its name."""
    fields, path = options.given(GenerateRequest), options.prompt_path
    if path is None:
        fields["prompt_text"] = options.prompt or ""
    elif options.prompt is not None:
        raise AppError(ErrorCode.INVALID_INPUT, "Give a PROMPT or a file with `--prompt-path`, not both.")
    else:
        is_remote = settings.client.url is not None
        is_corpus = not path.exists() if is_remote else CorpusStore(settings).has(str(path))
        fields["prompt_path"] = str(path) if is_corpus else None
        if not is_corpus:
            fields["prompt_text"], notes = read_texts(path, MAX_PROMPT_CHARACTERS)
            for note in notes:
                terminal.note(f"mt: {note}")
    return parse(GenerateRequest, fields)


async def _stream(
    installation: Installation, model: str, request: GenerateRequest, terminal: Terminal
) -> GenerateResponse:
    """Show a text while it is generated; of several, each piece on its own line after the number of its text."""
    response = GenerateResponse(request_id="none", run_id=run_of(model), status="queued")
    async with contextlib.aclosing(installation.stream(model, request)) as pieces:
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
    request = parse(PredictRequest, options.given(PredictRequest))

    async def predict(installation: Installation) -> int:
        response = await installation.ask(options.run, request)
        ranked = enumerate(response.suggestions or (), 1)
        unit = terminal.unit
        rows = [(str(rank), one.token, f"{one.prob:.4f}", surprisal_number(-one.logp, unit)) for rank, one in ranked]
        terminal.show(response, columns([("", "token", "p", f"surprisal ({unit})"), *rows]))
        return 0

    return with_model(options.run, settings_for_any(), terminal, predict)


def _chat(options: _ChatOptions, terminal: Terminal) -> int:
    fields = options.given(ChatRequest)
    parse(ChatRequest, {**fields, "message": "a"})
    terminal.is_conversation = True

    async def chat(installation: Installation) -> int:
        async for line in _typed_lines():
            message = line.strip()
            if not message:
                continue
            response = await installation.ask(options.run, parse(ChatRequest, {**fields, "message": message}))
            if "session_id" not in fields:
                fields["session_id"] = response.session_id
                terminal.note(f"(session {response.session_id})")
            terminal.line(response.answer or "")
            if response.turns_dropped:
                dropped = counted(response.turns_dropped, "turn")
                terminal.note(f"(no longer in the model's context: the oldest {dropped})")
        return 0

    return with_model(options.run, settings_for_any(), terminal, chat)


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


def _evaluate(options: _EvalOptions, terminal: Terminal) -> int:
    settings = settings_for_any()
    if (options.split is not None) + (options.path is not None) + options.latest > 1:
        raise AppError(ErrorCode.INVALID_INPUT, "Give only one of `--split`, `--path` and `--latest`.")
    if options.latest:
        if run_of(options.run) != options.run:
            raise AppError(ErrorCode.INVALID_INPUT, "Evaluations of checkpoints are not stored: leave out `--latest`.")
        path = RunPath(run_id=options.run)

        async def latest(installation: Installation) -> tuple[EvalMetrics, EffectiveRequest]:
            return await installation.call(GET_LATEST_EVALUATION, path), await installation.effective(options.run)

        metrics, effective = with_installation(settings, latest)
        title = f"{title_of(options.run, effective.label)}: {metrics.dataset}"
        terminal.show(metrics, *evaluation_parts(metrics, title, terminal.unit))
        return 0
    corpus = None if options.path is None else CorpusToMeasure(options.path, settings, terminal)
    fields: dict[str, object] = {"split": options.split or "validation"}
    request = parse(EvalRequest, fields | ({} if corpus is None else {"path_override": corpus.name}))

    async def evaluate(installation: Installation) -> int:
        if corpus is not None:
            await corpus.store()
        metrics = (await installation.ask(options.run, request)).measured()
        effective = await installation.effective(options.run)
        title = f"{title_of(options.run, effective.label)}: {options.path or metrics.split}"
        terminal.show(metrics, *evaluation_parts(metrics, title, terminal.unit))
        return 0

    return with_model(options.run, settings, terminal, evaluate)


def _segment(options: _SegmentOptions, terminal: Terminal) -> int:
    settings, data = settings_for_any(), options.data
    text, notes = read_texts(data, MAX_TEXT_CHARACTERS)
    request = parse(SegmentRequest, {**options.given(SegmentRequest), "text": text})
    for note in notes:
        terminal.note(f"mt: {note}")

    async def segment(installation: Installation) -> int:
        found = (await installation.ask(options.run, request)).result()
        names = run_names([(found.scores[0].model, (await installation.effective(options.run)).label)])
        terminal.show_report(found, named(segmentation_report(found, data.name), names))
        return 0

    return with_model(options.run, settings, terminal, segment)


def evaluation_parts(metrics: EvalMetrics, title: str, unit: Unit) -> Iterator[Table | Text]:
    """Yield a table of the metrics of an evaluation, and warnings."""
    unknown = "" if metrics.unknown_share is None else f", {share_number(metrics.unknown_share)} of the text's unknown"
    share = metrics.unknown_char_share
    mark = unknown_mark(share)
    lengths, missing = metrics.seq_len, metrics.lines.missing_interval
    spread = f"{lengths.min:,} to {lengths.max:,}, median {lengths.p50:g}, 95th percentile {lengths.p95:g}"
    repeated = f"{metrics.distinct_1:.3f}, {metrics.distinct_2:.3f}; {metrics.repetition_rate:.3f}"
    rows = {
        "loss": loss_figures(
            metrics.loss,
            metrics.bits_per_char,
            unit,
            metrics.objective,
            share,
            margin_nats=metrics.lines.margin_nats,
            has_known=metrics.known is not None,
        ),
        "known tokens": None
        if metrics.known is None or not mark
        else Reader(unit).note(known_note(metrics.known)).removeprefix("Over known tokens: "),
        "interval": None if missing is None else Reader(unit).note(missing),
        "counting": None if metrics.baseline is None else Reader(unit).note(counting_note(metrics.baseline)),
        "unknown": describe_unknown(share),
        "in training": None if metrics.leak is None else f"{Reader(unit).note(shares_note(metrics.leak))} of the text",
        "top-1, top-5": None
        if metrics.known is not None and is_largely_unknown(share)
        else f"{metrics.top1_accuracy:.1%}{mark}, {metrics.top5_accuracy:.1%}{mark}",
        "tokens": f"{metrics.n_tokens:,} predicted{unknown}",
        "tokens per line": spread,
        "tokens per character, word": f"{metrics.tokens_per_char:.3f}, {metrics.tokens_per_word:.2f}",
        "samples: distinct-1, distinct-2; repetition": repeated if metrics.objective == "causal_lm" else None,
    }
    yield summary(title, rows)
    yield from (Text(f"Warning: {Reader(unit).note(one)}") for one in metrics.notes)
