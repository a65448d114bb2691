"""`mt tokenizer train`, `show`, `list`: tokenizers by themselves, for runs that share one."""

import asyncio
from pathlib import Path

from rich.table import Table
from rich.text import Text

from trainer.artifacts.tokenizers import TokenizerStore, resolve_tokenizer
from trainer.commands.arguments import Arguments, Commands
from trainer.commands.connection import settings_for, with_queue
from trainer.commands.requests import assign, corpus_name
from trainer.commands.terminal import Terminal, columns, summary_table
from trainer.commands.training import EXIT_FAILED, EXIT_USER, DiskNotice
from trainer.config.settings import Settings
from trainer.contracts.errors import ErrorClass
from trainer.contracts.tokenizer_jobs import TokenizerList, TokenizerRecord, TokenizerStatus, TokenizerTrainRequest
from trainer.contracts.tokenizers import METHODS
from trainer.contracts.validation import parse
from trainer.contracts.wording import counted
from trainer.data.corpora import CorpusStore
from trainer.jobs.queue import JobQueue

_POLL_SECONDS = 0.2
_NONE: list[str] = []


def add_to(commands: Commands) -> None:
    tokenizer = commands.group("tokenizer", "train a tokenizer by itself, and look at those that there are")
    train = tokenizer.add("train", _do_train, "train a tokenizer and wait for it")
    train.add_argument("--method", metavar="METHOD", help=", ".join(METHODS))
    train.add_argument(
        "--corpus",
        action="append",
        dest="corpora",
        default=_NONE,
        metavar="PATH",
        help="a corpus name or the path of a text file; may be given up to 16 times",
    )
    train.add_assignments("a field of the tokenizer train request")
    show = tokenizer.add("show", _show, "how a tokenizer stands, and how well it fits")
    show.add_argument("tokenizer", metavar="ID")
    tokenizer.add("list", _list, "all tokenizers, newest first")


def _do_train(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for()
    corpora = CorpusStore(settings)
    record = asyncio.run(_read_record(arguments, corpora))
    return with_queue(settings, terminal, lambda queue: _train(record, corpora, terminal, queue))


async def _read_record(arguments: Arguments, corpora: CorpusStore) -> TokenizerRecord:
    fields: dict[str, object] = {}
    if arguments.method is not None:
        fields["method"] = arguments.method
    if arguments.corpora:
        fields["corpora"] = [await corpus_name(name, None, corpora) for name in arguments.corpora]
        label = ", ".join(Path(name).stem for name in arguments.corpora)[:64]
        fields["label"] = label if label.isprintable() else None
    for assignment in arguments.set:
        assign(TokenizerTrainRequest, fields, assignment)
    return await resolve_tokenizer(parse(TokenizerTrainRequest, fields), corpora)


async def _train(record: TokenizerRecord, corpora: CorpusStore, terminal: Terminal, queue: JobQueue) -> int:
    await corpora.keep_offered()
    tokenizer_id = (await queue.accept_tokenizer(record)).tokenizer_id
    status = await ended_tokenizer(tokenizer_id, queue, terminal)
    _tell(status, terminal)
    if status.error is None:
        return 0
    return EXIT_USER if status.error.error_class is ErrorClass.USER_INPUT else EXIT_FAILED


async def ended_tokenizer(tokenizer_id: str, queue: JobQueue, terminal: Terminal) -> TokenizerStatus:
    """Wait until the training of an accepted tokenizer has ended; return how it stands then."""
    folder, disk = queue.tokenizers.folder(tokenizer_id), DiskNotice(terminal)
    while (status := queue.tokenizers.status(tokenizer_id)).status in ("queued", "running"):
        disk.look(folder, status.message)
        await asyncio.sleep(_POLL_SECONDS)
    return status


def _show(arguments: Arguments, terminal: Terminal) -> int:
    _tell(_store(settings_for()).status(arguments.tokenizer), terminal)
    return 0


def _list(arguments: Arguments, terminal: Terminal) -> int:
    found = TokenizerList(tokenizers=tuple(tokenizer.status() for tokenizer in _store(settings_for()).all()))
    rows = [(t.tokenizer_id, t.status, f"{t.vocab_size or '–'}", t.label or "") for t in found.tokenizers]
    table = columns([("tokenizer", "status", "vocabulary", "label"), *rows])
    terminal.show(found, table if rows else Text("There is no tokenizer yet."))
    return 0


def _store(settings: Settings) -> TokenizerStore:
    return TokenizerStore(settings.app.artifacts_root)


def _tell(status: TokenizerStatus, terminal: Terminal) -> None:
    family = "" if status.method == "char" else " --set model_family=lstm"
    after = f"next: mt train{family} --set tokenizer_id={status.tokenizer_id} --corpus …"
    terminal.show(status, _summary(status), Text(after if status.status == "completed" else status.message))


def _summary(status: TokenizerStatus) -> Table:
    table = summary_table(f"{status.tokenizer_id}: {status.status}")
    stats = status.stats
    if stats is not None:
        table.add_row("vocabulary", f"{status.vocab_size:,} tokens")
        table.add_row("held out", f"{counted(stats.holdout_lines, 'line')}, {counted(stats.token_count, 'token')}")
        table.add_row("coverage", f"{stats.coverage:.2%} of tokens, {stats.char_coverage:.2%} of distinct characters")
        table.add_row("unknown", f"{stats.oov_rate:.2%} of tokens")
        table.add_row(
            "tokens", f"{stats.avg_tokens_per_char:.3f} per character, {stats.avg_tokens_per_word:.3f} per word"
        )
    return table
