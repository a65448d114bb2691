"""The `mt` command: train, ask and serve from a terminal, by the same queue that the bot uses."""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

from trainer.contracts.errors import AppError, ErrorBody, ErrorClass, ErrorCode, new_request_id
from trainer.contracts.experiment_config import parse_yaml, read_yaml, requested_paths, train_fields
from trainer.contracts.inference import (
    MAX_TEXT_CHARACTERS,
    EvalMetrics,
    EvalRequest,
    GenerateRequest,
    GenerateResponse,
    ScoreRequest,
    ScoreResponse,
)
from trainer.contracts.runs import EffectiveRequest, RunStatus, TrainRequest
from trainer.contracts.settings import Settings, load_settings
from trainer.contracts.validation import parse
from trainer.corpora import CorpusStore
from trainer.logs import setup_logging
from trainer.queue import JobQueue, resolve_request
from trainer.runs import RunStore
from trainer.services import Services
from trainer.terminal import Terminal
from trainer.worker.environment import ANSWER_REQUESTS, TRAIN_CHILD

EXIT_FAILED, EXIT_USER, EXIT_INTERRUPTED = 1, 2, 130
_FOLLOW_SECONDS = 0.2
_DETAIL_LEVELS: tuple[str, ...] = ("summary", "per_char")
_NO_ASSIGNMENTS: list[str] = []


class Arguments(argparse.Namespace):
    """What can stand on the command line, over all commands."""

    command: str
    json: bool
    embedded: bool
    file: Path | None
    corpus: str | None
    set: list[str]
    run: str
    text: str | None
    path: Path | None
    detail_level: Literal["summary", "per_char"]
    prompt: str
    max_new_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    seed: int | None
    n: int | None
    split: str


class Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: one sentence, exit 2."""

    def error(self, message: str) -> NoReturn:
        raise AppError(ErrorCode.INVALID_INPUT, f"{message[:1].upper()}{message[1:]}; see `{self.prog} --help`.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 the user's mistake, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in ([TRAIN_CHILD], [ANSWER_REQUESTS]):
        return _child(words)
    terminal = Terminal(as_json="--json" in words)
    try:
        arguments = _parser().parse_args(words, namespace=Arguments())
        return _run(arguments, terminal)
    except AppError as error:
        terminal.error(ErrorBody.of(error, new_request_id()))
        return EXIT_USER if error.code.error_class is ErrorClass.USER_INPUT else EXIT_FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        terminal.note("Interrupted. A run that was under way is kept: it goes on as soon as a worker runs.")
        return EXIT_INTERRUPTED


def _child(words: list[str]) -> int:
    """Do what a worker starts a child process for; torch is imported here and nowhere else."""
    settings = load_settings()
    if words[0] == TRAIN_CHILD:
        from trainer.worker.child import run_child

        return run_child(settings, words[1])
    from trainer.worker.answers import answer_requests

    return answer_requests(settings)


def _parser() -> Parser:
    parser = Parser(prog="mt", description="Train small language models and ask them.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="start the bot with its services")
    commands.add_parser("demo", help="show the whole program on this machine, checked step by step")
    worker = commands.add_parser("worker", help="start a worker")
    worker.add_argument("--embedded", action="store_true", help=argparse.SUPPRESS)
    train = commands.add_parser("train", help="train a model and wait for it")
    train.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a YAML experiment file")
    train.add_argument("--corpus", metavar="PATH", help="a corpus name or the path of a text file")
    train.add_argument(
        "--set", action="append", default=_NO_ASSIGNMENTS, metavar="KEY=VALUE", help="a field of the train request"
    )
    score = commands.add_parser("score", help="how surprised a model is by a text")
    score.add_argument("run", metavar="RUN")
    score.add_argument("text", nargs="?", metavar="TEXT")
    score.add_argument("--path", type=Path, metavar="F", help="score the text of a file")
    score.add_argument("--detail-level", choices=_DETAIL_LEVELS, default="summary")
    score.add_argument("--top-k", type=int, metavar="N", help="with per_char: what was expected at each place")
    generate = commands.add_parser("generate", help="let a model continue a prompt")
    generate.add_argument("run", metavar="RUN")
    generate.add_argument("prompt", nargs="?", default="", metavar="PROMPT")
    generate.add_argument("--max-new-tokens", type=int, metavar="N")
    generate.add_argument("--temperature", type=float, metavar="T", help="0 is greedy")
    generate.add_argument("--top-k", type=int, metavar="N")
    generate.add_argument("--top-p", type=float, metavar="P")
    generate.add_argument("--seed", type=int)
    generate.add_argument("-n", type=int, metavar="N", help="how many continuations")
    evaluate = commands.add_parser("eval", help="measure a model on one of its splits")
    evaluate.add_argument("run", metavar="RUN")
    evaluate.add_argument("--split", default="validation", metavar="validation|test")
    for command in (train, score, generate, evaluate):
        command.add_argument("--json", action="store_true", help="print exactly one JSON object")
    return parser


def _run(arguments: Arguments, terminal: Terminal) -> int:
    """Check what was asked for, which changes nothing; then start what is needed, and do it."""
    match arguments.command:
        case "up":
            os.execv(sys.executable, [sys.executable, "-m", "bot"])
        case "demo":
            os.execv(sys.executable, [sys.executable, "-m", "local_discord.demo"])
        case "worker":
            return _worker(arguments)
        case "train":
            settings = _settings("WARNING", "model-trainer")
            training = asyncio.run(_read_training(arguments, settings))
            return _with_queue(settings, terminal, lambda queue: _train(training, terminal, queue))
        case _:
            return _ask(arguments, terminal)


def _ask(arguments: Arguments, terminal: Terminal) -> int:
    settings, question = _settings("WARNING", "model-trainer"), _question(arguments)
    RunStore(settings.app.artifacts_root).get(arguments.run).completed_manifest()

    async def answer(queue: JobQueue) -> int:
        terminal.answer(await question(queue))
        return 0

    return _with_queue(settings, terminal, answer)


def _settings(default_level: Literal["INFO", "WARNING"], service: str) -> Settings:
    settings = load_settings()
    if "level" not in settings.logging.model_fields_set:
        quiet: dict[str, object] = {"logging": settings.logging.model_copy(update=_level(default_level))}
        settings = settings.model_copy(update=quiet)
    setup_logging(settings, service, sys.stderr)
    return settings


def _level(name: str) -> dict[str, object]:
    return {"level": name}


def _worker(arguments: Arguments) -> int:
    from trainer.worker.process import run_worker

    settings = _settings("INFO", "model-trainer-worker")

    async def work() -> int:
        alone: dict[str, object] = {"embedded_workers": 0}
        only_server: dict[str, object] = {"queue": settings.queue.model_copy(update=alone)}
        services = Services(settings.model_copy(update=only_server))
        url = await services.start()
        try:
            return await run_worker(settings, url, embedded=arguments.embedded)
        finally:
            await services.stop()

    return asyncio.run(work())


def _with_queue(settings: Settings, terminal: Terminal, command: Callable[[JobQueue], Awaitable[int]]) -> int:
    """Run a command with a connected queue, starting what is not running yet for its time."""

    async def connected_command() -> int:
        async with _connected(settings) as queue:
            return await command(queue)

    async def run() -> int:
        task = asyncio.create_task(connected_command())

        def stop() -> None:
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        return await task

    with terminal:
        return asyncio.run(run())


@contextlib.asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[JobQueue]:
    services = Services(settings)
    url = await services.start()
    try:
        queue = await JobQueue.connect(settings, url)
        try:
            yield queue
        finally:
            await queue.close()
    finally:
        await services.stop()


class _Training(NamedTuple):
    """A training that was read and checked."""

    request: TrainRequest
    effective: EffectiveRequest
    requested_paths: tuple[str, ...] | None
    corpora: CorpusStore


async def _read_training(arguments: Arguments, settings: Settings) -> _Training:
    document = None if arguments.file is None else read_yaml(arguments.file)
    fields: dict[str, object] = {"model_family": "char_lstm"} if document is None else train_fields(document)
    if arguments.corpus is not None:
        fields["corpus"] = arguments.corpus
    for assignment in arguments.set:
        _assign(fields, assignment)
    corpora = CorpusStore(settings)
    request = parse(TrainRequest, await _with_corpus_names(fields, arguments.file, corpora))
    effective = await resolve_request(request, corpora)
    return _Training(request, effective, None if document is None else requested_paths(document), corpora)


async def _train(training: _Training, terminal: Terminal, queue: JobQueue) -> int:
    await training.corpora.keep_offered()
    accepted = await queue.accept(
        training.request, training.effective, user_id=None, requested_paths=training.requested_paths
    )
    follower = await asyncio.to_thread(queue.runs.get(accepted.run_id).follow)
    while True:
        terminal.progress(follower.refresh())
        if follower.ended:
            break
        await asyncio.sleep(_FOLLOW_SECONDS)
    return _finish_train(await queue.status(accepted.run_id), terminal)


def _finish_train(status: RunStatus, terminal: Terminal) -> int:
    terminal.run(status)
    if status.status == "completed":
        return 0
    by_user = status.error is not None and status.error.error_class is ErrorClass.USER_INPUT
    return EXIT_USER if by_user else EXIT_FAILED


def _assign(fields: dict[str, object], assignment: str) -> None:
    """Put KEY=VALUE into the fields of a request; dots in KEY lead into blocks, VALUE is read as YAML."""
    key, equals, text = assignment.partition("=")
    if not key or not equals:
        raise AppError(ErrorCode.INVALID_INPUT, f"`--set {assignment}` must have the form KEY=VALUE.")
    *blocks, name = key.split(".")
    target = fields
    for block in blocks:
        inner = target.get(block)
        copied: dict[str, object] = {str(k): v for k, v in inner.items()} if isinstance(inner, dict) else {}
        target[block] = copied
        target = copied
    target[name] = parse_yaml(text, f"--set {key}")


async def _with_corpus_names(
    fields: dict[str, object], yaml_file: Path | None, corpora: CorpusStore
) -> dict[str, object]:
    """Replace paths of this machine by the names of their content (DEC D06), and label the run by its text's name."""
    stored = dict(fields)
    for field in ("corpus", "validation_corpus", "test_corpus"):
        name = fields.get(field)
        if isinstance(name, str):
            stored[field] = await _corpus_name(name, yaml_file, corpora)
    corpus = fields.get("corpus")
    if isinstance(corpus, str) and stored.get("label") is None and Path(corpus).stem.isprintable():
        stored["label"] = Path(corpus).stem[:64] or None
    return stored


