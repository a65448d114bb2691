"""`mt tokenizer`: tokenizers that several runs can share."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel
from rich.text import Text

from trainer.artifacts.run_ids import short_name
from trainer.commands.arguments import Argument, Commands, Options, assign, option, repeatable
from trainer.commands.connection import Installation, accept, settings_for_any, with_services
from trainer.commands.corpus_names import installed_corpus, note_tables
from trainer.commands.jobs import JobView, add_jobs
from trainer.commands.terminal import Queued, Terminal
from trainer.commands.training import note_waiting_for_storage
from trainer.config.validation import parse
from trainer.contracts.tokenizer_jobs import TokenizerStatus, TokenizerTrainRequest
from trainer.contracts.tokenizers import METHODS
from trainer.lab.calls import TOKENIZERS, TRAIN_TOKENIZER
from trainer.reports.tokenizer_report import tokenizer_report


class _TrainOptions(Options):
    record: ClassVar[type[BaseModel] | None] = TokenizerTrainRequest
    files = Argument[list[str]]("FILE", nargs="*", default=[], help="text to train on, as `--corpus`; repeatable")
    method = option("--method METHOD", str, f"tokenizer method: {', '.join(METHODS)}")
    corpus = repeatable("--corpus NAME", "name of the corpus to train on, or path of a text file")
    name = option("--name NAME", str, "name of the tokenizer; default: the names of the corpora")
    set = repeatable("--set KEY=VALUE", "set a field of the tokenizer train request")


def add_to(commands: Commands) -> None:
    tokenizer = commands.group("tokenizer", "train and list tokenizers")
    tokenizer.add("train", _TrainOptions, _train)
    add_jobs(tokenizer, _VIEW)


def _train(options: _TrainOptions, terminal: Terminal) -> int:
    terminal.continues_when_repeated = True
    options.corpus = [*options.files, *options.corpus]
    _read_request(options, options.corpus)  # before anything is uploaded

    async def train(installation: Installation) -> int:
        names = [await installed_corpus(name, None, installation, terminal) for name in options.corpus]
        note_tables(installation, terminal)
        training = installation.call(TRAIN_TOKENIZER, body=_read_request(options, names))
        accepted = await accept(training, lambda one: Queued(one.tokenizer_id, word="tokenizer"), terminal)
        return await _VIEW.follow(accepted.tokenizer_id, installation, terminal)

    return with_services(settings_for_any(), terminal, train)


def _read_request(options: _TrainOptions, corpora: Sequence[str]) -> TokenizerTrainRequest:
    fields: dict[str, object] = {}
    if options.method is not None:
        fields["method"] = options.method
    if corpora:
        fields["corpora"] = list(corpora)
        label = ", ".join(Path(name).stem for name in options.corpus)[:64]
        fields["label"] = label if label.isprintable() else None
    if options.name is not None:
        fields["label"] = options.name
    assign(TokenizerTrainRequest, fields, options.set)
    return parse(TokenizerTrainRequest, fields)


async def _note(job_id: str, status: TokenizerStatus, installation: Installation, terminal: Terminal) -> None:
    note_waiting_for_storage(status, terminal)


async def _show(tokenizer_id: str, status: TokenizerStatus, installation: Installation, terminal: Terminal) -> None:
    model = "" if status.method == "char" else " --model lstm"
    name = await short_name(tokenizer_id, status.label, partial(installation.job_id, "tokenizers"))
    after = f"next: mt train{model} --tokenizer {name} --corpus …"
    last = Text(after if status.status == "completed" else status.message)
    terminal.show_report(status, tokenizer_report(status), last)


_VIEW = JobView("tokenizers", TOKENIZERS, _show, _note)
