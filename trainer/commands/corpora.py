"""`mt corpus check`, `mt corpus build`: what a training would make of a text, and texts that are fetched."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from trainer.artifacts.tokenizers import TokenizerStore
from trainer.commands.arguments import Arguments, Commands
from trainer.commands.connection import settings_for
from trainer.commands.terminal import Terminal, columns
from trainer.commands.training import EXIT_USER, read_or_tell
from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import METHODS
from trainer.contracts.validation import shown_name
from trainer.contracts.wording import counted
from trainer.data.download import SOURCES, build_corpus

if TYPE_CHECKING:
    from trainer.training.corpus_check import CorpusCheck


def add_to(commands: Commands) -> None:
    corpus = commands.group("corpus", "look at a text before a model is trained on it, or fetch one")
    check = corpus.add("check", _check, "split and encode a text as a training would, and show what comes of it")
    check.add_argument("corpus", metavar="NAME", help="a corpus name or the path of a text file")
    check.add_argument(
        "--tokenizer",
        dest="method",
        metavar="METHOD",
        help=f"{', '.join(METHODS)}, or the id of a tokenizer; the family's without it",
    )
    check.add_assignments()
    check.set_defaults(file=None)
    build = corpus.add("build", _build, "fetch a corpus in its splits")
    build.add_argument("--source", required=True, metavar="SOURCE", help=", ".join(SOURCES))


def _check(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for()
    arguments.set = [*_tokenizer(arguments.method), *arguments.set]
    training = read_or_tell(arguments, settings, terminal)
    if training is None:
        return EXIT_USER
    effective = training.effective
    from trainer.tokenizers import load_tokenizer
    from trainer.training.corpus_check import check_corpus  # torch
    from trainer.worker.reevaluation import corpus_paths

    given = effective.tokenizer_id
    tokenizer = None if given is None else load_tokenizer(TokenizerStore(settings.app.artifacts_root).folder(given))
    found = check_corpus(effective, corpus_paths(training.corpora, effective), tokenizer)
    shown = shown_name(Path(arguments.corpus or effective.corpus.name).name)
    terminal.show(found, columns(_rows(found, shown)), Text(f"\n{found.sample}"))
    return 0


class Built(Frozen):
    """The answer of `mt corpus build`."""

    corpus: str


def _build(arguments: Arguments, terminal: Terminal) -> int:
    folder = build_corpus(arguments.source, settings_for().app.data_root / "corpus")
    terminal.show(Built(corpus=folder.name), Text(f"next: mt train --corpus {folder.name} …"))
    return 0


def _tokenizer(asked: str | None) -> list[str]:
    """What stands for `--tokenizer` in a train request; characters have the family of their own, others are words'."""
    if asked is None:
        return []
    if asked in METHODS:
        return [f"model_family={'char_lstm' if asked == 'char' else 'lstm'}", f"tokenizer.method={asked}"]
    if "-" in asked and asked.split("-")[0] in METHODS:
        return ["model_family=lstm", f"tokenizer_id={asked}"]
    raise AppError(
        ErrorCode.UNSUPPORTED_BACKEND,
        f"`--tokenizer` must be one of {', '.join(METHODS)}, or the id of a trained tokenizer;"
        f" you gave '{shown_name(asked)}'.",
    )


def _rows(found: "CorpusCheck", name: str) -> list[tuple[str, str]]:
    specials = ", ".join(f"{token} {i}" for token, i in found.special_tokens.items())
    batch = f"inputs {found.inputs_shape}, targets {found.targets_shape}; {found.batches:,} in an epoch"
    longest = counted(found.longest_line_tokens, "token")
    return [
        ("corpus", f"{name}, {counted(found.corpus.bytes, 'byte')}"),
        ("tokenizer", found.tokenizer_id or found.method),
        ("vocabulary", f"{found.vocab_size:,} tokens, of which special: {specials}"),
        *(
            (
                split,
                ", ".join((counted(s.lines, "line"), counted(s.chars, "character"), counted(s.tokens, "token")))
                + f", {s.unknown_tokens or 0:,} unknown",
            )
            for split, s in found.splits.items()
        ),
        ("unknown", f"{found.unknown_share:.2%} of the tokens held out for validation"),
        ("longest line", f"{counted(found.longest_line_chars, 'character')}; {longest} to train on"),
        ("batch", batch),
        ("tokens", " | ".join(found.sample_tokens)),
    ]
