"""`mt corpus check`: inspect a corpus before training."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text

from trainer.artifacts.tokenizers import TokenizerStore
from trainer.commands.arguments import Argument, Arguments, Commands
from trainer.commands.connection import settings_for
from trainer.commands.corpus_build import CorpusBuildOptions, run_build
from trainer.commands.terminal import Terminal, columns
from trainer.commands.training import TrainOptions, read_training
from trainer.config.validation import safe_name
from trainer.contracts.runs import describe_unknown
from trainer.contracts.wording import counted

if TYPE_CHECKING:
    from trainer.training.inspect_corpus import CorpusInspection


class _CheckOptions(TrainOptions):
    arguments: ClassVar[Arguments] = {
        **{name: argument for name, argument in TrainOptions.arguments.items() if name != "file"},
        "corpus": Argument("NAME", help="corpus to check: its name, or the path of a text file"),
    }


def add_to(commands: Commands) -> None:
    corpus = commands.group("corpus", "inspect and build corpora")
    corpus.add("check", _CheckOptions, _check)
    corpus.add("build", CorpusBuildOptions, run_build)


def _check(options: _CheckOptions, terminal: Terminal) -> int:
    settings = settings_for()
    if options.model is None and options.tokenizer is not None:
        options.model = "char_lstm" if options.tokenizer == "char" else "lstm"
    training = read_training(options, settings, terminal)
    effective = training.effective
    from trainer.data.run_corpora import corpus_paths
    from trainer.tokenizers import load_tokenizer
    from trainer.training.inspect_corpus import inspect_corpus  # torch

    given = effective.tokenizer_id
    tokenizer = None if given is None else load_tokenizer(TokenizerStore(settings.app.artifacts_root).get(given).path)
    found = inspect_corpus(effective, corpus_paths(training.corpora, effective), tokenizer)
    shown = safe_name(Path(options.corpus or effective.corpus.name).name)
    warnings = [Text(f"Warning: {warning}") for warning in effective.leak_warnings(found.leaks)]
    terminal.show(found, columns(_rows(found, shown)), *warnings, Text(f"\n{found.sample}"))
    return 0


def _rows(found: "CorpusInspection", name: str) -> list[tuple[str, str]]:
    specials = ", ".join(f"{token} {i}" for token, i in found.special_tokens.items())
    longest = counted(found.longest_line_tokens, "token")
    splits: list[tuple[str, str]] = []
    for split, size in found.splits.items():
        sizes = (counted(size.lines, "line"), counted(size.chars, "character"), counted(size.tokens, "token"))
        unknown = f"unknown: {size.unknown_tokens or 0:,} tokens of {size.unknown_chars or 0:,} characters"
        splits.append((split, f"{', '.join(sizes)}; {unknown}"))
    return [
        ("corpus", f"{name}, {counted(found.corpus.bytes, 'byte')}"),
        ("tokenizer", found.tokenizer_id or found.method),
        ("vocabulary", f"{found.vocab_size:,} tokens, of which special: {specials}"),
        *splits,
        *(("in training", f"{leak.shares()} of the {split} split") for split, leak in found.leaks.items()),
        (
            "unknown",
            f"of the text held out for validation {found.unknown_share:.2%} of tokens,"
            f" {describe_unknown(found.unknown_char_share)}",
        ),
        ("longest line", f"{counted(found.longest_line_chars, 'character')}; {longest} to train on"),
        ("batch", f"inputs {found.inputs_shape}, targets {found.targets_shape}; {found.batches:,} in an epoch"),
        ("tokens", " | ".join(found.sample_tokens)),
    ]