async def _corpus_name(name: str, yaml_file: Path | None, corpora: CorpusStore) -> str:
    if corpora.has(name):
        return name
    folders = [Path()] if yaml_file is None else [Path(), yaml_file.parent]
    for folder in folders:
        if (folder / name).is_file():
            return await corpora.offer(folder / name)
    return name


Answer = ScoreResponse | GenerateResponse | EvalMetrics


def _question(arguments: Arguments) -> Callable[[JobQueue], Awaitable[Answer]]:
    """What is to be asked of a run, checked."""
    run_id = arguments.run
    match arguments.command:
        case "score":
            score = _score_request(arguments)
            return lambda queue: queue.score(run_id, score)
        case "generate":
            generate = _generate_request(arguments)
            return lambda queue: queue.generate(run_id, generate)
        case _:
            split: dict[str, object] = {"split": arguments.split}
            evaluate = parse(EvalRequest, split)
            return lambda queue: queue.evaluate(run_id, evaluate)


def _score_request(arguments: Arguments) -> ScoreRequest:
    if (arguments.text is None) == (arguments.path is None):
        raise AppError(ErrorCode.INVALID_INPUT, "Give a TEXT or a file by `--path`, one of both.")
    text = arguments.text if arguments.path is None else _read_text(arguments.path)
    fields: dict[str, object] = {"text": text, "detail_level": arguments.detail_level, "top_k": arguments.top_k}
    return parse(ScoreRequest, fields)


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError:
        raise AppError(ErrorCode.DATA_NOT_FOUND, f"There is no readable file '{path.name}'.") from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise AppError(
            ErrorCode.INVALID_INPUT, f"'{path.name}' is not UTF-8: byte {error.start:,} cannot be decoded."
        ) from None
    if len(text) > MAX_TEXT_CHARACTERS:
        raise AppError(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"'{path.name}' has {len(text):,} characters; at most {MAX_TEXT_CHARACTERS:,} are scored at a time.",
        )
    return text


def _generate_request(arguments: Arguments) -> GenerateRequest:
    given: dict[str, object | None] = {
        "max_new_tokens": arguments.max_new_tokens,
        "temperature": arguments.temperature,
        "top_k": arguments.top_k,
        "top_p": arguments.top_p,
        "seed": arguments.seed,
        "num_return_sequences": arguments.n,
    }
    fields = {name: value for name, value in given.items() if value is not None}
    return parse(GenerateRequest, {"prompt_text": arguments.prompt, **fields})
