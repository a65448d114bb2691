"""Make a tokenizer by its config, and find a saved one by its manifest."""

from collections.abc import Iterable
from pathlib import Path
from typing import assert_never

from trainer.contracts.tokenizers import CharTokenizerConfig, TokenizerConfig
from trainer.data.corpus import SplitRule
from trainer.tokenizers import char
from trainer.tokenizers.base import Text, Tokenizer
from trainer.vocabulary import MANIFEST_FILE, read_manifest


def train_tokenizer(
    config: TokenizerConfig,
    texts: Iterable[Text],
    holdout_lines: Iterable[str],
    *,
    rule: SplitRule,
    tokenizer_id: str | None = None,
) -> Tokenizer:
    """Make a tokenizer from lines of all the texts; the hold-out's lines give its statistics.

    It gets an id from all that made it, unless one is given. Each text is read once, one after another.
    """
    match config:
        case CharTokenizerConfig():
            return char.train(config, texts, holdout_lines, rule=rule, tokenizer_id=tokenizer_id)
        case _:
            assert_never(config)


def is_saved(folder: Path) -> bool:
    """Whether a tokenizer was saved to the folder to the end: its manifest comes last."""
    return (folder / MANIFEST_FILE).exists()


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read a saved tokenizer by the method of its manifest; raises TOKENIZER_LOAD_FAILED where it is not as saved."""
    manifest = read_manifest(folder)
    match manifest.method:
        case "char":
            return char.load(folder, manifest)
        case _:
            assert_never(manifest.method)
